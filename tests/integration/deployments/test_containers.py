"""The scripts that Keeper's containers run, on this machine."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from deployments.stack import ROOT, free_port
from keeper.simulator.server import Simulator

SCRIPTS = ROOT / "deployments" / "compose"


def _health(*checks: str) -> int:
    return subprocess.run([sys.executable, "-S", SCRIPTS / "healthy.py", *checks], capture_output=True, check=False).returncode


def _environment_after_entry(**settings: str) -> dict[str, str]:
    environment = {"PATH": os.environ["PATH"], **settings}
    done = subprocess.run(["sh", SCRIPTS / "entry.sh", "env"], env=environment, capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_an_address_is_healthy_when_it_answers_well(simulator: Simulator) -> None:
    assert _health(f"{simulator.url}/_simulator/state") == 0
    assert _health(f"{simulator.url}/_simulator/state", f"{simulator.url}/nothing") == 1
    assert _health(f"http://127.0.0.1:{free_port()}/health") == 1
    assert _health() == 1


def test_a_service_without_a_port_is_healthy_while_it_is_connected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert _health(f"connected:{port}") == 1
        with socket.create_connection(("127.0.0.1", port)):
            assert _health(f"connected:{port}") == 0


def test_profiles_switch_kafka_and_elasticsearch_on() -> None:
    with_both = _environment_after_entry(COMPOSE_PROFILES="core,stream,search")
    assert with_both["KEEPER_KAFKA_BOOTSTRAP_SERVERS"] == "kafka:29092"
    assert with_both["KEEPER_ELASTICSEARCH_URL"] == "http://elasticsearch:9200"

    assert not {name for name in _environment_after_entry(COMPOSE_PROFILES="core,simulator") if name.startswith("KEEPER_")}
    elsewhere = _environment_after_entry(COMPOSE_PROFILES="stream", KEEPER_KAFKA_BOOTSTRAP_SERVERS="kafka.example.org:9093")
    assert elsewhere["KEEPER_KAFKA_BOOTSTRAP_SERVERS"] == "kafka.example.org:9093"


def test_prefect_s_password_reaches_its_server_and_its_clients() -> None:
    environment = _environment_after_entry(KEEPER_PREFECT_API_AUTH="keeper:secret")

    assert environment["PREFECT_SERVER_API_AUTH_STRING"] == environment["PREFECT_API_AUTH_STRING"] == "keeper:secret"


@pytest.mark.parametrize(
    ("written", "told"), [("tgram://bot/chat\n", "tgram://bot/chat"), ("", "mailto://of.env")], ids=["filled", "empty"]
)
def test_a_password_s_file_wins_and_an_empty_one_is_as_none(tmp_path: Path, written: str, told: str) -> None:
    folder = _secrets(tmp_path)
    (folder / "KEEPER_WATCHDOG_APPRISE_URLS").write_text(written)

    environment = {"PATH": os.environ["PATH"], "KEEPER_WATCHDOG_APPRISE_URLS": "mailto://of.env"}
    script = _reading(folder, "entry.sh")
    done = subprocess.run(["sh", "-c", script, "entry.sh", "env"], env=environment, capture_output=True, text=True, check=True)

    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert f"KEEPER_WATCHDOG_APPRISE_URLS={told}" in done.stdout.splitlines()
    assert {"KEEPER_DATABASE_URL", "KEEPER_PREFECT_API_AUTH"} <= names
    assert names.isdisjoint({"KEEPER_KEEPA_API_KEY", "KEEPER_WATCHDOG_HEARTBEAT_URL", "KEEPER_ELASTICSEARCH_PASSWORD"})


def test_the_databases_passwords_are_on_no_command_line(tmp_path: Path) -> None:
    folder = _secrets(tmp_path)
    noted = tmp_path / "noted"
    (tmp_path / "psql").write_text(f'#!/bin/sh\necho "$@" >> {noted}\ncat >> {noted}\n')
    (tmp_path / "psql").chmod(0o755)

    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "POSTGRES_USER": "postgres", "POSTGRES_DB": "postgres"}
    subprocess.run(["bash", "-c", _reading(folder, "postgres/databases.sh")], env=environment, check=True)

    said = noted.read_text()
    assert [said.count(f"--set name={name}") for name in ("keeper", "prefect")] == [1, 1]
    assert f"file {folder}/ :name _password" in said
    assert [name for name in ("keeper", "prefect") if (folder / f"{name}_password").read_text() in said] == []


def _secrets(folder: Path) -> Path:
    made = folder / "secrets"
    subprocess.run(["sh", SCRIPTS / "secrets.sh", made], capture_output=True, check=True)
    return made


def _reading(folder: Path, script: str) -> str:
    """A script of the containers, with their folder of passwords elsewhere."""
    return (SCRIPTS / script).read_text().replace("/run/secrets", str(folder))


def test_passwords_are_made_once_and_are_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    for _ in range(2):
        done = subprocess.run(["sh", SCRIPTS / "secrets.sh", folder], capture_output=True, text=True, check=True)
        made = {path.name: path.read_text() for path in folder.iterdir()}

    assert done.stdout == ""
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    Fernet(made["KEEPER_CHANNELS_KEYS"])
    assert made["KEEPER_DATABASE_URL"] == f"postgresql://keeper:{made['keeper_password']}@db:5432/keeper"
    assert len({password for name, password in made.items() if name.endswith("_password")}) == 4
    assert {name for name, password in made.items() if not password} == {
        *("KEEPER_KEEPA_API_KEY", "KEEPER_PREFECT_WEBHOOK_URL", "KEEPER_WATCHDOG_APPRISE_URLS", "KEEPER_WATCHDOG_HEARTBEAT_URL"),
        *("KEEPER_KAFKA_SASL_PASSWORD", "KEEPER_ELASTICSEARCH_API_KEY", "KEEPER_ELASTICSEARCH_PASSWORD"),
    }


@pytest.mark.parametrize("script", ["bootstrap.sh", "entry.sh", "secrets.sh", "postgres/databases.sh", "bin/keeper", "bin/prefect"])
def test_scripts_are_sound(script: str) -> None:
    path = SCRIPTS / script
    assert subprocess.run(["bash" if "bash" in path.read_text().splitlines()[0] else "sh", "-n", path], check=False).returncode == 0
    assert os.access(path, os.X_OK)
