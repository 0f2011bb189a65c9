"""`make test-compose`: compose.yaml for real. The image is built, the stack comes up, and somebody is told of a price.

On an engine that runs already the images are the official ones. Where none runs, that of Debian is started (tests/services/engine.py),
which has no registry: there PostgreSQL, Kafka, Elasticsearch and Prometheus are stand-ins, and Kibana and Grafana are left out.
Not part of `make test`: minutes long, and nothing for a machine whose engine is somebody's own.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.stack import ROOT
from tests.services import standins
from tests.services.engine import Engine, EngineFailed, run
from tests.services.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

_UP_SECONDS = 900
_RUN_SECONDS = 240
_OURS = {
    *("prefect-server", "worker", "docker-worker", "relay", "api", "dashboard", "simulator", "metrics"),
    *("consume-prices", "consume-deals", "consume-enrich"),
}
_WITH_STANDINS = {"postgres", "kafka", "elasticsearch", "prometheus"} | _OURS
# A product of the simulator.
_ASIN = "B0C26KBXQP"


class Stack:
    """A running compose project of this test's own, made from a checkout without anybody's settings."""

    def __init__(self, engine: Engine, checkout: Path, secrets_folder: Path) -> None:
        self.engine = engine
        self.checkout = checkout
        self.name = f"keeper-test-{secrets.token_hex(3)}"
        files = ["compose.yaml", "tests/e2e/compose/free_ports.yaml", *(["tests/e2e/compose/standins.yaml"] if engine.is_own else [])]
        self.environment = engine.environment | {
            "COMPOSE_PROJECT_NAME": self.name,
            "COMPOSE_FILE": ":".join(files),
            "COMPOSE_PROFILES": "core,simulator,stream,search,watch",
            "NETWORK": self.name,
            "TAG": self.name,
            "SECRETS": str(secrets_folder),
        }

    @property
    def image(self) -> str:
        """Keeper's, built for this test."""
        return f"keeper:{self.name}"

    def compose(self, *words: str, seconds: float = 120) -> str:
        """Run `docker compose <words>`; what it printed."""
        return run(["docker", "compose", *words], environment=self.environment, seconds=seconds, cwd=self.checkout)

    def api(self) -> str:
        """Address of the REST API on this machine."""
        return f"http://{self.compose('port', 'api', '8000').strip()}"

    def containers(self) -> dict[str, dict[str, Any]]:
        """What the engine knows of each, by service and number."""
        ids = self.compose("ps", "--all", "--quiet").split()
        inspected: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", *ids))
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in inspected}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One that runs, with stand-ins where it is our own."""
    engine = Engine()
    ran = engine.is_running()
    engine.start()
    if engine.is_own:
        standins.make_images(engine, say=_say)
    yield engine
    if not ran:
        engine.stop()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh one: what git knows or would, with `.env.example` as `.env`."""
    folder = tmp_path_factory.mktemp("compose") / "keeper"
    names = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    shutil.copy(folder / ".env.example", folder / ".env")
    return folder


@pytest.fixture(scope="module")
def stack(engine: Engine, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All that can run here, healthy."""
    folder = tmp_path_factory.mktemp("secrets")
    run(["sh", "deployments/compose/secrets.sh", str(folder)], cwd=checkout)
    stack = Stack(engine, checkout, folder)
    base = ["--build-arg", f"BASE_IMAGE={standins.PYTHON}"] if engine.is_own else []
    _say(f"{stack.image}: building...")
    engine.docker("build", "--file", "deployments/Dockerfile", *base, "--tag", stack.image, ".", seconds=1800, cwd=checkout)
    try:
        began = time.monotonic()
        try:
            stack.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(_UP_SECONDS), seconds=_UP_SECONDS + 60)
        except EngineFailed as error:
            pytest.fail(f"{error}\n{stack.compose('ps', '--all')}\n{stack.compose('logs', '--tail', '20')[-8000:]}")
        _say(f"{stack.name}: healthy after {time.monotonic() - began:.0f} s")
        yield stack
    finally:
        if os.environ.get("KEEP") != "1":
            stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "10", seconds=300)
            engine.docker("image", "rm", "--force", stack.image)


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    """The API key of a user."""
    made: dict[str, str] = json.loads(stack.compose("exec", "api", "keeper", "user", "add", "anna", "--json"))
    return made["api_key"]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _config(checkout: Path, engine: Engine, *files: str, profiles: str) -> dict[str, Any]:
    words = [word for file in files for word in ("--file", file)]
    environment = engine.environment | {"COMPOSE_PROFILES": profiles}
    read: dict[str, Any] = json.loads(
        run(["docker", "compose", *words, "config", "--format", "json"], environment=environment, cwd=checkout)
    )
    return read


@pytest.mark.parametrize(
    "files",
    [["compose.yaml"], ["compose.yaml", "compose.nodes.yaml"], ["compose.yaml", "deployments/compose/processes.yaml"]],
    ids=["one node", "three nodes", "processes only"],
)
def test_compose_reads_the_files_of_a_fresh_checkout(engine: Engine, checkout: Path, files: list[str]) -> None:
    services = _config(checkout, engine, *files, profiles="core,simulator,stream,search,watch")["services"]

    assert {"kibana", "prometheus", "grafana", "metrics"} | _WITH_STANDINS < set(services)
    assert ("kafka-3" in services, "elasticsearch-3" in services) == ("compose.nodes.yaml" in files,) * 2
    assert {port["host_ip"] for one in services.values() for port in one.get("ports", [])} == {"127.0.0.1"}


def test_the_environment_example_starts_the_core_with_a_simulator(engine: Engine, checkout: Path) -> None:
    environment = {name: value for name, value in engine.environment.items() if not name.startswith("COMPOSE_")}
    services = run(["docker", "compose", "config", "--services"], environment=environment, cwd=checkout).split()

    assert set(services) == {"postgres", "prefect-server", "bootstrap", "worker", "docker-worker", "relay", "api", "dashboard", "simulator"}


def test_everything_is_healthy_and_the_bootstrap_has_ended(stack: Stack) -> None:
    states = {name: one["State"] for name, one in stack.containers().items()}

    assert (states["bootstrap"]["Status"], states["bootstrap"]["ExitCode"]) == ("exited", 0)
    health = {name: state["Health"]["Status"] for name, state in states.items() if name != "bootstrap"}
    assert health == dict.fromkeys(_WITH_STANDINS if stack.engine.is_own else health, "healthy")


def test_our_containers_can_write_nowhere_and_have_no_rights(stack: Stack) -> None:
    ours = {name: one for name, one in stack.containers().items() if name in _OURS | {"bootstrap"}}

    assert {name for name, one in ours.items() if not one["HostConfig"]["ReadonlyRootfs"]} == set()
    assert {name for name, one in ours.items() if one["HostConfig"]["CapDrop"] != ["ALL"]} == set()
    assert {name for name, one in ours.items() if one["Config"]["User"] != "keeper"} == {"docker-worker"}
    assert {name for name, one in ours.items() if one["HostConfig"]["Memory"] == 0} == set()


def test_no_password_is_in_a_container_of_ours_as_the_engine_shows_it(stack: Stack) -> None:
    passwords = [path.read_text() for path in Path(stack.environment["SECRETS"]).iterdir() if path.stat().st_size]
    shown = json.dumps(stack.containers()) + stack.engine.docker("history", "--no-trunc", stack.image)

    assert [password[:4] for password in passwords if password in shown] == []
    logs = stack.compose("logs")
    assert [password[:4] for password in passwords if password in logs] == []


def test_the_image_has_what_runs_and_nothing_to_build_with(stack: Stack) -> None:
    def inside(*words: str) -> str:
        return stack.engine.docker("run", "--rm", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp", stack.image, *words)  # noqa: S108

    assert inside("sh", "-c", "command -v gcc cc g++ make ld cargo || true").strip() == ""
    assert inside("id", "--user").strip() == "10001"
    assert inside("sh", "-c", "ls -A /app").split() == [
        *("LICENSE", "README.md", "api", "dashboard", "deployments", "flows", "keeper", "migrations", "prefect.yaml"),
        *("pyproject.toml", "seeds", "tasks"),
    ]
    installed = json.loads(inside("python", "-c", _INSTALLED))
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "deployments/requirements.lock").read_text(), re.MULTILINE))
    assert {name: version for name, version in installed.items() if locked.get(name) != version} == {"keeper": "0.1.0"}
    labels = json.loads(stack.engine.docker("image", "inspect", stack.image))[0]["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "Keeper"


_INSTALLED = """
import importlib.metadata, json, re, sysconfig
found = importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
print(json.dumps({re.sub("[-_.]+", "-", one.name).lower(): one.version for one in found}))
"""


def test_a_flow_run_has_a_container_of_its_own(stack: Stack) -> None:
    def of_the_run() -> list[str]:
        return stack.engine.docker("ps", "--quiet", "--filter", "label=io.prefect.deployment-name=daily").split()

    words = ["docker", "compose", "exec", "docker-worker", "prefect", "deployment", "run", "maintenance/daily", "--watch"]
    with subprocess.Popen(words, env=stack.environment, cwd=stack.checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as asked:
        wait_until(lambda: bool(of_the_run()), "no container is there", longest_seconds=_RUN_SECONDS)
        (container,) = json.loads(stack.engine.docker("inspect", *of_the_run()))
        said, _ = asked.communicate(timeout=_RUN_SECONDS)

    assert asked.returncode == 0, said.decode(errors="replace")
    assert container["Config"]["Image"] == stack.image
    assert list(container["NetworkSettings"]["Networks"]) == [stack.name]
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    wait_until(lambda: not of_the_run(), "the container has not gone with its run")


def test_a_watch_added_over_the_api_alerts(stack: Stack, key: str) -> None:
    with httpx.Client(base_url=f"{stack.api()}/api/v1", headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        client.post("/watches", json={"asin": _ASIN, "target": 9999}).raise_for_status()

        client.post("/price/check-all").raise_for_status()

        wait_until(lambda: client.get("/alerts").raise_for_status().json()["alerts"], "nobody was told", longest_seconds=_RUN_SECONDS)
        (alert,) = client.get("/alerts").json()["alerts"]
        assert alert["asin"] == _ASIN


def test_the_price_reaches_kafka_and_elasticsearch(stack: Stack, key: str) -> None:
    wait_until(lambda: _count(stack, "keeper-prices") > 0, "no price is in Elasticsearch", longest_seconds=60)
    wait_until(lambda: _count(stack, "products") > 0, "the enriching consumer has made no document", longest_seconds=60)

    offsets = stack.compose(
        "exec", "kafka", "/opt/kafka/bin/kafka-get-offsets.sh", "--bootstrap-server", "kafka:29092", "--topic", "price-updates"
    )
    assert sum(int(line.rpartition(":")[2]) for line in offsets.split()) > 0


def test_prometheus_reads_keeper_s_figures(stack: Stack) -> None:
    address = f"http://{stack.compose('port', 'prometheus', '9090').strip()}/api/v1/query"

    def scraped() -> dict[str, str]:
        answer = httpx.get(address, params={"query": "up"}, timeout=30).raise_for_status().json()
        return {one["metric"]["job"]: one["value"][1] for one in answer["data"]["result"]}

    wait_until(lambda: scraped() == dict.fromkeys(["keeper", "api", "prometheus"], "1"), "not all are scraped", longest_seconds=120)


def _count(stack: Stack, alias: str) -> int:
    return int(
        json.loads(stack.compose("exec", "elasticsearch", "curl", "--silent", f"http://127.0.0.1:9200/{alias}/_count")).get("count", 0)
    )


def test_each_command_of_look_inside_works(stack: Stack, key: str) -> None:
    commands = _commands_of("Look inside")
    assert len(commands) > 10

    failed = {}
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command], env=stack.environment, cwd=stack.checkout, capture_output=True, timeout=120, check=False
        )
        if done.returncode != 0 or not done.stdout.strip():
            failed[command] = (done.stdout + done.stderr).decode(errors="replace")[-500:]
    assert failed == {}


def _commands_of(section: str) -> list[str]:
    text = (ROOT / "README.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [line.removeprefix("$ ").partition("  # ")[0].strip() for line in text.splitlines() if line.startswith("$ ")]


def test_the_bootstrap_may_run_again_and_prune(stack: Stack) -> None:
    said = stack.compose("run", "--rm", "--no-deps", "bootstrap", seconds=_RUN_SECONDS)
    assert "everything is there already" in said

    (command,) = [one for one in _commands_of("Work pools, automations, pruning") if one.startswith("docker compose ")]
    assert "--prune" in command
    assert "everything is there already" in _run(stack, command)


def test_the_watchdog_looks_from_cron_and_its_file_is_the_worker_s_too(stack: Stack) -> None:
    looked = json.loads(stack.compose("exec", "-T", "api", "sh", "-c", "keeper watchdog --json || true"))

    assert [one for one in looked["troubles"] if one["check"] == "watchdog"] == []
    assert isinstance(json.loads(stack.compose("exec", "-T", "worker", "cat", "/var/lib/keeper/watchdog.json")), list)


def test_a_backup_lands_on_this_machine_and_comes_back(stack: Stack, key: str, tmp_path: Path) -> None:
    # The containers' account writes there, whoever runs this.
    tmp_path.chmod(0o777)
    commands = [one for one in _commands_of("Backup and restore") if one.startswith("docker ")]
    (backup,), (restore,) = ([one for one in commands if f" api keeper {verb} " in one] for verb in ("backup", "restore"))
    rest = commands[commands.index(backup) + 1 :]
    assert len(rest) == 4

    _run(stack, backup.replace("/var/backups/keeper:", f"{tmp_path}:"))
    (file,) = tmp_path.glob("*.dump")
    restored = restore.replace("/var/backups/keeper:", f"{tmp_path}:").replace(restore.split()[-2], f"/backups/{file.name}") + " --yes"
    for command in rest:
        _run(stack, restored if command == restore else command.replace("network=keeper", f"network={stack.name}"))

    watches = httpx.get(f"{stack.api()}/api/v1/watches", headers={"Authorization": f"Bearer {key}"}, timeout=30).raise_for_status().json()
    assert [one["asin"] for one in watches["watches"]] == [_ASIN]


def _run(stack: Stack, command: str) -> str:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=stack.environment,
        cwd=stack.checkout,
        capture_output=True,
        timeout=_UP_SECONDS,
        check=False,
    )
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"{command}: {said[-2000:]}"
    return said


def test_a_restart_of_the_whole_keeps_what_was_there(stack: Stack, key: str) -> None:
    stack.compose("down", "--timeout", "20", seconds=300)
    stack.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(_UP_SECONDS), seconds=_UP_SECONDS + 60)

    watches = httpx.get(f"{stack.api()}/api/v1/watches", headers={"Authorization": f"Bearer {key}"}, timeout=30).raise_for_status().json()
    assert [one["asin"] for one in watches["watches"]] == [_ASIN]


def test_the_bill_of_materials_names_every_locked_package(tmp_path: Path) -> None:
    run(["make", "--silent", "sbom", f"SBOM={tmp_path / 'sbom.json'}"], cwd=ROOT)

    bill = json.loads((tmp_path / "sbom.json").read_text())
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "deployments/requirements.lock").read_text(), re.MULTILINE))
    assert {one["name"] for one in bill["components"]} == locked
