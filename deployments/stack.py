"""Processes of a running Keeper without Docker: started in order, noted in a file, ended by the pids noted there."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from keeper.domain.errors import KeeperError

ROOT = Path(__file__).parents[1]
_START_SECONDS = 120
_STOP_SECONDS = 20
_POLL_SECONDS = 0.1
_LARGEST_LOG_BYTES = 20_000_000
# Of Prefect's server; a person's own values win. A run every five minutes leaves rows behind: without the first three its database grows
# without bound. By its own 15 s each run that fell due during a restart is a late one, and told.
_SERVER = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * 86400),
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P3D",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "120",
}


class ProcessFailed(KeeperError):
    """A process ended, or did not come up in time; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Started:
    """A process of ours.

    Attributes:
        born: the kernel's start time of the process, so that a pid used again is not taken for ours.
    """

    name: str
    pid: int
    born: str


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """The processes below one folder: `<folder>/run/` holds their logs and the note of their pids."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder.resolve()
        self.run_folder = self.folder / "run"
        self.environment = {
            **_SERVER,
            **os.environ,
            "KEEPER_DATA": str(self.folder),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": str(ROOT),
            # A line in a log is there when it was said, not when a buffer is full.
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self._children: list[subprocess.Popen[bytes]] = []
        self.run_folder.mkdir(parents=True, exist_ok=True)

    @property
    def note(self) -> Path:
        """Where the pids stand."""
        return self.run_folder / "processes.json"

    def start(self, name: str, *arguments: str, is_ready: Callable[[], bool]) -> None:
        """Start `python -m <arguments>` in a session of its own and wait until it is ready. A log that has grown large is cut first.

        Raises:
            ProcessFailed: it ended or was not ready in time.
        """
        log = self.run_folder / f"{name}.log"
        _cut(log)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children.append(process)
        self._write([*self.processes(), Started(name, process.pid, _born(process.pid) or "")])
        deadline = time.monotonic() + _START_SECONDS
        while True:
            # In this order, so that nobody else's answer is taken for that of a process that has ended.
            ready = is_ready()
            if process.poll() is not None:
                raise ProcessFailed(f"{name} ended at once:\n{_tail(log)}")
            if ready:
                return
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{name} was not ready after {_START_SECONDS} s:\n{_tail(log)}")
            time.sleep(_POLL_SECONDS)

    def run(self, *arguments: str, timeout_seconds: float = 120) -> str:
        """Run `python -m <arguments>` to its end and return what it printed.

        Raises:
            ProcessFailed: it said no.
        """
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        if done.returncode != 0:
            raise ProcessFailed(f"{' '.join(arguments)}: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout

    def processes(self) -> list[Started]:
        """Those noted, dead or alive."""
        if not self.note.exists():
            return []
        return [Started(**one) for one in json.loads(self.note.read_text())]

    def is_running(self, name: str) -> bool:
        """Whether a process of this name lives."""
        return any(one.name == name and _lives(one) for one in self.processes())

    def stop(self) -> list[str]:
        """End what was started, last first, and only that. Returns the names of those that lived."""
        ended = []
        for one in reversed(self.processes()):
            if _lives(one):
                _end(one)
                ended.append(one.name)
        for child in self._children:
            child.poll()
        self._children.clear()
        self.note.unlink(missing_ok=True)
        return ended

    def _write(self, processes: list[Started]) -> None:
        partial = self.note.with_suffix(".new")
        partial.write_text(json.dumps([{"name": one.name, "pid": one.pid, "born": one.born} for one in processes]))
        partial.replace(self.note)


def start_simulator(stack: Stack, *arguments: str) -> str:
    """Start the simulator. Returns its address."""
    log = stack.run_folder / "simulator.log"
    log.unlink(missing_ok=True)
    stack.start("simulator", "keeper.simulator", *arguments, is_ready=lambda: log.exists() and b"}" in log.read_bytes())
    return str(json.loads(log.read_text().splitlines()[0])["url"])


def start_prefect(stack: Stack, port: int) -> str:
    """Start Prefect's server. Returns the address of its API.

    Raises:
        ProcessFailed: somebody else listens on the port, or the server did not come up.
    """
    api = f"http://127.0.0.1:{port}/api"
    if _is_taken(port):
        raise ProcessFailed(f"something else listens on port {port} of this machine already; choose another one for Prefect's server")
    stack.environment |= {"PREFECT_API_URL": api, "PREFECT_SERVER_UI_API_URL": api}
    stack.start(
        "prefect-server",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        is_ready=lambda: answers(f"{api}/health"),
    )
    return api


def start_worker(stack: Stack, *pools: str, limit: int = 4) -> None:
    """Start one process worker for the pools, and wait until it polls each."""
    log = stack.run_folder / "worker.log"
    log.unlink(missing_ok=True)
    stack.start(
        "worker",
        *("deployments.worker", *pools, "--limit", str(limit), "--name", f"keeper-{os.getpid()}"),
        is_ready=lambda: log.exists() and log.read_bytes().count(b"started!") == len(pools),
    )


def start_relay(stack: Stack) -> None:
    """Start the relay and wait until it listens.

    Raises:
        ProcessFailed: it ended before that, say because it cannot read the channels.
    """
    _start_service(stack, "relay", "relay", sign=b'"listening"')


def start_api(stack: Stack, host: str, port: int, *, is_tls: bool = False) -> str:
    """Start the REST API. Returns its address.

    Raises:
        ProcessFailed: somebody else listens on the port, or it did not come up.
    """
    if _is_taken(port):
        raise ProcessFailed(f"something else listens on port {port} of this machine already; set KEEPER_API_PORT to another one")
    port = port or free_port()
    stack.environment["KEEPER_API_PORT"] = str(port)
    address = f"{'https' if is_tls else 'http'}://{_reached(host)}:{port}"
    stack.start("api", "api", is_ready=lambda: answers(f"{address}/health"))
    return address


def start_dashboard(stack: Stack, host: str, port: int, api_url: str) -> str:
    """Start the dashboard on that API. Returns its address.

    Raises:
        ProcessFailed: somebody else listens on the port, or it did not come up.
    """
    if _is_taken(port):
        raise ProcessFailed(f"something else listens on port {port} of this machine already; set KEEPER_DASHBOARD_PORT to another one")
    port = port or free_port()
    address = f"http://{_reached(host)}:{port}"
    arguments = ("--host", host, "--port", str(port), "--api-url", api_url)
    stack.start("dashboard", "dashboard", *arguments, is_ready=lambda: answers(f"{address}/_stcore/health"))
    return address


def start_consumer(stack: Stack, what: str) -> None:
    """Start `keeper consume <what>` and wait until it reads, or waits for Kafka.

    Raises:
        ProcessFailed: it ended before that.
    """
    _start_service(stack, f"consume-{what}", "consume", what, sign=b'"reading"')


def _start_service(stack: Stack, name: str, *command: str, sign: bytes) -> None:
    log = stack.run_folder / f"{name}.log"
    _cut(log)
    known = log.stat().st_size if log.exists() else 0
    stack.start(name, "keeper", *command, "--json", is_ready=lambda: sign in log.read_bytes()[known:])


def answers(url: str) -> bool:
    """Whether a GET comes back with 200. A certificate is not looked at: it is made for the name that others reach this machine by."""
    context = ssl._create_unverified_context() if url.startswith("https:") else None  # noqa: S323  our own loopback address
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as response:  # noqa: S310  our own loopback address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _reached(host: str) -> str:
    """By which name this machine reaches an address it listens on."""
    return "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104  where it listens is the settings' choice


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _born(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _born_by_ps(pid)
    return stat.rpartition(")")[2].split()[19]


def _born_by_ps(pid: int) -> str | None:
    try:
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _lives(one: Started) -> bool:
    try:
        if os.waitpid(one.pid, os.WNOHANG)[0] == one.pid:
            return False
    except ChildProcessError:
        pass
    return _born(one.pid) == one.born


def _end(one: Started) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(one.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + _STOP_SECONDS
        while _lives(one) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if not _lives(one):
            return


def _cut(log: Path) -> None:
    """Move the last part of a log that has grown large to `.old`; what stood there before is gone."""
    if not log.exists() or log.stat().st_size <= _LARGEST_LOG_BYTES:
        return
    with log.open("rb") as full:
        full.seek(-_LARGEST_LOG_BYTES, os.SEEK_END)
        log.with_suffix(".old").write_bytes(full.read())
    log.unlink()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-25:])
