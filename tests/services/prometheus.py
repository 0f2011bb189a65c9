"""The Prometheus of this machine. Debian's package `prometheus`, which brings promtool; nothing is downloaded."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.services.java import Say
from tests.services.waiting import wait_until

_STOP_SECONDS = 20


def missing() -> str | None:
    """What must be installed first; None where it is there."""
    found = all(shutil.which(name) for name in ("prometheus", "promtool"))
    return None if found else "Prometheus (Debian: apt-get install prometheus)"


def find(_say: Say = print) -> Path:
    """Its program.

    Raises:
        FileNotFoundError: there is none.
    """
    if (found := shutil.which("prometheus")) is None:
        raise FileNotFoundError(missing())
    return Path(found)


def promtool(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(["promtool", *words], input=given, capture_output=True, text=True, timeout=60, check=False)


class Prometheus:
    """A server that answers queries."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer."""
        answered = httpx.get(f"{self.url}/api/v1/{path}", params=query, timeout=30)
        assert answered.status_code == 200, answered.text
        return answered.json()["data"]

    def is_scraping(self, *jobs: str) -> bool:
        """Whether all targets of these jobs have been read once."""
        health = {one["labels"]["job"]: one["health"] for one in self.ask("targets")["activeTargets"]}
        return all(health.get(job) == "up" for job in jobs)


@contextmanager
def run(program: Path, config: Path, folder: Path) -> Iterator[Prometheus]:
    """Start it with this configuration on a free port, until the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, *words, "--log.level=warn"], cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        running = Prometheus(port)
        wait_until(lambda: process.poll() is not None or _is_ready(running), "Prometheus did not start")
        assert process.poll() is None, log.read_text()
        yield running
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)


def _is_ready(running: Prometheus) -> bool:
    try:
        return httpx.get(f"{running.url}/-/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
