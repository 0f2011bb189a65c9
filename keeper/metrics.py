"""The figures behind `/metrics`: how the systems are, what the budget, the checks, the outbox and the runs look like just now.

Read from where they are kept, so a run of ten seconds counts as much as a service. A system that does not answer costs its own figures
only.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from keeper.domain.errors import KeeperError, TransientError
from keeper.kafka.cluster import fetch_cluster
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.consumer import measure_lag
from keeper.kafka.topics import Group, Topic, group_name, topic_name
from keeper.postgres import ledger, metrics
from keeper.postgres.ledger import Spending
from keeper.postgres.metrics import ChecksAhead, DeliveryCount, SinkBacklog
from keeper.search import indices
from keeper.search.connection import SearchConnection, SearchRefused
from keeper.search.mapping import Alias

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

logger = logging.getLogger(__name__)

WINDOW: Final = timedelta(hours=1)
# The longest interval of each class of watches; the last class has the longer ones.
INTERVAL_CLASSES: Final = {"5m": 300, "1h": 3600, "6h": 21_600, "1d": 86_400, "1w": 604_800}
LONGEST_CLASS: Final = "longer"
CONSUMERS: Final = (
    (Group.PRICES, Topic.PRICE_UPDATES),
    (Group.DEALS, Topic.DEAL_UPDATES),
    (Group.ENRICHMENT, Topic.RAW_PRODUCTS),
)
_CLASS_NAMES: Final = {seconds: name for name, seconds in INTERVAL_CLASSES.items()}
_PREFECT_SECONDS: Final = 3.0

T = TypeVar("T")


class PrefectSilent(TransientError):
    """Prefect's server does not answer, or not as one."""


@dataclass(frozen=True, slots=True)
class PrefectServer:
    """Where Prefect's API is.

    Attributes:
        auth: user and password, where it asks for them.
    """

    url: str
    auth: tuple[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Sources:
    """What is asked. None is a system that no setting names."""

    engine: Engine
    kafka: KafkaConnection | None = None
    search: "tuple[Elasticsearch, SearchConnection] | None" = None
    prefect: PrefectServer | None = None


@dataclass(frozen=True, slots=True)
class TokenFigures:
    """The bucket and what is set aside of it.

    Attributes:
        balance: None until Keepa has been asked once.
        granted: of requests that may be on their way.
        waiting: of requests that wait for their turn.
        foreign: spent by others on the same key since this database exists.
        spending: the calls of the last hour, by operation.
    """

    balance: int | None
    capacity: int
    refill_per_minute: int
    granted: int
    waiting: int
    foreign: int
    spending: tuple[Spending, ...]


@dataclass(frozen=True, slots=True)
class DatabaseFigures:
    """What is read from PostgreSQL."""

    tokens: TokenFigures
    checks: tuple[ChecksAhead, ...]
    sinks: tuple[SinkBacklog, ...]
    deliveries: tuple[DeliveryCount, ...]


@dataclass(frozen=True, slots=True)
class GroupLag:
    """Messages a consumer group has not committed yet."""

    group: str
    topic: str
    messages: int


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What Prefect knows.

    Attributes:
        by_state: runs whose start was meant to be within the last hour, by the name of the state they are in now.
        ahead: runs that are scheduled for the next hour.
    """

    by_state: dict[str, int]
    ahead: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything.

    Attributes:
        is_up: by system, those that a setting names.
        troubles: why, of those that are not.
        database, runs: None where it is down.
        lags: of the groups whose topic is there.
        products_indexed: documents written to the index `products`, as the index counts them; None where it is not known.
    """

    is_up: dict[str, bool]
    troubles: dict[str, str]
    database: DatabaseFigures | None
    lags: tuple[GroupLag, ...]
    runs: RunFigures | None
    products_indexed: int | None


def measure(sources: Sources, *, machine_now: datetime) -> Figures:
    """Ask every system side by side, each within the time its connection allows.

    Args:
        machine_now: by which Prefect's runs are in the past or ahead.
    """
    kafka, search, prefect = sources.kafka, sources.search, sources.prefect
    with ThreadPoolExecutor(4, thread_name_prefix="metrics") as pool:
        database = pool.submit(_asked, lambda: measure_database(sources.engine))
        lags = pool.submit(_asked, lambda: measure_lags(kafka) if kafka else ())
        indexed = pool.submit(_asked, lambda: _measure_index(*search) if search else None)
        runs = pool.submit(_asked, lambda: measure_runs(prefect, machine_now=machine_now) if prefect else None)
        named = {
            "postgresql": database.result()[1],
            **({"kafka": lags.result()[1]} if kafka else {}),
            **({"elasticsearch": indexed.result()[1]} if search else {}),
            **({"prefect": runs.result()[1]} if prefect else {}),
        }
        return Figures(
            {name: trouble is None for name, trouble in named.items()},
            {name: trouble for name, trouble in named.items() if trouble is not None},
            database.result()[0],
            lags.result()[0] or (),
            runs.result()[0],
            indexed.result()[0],
        )


def _asked(ask: Callable[[], T]) -> tuple[T | None, str | None]:
    """The answer, or why there is none."""
    try:
        return ask(), None
    except SQLAlchemyError as error:
        # The server's own first line: SQLAlchemy's text holds the parameters, too.
        said = str(getattr(error, "orig", None) or type(error).__name__).strip()
        return None, said.partition("\n")[0]
    except KeeperError as error:
        return None, str(error)


def measure_database(engine: Engine) -> DatabaseFigures:
    """A few short questions in one transaction.

    Raises:
        SQLAlchemyError: the database is away, or not migrated.
    """
    with engine.begin() as connection:
        book = ledger.read_ledger(connection)
        since = book.now - WINDOW
        return DatabaseFigures(
            TokenFigures(
                balance=book.bucket.tokens_at(book.now) if book.bucket else None,
                capacity=book.bucket.capacity if book.bucket else 0,
                refill_per_minute=book.bucket.refill_per_minute if book.bucket else 0,
                granted=sum(one.tokens for one in book.reservations if one.is_granted),
                waiting=sum(one.tokens for one in book.reservations if not one.is_granted),
                foreign=book.foreign_tokens,
                spending=tuple(ledger.select_spending(connection, since=since)),
            ),
            tuple(metrics.select_checks(connection, now=book.now, bounds_seconds=tuple(INTERVAL_CLASSES.values()))),
            tuple(metrics.select_sink_backlogs(connection)),
            tuple(metrics.select_delivery_counts(connection, since=since)),
        )


def class_name(interval_seconds: int | None) -> str:
    """What a class of intervals is called."""
    return LONGEST_CLASS if interval_seconds is None else _CLASS_NAMES[interval_seconds]


def measure_lags(connection: KafkaConnection) -> tuple[GroupLag, ...]:
    """Of Keeper's consumer groups; one whose topic nobody has made yet is left out.

    Raises:
        SinkDown: no broker answers.
        KafkaRefused: settings that cannot work.
    """
    missing = fetch_cluster(connection).missing
    known = [(group, topic) for group, topic in CONSUMERS if topic_name(connection, topic) not in missing]
    with ThreadPoolExecutor(len(CONSUMERS), thread_name_prefix="lag") as pool:
        asked = [(group, topic, pool.submit(measure_lag, connection, topic, group)) for group, topic in known]
        return tuple(
            GroupLag(group_name(connection, group), topic_name(connection, topic), sum(answer.result().values()))
            for group, topic, answer in asked
        )


def _measure_index(client: "Elasticsearch", connection: SearchConnection) -> int | None:
    try:
        return indices.count_written(client, connection, Alias.PRODUCTS)
    except SearchRefused as error:
        # It answers: the index is not made yet, or this user may not look.
        logger.debug("what was written to products is not known: %s", error)
        return None


def measure_runs(server: PrefectServer, *, machine_now: datetime) -> RunFigures:
    """One question: the hour behind and the hour ahead.

    Raises:
        PrefectSilent: no answer, or not that of a Prefect server.
    """
    question = {
        "history_start": (machine_now - WINDOW).isoformat(),
        "history_end": (machine_now + WINDOW).isoformat(),
        "history_interval_seconds": WINDOW.total_seconds(),
    }
    try:
        answer = httpx.post(f"{server.url.rstrip('/')}/flow_runs/history", json=question, auth=server.auth, timeout=_PREFECT_SECONDS)
        answer.raise_for_status()
        behind, ahead, *_ = answer.json()
        return RunFigures(_states(behind), sum(_states(ahead).values()))
    except httpx.HTTPStatusError as error:
        raise PrefectSilent(f"it says {error.response.status_code}") from None
    except httpx.HTTPError as error:
        raise PrefectSilent(type(error).__name__) from None
    except (ValueError, KeyError, TypeError) as error:
        raise PrefectSilent(f"this is no answer of Prefect ({type(error).__name__})") from None


def _states(interval: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for state in interval["states"]:
        found[state["state_name"]] = found.get(state["state_name"], 0) + int(state["count_runs"])
    return found
