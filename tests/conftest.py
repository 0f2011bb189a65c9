"""One PostgreSQL cluster a session, one migrated template, a copy per test; recorded answers only where there are some."""

import gc
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine

from keeper.postgres.embedded import EmbeddedServer, temporary_server
from keeper.postgres.engine import open_engine
from keeper.postgres.migrate import migrate
from keeper.settings import Settings
from keeper.simulator.server import Simulator
from tests.services import browser
from tests.services import elasticsearch as elasticsearch_service
from tests.services import kafka as kafka_service
from tests.services import prometheus as prometheus_service
from tests.services.elasticsearch import ElasticsearchCluster
from tests.services.java import DOWNLOADS, JAVA_HOME
from tests.services.kafka import KafkaCluster
from tests.services.session import PROGRAMS, TOOLS, ElasticsearchService, KafkaService, SessionServices, lent_elasticsearch, lent_kafka

if TYPE_CHECKING:
    from tests.services.installation import Installation
    from tests.services.prefect import PrefectServer

RECORDINGS = "KEEPER_RECORDINGS"
# The programs of another PostgreSQL, to run the tests on it.
POSTGRES_BIN = "KEEPER_TEST_POSTGRES_BIN"
REQUIRE_SERVICES = "KEEPER_REQUIRE_SERVICES"
_OURS = (RECORDINGS, POSTGRES_BIN, REQUIRE_SERVICES, DOWNLOADS, JAVA_HOME)
_services = SessionServices()
# What is missing, and the tests that need it.
_left_out: dict[str, list[str]] = {}


def pytest_configure(config: pytest.Config) -> None:
    """No setting of the person who runs the tests leaks into them."""
    for name in [name for name in os.environ if name.startswith("KEEPER_") and name not in _OURS]:
        del os.environ[name]
    Settings.model_config["env_file"] = None
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    os.environ["DO_NOT_TRACK"] = "1"


def _say_of(config: pytest.Config) -> Callable[[str], None]:
    """To the terminal, past pytest's capture."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.write_line if isinstance(reporter, pytest.TerminalReporter) else print


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests of one group run one after another in one process, so that each real service starts once; the others wherever there is room."""
    fixtures = set(getattr(item, "fixturenames", ()))
    if fixtures & PROGRAMS.keys():
        item.add_marker(pytest.mark.xdist_group("streams"))
    elif {"e2e", "deployments"} & set(item.path.parts):
        # What starts a whole stack works in the checkout's own folders.
        item.add_marker(pytest.mark.xdist_group("stack"))
    elif "prefect_server" in fixtures:
        item.add_marker(pytest.mark.xdist_group("prefect"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What cannot run here is left out, by name: without recordings their tests, without Java or Maven those of the real services.

    A download is made here, after the choice of tests and before their time limits.

    Raises:
        pytest.UsageError: a real service is required and cannot run.
    """
    folder = os.environ.get(RECORDINGS)
    without = {} if folder and Path(folder).is_dir() else {RECORDINGS: [one for one in items if one.get_closest_marker("recordings")]}
    for fixture, program in (PROGRAMS | TOOLS).items():
        needing = [one for one in items if fixture in getattr(one, "fixturenames", ())]
        if needing and not config.option.collectonly and (obstacle := program.obstacle(_say_of(config))) is not None:
            if os.environ.get(REQUIRE_SERVICES) == "1":
                raise pytest.UsageError(f"{REQUIRE_SERVICES}=1, and {len(needing)} tests need {obstacle}")
            known = without.setdefault(obstacle, [])
            known.extend(one for one in needing if one not in known)
    for reason, needing in without.items():
        _left_out[reason] = [one.nodeid for one in needing]
    deselected = [one for one in items if any(one in needing for needing in without.values())]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [one for one in items if one not in deselected]


def pytest_collection_finish(session: pytest.Session) -> None:
    """The real services start beside the first tests, where some test will want them; one of several processes waits to be asked."""
    # Thousands of tests stay to the end: the garbage collector need not go through them again and again.
    gc.freeze()
    if not session.config.option.collectonly and not hasattr(session.config, "workerinput"):
        _services.begin({name for one in session.items for name in getattr(one, "fixturenames", ())})


def pytest_unconfigure(config: pytest.Config) -> None:
    """They end with the session, however far it came."""
    _services.end()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes has no terminal: the one that has says it."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = _left_out


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Every process leaves out the same."""
    _left_out.update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out."""
    for reason, names in _left_out.items():
        for name in names:
            terminalreporter.write_line(f"left out without {reason}: {name}")
        if names:
            hint = f"set {RECORDINGS} to a folder of recorded Keepa answers" if reason == RECORDINGS else f"this machine lacks {reason}"
            terminalreporter.write_line(f"{len(names)} tests left out: {hint}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedServer]:
    """A running server of this session's own."""
    programs = os.environ.get(POSTGRES_BIN)
    with temporary_server(bin_folder=Path(programs) if programs else None) as server:
        server.create_database("template_keeper")
        engine = open_engine(server.dsn("template_keeper"))
        migrate(engine, now=datetime.now(UTC))
        engine.dispose()
        yield server


@pytest.fixture
def empty_database(postgres: EmbeddedServer) -> Iterator[str]:
    """The name of a database without a schema."""
    name = f"test_{uuid4().hex}"
    postgres.create_database(name)
    yield name
    postgres.drop_database(name)


@pytest.fixture
def database(postgres: EmbeddedServer) -> Iterator[str]:
    """The name of a migrated database."""
    name = f"test_{uuid4().hex}"
    postgres.create_database(name, template="template_keeper")
    yield name
    postgres.drop_database(name)


@pytest.fixture
def engine(postgres: EmbeddedServer, database: str) -> Iterator[Engine]:
    """An engine on a migrated database of this test's own."""
    opened = open_engine(postgres.dsn(database))
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """The broker's jars, downloaded once. A test that has it among its fixtures is left out where Kafka cannot run."""
    return kafka_service.fetch_jars()


@pytest.fixture(scope="session")
def elasticsearch_distribution() -> Path:
    """Elasticsearch itself, downloaded once. A test that has it among its fixtures is left out where Elasticsearch cannot run."""
    return elasticsearch_service.fetch_distribution()


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser's program. A test that has it among its fixtures is left out where there is none."""
    return browser.find()


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """Prometheus' program. A test that has it among its fixtures is left out where there is none."""
    return prometheus_service.find()


@pytest.fixture(scope="session")
def kafka_cluster(kafka_jars: Path) -> KafkaCluster:
    """The session's one real broker. A test that kills or stops a broker makes a `KafkaCluster` of its own."""
    return _services.kafka()


@pytest.fixture(scope="session")
def elasticsearch_cluster(elasticsearch_distribution: Path) -> ElasticsearchCluster:
    """The session's one real node. A test that kills or stops a node makes an `ElasticsearchCluster` of its own."""
    return _services.elasticsearch()


@pytest.fixture
def kafka(kafka_cluster: KafkaCluster) -> Iterator[KafkaService]:
    """The broker for one test, with a prefix for its topics."""
    with lent_kafka(_services.kafka()) as lent:
        yield lent


@pytest.fixture
def elasticsearch(elasticsearch_cluster: ElasticsearchCluster) -> Iterator[ElasticsearchService]:
    """The node for one test, with a prefix for its indices."""
    with lent_elasticsearch(_services.elasticsearch()) as lent:
        yield lent


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A simulator of this test's own, in real time."""
    with Simulator() as running:
        yield running


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """A test that leaves a thread running (other than daemons) would hang the end of the session."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon and thread.is_alive()]
    for thread in left:
        thread.join(10)
    assert not [thread for thread in left if thread.is_alive()]


@pytest.fixture(scope="session")
def prefect_server(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[PrefectServer]":
    """One real Prefect server a session, with its database in this session's PostgreSQL."""
    from tests.services.prefect import PrefectServer  # 2 s, for those who need it

    postgres.create_database("prefect", exist_ok=True)
    server = PrefectServer(tmp_path_factory.mktemp("prefect"), postgres.asyncpg_dsn("prefect"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def installation(
    prefect_server: "PrefectServer", simulator: Simulator, postgres: EmbeddedServer, database: str, tmp_path: Path
) -> "Iterator[Installation]":
    """A whole Keeper of this test's own, on the session's Prefect server."""
    from tests.services.installation import make_installation

    with make_installation(prefect_server, simulator, postgres.dsn(database), tmp_path, Fernet.generate_key().decode()) as made:
        yield made
