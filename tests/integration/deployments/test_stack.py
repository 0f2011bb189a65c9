"""Processes that are started, noted and ended; and `make up` and `make down` as a person calls them."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from pydantic import SecretStr

from deployments.local import down, prefect_auth
from deployments.stack import ROOT, ProcessFailed, Stack, free_port, start_consumer, start_prefect, start_relay
from keeper.postgres.embedded import EmbeddedServer, temporary_parent
from keeper.resources import simulator_note
from keeper.settings import PrefectSettings, read_settings
from keeper.simulator.server import Simulator
from tests.services.session import ElasticsearchService, KafkaService
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


def test_server_reports_to_nobody_forgets_and_asks_for_a_password_that_shows_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "true")
    settings = read_settings().model_copy(update={"prefect": PrefectSettings(api_auth=SecretStr("anna:hidden-word"))})
    stack = Stack(tmp_path, prefect_auth(settings))
    try:
        api = start_prefect(stack, free_port())
        assert httpx.get(f"{api}/admin/settings", timeout=10).status_code == httpx.codes.UNAUTHORIZED
        server = httpx.get(f"{api}/admin/settings", auth=("anna", "hidden-word"), timeout=10).raise_for_status().json()["server"]
        arguments = [Path(f"/proc/{one.pid}/cmdline").read_bytes() for one in stack.processes()]
    finally:
        stack.stop()

    assert server["analytics_enabled"] is False
    assert server["concurrency"]["lease_storage"] == "prefect.server.concurrency.lease_storage.filesystem"
    assert server["events"]["retention_period"] in ("P3D", 3 * 86400)
    assert sorted(server["services"]["db_vacuum"]["enabled"]) == ["events", "flow_runs"]
    assert server["services"]["db_vacuum"]["retention_period"] in ("P30D", 30 * 86400)
    assert not any(b"hidden-word" in one for one in arguments)
    assert "hidden-word" not in (stack.run_folder / "prefect-server.log").read_text()


def test_relay_that_dies_after_its_start_is_noticed(tmp_path: Path, postgres: EmbeddedServer, database: str) -> None:
    stack = Stack(tmp_path, {"KEEPER_DATABASE_URL": postgres.libpq_dsn(database), "KEEPER_CHANNELS_KEYS": ""})

    with pytest.raises(ProcessFailed, match="set KEEPER_CHANNELS_KEYS"):
        start_relay(stack)


def test_consumer_that_dies_after_its_start_is_noticed(tmp_path: Path, postgres: EmbeddedServer, database: str) -> None:
    stack = Stack(tmp_path, {"KEEPER_DATABASE_URL": postgres.libpq_dsn(database), "KEEPER_KAFKA_BOOTSTRAP_SERVERS": ""})

    with pytest.raises(ProcessFailed, match="there is no Kafka"):
        start_consumer(stack, "prices")


def test_log_that_has_grown_large_is_cut_at_the_next_start(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.stack._LARGEST_LOG_BYTES", 10)
    log = stack.run_folder / "server.log"
    log.write_text("the first lines\nthe last.")
    port = free_port()

    stack.start("server", "http.server", str(port), "--bind", "127.0.0.1", is_ready=lambda: _listens(port))

    assert (stack.run_folder / "server.old").read_text() == "\nthe last."
    assert "the last" not in log.read_text()


def test_what_prefect_keeps_is_bounded_unless_a_person_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_EVENTS_RETENTION_PERIOD", "P1D")

    shown = Stack(tmp_path, {}).run("prefect", "config", "view", "--hide-sources")

    assert "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED='events,flow_runs'" in shown
    assert "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD='2592000'" in shown
    assert "PREFECT_SERVER_EVENTS_RETENTION_PERIOD='P1D'" in shown
    assert "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS='120'" in shown


def test_down_leaves_the_note_of_a_simulator_that_lives(tmp_path: Path) -> None:
    settings = read_settings().model_copy(update={"data": tmp_path})
    Stack(tmp_path, {})
    with Simulator() as simulator:
        simulator_note(settings).write_text(json.dumps({"url": simulator.url}))
        down(settings)
        assert simulator_note(settings).exists()

    down(settings)

    assert not simulator_note(settings).exists()


@pytest.mark.slow
def test_up_uses_the_simulator_that_runs_already() -> None:
    with TemporaryDirectory(dir=temporary_parent(), prefix="keeper-up-") as folder, Simulator() as simulator:
        Path(folder).chmod(0o755)  # the embedded server's account must reach it
        data = Path(folder) / "data"
        environment = {**os.environ, "KEEPER_DATA": str(data), "KEEPER_API_PORT": "0", "KEEPER_DASHBOARD_PORT": "0"}
        data.mkdir()
        (data / "simulator.json").write_text(json.dumps({"url": simulator.url}))
        try:
            said = _local(environment, "up", "--prefect-port", str(free_port()))
            started = [one.name for one in Stack(data, {}).processes()]
        finally:
            _local(environment, "down")

    assert f"simulator       {simulator.url}" in said
    assert started == ["prefect-server", "api", "worker", "relay", "dashboard"]


@pytest.mark.slow
def test_up_starts_everything_once_and_down_ends_it(kafka: KafkaService, elasticsearch: ElasticsearchService) -> None:
    with TemporaryDirectory(dir=temporary_parent(), prefix="keeper-up-") as folder:
        Path(folder).chmod(0o755)  # the embedded server's account must reach it
        data = Path(folder) / "data"
        environment = {
            **os.environ,
            "KEEPER_DATA": str(data),
            "KEEPER_API_PORT": "0",
            "KEEPER_DASHBOARD_PORT": "0",
            "KEEPER_PREFECT_API_AUTH": "anna:hidden-word",
            "KEEPER_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KEEPER_KAFKA_TOPIC_PREFIX": kafka.prefix,
            "KEEPER_ELASTICSEARCH_URL": elasticsearch.url,
            "KEEPER_ELASTICSEARCH_INDEX_PREFIX": elasticsearch.prefix,
        }
        try:
            first = _local(environment, "up", "--prefect-port", str(free_port()))
            started = Stack(data, {}).processes()
            again = _local(environment, "up")

            consumers = ["consume-prices", "consume-deals", "consume-enrich"]
            assert [one.name for one in started] == ["simulator", "prefect-server", "api", "worker", "relay", "dashboard", *consumers]
            assert "delivers to people's channels, Kafka, Elasticsearch" in first
            assert Stack(data, {}).processes() == started
            assert all(Stack(data, {}).is_running(one.name) for one in started)
            assert "limit keepa-tokens made" in first
            address = (data / "run" / "prefect.url").read_text()
            api = (data / "run" / "api.url").read_text()
            assert f"API             {api}/docs" in first
            for one in started[3:]:
                assert f"KEEPER_REPORTS_API_URL={api}".encode() in Path(f"/proc/{one.pid}/environ").read_bytes().split(b"\0"), one.name
            pages = (data / "run" / "dashboard.url").read_text()
            assert f"dashboard       {pages}" in first
            assert httpx.get(f"{pages}/_stcore/health", timeout=10).text == "ok"
            assert httpx.get(f"{api}/health/ready", timeout=10).json()["status"] == "ready"
            assert re.search(rf"^export PREFECT_API_URL={re.escape(address)}$", first, re.MULTILINE)
            assert "everything is there already" in again
            assert "worker          for keeper-process and keeper-heavy" in first
            assert not any("hidden-word" in log.read_text(errors="replace") for log in (data / "run").glob("*.log"))
        finally:
            ended = _local(environment, "down")

        assert not (data / "run" / "prefect.url").exists()
        assert (
            "ended consume-enrich, consume-deals, consume-prices, dashboard, relay, worker, api, prefect-server, simulator, PostgreSQL"
            in ended
        )
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
