"""compose.yaml as text: ports and names others rely on, health, limits, and nothing secret. `make test-compose` runs it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.stack import ROOT, Stack

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
    assert ports == {name: [f"${{BIND_ADDRESS:-127.0.0.1}}:{port}:{port}"] for name, port in known.items()}


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


def test_nothing_reports_its_use(services: Services) -> None:
    assert {name for name in OURS if services[name]["environment"].get("DO_NOT_TRACK") != "1"} == set()
    assert services["prefect-server"]["environment"]["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert services["kibana"]["environment"]["TELEMETRY_OPTIN"] == "false"
    assert services["grafana"]["environment"]["GF_ANALYTICS_REPORTING_ENABLED"] == "false"
    assert "DO_NOT_TRACK=1" in (ROOT / "deployments/Dockerfile").read_text()


def test_prefect_keeps_its_rows_as_long_as_without_docker(services: Services, tmp_path: Path) -> None:
    there = services["prefect-server"]["environment"]
    stack = Stack(tmp_path, {}).environment
    shared = [
        name for name in stack if re.search("VACUUM|RETENTION|LEASE|ANALYTICS|PROMOTIONAL", name) and name.startswith("PREFECT_SERVER_")
    ]
    assert {name: there.get(name) for name in shared} == {name: stack[name] for name in shared}
    assert len(shared) == 6


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
