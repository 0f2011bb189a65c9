"""compose.yaml as text: ports and names others rely on, health, limits, and nothing secret. `make test-compose` runs it."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, SecretStr

from deployments.stack import ROOT, Stack
from keeper.settings import Settings, WatchdogSettings, variable_of

Services = dict[str, dict[str, Any]]

OURS = {
    *("prefect-server", "bootstrap", "worker", "docker-worker", "relay", "api", "dashboard", "simulator", "metrics"),
    *("consume-prices", "consume-deals", "consume-enrich"),
}
PROFILES = {
    "core": {"postgres", "prefect-server", "bootstrap", "worker", "docker-worker", "relay", "api", "dashboard"},
    "stream": {"kafka", "consume-prices", "consume-deals", "consume-enrich"},
    "search": {"elasticsearch", "kibana"},
    "watch": {"metrics", "prometheus", "grafana"},
    "simulator": {"simulator"},
}
# What asks who comes.
OPEN_BY_WISH = {"api", "dashboard", "prefect-server", "grafana"}


class _Loader(yaml.SafeLoader):
    """Knows compose's own tags, which say how a file goes over another one."""


def _plain(loader: yaml.SafeLoader, _tag: str, node: yaml.Node) -> Any:
    return loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else None


_Loader.add_multi_constructor("!", _plain)


def _read(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.load((ROOT / name).read_text(), Loader=_Loader)  # noqa: S506  a safe loader
    return read


@pytest.fixture(scope="module")
def services() -> Services:
    """Those of compose.yaml."""
    found: Services = _read("compose.yaml")["services"]
    return found


@pytest.fixture(scope="module")
def nodes() -> Services:
    """Those of compose.nodes.yaml."""
    found: Services = _read("compose.nodes.yaml")["services"]
    return found


def test_each_service_belongs_to_one_profile(services: Services) -> None:
    found: dict[str, set[str]] = {}
    for name, service in services.items():
        (profile,) = service["profiles"]
        found.setdefault(profile, set()).add(name)

    assert found == PROFILES


def test_ports_are_those_that_others_know_and_on_this_machine_only(services: Services) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}

    known = {
        "postgres": 5432,
        "kafka": 9092,
        "elasticsearch": 9200,
        "kibana": 5601,
        "api": 8000,
        "prefect-server": 4200,
        "dashboard": 8501,
        "prometheus": 9090,
        "grafana": 3000,
        "metrics": 9464,
    }
    address = {name: "${BIND_ADDRESS:-127.0.0.1}" if name in OPEN_BY_WISH else "127.0.0.1" for name in known}
    assert ports == {name: [f"{address[name]}:{port}:{port}"] for name, port in known.items()}


def test_no_setting_opens_a_further_node_to_other_machines(nodes: Services) -> None:
    ports = {name: service["ports"] for name, service in nodes.items() if "ports" in service}

    assert ports.keys() == {"kafka-2", "kafka-3", "elasticsearch-2", "elasticsearch-3"}
    assert [one for (one,) in ports.values() if not one.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize(("service", "alias"), [("postgres", "db"), ("api", "app")])
def test_old_names_lead_to_the_service(services: Services, service: str, alias: str) -> None:
    assert services[service]["networks"]["default"]["aliases"] == [alias]


def test_kafka_listens_for_containers_and_for_programs_of_this_machine(services: Services) -> None:
    settings = services["kafka"]["environment"]

    assert settings["KAFKA_ADVERTISED_LISTENERS"] == "INTERNAL://kafka:29092,HOST://127.0.0.1:9092"
    assert settings["KAFKA_LISTENERS"] == "INTERNAL://:29092,HOST://:9092,CONTROLLER://:9093"
    assert settings["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_each_container_has_health_a_limit_and_comes_back(services: Services) -> None:
    lasting = {name: one for name, one in services.items() if name != "bootstrap"}

    assert {name for name, one in lasting.items() if not one.get("healthcheck", {}).get("test")} == set()
    assert {name for name, one in lasting.items() if one["restart"] != "unless-stopped"} == set()
    assert services["bootstrap"]["restart"] == "no"
    assert {name for name, one in services.items() if not re.fullmatch(r"\d+[mg]", one.get("mem_limit", ""))} == set()
    assert {name for name, one in services.items() if one["logging"]["options"].keys() != {"max-size", "max-file"}} == set()


def test_no_container_has_rights_it_does_not_need(services: Services) -> None:
    assert {name for name, one in services.items() if one["cap_drop"] != ["ALL"]} == set()
    assert {name for name, one in services.items() if "cap_add" in one} == {"postgres"}
    assert {name for name in OURS if services[name].get("read_only") is not True} == set()
    assert {name for name, one in services.items() if "docker.sock" in str(one.get("volumes"))} == {"docker-worker"}
    assert {name for name, one in services.items() if "user" in one} == {"docker-worker"}


def test_ours_share_one_image(services: Services) -> None:
    assert {services[name]["image"] for name in OURS} == {"keeper:${TAG:-0.1.0}"}
    assert {name for name, one in services.items() if one.get("build")} == OURS


def test_foreign_images_have_a_whole_version(services: Services) -> None:
    images = {name: one["image"] for name, one in services.items() if name not in OURS}

    assert {name for name, image in images.items() if not re.fullmatch(r"[a-z/]+:v?\d+\.\d+(\.\d+)?", image)} == set()


def test_elasticsearch_and_kibana_are_of_one_version(services: Services) -> None:
    assert services["elasticsearch"]["image"].partition(":")[2] == services["kibana"]["image"].partition(":")[2]


@pytest.mark.parametrize("file", ["compose.yaml", "compose.nodes.yaml"])
def test_no_password_stands_in_the_file(file: str) -> None:
    environments = [one.get("environment", {}) for one in _read(file)["services"].values()]

    named = {name: value for one in environments for name, value in one.items() if re.search("PASSWORD|SECRET|TOKEN|_KEY|AUTH", name)}
    named.pop("KEEPER_API_AUTH", None)
    assert {name for name, value in named.items() if not str(value).startswith("/run/secrets/")} == set()


def test_every_password_file_is_made_by_the_script(services: Services) -> None:
    declared = _read("compose.yaml")["secrets"]
    made = set(re.findall(r"^make (\w+)", (ROOT / "deployments/compose/secrets.sh").read_text(), re.MULTILINE))

    assert declared.keys() == made
    assert {secret for one in services.values() for secret in one.get("secrets", [])} == made


def test_a_container_takes_its_secrets_and_does_not_start_without_one_it_cannot_read(tmp_path: Path) -> None:
    entry = (ROOT / "deployments/compose/entry.sh").read_text().replace("/run/secrets", str(tmp_path))
    (tmp_path / "KEEPER_KEEPA_API_KEY").write_text("a key with 'signs' $HOME\n")
    (tmp_path / "KEEPER_KAFKA_SASL_PASSWORD").write_text("")

    def start() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", "-c", entry, "entry", "env"], env={"PATH": os.defpath}, capture_output=True, text=True, timeout=20, check=False
        )

    good = start()
    # What root cannot read either.
    (tmp_path / "KEEPER_DATABASE_URL").mkdir()
    bad = start()

    assert good.returncode == 0
    assert "KEEPER_KEEPA_API_KEY=a key with 'signs' $HOME" in good.stdout.splitlines()
    assert "KEEPER_KAFKA" not in good.stdout
    assert bad.returncode != 0
    assert (bad.stdout, "KEEPER_DATABASE_URL" in bad.stderr) == ("", True)


def test_the_secrets_lie_where_they_are_wanted_and_a_closed_file_is_told(tmp_path: Path) -> None:
    script, folder = ROOT / "deployments/compose/secrets.sh", tmp_path / "mine"

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": os.defpath, "SECRETS": str(folder)}
        return subprocess.run(
            ["sh", str(script), *words], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False
        )

    made, again = run(), run(str(folder))
    (folder / "KEEPER_KEEPA_API_KEY").chmod(0o600)
    closed = run()

    assert (made.returncode, again.returncode, again.stdout) == (0, 0, "")
    assert folder.joinpath("KEEPER_DATABASE_URL").exists()
    assert closed.returncode == 1
    assert "KEEPER_KEEPA_API_KEY" in closed.stderr
    assert "KEEPER_DATABASE_URL" not in closed.stderr


def test_each_secret_of_the_settings_comes_as_a_file(services: Services) -> None:
    secret = set(_secret_settings())
    assert "KEEPER_WATCHDOG_APPRISE_URLS" in secret
    configured = {name for name in OURS if services[name].get("env_file")}

    assert configured == OURS - {"prefect-server", "dashboard", "simulator"}
    assert {name for name in configured if set(services[name]["secrets"]) != secret} == set()


def _secret_settings() -> list[str]:
    found = [(variable_of((name,)), field.annotation) for name, field in Settings.model_fields.items()]
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += [(variable_of((name, inner)), one.annotation) for inner, one in field.annotation.model_fields.items()]
    return [variable for variable, kind in found if SecretStr in get_args(kind)]


def test_what_the_watchdog_has_told_outlasts_its_container(services: Services) -> None:
    image = (ROOT / "deployments/Dockerfile").read_text()
    told = {name: services[name]["environment"]["KEEPER_DATA"] for name in ("worker", "api")}

    # The folder is made by the image for its own account, which a new volume takes over.
    assert "mkdir /var/lib/keeper && chown keeper:keeper /var/lib/keeper" in image
    assert told == dict.fromkeys(told, "/var/lib/keeper")
    assert {name for name, one in services.items() if "watchdog:/var/lib/keeper" in one.get("volumes", [])} == set(told)
    assert "watchdog" in _read("compose.yaml")["volumes"]


def test_the_watchdog_looks_at_docker_s_disk_unless_others_are_named(services: Services) -> None:
    found = re.fullmatch(r"\$\{KEEPER_WATCHDOG_DISKS:-(.+)\}", services["worker"]["environment"]["KEEPER_WATCHDOG_DISKS"])

    assert found is not None
    assert WatchdogSettings(disks=found[1]).disks == ("/app",)
    assert "WORKDIR /app" in (ROOT / "deployments/Dockerfile").read_text()


def test_a_consumer_is_healthy_while_kafka_has_it(services: Services) -> None:
    asked = {
        name: [word for word in one["healthcheck"]["test"] if "connected" in word]
        for name, one in services.items()
        if name in OURS - {"bootstrap"}
    }

    assert {name: words for name, words in asked.items() if words} == {
        "relay": ["connected:${DATABASE_PORT:-5432}"],
        "consume-prices": ["connected:${KAFKA_PORT:-29092}"],
        "consume-deals": ["connected:${KAFKA_PORT:-29092}"],
        "consume-enrich": ["connected:${KAFKA_PORT:-29092}"],
    }


def test_nothing_reports_its_use(services: Services) -> None:
    assert {name for name in OURS if services[name]["environment"].get("DO_NOT_TRACK") != "1"} == set()
    assert services["prefect-server"]["environment"]["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert services["kibana"]["environment"]["TELEMETRY_OPTIN"] == "false"
    assert services["grafana"]["environment"]["GF_ANALYTICS_REPORTING_ENABLED"] == "false"
    assert "DO_NOT_TRACK=1" in (ROOT / "deployments/Dockerfile").read_text()


def test_prefect_s_server_is_told_the_same_as_without_docker(services: Services, tmp_path: Path) -> None:
    there = services["prefect-server"]["environment"]
    stack = Stack(tmp_path, {}).environment
    shared = [
        name
        for name in stack
        if re.search("VACUUM|RETENTION|LEASE|LATE|ANALYTICS|PROMOTIONAL", name) and name.startswith("PREFECT_SERVER_")
    ]
    assert {name: there.get(name) for name in shared} == {name: stack[name] for name in shared}
    assert len(shared) == 7
    assert stack["PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS"] == "120"


def test_all_wait_for_the_bootstrap_and_it_for_what_it_makes_things_in(services: Services) -> None:
    waiting = {name for name, one in services.items() if "bootstrap" in one.get("depends_on", {})}
    assert waiting == OURS - {"bootstrap", "prefect-server", "simulator", "dashboard"}

    needed = services["bootstrap"]["depends_on"]
    assert {name for name, one in needed.items() if one["condition"] != "service_healthy"} == set()
    # Another profile's: waited for where it is switched on.
    assert {name for name, one in needed.items() if one.get("required") is False} == {"simulator", "kafka", "elasticsearch", "kibana"}


def test_three_brokers_and_nodes_know_each_other(nodes: Services) -> None:
    for one, name in ((1, "kafka"), (2, "kafka-2"), (3, "kafka-3")):
        settings = nodes[name]["environment"]
        assert settings["KAFKA_CONTROLLER_QUORUM_VOTERS"] == "1@kafka:9093,2@kafka-2:9093,3@kafka-3:9093"
        assert (settings["KAFKA_DEFAULT_REPLICATION_FACTOR"], settings["KAFKA_MIN_INSYNC_REPLICAS"]) == ("3", "2")
        assert settings.get("KAFKA_NODE_ID", "1") == str(one)
    names = ["elasticsearch", "elasticsearch-2", "elasticsearch-3"]
    for name in names:
        assert nodes[name]["environment"]["discovery.seed_hosts"] == ",".join(names)
        assert nodes[name]["environment"].get("node.name", "elasticsearch") == name


def test_keeper_itself_knows_of_the_three(nodes: Services) -> None:
    told = [one["environment"] for name, one in nodes.items() if name in OURS]

    assert {name for name in nodes if name in OURS} == OURS - {"prefect-server", "dashboard", "simulator"}
    for settings in told:
        assert (settings["KEEPER_KAFKA_REPLICATION"], settings["KEEPER_KAFKA_MIN_INSYNC"]) == ("3", "2")
        assert settings["KEEPER_ELASTICSEARCH_REPLICAS"] == "1"
        assert settings["KEEPER_KAFKA_BOOTSTRAP_SERVERS"].count(":29092") == settings["KEEPER_ELASTICSEARCH_URL"].count(":9200") == 3


def test_the_image_is_pinned_takes_the_lock_first_and_is_nobody_s_root() -> None:
    lines = (ROOT / "deployments/Dockerfile").read_text().splitlines()

    assert re.fullmatch(r"ARG BASE_IMAGE=python:3\.\d+\.\d+-slim-[a-z]+", next(line for line in lines if line.startswith("ARG")))
    assert lines.index("COPY deployments/requirements.lock deployments/requirements.lock") < lines.index("COPY . .")
    last_stage = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM")) :]
    assert "USER keeper" in last_stage
    assert [line for line in last_stage if "apt-get" in line or "pip" in line] == []
    assert any(line.startswith("HEALTHCHECK") for line in last_stage)


def test_the_image_s_lock_is_a_part_of_the_whole_lock() -> None:
    image, whole = (_pins(ROOT / name) for name in ("deployments/requirements.lock", "requirements.lock"))

    assert image.items() <= whole.items()
    assert {"prefect", "prefect-docker", "psycopg", "streamlit"} <= image.keys()
    assert image.keys().isdisjoint({"pytest", "mypy", "ruff", "playwright", "cyclonedx-bom"})


def _pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def test_the_readme_s_commands_name_services_folders_and_passwords_there_are(services: Services) -> None:
    readme = (ROOT / "README.md").read_text()
    commands = [
        line.partition("docker compose ")[2] for line in readme.splitlines() if re.match(r"(\$ |[*0-9/ ]+ cd \S+ && )docker compose ", line)
    ]

    backup, restore = (next(one for one in commands if f"api keeper {verb}" in one) for verb in ("backup", "restore"))
    for one in (backup, restore):
        assert one.startswith("run --rm --no-deps --volume /var/backups/keeper:/backups api keeper ")
    stopped = next(one for one in commands if one.startswith("stop api ")).partition("  #")[0].split()[1:]
    # All that keep a connection to the database.
    assert set(stopped) == OURS - {"prefect-server", "bootstrap", "simulator", "dashboard"}
    assert "io.prefect.work-pool-name=keeper-heavy" in readme
    account = re.search(r"useradd --system --uid (\d+)", (ROOT / "deployments/Dockerfile").read_text())
    assert account is not None
    assert f"--owner {account[1]} --group {account[1]} --mode 700 /var/backups/keeper" in readme
    assert any("exec -T api keeper watchdog --json" in one for one in commands)
    assert any(one.startswith("run -T --rm --no-deps --volume /var/backups/keeper:/backups api keeper backup /backups") for one in commands)


def test_what_bootstrap_is_asked_by_hand_goes_by_the_passwords(services: Services) -> None:
    image = (ROOT / "deployments/Dockerfile").read_text()

    assert "docker compose run --rm --no-deps bootstrap python -m deployments.bootstrap --prune" in (ROOT / "README.md").read_text()
    # A command of the caller's takes the place of the service's, and the image's first process stays.
    assert 'ENTRYPOINT ["/app/deployments/compose/entry.sh"]' in image
    assert ("entrypoint" in services["bootstrap"], services["bootstrap"]["command"]) == (False, ["/app/deployments/compose/bootstrap.sh"])
