"""A run of the price watch in which Keepa fails in every way the simulator can: each failure is told, nowhere with the key."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from cryptography.fernet import Fernet
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, TaskRun
from sqlalchemy import text

from keeper.keepa.key import ApiKey
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import open_engine
from keeper.simulator.faults import KINDS
from keeper.simulator.server import Simulator
from tests.services.installation import Installation, make_installation
from tests.services.prefect import PrefectServer
from tests.services.waiting import wait_until

# With characters that look different in a URL; cut short where something cuts its lines.
KEY = "l0ud-k3y/A+z" * 5 + "=end"
SHAPES = (KEY, quote(KEY, safe=""), quote(KEY), KEY[:20], quote(KEY, safe="")[:20])
TOLD = {
    "429": "Keepa's token bucket is empty",
    "500": "Keepa answered 500",
    "503": "Keepa answered 503",
    "402": "Keepa answered 402",
    "400": "Keepa answered 400",
    "invalid_key": "Keepa does not accept the API key",
    "in_body_error": "Keepa refused the request",
    "slow": "no answer in time",
    "cut_off": "the answer was cut off",
    "dropped": "the connection broke",
    "broken_gzip": "the answer's compression is broken",
    "wrong_json": "Keepa's answer cannot be read",
    "missing_asin": "Keepa's answer does not hold this product",
}
# Holes are in pages of deals; a check of products has none.
NO_FAILURE = {"extra_fields", "deal_holes"}
PLACES = ["log", "states", "artifacts", "output", "prefect database", "keeper database", "files"]


@dataclass(frozen=True, slots=True)
class Shown:
    """All that a run left behind, by place; and where its Keepa was."""

    address: str
    places: dict[str, str]

    def holding(self, words: str) -> list[str]:
        """The places that say so."""
        return [place for place, said in self.places.items() if words in said]


@pytest.fixture(scope="module")
def shown(prefect_server: PrefectServer, postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """A run as talkative as Prefect can be, with a product for each failure and one request for each product."""
    folder = tmp_path_factory.mktemp("loud")
    postgres.create_database("loud", template="template_keeper")
    with (
        Simulator() as simulator,
        make_installation(prefect_server, simulator, postgres.dsn("loud"), folder, Fernet.generate_key().decode()) as installation,
    ):
        for kind in TOLD:
            installation.tell_simulator("faults", kind=kind, path="/product", next=1, seconds=10)
        installation.watch(len(TOLD))
        # From here on the simulator is Keepa: with a key, as only a real one has it.
        with installation.engine.begin() as connection:
            connection.execute(text("UPDATE installation SET keepa_source = 'keepa', clock_anchor_machine = 0, clock_anchor_business = 0"))
        installation.environment |= {
            "KEEPER_KEEPA_API_KEY": KEY,
            "KEEPER_KEEPA_URL": simulator.url,
            "KEEPER_KEEPA_BATCH_SIZE": "1",
            "KEEPER_KEEPA_READ_TIMEOUT_SECONDS": "2",
            "PREFECT_LOGGING_LEVEL": "DEBUG",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "keeper",
            # To the output only: Prefect sends its log by httpx itself, and can lose the end of it where httpx is one of its extra loggers.
            "PREFECT_LOGGING_ROOT_LEVEL": "INFO",
        }
        run_id, output = run(installation)
        assert installation.simulator_says("state")["faults"] == []
        yield Shown(
            simulator.url,
            {
                "log": "\n".join(prefect_server.logs(run_id)),
                "states": states_of(prefect_server, run_id),
                "artifacts": "\n".join(prefect_server.artifacts(run_id).values()),
                "output": output,
                "prefect database": contents_of(postgres, "prefect"),
                "keeper database": contents_of(postgres, "loud"),
                "files": "\n".join(
                    one.read_bytes().decode(errors="replace")
                    for root in (folder, prefect_server.stack.folder)
                    for one in root.rglob("*")
                    if one.is_file()
                ),
            },
        )
    postgres.drop_database("loud")


def run(installation: Installation) -> tuple[str, str]:
    """The run's id and what it printed. Ends when the server has heard how every task ended."""
    output, _ = installation.start("price_watch.price_watch").communicate(timeout=100)
    said = next((line for line in reversed(output.splitlines()) if line.startswith('{"id"')), None)
    assert said, output
    run_id: str = json.loads(said)["id"]

    def is_heard() -> bool:
        ends = [
            one.state is not None and one.state.is_final() for one in tasks_of(installation.prefect, run_id) if one.name.startswith("fetch")
        ]
        return len(ends) >= len(TOLD) and all(ends)

    wait_until(is_heard, "the server does not hear how the tasks ended")
    return run_id, output


def tasks_of(server: PrefectServer, run_id: str) -> list[TaskRun]:
    """The task runs of a run."""
    with server.client() as client:
        return client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run_id)])))


def states_of(server: PrefectServer, run_id: str) -> str:
    """Each state of a run and of its tasks: name, message, data."""
    tasks = tasks_of(server, run_id)
    with server.client() as client:
        states: list[State[Any]] = list(client.read_flow_run_states(UUID(run_id)))
        for one in tasks:
            states += client.read_task_run_states(one.id)
    return "\n".join(one.model_dump_json() for one in states)


def contents_of(postgres: EmbeddedServer, database: str) -> str:
    """Every row of every table."""
    engine = open_engine(postgres.dsn(database))
    try:
        with engine.begin() as connection:
            tables = connection.execute(text("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND oid >= 16384")).scalars()
            return "\n".join(
                row for table in list(tables) for row in connection.execute(text(f"SELECT t::text FROM {table} AS t")).scalars()
            )
    finally:
        engine.dispose()


@pytest.mark.parametrize("kind", sorted(KINDS - NO_FAILURE))
def test_failure_is_told_without_the_key(shown: Shown, kind: str) -> None:
    told = shown.holding(TOLD[kind])

    assert {"keeper database", "prefect database"} <= set(told)
    assert {"log", "states"} & set(told) or kind == "missing_asin"


@pytest.mark.parametrize("place", PLACES)
def test_place_where_the_run_shows_holds_no_key(shown: Shown, place: str) -> None:
    assert shown.places[place]
    assert [shape for shape in SHAPES if shape in shown.places[place]] == []


def test_requests_with_the_key_are_told(shown: Shown) -> None:
    """It is this key that is used, and the address that gets it on the wire is printed."""
    assert "keeper database" in shown.holding(ApiKey(KEY).fingerprint)
    assert "output" in shown.holding(f"HTTP Request: GET {shown.address}/product?")
