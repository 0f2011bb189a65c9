"""Processes that are started, noted and ended; and `make up` and `make down` as a person calls them."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from deployments.stack import ROOT, ProcessFailed, Stack, free_port, start_prefect
from keeper.postgres.embedded import temporary_parent
from tests.services.waiting import wait_until


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack that is ended with the test."""
    made = Stack(tmp_path, {})
    yield made
    made.stop()


def test_process_that_ends_at_once_shows_the_end_of_its_log(stack: Stack) -> None:
    with pytest.raises(ProcessFailed, match="No module named nobody"):
        stack.start("nobody", "nobody", is_ready=lambda: False)


def test_stopping_ends_what_was_started_by_another_process_too(stack: Stack) -> None:
    port = free_port()
    stack.start("server", "http.server", str(port), "--bind", "127.0.0.1", is_ready=lambda: _listens(port))
    assert stack.is_running("server")

    assert Stack(stack.folder, {}).stop() == ["server"]

    assert not _listens(port)
    assert stack.stop() == []


def test_pid_that_belongs_to_somebody_else_by_now_is_left_alone(stack: Stack) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        stack.note.write_text(json.dumps([{"name": "worker", "pid": bystander.pid, "born": "long ago"}]))

        assert not stack.is_running("worker")
        assert stack.stop() == []
        assert bystander.poll() is None
        bystander.communicate(b"\n")


def test_port_of_somebody_else_is_not_taken_for_our_server(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(ProcessFailed, match=f"port {port} of this machine"):
            start_prefect(stack, port)


@pytest.mark.slow
def test_up_starts_everything_once_and_down_ends_it() -> None:
    with TemporaryDirectory(dir=temporary_parent(), prefix="keeper-up-") as folder:
        Path(folder).chmod(0o755)  # the embedded server's account must reach it
        data = Path(folder) / "data"
        environment = {**os.environ, "KEEPER_DATA": str(data)}
        try:
            first = _local(environment, "up", "--prefect-port", str(free_port()))
            started = Stack(data, {}).processes()
            again = _local(environment, "up")

            assert [one.name for one in started] == ["simulator", "prefect-server", "worker", "relay"]
            assert Stack(data, {}).processes() == started
            assert all(Stack(data, {}).is_running(one.name) for one in started)
            assert "limit keepa-tokens made" in first
            assert "everything is there already" in again
        finally:
            ended = _local(environment, "down")

        assert "ended relay, worker, prefect-server, simulator, PostgreSQL" in ended
        wait_until(lambda: not any(Path(f"/proc/{one.pid}").exists() for one in started), "a process is left")


def _local(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "deployments.local", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
