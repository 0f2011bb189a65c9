"""`keeper metrics` as a process: it serves from the start, whatever is down, and ends when told."""

import json
import signal
import socket
from uuid import uuid4

import httpx

from keeper.postgres.embedded import EmbeddedServer
from tests.integration.cli.terminal import Terminal, lines_of


def test_metrics_are_served_before_the_database_comes_and_after(shell: Terminal, postgres: EmbeddedServer) -> None:
    name = f"test_{uuid4().hex}"
    later = Terminal(shell.environment | {"KEEPER_DATABASE_URL": postgres.libpq_dsn(name), "KEEPER_METRICS_KEPT_SECONDS": "0"})
    with later.start("metrics", "--port", "0", "--json") as started:
        said = json.loads(lines_of(started.stdout).readline())
        assert 'keeper_system_up{system="postgresql"} 0.0' in httpx.get(said["url"]).text.splitlines()
        httpx.get(said["url"])
        postgres.create_database(name, template="template_keeper")
        assert 'keeper_system_up{system="postgresql"} 1.0' in httpx.get(said["url"]).text.splitlines()
        started.send_signal(signal.SIGTERM)
        assert started.wait(30) == 0
        log = lines_of(started.stderr).read().splitlines()
    assert len(log) == 2
    assert "postgresql does not answer" in log[0]
    assert "postgresql answers again" in log[1]
    postgres.drop_database(name)


def test_a_port_that_is_taken_is_said(shell: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = shell.run("metrics", "--port", str(port))
    assert (result.exit_code, f"127.0.0.1:{port}" in result.stderr) == (1, True)
