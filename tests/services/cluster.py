"""The nodes of one cluster on this machine: their processes, ports and folder. Kafka and Elasticsearch say how a node of theirs starts."""

import atexit
import contextlib
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deployments.stack import ROOT
from keeper.domain.errors import KeeperError
from tests.services.java import Say, locked, say_nothing, tail

# Below what kernels hand out for outgoing connections: the port of a node that is down stays free for it.
_LOWEST_PORT, _HIGHEST_PORT = 20000, 32000
_START_ATTEMPTS = 3
_START_SECONDS = 240
_STOP_SECONDS = 30
_KILL_SECONDS = 10
_LOCK_SECONDS = 600
_POLL_SECONDS = 0.1
# Two cores: one collector thread; and no files of Java's own in the temporary folder.
_JAVA_OPTIONS = ("-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError")
_ENDED = b"ended"
_IN_USE = "Address already in use"


class NodeFailed(KeeperError):
    """A node ended or was not ready in time; the text holds the end of its log."""


class PortTaken(NodeFailed):
    """Somebody else listens where a node should."""


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """A process that was started here.

    Attributes:
        node: 1 and up.
        pid: of the process; where it leads a process group, the group is meant.
        born: the kernel's start time, so that a pid used again is not taken for ours.
    """

    node: int
    pid: int
    born: str


class Cluster:
    """The nodes below one folder. Making the value touches nothing; any process may stop, kill or look at what another one started.

    Args:
        folder: data, logs, ports and the note of the processes; made when missing.
        nodes: how many; numbered from 1.
        keep: leave the nodes running when this process ends. Else they end with it, however it ends.
        is_temporary: the folder goes with them, then; `stop` leaves it.
        is_quick: start in half the time, and run half as fast: Java's first compiler only. Not for benchmarks.
        say: told of progress.
    """

    title: str
    # Names of ports that others listen on for a node: that they do so takes nothing from it.
    foreign_ports: frozenset[str] = frozenset()

    def __init__(
        self,
        folder: Path,
        nodes: int = 1,
        *,
        keep: bool = False,
        is_temporary: bool = False,
        is_quick: bool = True,
        say: Say = say_nothing,
    ) -> None:
        self.folder = folder.absolute()
        self.nodes = range(1, nodes + 1)
        self.java_options: Sequence[str] = (*_JAVA_OPTIONS, *(("-XX:TieredStopAtLevel=1",) if is_quick else ()))
        self._keep = keep
        self._is_temporary = is_temporary
        self._say = say
        self._children: list[subprocess.Popen[bytes]] = []
        self._reaper: subprocess.Popen[bytes] | None = None
        self._noting = threading.Lock()
        self._is_ended = False

    def start(self) -> None:
        """Start what is not running and wait until all nodes answer. Idempotent.

        Raises:
            ServiceMissing: Java or Maven.
            DownloadFailed: see there.
            NodeFailed: a node ended or was not ready in time.
        """
        self._is_ended = False
        self._fetch_program()
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "start.lock", _LOCK_SECONDS):
            for attempt in range(1, _START_ATTEMPTS + 1):
                absent = [node for node in self.nodes if not self.is_running(node)]
                if not absent:
                    return
                has_others = len(absent) < len(self.nodes)
                try:
                    # A port that one node knows of another one cannot change while that one lives.
                    self._choose_ports(again=() if has_others else [node for node in absent if attempt > 1 or self._has_taken_port(node)])
                    self._start_nodes(absent)
                except PortTaken:
                    self._end(absent, signal.SIGKILL)
                    if has_others or attempt == _START_ATTEMPTS:
                        raise
                except BaseException:
                    self._end(absent, signal.SIGKILL)
                    raise

    def start_node(self, node: int) -> None:
        """Start a node again, on its old port.

        Raises:
            NodeFailed: it ended or was not ready in time.
        """
        self._is_ended = False
        with locked(self.folder / "start.lock", _LOCK_SECONDS):
            if self.is_running(node):
                return
            try:
                self._start_nodes([node])
            except BaseException:
                self._end([node], signal.SIGKILL)
                raise

    def stop(self) -> list[int]:
        """End what was started, politely first. Returns the nodes that lived."""
        return self._stop(signal.SIGTERM)

    def stop_at_once(self) -> list[int]:
        """End what was started with SIGKILL: for data that nobody wants any more."""
        return self._stop(signal.SIGKILL)

    def remove(self) -> None:
        """End it and delete its data."""
        self.stop_at_once()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self, node: int) -> None:
        """SIGKILL; returns when the node is dead."""
        self._end([node], signal.SIGKILL)

    def suspend(self, node: int) -> None:
        """SIGSTOP: it keeps its connections and says nothing."""
        self._signal(node, signal.SIGSTOP)

    def resume(self, node: int) -> None:
        """SIGCONT."""
        self._signal(node, signal.SIGCONT)

    def is_running(self, node: int | None = None) -> bool:
        """Whether this node (None: every node) has a living process, suspended or not."""
        alive = {one.node for one in self.processes() if _lives(one)}
        return node in alive if node is not None else alive.issuperset(self.nodes)

    def pid(self, node: int) -> int | None:
        """The process of a node; None when it does not run."""
        return next((one.pid for one in self.processes() if one.node == node and _lives(one)), None)

    def processes(self) -> list[NodeProcess]:
        """Those noted, dead or alive."""
        return read_processes(self.folder)

    def log(self, node: int) -> Path:
        """Where a node writes."""
        return self.node_folder(node) / "server.log"

    def node_folder(self, node: int) -> Path:
        """Everything of one node."""
        return self.folder / f"node-{node}"

    def port(self, node: int, name: str) -> int:
        """A port of a node; known from the first start on."""
        return self._ports()[str(node)][name]

    def address(self, node: int) -> str:
        """Where a node answers."""
        raise NotImplementedError

    def _fetch_program(self) -> None:
        raise NotImplementedError

    def _port_names(self) -> Sequence[str]:
        """What a node listens on, and what else needs a port of its own."""
        raise NotImplementedError

    def _start_nodes(self, nodes: Sequence[int]) -> None:
        """Start these and wait until they are ready; the rest of the cluster may be running or not."""
        raise NotImplementedError

    def _spawn(
        self,
        node: int,
        command: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        account: int | None = None,
    ) -> subprocess.Popen[bytes]:
        with self._noting:
            if self._is_ended:
                raise NodeFailed(f"{self.title}: ended while it was starting")
            if not self._keep:
                self._start_reaper()
            with log.open("ab") as output:
                process = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=account,
                    group=None if account is None else pwd.getpwuid(account).pw_gid,
                    extra_groups=None if account is None else [],
                )
            self._children.append(process)
            self._note(node, process.pid)
        return process

    def _note(self, node: int, pid: int) -> None:
        """Note a process of a node; the dead ones of the node are forgotten."""
        known = [one for one in self.processes() if one.node != node or _lives(one)]
        born = born_at(pid)
        if born is not None:
            known.append(NodeProcess(node, pid, born))
        _replace(self.folder / "processes.json", json.dumps([asdict(one) for one in known]))

    def _wait_until_ready(self, nodes: Sequence[int]) -> None:
        waiting = list(nodes)
        deadline = time.monotonic() + _START_SECONDS
        while waiting:
            for node in list(waiting):
                # In this order, so that nobody else's answer is taken for that of a node that has ended.
                ready = self._is_ready(node)
                if not self.is_running(node):
                    raise self._failure(node, "ended at once")
                if ready:
                    waiting.remove(node)
            if waiting and time.monotonic() > deadline:
                raise self._failure(waiting[0], f"was not ready after {_START_SECONDS} s")
            time.sleep(_POLL_SECONDS)

    def _is_ready(self, node: int) -> bool:
        raise NotImplementedError

    def _failure(self, node: int, complaint: str) -> NodeFailed:
        said = tail(self.log(node), 40)
        kind = PortTaken if _IN_USE in said else NodeFailed
        return kind(f"{self.title} node {node} {complaint}; the end of {self.log(node)}:\n{said}")

    def _stop(self, number: signal.Signals) -> list[int]:
        with self._noting:
            self._is_ended = True
        ended = self._end(self.nodes, number)
        (self.folder / "processes.json").unlink(missing_ok=True)
        if self._reaper is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._reaper.communicate(_ENDED, timeout=_STOP_SECONDS)
            self._reaper = None
            atexit.unregister(self._end_with_this_process)
        for child in self._children:
            child.wait(_KILL_SECONDS)
        self._children.clear()
        return ended

    def _end(self, nodes: Iterable[int], number: signal.Signals) -> list[int]:
        ours = [one for one in self.processes() if one.node in set(nodes)]
        ended = sorted({one.node for one in ours if _lives(one)})
        end_processes(ours, number)
        for child in self._children:
            child.poll()
        return ended

    def _signal(self, node: int, number: signal.Signals) -> None:
        for one in self.processes():
            if one.node == node and _lives(one):
                _send(one, number)

    def _start_reaper(self) -> None:
        """A process that sees the end of this one, SIGKILL included, by the end of a pipe, and then ends the nodes."""
        if self._reaper is None:
            self._reaper = subprocess.Popen(
                [sys.executable, "-m", "tests.services.cluster", self.folder, "delete" if self._is_temporary else "leave"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            atexit.register(self._end_with_this_process)

    def _end_with_this_process(self) -> None:
        if self._is_temporary:
            self.remove()
        else:
            self.stop()

    def _ports(self) -> dict[str, dict[str, int]]:
        note = self.folder / "ports.json"
        found: dict[str, dict[str, int]] = json.loads(note.read_text()) if note.exists() else {}
        return found

    def _choose_ports(self, *, again: Sequence[int]) -> None:
        ports = self._ports()
        taken = {port for node, named in ports.items() if int(node) not in again for port in named.values()}
        for node in self.nodes:
            named = {} if node in again else ports.get(str(node), {})
            for name in self._port_names():
                named.setdefault(name, _free_port(taken))
                taken.add(named[name])
            ports[str(node)] = named
        _replace(self.folder / "ports.json", json.dumps(ports))

    def _has_taken_port(self, node: int) -> bool:
        ours = self._ports().get(str(node), {})
        return any(not _is_free(port) for name, port in ours.items() if name not in self.foreign_ports)


def read_processes(folder: Path) -> list[NodeProcess]:
    """The processes noted in a cluster's folder."""
    note = folder / "processes.json"
    try:
        return [NodeProcess(**one) for one in json.loads(note.read_text())]
    except FileNotFoundError:
        return []


def end_processes(processes: Sequence[NodeProcess], number: signal.Signals) -> None:
    """End those that live, all at once; SIGKILL for those that do not go."""
    for following, seconds in ((number, _STOP_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
        living = [one for one in processes if _lives(one)]
        for one in living:
            _send(one, following)
            # A suspended process hears nothing but SIGKILL.
            _send(one, signal.SIGCONT)
        deadline = time.monotonic() + seconds
        while any(_lives(one) for one in living) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS / 5)


def born_at(pid: int) -> str | None:
    """When the kernel says a living process started; None for one that is dead or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _born_by_ps(pid) if not Path("/proc/self/stat").exists() else None
    return None if fields[0] in "ZX" else fields[19]


def _born_by_ps(pid: int) -> str | None:
    try:
        done = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    state, _, born = done.stdout.strip().partition(" ")
    return None if not born or state.startswith("Z") else born.strip()


def _lives(one: NodeProcess) -> bool:
    return born_at(one.pid) == one.born


def _send(one: NodeProcess, number: signal.Signals) -> None:
    try:
        if os.getpgid(one.pid) == one.pid:
            os.killpg(one.pid, number)
        else:
            os.kill(one.pid, number)
    except ProcessLookupError:
        return


def _free_port(taken: set[int]) -> int:
    for port in random.SystemRandom().sample(range(_LOWEST_PORT, _HIGHEST_PORT), 1000):
        if port not in taken and _is_free(port):
            return port
    raise PortTaken(f"no free port between {_LOWEST_PORT} and {_HIGHEST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Java does: connections that are on their way out do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _replace(path: Path, text: str) -> None:
    partial = path.with_suffix(".new")
    partial.write_text(text)
    partial.replace(path)


def main() -> None:
    """The reaper: wait for the end of standard input; where nobody said that all is well, end what is noted in the folder."""
    if sys.stdin.buffer.read() == _ENDED:
        return
    folder = Path(sys.argv[1])
    end_processes(read_processes(folder), signal.SIGKILL)
    if sys.argv[2] == "delete":
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
