"""One PostgreSQL cluster a session, one migrated template, a copy per test; recorded answers only where there are some."""

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine

from keeper.postgres.embedded import EmbeddedServer, temporary_server
from keeper.postgres.engine import open_engine
from keeper.postgres.migrate import migrate
from keeper.settings import Settings
from keeper.simulator.server import Simulator

if TYPE_CHECKING:
    from tests.services.installation import Installation
    from tests.services.prefect import PrefectServer

RECORDINGS = "KEEPER_RECORDINGS"
# The programs of another PostgreSQL, to run the tests on it.
POSTGRES_BIN = "KEEPER_TEST_POSTGRES_BIN"
_left_out: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """No setting of the person who runs the tests leaks into them."""
    for name in [
        name for name in os.environ if name.startswith("KEEPER_") and name not in (RECORDINGS, POSTGRES_BIN, "KEEPER_REQUIRE_SERVICES")
    ]:
        del os.environ[name]
    Settings.model_config["env_file"] = None
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    os.environ["DO_NOT_TRACK"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without recordings their tests are left out, by name."""
    folder = os.environ.get(RECORDINGS)
    if folder and Path(folder).is_dir():
        return
    _left_out.extend(item.nodeid for item in items if item.get_closest_marker("recordings"))
    kept = [item for item in items if not item.get_closest_marker("recordings")]
    if _left_out:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("recordings")])
        items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out."""
    for name in _left_out:
        terminalreporter.write_line(f"left out without {RECORDINGS}: {name}")
    if _left_out:
        terminalreporter.write_line(f"{len(_left_out)} tests left out: set {RECORDINGS} to a folder of recorded Keepa answers")


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
