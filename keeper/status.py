"""How each system is, what waits for it, and what Keeper's consumers and indices hold: the figures behind `keeper status`.

Nothing is made and nothing is switched. Every question to a system ends after its connect timeout or a little more, so that the whole
ends soon though everything is down.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from keeper.domain.errors import KeeperError
from keeper.domain.events import Sink
from keeper.kafka.cluster import fetch_cluster
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.consumer import measure_lag
from keeper.kafka.topics import Group, Topic, group_name, topic_name
from keeper.postgres import installation, outbox, rebuild, sinks, users
from keeper.postgres.outbox import Backlog
from keeper.reindex import PRODUCTS_REMEDY, is_rebuilding, tell_missing_products
from keeper.resources import (
    Resources,
    configured_sinks,
    embedded_server,
    kafka_connection,
    keepa_url,
    open_client,
    open_database,
    search_connection,
)
from keeper.search import indices
from keeper.search.connection import open_client as open_search_client
from keeper.search.connection import probe
from keeper.search.mapping import Alias, alias_name
from keeper.settings import Settings
from keeper.tokens import ask_bucket

_LONGEST_SEARCH_SECONDS = 5.0

GROUPS = (
    (Group.PRICES, Topic.PRICE_UPDATES),
    (Group.DEALS, Topic.DEAL_UPDATES),
    (Group.ENRICHMENT, Topic.RAW_PRODUCTS),
)
# What each index is rebuilt from.
TABLES = {
    Alias.PRICES: "price_history",
    Alias.DEALS: "collected_deals",
    Alias.METRICS: "keepa_calls",
    Alias.PRODUCTS: "products",
}


class Condition(StrEnum):
    """How a system is; OFF: no setting names it."""

    UP = "up"
    DOWN = "down"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """One system.

    Attributes:
        text: where it is and in which version, or why it is not.
    """

    name: str
    condition: Condition
    text: str


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """What waits for one sink.

    Attributes:
        is_on: events are queued for it.
        is_configured: the settings here name its system.
        is_filling: events kept from before it was on are being queued.
        postponed: of `messages`, those that wait for another try.
        oldest_seconds: age of the oldest message, on the machine's clock.
    """

    name: str
    is_on: bool
    is_configured: bool
    is_filling: bool
    messages: int
    postponed: int
    oldest_at: datetime | None
    oldest_seconds: float | None
    dead_letters: int


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """How far one consumer group is.

    Attributes:
        lag: messages not committed yet; None where that could not be learned.
        problem: why; empty where it could.
    """

    group: str
    topic: str
    lag: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What one alias holds.

    Attributes:
        index: the one that serves; None where there is none.
        documents: as of its last refresh.
        rows: documents that PostgreSQL would make; None where it is down.
        old: indices that serve no more and were kept.
        problem: what a person must do; empty where nothing.
    """

    alias: str
    index: str | None
    documents: int
    rows: int | None
    old: tuple[str, ...]
    problem: str


@dataclass(slots=True)
class Status:
    """Everything, and what a person should know of it."""

    systems: list[SystemStatus] = field(default_factory=list)
    sinks: list[SinkStatus] = field(default_factory=list)
    groups: list[GroupStatus] = field(default_factory=list)
    indices: list[IndexStatus] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def look(settings: Settings) -> Status:
    """Ask every system side by side. Starts the embedded database where it has data, as every command would."""
    settings = impatient(settings)
    status = Status()
    engine = _open(settings, status)
    try:
        obstacle = "they are in PostgreSQL" if engine is None else _look_at_database(engine, settings, status)
        usable = None if obstacle else engine
        with ThreadPoolExecutor(4, thread_name_prefix="status") as pool:
            questions: list[Callable[[], Status]] = [
                lambda: _look_at_keepa(settings, usable),
                lambda: _look_at_channels(settings, usable, obstacle),
                lambda: _look_at_kafka(settings),
                lambda: _look_at_search(settings, usable),
            ]
            for answer in [pool.submit(question) for question in questions]:
                _add(status, answer.result())
        status.warnings += _warn_of_products(settings, status)
    finally:
        if engine is not None:
            engine.dispose()
    return status


def list_sinks(engine: Engine, settings: Settings) -> list[SinkStatus]:
    """What is on or configured, with what waits for it; the channels of people first."""
    configured = [Sink.NOTIFY.value, *(sink.value for sink in configured_sinks(settings))]
    with engine.begin() as connection:
        known = {row.name: row for row in sinks.select_sinks(connection)}
        backlogs = {backlog.sink: backlog for backlog in outbox.select_backlog(connection)}
        now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    found = []
    for name in dict.fromkeys([*configured, *known, *backlogs]):
        row, backlog = known.get(name), backlogs.get(name) or Backlog(name, 0, 0, None, 0)
        if row is not None and not row.kinds and not backlog.messages and not backlog.dead_letters:
            # It takes nothing any more and has worked off what it had.
            continue
        found.append(
            SinkStatus(
                name,
                is_on=row is not None and bool(row.kinds),
                is_configured=name in configured,
                is_filling=row is not None and row.fill_until is not None,
                messages=backlog.messages,
                postponed=backlog.postponed,
                oldest_at=backlog.oldest_at,
                oldest_seconds=(now - backlog.oldest_at).total_seconds() if backlog.oldest_at else None,
                dead_letters=backlog.dead_letters,
            )
        )
    return found


def warn_of_sinks(found: list[SinkStatus], settings: Settings) -> list[str]:
    """What a person should know of them, a sentence each."""
    warnings = []
    for one in found:
        if one.messages > settings.relay.largest_backlog:
            warnings.append(
                f"{one.messages} messages wait for {one.name}, more than KEEPER_RELAY_LARGEST_BACKLOG; does `keeper relay` run?"
            )
        if one.is_on and not one.is_configured and one.name.startswith(f"{Sink.SEARCH}."):
            warnings.append(f"{one.name} is an index that is being rebuilt; where no `keeper reindex` runs any more, the next one ends it")
        elif one.is_on and not one.is_configured:
            warnings.append(
                f"events are queued for {one.name}, which no setting names here; "
                f"where no other machine relays to it, `keeper sink off {one.name}` ends that"
            )
        if one.dead_letters:
            warnings.append(f"{one.dead_letters} messages to {one.name} were given up; `keeper doctor` says what to do")
    return warnings


def impatient(settings: Settings) -> Settings:
    """The same systems, with no more patience for an answer than for a connection."""
    keepa, postgres = settings.keepa, settings.postgres
    return settings.model_copy(
        update={
            "keepa": keepa.model_copy(update={"read_timeout_seconds": min(keepa.read_timeout_seconds, keepa.connect_timeout_seconds)}),
            "postgres": postgres.model_copy(
                update={"statement_timeout_seconds": min(postgres.statement_timeout_seconds, float(postgres.connect_timeout_seconds))}
            ),
        }
    )


def _add(status: Status, answer: Status) -> None:
    status.systems += answer.systems
    status.groups += answer.groups
    status.indices += answer.indices
    status.warnings += answer.warnings


def _open(settings: Settings, status: Status) -> Engine | None:
    if settings.database_url is None and embedded_server(settings).status().major is None:
        status.systems.append(SystemStatus("PostgreSQL", Condition.OFF, "the embedded server has no data yet; the first command makes it"))
        return None
    try:
        return open_database(settings, application_name="keeper status")
    except KeeperError as error:
        status.systems.append(SystemStatus("PostgreSQL", Condition.DOWN, str(error)))
        return None


def _look_at_database(engine: Engine, settings: Settings, status: Status) -> str:
    """Why what is in its tables cannot be known; empty where it can."""
    try:
        with engine.begin() as connection:
            version, name = connection.execute(text("SELECT current_setting('server_version'), current_database()")).one()
            is_ready = installation.check_schema(connection)
        kind = "embedded" if settings.database_url is None else "your own"
        status.systems.append(SystemStatus("PostgreSQL", Condition.UP, f"{version}, {kind}, database {name}"))
        if not is_ready:
            obstacle = "the database is not migrated to this version of Keeper; run `keeper migrate`"
            status.warnings.append(obstacle)
            return f"not known: {obstacle}"
        status.sinks = list_sinks(engine, settings)
        status.warnings += warn_of_sinks(status.sinks, settings)
    except OperationalError as error:
        status.systems.append(SystemStatus("PostgreSQL", Condition.DOWN, _first_line(error)))
        return "they are in PostgreSQL"
    except KeeperError as error:
        status.systems.append(SystemStatus("PostgreSQL", Condition.DOWN, str(error)))
        return "they are in PostgreSQL"
    return ""


def _look_at_keepa(settings: Settings, engine: Engine | None) -> Status:
    name = "simulator" if settings.is_simulated else "Keepa"
    try:
        url, client = keepa_url(settings), open_client(settings)
        try:
            # Every call leaves its row, where there is a ledger to leave it in.
            if engine is None:
                client.fetch_token_status()
            else:
                ask_bucket(engine, client)
        finally:
            client.close()
    except KeeperError as error:
        return Status(systems=[SystemStatus(name, Condition.DOWN, str(error))])
    except OperationalError as error:
        return Status(systems=[SystemStatus(name, Condition.UP, f"{url}; the call could not be noted: {_first_line(error)}")])
    return Status(systems=[SystemStatus(name, Condition.UP, url)])


def _look_at_channels(settings: Settings, engine: Engine | None, obstacle: str) -> Status:
    """Whether they can be read; whether they can be reached, only a message shows."""
    if engine is None:
        return Status(systems=[SystemStatus("channels", Condition.DOWN, obstacle)])
    try:
        with engine.begin() as connection:
            found = users.select_channels(connection, limit=10_000)
        if not found:
            return Status(systems=[SystemStatus("channels", Condition.OFF, "none; `keeper channel add` makes one")])
        cipher = Resources(settings, engine, None, "").cipher()
        for channel in found:
            cipher.decrypt(channel.url_encrypted)
    except OperationalError as error:
        return Status(systems=[SystemStatus("channels", Condition.DOWN, _first_line(error))])
    except KeeperError as error:
        return Status(systems=[SystemStatus("channels", Condition.DOWN, str(error))])
    return Status(systems=[SystemStatus("channels", Condition.UP, f"{len(found)}, all readable")])


def _look_at_kafka(settings: Settings) -> Status:
    if settings.kafka.bootstrap_servers is None:
        return Status(systems=[SystemStatus("Kafka", Condition.OFF, "KEEPER_KAFKA_BOOTSTRAP_SERVERS is unset")])
    connection = kafka_connection(settings)
    try:
        cluster = fetch_cluster(connection)
    except KeeperError as error:
        return Status(systems=[SystemStatus("Kafka", Condition.DOWN, str(error))])
    brokers = f"{cluster.brokers} broker{'s' if cluster.brokers != 1 else ''}"
    status = Status(systems=[SystemStatus("Kafka", Condition.UP, f"{connection.place}, {brokers}")])
    with ThreadPoolExecutor(len(GROUPS), thread_name_prefix="lag") as pool:
        running = [pool.submit(_measure, connection, group, topic, cluster.missing) for group, topic in GROUPS]
        status.groups = [answer.result() for answer in running]
    return status


def _measure(connection: KafkaConnection, group: Group, topic: Topic, missing: tuple[str, ...]) -> GroupStatus:
    names = group_name(connection, group), topic_name(connection, topic)
    if names[1] in missing:
        return GroupStatus(*names, None, "the topic is not made yet; the first who sends or reads makes it")
    try:
        return GroupStatus(*names, sum(measure_lag(connection, topic, group).values()), "")
    except KeeperError as error:
        return GroupStatus(*names, None, str(error))


def _look_at_search(settings: Settings, engine: Engine | None) -> Status:
    if not settings.elasticsearch.url:
        return Status(systems=[SystemStatus("Elasticsearch", Condition.OFF, "PostgreSQL searches; KEEPER_ELASTICSEARCH_URL is unset")])
    known = search_connection(settings)
    connection = replace(known, timeout_seconds=min(known.timeout_seconds, _LONGEST_SEARCH_SECONDS))
    status = Status()
    try:
        client = open_search_client(connection)
        try:
            version = probe(client, connection)
            problems = {complaint.alias: complaint.text for complaint in indices.select_complaints(client, connection)}
            for alias in Alias:
                states = indices.list_indices(client, connection, alias)
                live = [state for state in states if state.is_live]
                documents = sum(state.documents for state in live)
                if alias is Alias.PRODUCTS and live:
                    # Asked by a search, which an index that nobody has searched for a while is refreshed for.
                    documents = max(documents, indices.count(client, connection, live[0].name))
                status.indices.append(
                    IndexStatus(
                        alias_name(connection, alias),
                        live[0].name if live else None,
                        documents,
                        _count_rows(engine, settings, alias),
                        tuple(state.name for state in states if not state.is_live),
                        problems.get(alias, ""),
                    )
                )
        finally:
            client.close()
    except KeeperError as error:
        return Status(systems=[SystemStatus("Elasticsearch", Condition.DOWN, str(error))])
    status.systems = [SystemStatus("Elasticsearch", Condition.UP, f"{version} at {connection.place}")]
    status.warnings = [one.problem for one in status.indices if one.problem]
    return status


def _warn_of_products(settings: Settings, status: Status) -> list[str]:
    """Where searches miss products that nobody is about to bring."""
    if not status.indices:
        return []
    connection = search_connection(settings)
    name = alias_name(connection, Alias.PRODUCTS)
    products = next(one for one in status.indices if one.alias == name)
    if products.rows is None or is_rebuilding(connection, Alias.PRODUCTS, [one.name for one in status.sinks]):
        return []
    waiting = sum(one.messages for one in status.sinks if one.name in (Sink.KAFKA, Sink.ENRICH))
    waiting += sum(one.lag or 0 for one in status.groups if one.group.endswith(Group.ENRICHMENT))
    warning = tell_missing_products(documents=products.documents, rows=products.rows, waiting=waiting)
    return [f"{warning}: {PRODUCTS_REMEDY}"] if warning else []


def _count_rows(engine: Engine | None, settings: Settings, alias: Alias) -> int | None:
    if engine is None:
        return None
    days = {Alias.PRICES: settings.elasticsearch.prices_days, Alias.METRICS: settings.elasticsearch.metrics_days}.get(alias)
    try:
        with engine.begin() as connection:
            since = installation.select_now(connection) - timedelta(days=days) if days else None
            return rebuild.count_rows(connection, TABLES[alias], since=since)
    except OperationalError:
        return None


def _first_line(error: OperationalError) -> str:
    said = str(error.orig or error).strip().splitlines()
    return said[0] if said else type(error).__name__
