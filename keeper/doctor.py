"""What is reachable, in which version, and what to do: the checks behind `keeper doctor`.

Each check is a generator of findings; one that raises an error Keeper can name becomes a finding itself, so that a broken database hides
neither Keepa nor Prefect.
"""

import importlib.metadata
import os
import platform
import sys
import zoneinfo
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

import httpx
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from keeper.domain.errors import KeeperError, TransientError
from keeper.domain.events import Sink
from keeper.postgres import alerts, installation, ledger, outbox, rebuild, sinks, users
from keeper.postgres.embedded import OLDEST_MAJOR, EmbeddedServer
from keeper.resources import (
    Resources,
    configured_sinks,
    embedded_server,
    kafka_connection,
    keepa_url,
    open_client,
    open_database,
    search_connection,
    topic_settings,
)
from keeper.settings import Settings
from keeper.tokens import ask_bucket

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from keeper.search.connection import SearchConnection

_PREFECT_TIMEOUT = httpx.Timeout(5)
_A_ZONE = "Europe/Berlin"
_OLDEST_PYTHON = (3, 11)


class Health(StrEnum):
    """How a thing is."""

    GOOD = "good"
    NOTE = "note"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        about: the thing looked at.
        remedy: what a person can do; empty when nothing need be done.
    """

    about: str
    health: Health
    text: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, one finding at a time as it is found.

    Starts the embedded database where it has data (as every command would), and makes nothing where there is none yet.
    """
    yield from _python()
    yield from _zones()
    yield from _guarded("prefect", partial(_prefect, settings))
    engine: Engine | None = None
    try:
        server = embedded_server(settings) if settings.database_url is None else None
        if server is not None:
            yield from _guarded("embedded PostgreSQL", partial(_embedded, server))
        if server is None or server.status().major is not None:
            try:
                engine = open_database(settings, application_name="keeper doctor")
            except KeeperError as error:
                yield Finding("database", Health.BROKEN, str(error))
        if engine is not None:
            yield from _guarded("database", partial(_database, engine, settings))
        is_usable = engine is not None and _is_usable(engine)
        yield from _guarded("keepa", partial(_keepa, settings, engine if is_usable else None))
        if engine is not None and is_usable:
            yield from _guarded("tokens", partial(_tokens, engine))
            yield from _guarded("channels", partial(_channels, engine, settings))
            yield from _guarded("deliveries", partial(_deliveries, engine, settings))
        yield from _guarded("kafka", partial(_kafka, settings))
        yield from _guarded("elasticsearch", partial(_search, settings, engine if is_usable else None))
    finally:
        if engine is not None:
            engine.dispose()


def _guarded(about: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except KeeperError as error:
        yield Finding(about, Health.BROKEN, str(error))
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()
        remedy = (
            "start that server, or correct KEEPER_DATABASE_URL" if isinstance(error, OperationalError) else "look into PostgreSQL's log"
        )
        yield Finding(about, Health.BROKEN, said[0] if said else type(error).__name__, remedy)


def _python() -> Iterator[Finding]:
    is_good = sys.version_info >= _OLDEST_PYTHON
    yield Finding(
        "python",
        Health.GOOD if is_good else Health.BROKEN,
        f"Keeper {importlib.metadata.version('keeper')} on Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        "" if is_good else f"use Python {'.'.join(map(str, _OLDEST_PYTHON))} or newer",
    )


def _zones() -> Iterator[Finding]:
    try:
        zoneinfo.ZoneInfo(_A_ZONE)
    except zoneinfo.ZoneInfoNotFoundError:
        yield Finding(
            "time zones", Health.BROKEN, f"{_A_ZONE} is unknown: no time zone data", "install the package tzdata; `make setup` does"
        )
        return
    yield Finding("time zones", Health.GOOD, f"{_A_ZONE} is known")


def _prefect(settings: Settings) -> Iterator[Finding]:
    version = importlib.metadata.version("prefect")
    set_url = os.environ.get("PREFECT_API_URL")
    url = set_url or noted_prefect_url(settings)
    if not url:
        yield Finding(
            "prefect",
            Health.NOTE,
            f"version {version}; PREFECT_API_URL is not set and `make up` has left no address, so no scheduled run is looked for",
            "`make up` starts a server",
        )
        return
    user, _, password = (settings.prefect.api_auth.get_secret_value() if settings.prefect.api_auth else "").partition(":")
    try:
        answer = httpx.get(f"{url.rstrip('/')}/admin/version", auth=(user, password) if user else None, timeout=_PREFECT_TIMEOUT)
        answer.raise_for_status()
        running = str(answer.json())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        # The URL may hold a password; its host is enough.
        yield Finding(
            "prefect",
            # The note of a server that was ended on purpose is no fault.
            Health.BROKEN if set_url else Health.NOTE,
            f"version {version}; its API at {host_of(url)} does not answer ({type(error).__name__})",
            "start it with `make up`, or correct PREFECT_API_URL" if set_url else "start it with `make up`",
        )
        return
    is_same = running.split(".")[:2] == version.split(".")[:2]
    yield Finding(
        "prefect",
        Health.GOOD if is_same else Health.NOTE,
        f"version {version}; its API at {host_of(url)} runs {running}",
        "" if is_same else "run the same version on both sides",
    )


def noted_prefect_url(settings: Settings) -> str | None:
    """Where `make up` has started a server."""
    try:
        return (settings.data / "run" / "prefect.url").read_text().strip() or None
    except OSError:
        return None


def host_of(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return "an unreadable URL"
    return f"{parsed.host}:{parsed.port}" if parsed.port else parsed.host


def _embedded(server: EmbeddedServer) -> Iterator[Finding]:
    status = server.status()
    if status.major is None:
        yield Finding("embedded PostgreSQL", Health.NOTE, status.explanation, "nothing: the first command that needs it makes it")
        return
    if not status.running:
        server.start()
        status = server.status()
        yield Finding("embedded PostgreSQL", Health.GOOD, f"It did not run and was started. {status.explanation}")
        return
    yield Finding("embedded PostgreSQL", Health.GOOD, f"PostgreSQL {status.major}, pid {status.pid}. {status.explanation}")


def _database(engine: Engine, settings: Settings) -> Iterator[Finding]:
    with engine.begin() as connection:
        number = int(connection.execute(text("SHOW server_version_num")).scalar_one())
        version, name = connection.execute(text("SELECT current_setting('server_version'), current_database()")).one()
        is_good = number >= OLDEST_MAJOR * 10000
        yield Finding(
            "database",
            Health.GOOD if is_good else Health.BROKEN,
            f"{name} on PostgreSQL {version}",
            "" if is_good else f"Keeper needs PostgreSQL {OLDEST_MAJOR} or newer",
        )
        if not installation.check_schema(connection):
            is_external = settings.database_url is not None
            yield Finding(
                "schema",
                Health.BROKEN if is_external else Health.NOTE,
                f"not at revision {installation.SCHEMA_REVISION} yet",
                "run `keeper migrate`" if is_external else "nothing: the next command migrates it",
            )
            return
        yield Finding("schema", Health.GOOD, f"revision {installation.SCHEMA_REVISION}")
        yield from _source(connection, settings)


def _source(connection: Connection, settings: Settings) -> Iterator[Finding]:
    known = installation.select_source(connection)
    asked = installation.SIMULATOR if settings.is_simulated else installation.KEEPA
    if known is not None and known != asked:
        yield Finding(
            "source",
            Health.BROKEN,
            f"the database holds data of {known}, the settings ask {asked}",
            "point KEEPER_DATABASE_URL at another database, or change KEEPER_KEEPA_API_KEY",
        )
        return
    speed, now = installation.select_clock_speed(connection), installation.select_now(connection)
    pace = f", {speed:g} s in a second" if speed != 1 else ""
    yield Finding("source", Health.GOOD, f"data of {known or asked}; business time is {now:%Y-%m-%d %H:%M} UTC{pace}")


def _is_usable(engine: Engine) -> bool:
    """Whether the tables are there to be asked."""
    try:
        with engine.begin() as connection:
            return installation.check_schema(connection)
    except (KeeperError, SQLAlchemyError):
        return False


def _keepa(settings: Settings, engine: Engine | None) -> Iterator[Finding]:
    client = open_client(settings)
    try:
        # Every call leaves its row, where there is a ledger to leave it in.
        if engine is None:
            tokens = client.fetch_token_status().tokens
        else:
            ask_bucket(engine, client)
            tokens = None
    finally:
        client.close()
    name = "the simulator" if settings.is_simulated else "Keepa"
    seen = "" if tokens is None else f"; {tokens.tokens_left} tokens, refill {tokens.refill_per_minute} a minute"
    yield Finding("keepa", Health.GOOD, f"{name} at {keepa_url(settings)} answers{seen}")


def _tokens(engine: Engine) -> Iterator[Finding]:
    with engine.begin() as connection:
        state = ledger.read_ledger(connection)
    bucket = state.bucket
    if bucket is None:
        yield Finding("tokens", Health.NOTE, "Keepa has not been asked yet", "`keeper tokens --refresh` asks")
        return
    balance = bucket.tokens_at(state.now)
    reserved = sum(one.tokens for one in state.reservations if one.is_granted)
    sentence = f"{balance} of {bucket.capacity}, refill {bucket.refill_per_minute} a minute, {reserved} reserved"
    if bucket.net_per_minute <= 0:
        yield Finding("tokens", Health.BROKEN, f"{sentence}; trackings on this key eat the whole refill", "end trackings at Keepa")
    elif state.foreign_tokens:
        yield Finding(
            "tokens",
            Health.NOTE,
            f"{sentence}; others on this key have spent {state.foreign_tokens}, last seen {state.foreign_seen_at:%Y-%m-%d %H:%M} UTC",
            "give Keeper a key of its own, or expect slower checks",
        )
    else:
        yield Finding("tokens", Health.GOOD, sentence)


def _channels(engine: Engine, settings: Settings) -> Iterator[Finding]:
    with engine.begin() as connection:
        found = users.select_channels(connection, limit=10_000)
    if not found:
        yield Finding("channels", Health.NOTE, "none, so alerts reach nobody", "`keeper channel add` makes one")
        return
    cipher = Resources(settings, engine, None, "").cipher()
    for channel in found:
        cipher.decrypt(channel.url_encrypted)
    forbidden = sorted({one.scheme for one in found} - set(settings.channels.schemes))
    if forbidden:
        yield Finding(
            "channels",
            Health.BROKEN,
            f"{len(found)}; the schemes {', '.join(forbidden)} are not allowed any more",
            "remove those channels, or add the schemes to KEEPER_CHANNELS_SCHEMES",
        )
        return
    yield Finding("channels", Health.GOOD, f"{len(found)}, all readable with the channel key {cipher.fingerprint}")


def _deliveries(engine: Engine, settings: Settings) -> Iterator[Finding]:
    with engine.begin() as connection:
        counts = alerts.count_deliveries(connection)
        backlog = outbox.select_backlog(connection)
        refusals = {one.sink: outbox.select_newest_reason(connection, one.sink) for one in backlog if one.dead_letters}
        on = {row.name for row in sinks.select_sinks(connection)}
    yield Finding(
        "deliveries",
        Health.GOOD,
        f"{counts.get('delivered', 0)} delivered, {counts.get('pending', 0)} pending, {counts.get('dead', 0)} given up",
    )
    for one in backlog:
        dead = f", {one.dead_letters} dead letters (the newest: {refusals[one.sink]})" if one.dead_letters else ""
        since = f", the oldest since {one.oldest_at:%Y-%m-%d %H:%M} UTC" if one.oldest_at else ""
        yield Finding(
            f"outbox {one.sink}",
            Health.BROKEN if one.dead_letters else Health.NOTE,
            f"{one.messages} waiting ({one.postponed} for another try){since}{dead}",
            remedy_of(one),
        )
    configured = configured_sinks(settings)
    for name in sorted(on - {Sink.NOTIFY} - set(configured)):
        if Sink.KAFKA in configured and name == Sink.ENRICH:
            continue
        yield Finding(
            f"sink {name}",
            Health.NOTE,
            "events are queued for it, and no setting names its system here",
            f"nothing where another machine relays to it; else `keeper sink off {name}`",
        )


def remedy_of(backlog: outbox.Backlog) -> str:
    if not backlog.dead_letters:
        return "`keeper relay` delivers" + ("; `keeper alerts` says what channels answered" if backlog.sink == Sink.NOTIFY else "")
    if backlog.sink == Sink.NOTIFY:
        return "`keeper alerts` says what channels answered; mend those, then `keeper alerts retry --all` sends what was given up once more"
    if backlog.sink == Sink.KAFKA:
        return (
            "the brokers do not take these messages; see the topics' limits. When that is mended, "
            "`keeper sink retry kafka --all` sends them once more"
        )
    return f"when the cause is mended, `keeper sink retry {backlog.sink} --all` sends them once more, or `keeper reindex` brings everything"


def _kafka(settings: Settings) -> Iterator[Finding]:
    if settings.kafka.bootstrap_servers is None:
        yield Finding("kafka", Health.NOTE, "off: KEEPER_KAFKA_BOOTSTRAP_SERVERS is not set")
        return
    # Half a second of imports, for those who have it.
    import confluent_kafka

    from keeper.kafka.cluster import fetch_cluster
    from keeper.kafka.topics import ensure

    connection = kafka_connection(settings)
    try:
        cluster = fetch_cluster(connection)
    except TransientError as error:
        yield Finding("kafka", Health.BROKEN, str(error), "start it, or correct KEEPER_KAFKA_BOOTSTRAP_SERVERS; events wait meanwhile")
        return
    version, (library, _) = confluent_kafka.__version__, confluent_kafka.libversion()
    brokers = f"{cluster.brokers} broker{'s' if cluster.brokers != 1 else ''}"
    yield Finding("kafka", Health.GOOD, f"{connection.place} answers, {brokers}; client {version} on librdkafka {library}")
    if cluster.missing:
        said = f"{len(cluster.missing)} topics are not made yet: {', '.join(cluster.missing)}"
        yield Finding("kafka", Health.NOTE, said, "nothing: the first relay or consumer makes them, and so does `make up`")
        return
    for complaint in ensure(connection, topic_settings(settings)).complaints:
        yield Finding("kafka", Health.NOTE, complaint)


def _search(settings: Settings, engine: Engine | None) -> Iterator[Finding]:
    if not settings.elasticsearch.url:
        yield Finding("elasticsearch", Health.NOTE, "off, so PostgreSQL searches: KEEPER_ELASTICSEARCH_URL is not set")
        return
    # Half a second of imports, for those who have it.
    from keeper.search.connection import open_client as open_search_client
    from keeper.search.connection import probe
    from keeper.search.indices import list_indices, select_complaints
    from keeper.search.mapping import Alias

    connection = search_connection(settings)
    client = open_search_client(connection)
    try:
        version = probe(client, connection)
        client_version = importlib.metadata.version("elasticsearch")
        yield Finding("elasticsearch", Health.GOOD, f"{connection.place} answers, version {version}; client {client_version}")
        if not any(list_indices(client, connection, alias) for alias in Alias):
            remedy = "nothing: the first relay or consumer makes them, and so does `make up`"
            yield Finding("elasticsearch", Health.NOTE, "no index is made yet", remedy)
        else:
            for complaint in select_complaints(client, connection):
                yield Finding("elasticsearch", Health.BROKEN if complaint.is_blocking else Health.NOTE, complaint.text)
        if engine is not None:
            yield from _products(settings, engine, client, connection)
    except TransientError as error:
        yield Finding("elasticsearch", Health.BROKEN, str(error), "start it, or correct KEEPER_ELASTICSEARCH_URL; events wait meanwhile")
    finally:
        client.close()


def _products(settings: Settings, engine: Engine, client: "Elasticsearch", connection: "SearchConnection") -> Iterator[Finding]:
    """Whether searches miss products that nobody is about to bring."""
    from keeper.reindex import PRODUCTS_REMEDY, is_rebuilding, tell_missing_products
    from keeper.search.indices import count, list_indices
    from keeper.search.mapping import Alias

    with engine.begin() as transaction:
        rows = rebuild.count_rows(transaction, "products")
        waiting = sum(one.messages for one in outbox.select_backlog(transaction) if one.sink in (Sink.KAFKA, Sink.ENRICH))
        names = [row.name for row in sinks.select_sinks(transaction)]
    if is_rebuilding(connection, Alias.PRODUCTS, names):
        return
    live = [state.name for state in list_indices(client, connection, Alias.PRODUCTS) if state.is_live]
    documents = sum(count(client, connection, name) for name in live)
    if documents < rows and (missing := tell_missing_products(documents=documents, rows=rows, waiting=waiting + _lag(settings))):
        yield Finding("products", Health.NOTE, missing, PRODUCTS_REMEDY)


def _lag(settings: Settings) -> int:
    """Messages that the enriching consumer has not worked on; 0 where that cannot be learned."""
    if settings.kafka.bootstrap_servers is None:
        return 0
    from keeper.kafka.consumer import measure_lag
    from keeper.kafka.topics import Group, Topic

    try:
        return sum(measure_lag(kafka_connection(settings), Topic.RAW_PRODUCTS, Group.ENRICHMENT).values())
    except KeeperError:
        return 0
