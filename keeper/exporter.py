"""The figures of `keeper.metrics` as Prometheus reads them. No label holds an ASIN, a person or an address."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import start_http_server
from prometheus_client.metrics_core import Metric

from keeper.domain.errors import KeeperError
from keeper.metrics import DatabaseFigures, Figures, PrefectServer, Sources, TokenFigures, class_name, measure
from keeper.postgres.ledger import Spending
from keeper.postgres.metrics import ChecksAhead, SinkBacklog
from keeper.resources import kafka_connection, open_database, search_connection
from keeper.search.connection import open_client as open_search_client
from keeper.settings import Settings

logger = logging.getLogger(__name__)

# Prometheus gives up after ten seconds; a system that is down must cost its own figures and not all.
_LONGEST_SECONDS: Final = 4

Samples = Sequence[tuple[tuple[str, ...], float]]
Read = Callable[[Figures], Samples]


class PortTaken(KeeperError):
    """The port of `/metrics` cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        read: label values and value of each sample.
    """

    name: str
    text: str
    read: Read = field(repr=False)
    labels: tuple[str, ...] = ()
    is_counter: bool = False


def _of(read: Callable[[DatabaseFigures], Samples]) -> Read:
    """Samples where the database answers, none where it is down."""
    return lambda figures: read(figures.database) if figures.database else ()


def _tokens(read: Callable[[TokenFigures], float | None]) -> Read:
    """One sample, where it is known."""
    return _of(lambda database: [] if (value := read(database.tokens)) is None else [((), value)])


def _checks(read: Callable[[ChecksAhead], float | None]) -> Read:
    """By class of interval."""
    return _of(
        lambda database: [((class_name(one.interval_seconds),), value) for one in database.checks if (value := read(one)) is not None]
    )


def _sinks(read: Callable[[SinkBacklog], float]) -> Read:
    return _of(lambda database: [((one.sink,), read(one)) for one in database.sinks])


def _spending(read: Callable[[Spending], Samples]) -> Read:
    """By operation."""
    return _of(lambda database: [sample for one in database.tokens.spending for sample in read(one)])


FAMILIES: Final = (
    Family("keeper_info", "Keeper's version.", lambda _: [((version("keeper"),), 1)], ("version",)),
    Family(
        "keeper_system_up",
        "Whether a system that the settings name answers (postgresql: and holds Keeper's tables).",
        lambda figures: [((name,), float(is_up)) for name, is_up in figures.is_up.items()],
        ("system",),
    ),
    Family("keeper_tokens_balance", "Tokens in Keepa's bucket, as the ledger reckons it.", _tokens(lambda one: one.balance)),
    Family(
        "keeper_tokens_capacity",
        "Tokens the bucket holds at most.",
        _tokens(lambda one: one.capacity),
    ),
    Family("keeper_tokens_refill_per_minute", "Tokens that come back a minute.", _tokens(lambda one: one.refill_per_minute)),
    Family(
        "keeper_tokens_reserved",
        "Tokens set aside for requests on their way (granted) or in the queue (waiting).",
        _of(lambda database: [(("granted",), database.tokens.granted), (("waiting",), database.tokens.waiting)]),
        ("state",),
    ),
    Family(
        "keeper_tokens_foreign_total",
        "Tokens that others spent on this key.",
        _tokens(lambda one: one.foreign),
        is_counter=True,
    ),
    Family(
        "keeper_tokens_spent_last_hour",
        "Tokens spent within an hour of business time, by operation.",
        _spending(lambda one: [((one.operation,), one.tokens)]),
        ("operation",),
    ),
    Family(
        "keeper_keepa_calls_last_hour",
        "Requests to Keepa within an hour of business time.",
        _spending(lambda one: [((one.operation, "success"), one.calls - one.failed), ((one.operation, "failure"), one.failed)]),
        ("operation", "outcome"),
    ),
    Family(
        "keeper_watches_due",
        "Checks of watched products that are due, among the first 10000, by the longest interval of their class.",
        _checks(lambda one: one.due),
        ("interval",),
    ),
    Family(
        "keeper_watches_overdue",
        "Of these, those late by more than a whole interval of their own.",
        _checks(lambda one: one.overdue),
        ("interval",),
    ),
    Family(
        "keeper_oldest_price_age_seconds",
        "Age of the oldest watched price in business time, by the longest interval of its class.",
        _checks(lambda one: one.oldest_seconds),
        ("interval",),
    ),
    Family(
        "keeper_oldest_price_age_intervals",
        "The largest age of a watched price in intervals of its watch: 1 is on time.",
        _checks(lambda one: one.oldest_intervals),
        ("interval",),
    ),
    Family(
        "keeper_outbox_messages",
        "Messages that wait for a sink; of more than some ten thousand no more are counted.",
        _sinks(lambda one: one.messages),
        ("sink",),
    ),
    Family(
        "keeper_outbox_oldest_age_seconds",
        "Age of the oldest message that waits for a sink; 0 where none waits.",
        _sinks(lambda one: one.oldest_seconds),
        ("sink",),
    ),
    Family(
        "keeper_dead_letters",
        "Messages that were given up for a sink and are kept; 10000 at most are counted.",
        _sinks(lambda one: one.dead_letters),
        ("sink",),
    ),
    Family(
        "keeper_deliveries_last_hour",
        "Messages to people within an hour of business time, by the kind of channel and what became of them.",
        _of(lambda database: [((one.scheme, one.outcome), one.deliveries) for one in database.deliveries]),
        ("channel", "outcome"),
    ),
    Family(
        "keeper_consumer_lag_messages",
        "Messages of a topic that a consumer group has not committed yet.",
        lambda figures: [((one.group, one.topic), one.messages) for one in figures.lags],
        ("group", "topic"),
    ),
    Family(
        "keeper_flow_runs_last_hour",
        "Prefect's runs that were to start within the last hour, by the name of their state now.",
        lambda figures: [((state,), runs) for state, runs in figures.runs.by_state.items()] if figures.runs else [],
        ("state",),
    ),
    Family(
        "keeper_flow_runs_ahead",
        "Prefect's runs that are scheduled for the next hour.",
        lambda figures: [((), figures.runs.ahead)] if figures.runs else [],
    ),
    Family(
        "products_indexed_total",
        "Documents written to the index products, as the index counts them; begins anew with the index.",
        lambda figures: [] if figures.products_indexed is None else [((), figures.products_indexed)],
        is_counter=True,
    ),
)


def expose(figures: Figures) -> Iterator[Metric]:
    """Every family, also those without a sample just now."""
    for one in FAMILIES:
        kind = CounterMetricFamily if one.is_counter else GaugeMetricFamily
        family = kind(one.name, one.text, labels=one.labels)
        for labels, value in one.read(figures):
            family.add_metric(labels, value)
        yield family


class FiguresCollector:
    """Measures when it is asked, and keeps the answer for some seconds, so that two who scrape do not double the load.

    Safe to share between threads: who asks meanwhile waits for the same answer.
    """

    def __init__(self, measure_now: Callable[[], Figures], *, kept_seconds: float) -> None:
        self._measure = measure_now
        self._kept_seconds = kept_seconds
        self._measuring = threading.Lock()
        self._figures: Figures | None = None
        self._measured_at = 0.0

    def collect(self) -> Iterator[Metric]:
        """What Prometheus' client asks for."""
        with self._measuring:
            if self._figures is None or time.monotonic() - self._measured_at > self._kept_seconds:
                known, self._figures = self._figures, self._measure()
                self._measured_at = time.monotonic()
                _tell_changes(known.troubles if known else {}, self._figures.troubles)
            figures = self._figures
        return expose(figures)

    def describe(self) -> Iterator[Metric]:
        """The families without asking anybody."""
        return expose(Figures({}, {}, None, (), None, None))


def _tell_changes(known: dict[str, str], now: dict[str, str]) -> None:
    """Each trouble once, and its end."""
    for name in now.keys() - known.keys():
        logger.warning("%s does not answer: %s", name, now[name])
    for name in known.keys() - now.keys():
        logger.warning("%s answers again", name)


@contextmanager
def export(settings: Settings, prefect: PrefectServer | None, *, host: str, port: int) -> Iterator[int]:
    """Serve the figures of these settings; yields the port. A system that does not answer is asked again at the next scrape.

    Raises:
        KeeperError: settings that cannot work, or a port that is taken.
    """
    with ExitStack() as opened:
        hurried = _hurried(settings)
        engine = open_database(hurried, application_name="keeper metrics")
        opened.callback(engine.dispose)
        kafka = search = None
        if hurried.kafka.bootstrap_servers is not None:
            wanted = kafka_connection(hurried)
            kafka = replace(wanted, connect_timeout_seconds=min(wanted.connect_timeout_seconds, _LONGEST_SECONDS))
        if hurried.elasticsearch.url:
            found = search_connection(hurried)
            connection = replace(found, timeout_seconds=min(found.timeout_seconds, _LONGEST_SECONDS))
            search = opened.enter_context(closing(open_search_client(connection))), connection
        sources = Sources(engine, kafka, search, prefect)
        registry = CollectorRegistry()
        registry.register(
            FiguresCollector(
                lambda: measure(sources, machine_now=datetime.now(UTC)),  # noqa: TID251  Prefect's schedule is plumbing
                kept_seconds=settings.metrics.kept_seconds,
            )
        )
        yield opened.enter_context(serve_registry(registry, host=host, port=port))


@contextmanager
def serve_registry(registry: CollectorRegistry, *, host: str, port: int) -> Iterator[int]:
    """Answer who scrapes, in threads of its own. Yields the port that was bound.

    Raises:
        PortTaken: see there.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise PortTaken(f"/metrics cannot be served on {host}:{port}: {error.strerror or error}; choose another port") from None
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _hurried(settings: Settings) -> Settings:
    """The same database with less patience, and no more connections than are used."""
    postgres = settings.postgres
    return settings.model_copy(
        update={
            "postgres": postgres.model_copy(
                update={
                    "pool_size": 1,
                    "connect_timeout_seconds": min(postgres.connect_timeout_seconds, _LONGEST_SECONDS),
                    "statement_timeout_seconds": min(postgres.statement_timeout_seconds, _LONGEST_SECONDS),
                }
            )
        }
    )
