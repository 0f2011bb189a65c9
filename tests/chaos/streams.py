"""Prices recorded and relayed to all three systems while something fails, and what must be true of each system afterwards."""

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID, uuid4

import psycopg
from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from keeper.domain.events import Sink, price_event_id
from keeper.domain.price_type import PriceType
from keeper.domain.product import Product
from keeper.enrich import EnrichSink
from keeper.kafka.connection import KafkaConnection, client_config
from keeper.kafka.consumer import ReceivedMessage, decode_message
from keeper.kafka.producer import KafkaSink
from keeper.kafka.topics import Topic, TopicSettings, topic_name
from keeper.postgres.catalog import select_documents
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import open_engine
from keeper.record import record
from keeper.relay import Circuit, DeliverySink, Relayed, RelaySettings, keep_relaying
from keeper.search import indices
from keeper.search.connection import SearchConnection, open_client
from keeper.search.mapping import Alias, alias_name
from keeper.search.products import ProductWriter
from keeper.search.sink import SearchSink
from tests.integration.makers import add_user, add_watch, product, rows, use_sinks
from tests.services.elasticsearch import ElasticsearchCluster
from tests.services.kafka import KafkaCluster
from tests.services.session import lent_elasticsearch, lent_kafka
from tests.services.waiting import wait_until

TEMPLATE: Final = "template_stream"
START: Final = datetime(2026, 11, 1, tzinfo=UTC)
SINKS: Final = frozenset({Sink.KAFKA, Sink.SEARCH, Sink.ENRICH})
# Faults are to show soon.
_ANSWER_SECONDS = 3.0
_DELIVERY_SECONDS = 5.0
_CALM_SECONDS = 180.0
_READ_SECONDS = 60.0
_RETRY_SECONDS = 0.1
_JOIN_SECONDS = 60.0

Series = tuple[str, PriceType]
Points = dict[Series, list[tuple[datetime, int | None]]]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the three systems are, for a program in a process of its own too."""

    database: str
    brokers: str
    search: str
    topic_prefix: str
    index_prefix: str
    replication: int = 1
    min_insync: int = 1

    def as_word(self) -> str:
        """One word of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def of_word(cls, word: str) -> "Places":
        """The same places."""
        return cls(**json.loads(word))

    @property
    def kafka_connection(self) -> KafkaConnection:
        """With short waits."""
        return KafkaConnection(
            self.brokers, self.topic_prefix, connect_timeout_seconds=_ANSWER_SECONDS, delivery_timeout_seconds=_DELIVERY_SECONDS
        )

    @property
    def topic_settings(self) -> TopicSettings:
        """As many copies as there are brokers."""
        return TopicSettings(replication=self.replication, min_insync=self.min_insync)

    @property
    def search_connection(self) -> SearchConnection:
        """With short waits."""
        return SearchConnection((self.search,), index_prefix=self.index_prefix, timeout_seconds=_ANSWER_SECONDS)


@dataclass(slots=True)
class Stream:
    """The three systems, lent to one round.

    Attributes:
        places: without a proxy between.
        engine: likewise; for the test itself.
    """

    postgres: EmbeddedServer
    kafka: KafkaCluster
    elasticsearch: ElasticsearchCluster
    places: Places
    engine: Engine

    def kill_postgres(self) -> None:
        """Immediate shutdown: no transaction ends, the next start recovers."""
        pid = self.postgres.pid()
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: self.postgres.pid() is None, "PostgreSQL does not end")

    def waiting(self) -> Counter[str]:
        """Messages that wait, by sink."""
        return Counter(dict(rows(self.engine, "SELECT sink, count(*) FROM outbox GROUP BY sink")))


@contextmanager
def lent_stream(postgres: EmbeddedServer, kafka: KafkaCluster, elasticsearch: ElasticsearchCluster) -> Iterator[Stream]:
    """The systems running, with a database, topics and indices of one round's own, deleted afterwards."""
    postgres.start()
    kafka.start()
    elasticsearch.start()
    database = f"stream_{uuid4().hex}"
    postgres.create_database(database, template=TEMPLATE)
    try:
        with lent_kafka(kafka) as topics, lent_elasticsearch(elasticsearch) as search:
            url = postgres.dsn(database)
            places = Places(url, topics.bootstrap_servers, search.url, topics.prefix, search.prefix, kafka.replication, kafka.least_in_sync)
            engine = open_engine(url)
            try:
                yield Stream(postgres, kafka, elasticsearch, places, engine)
            finally:
                engine.dispose()
    finally:
        postgres.start()
        postgres.drop_database(database)


def with_port(url: str, port: int) -> str:
    """The same database by another port."""
    return make_url(url).set(port=port).render_as_string(hide_password=False)


def pause(seconds: float) -> None:
    """Until a random moment."""
    threading.Event().wait(seconds)


def make_checks(random: Random, *, products: int, steps: int) -> tuple[list[list[Product]], Points]:
    """Checks an hour apart; in each about every third product has changed, of two price types. Returns every change point too."""
    checks = []
    asins = [f"B{number:09d}" for number in range(products)]
    points: Points = {(asin, price_type): [] for asin in asins for price_type in (PriceType.NEW, PriceType.USED)}
    for step in range(steps):
        at = START + timedelta(hours=step)
        for known in points.values():
            if step == 0 or random.random() < 0.3:
                is_gone = step > 0 and known[-1][1] is not None and random.random() < 0.1
                amount = None if is_gone else 2000 + 100 * step + random.randrange(100)
                known.append((at - timedelta(minutes=random.randrange(1, 50)), amount))
        checks.append(
            [
                product({price_type: list(points[asin, price_type]) for price_type in (PriceType.NEW, PriceType.USED)}, asin=asin, at=at)
                for asin in asins
            ]
        )
    return checks, points


def watch_all(engine: Engine, points: Points) -> None:
    """Each series is watched, so that each change is an event; these go to all systems."""
    user_id = add_user(engine)
    for asin, price_type in points:
        add_watch(engine, user_id, asin=asin, price_type=price_type, now=START)
    use_sinks(engine, SINKS)


class Recorder:
    """Records checks in a thread, each when it was asked for. One that met a database away is recorded again, as a flow's retry would."""

    def __init__(self, engine: Engine, checks: Sequence[Sequence[Product]]) -> None:
        self.recorded = 0
        self._engine = engine
        self._checks = checks
        self._asked = threading.Semaphore(0)
        self._end = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="recorder")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._asked.release()
        self._thread.join(_JOIN_SECONDS)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure

    def ask(self, checks: int) -> None:
        """Let it record so many more."""
        self._asked.release(checks)

    def finish(self) -> None:
        """Let it record the rest, and wait for that."""
        self.ask(len(self._checks))
        wait_until(lambda: self.recorded == len(self._checks) or self._failure is not None, "not recorded", longest_seconds=_CALM_SECONDS)

    def _run(self) -> None:
        try:
            for answered in self._checks:
                self._asked.acquire()
                while not self._end.is_set() and not self._try(answered):
                    self._end.wait(_RETRY_SECONDS)
                if self._end.is_set():
                    return
                self.recorded += 1
        except BaseException as error:  # noqa: BLE001  raised again where the thread is joined
            self._failure = error

    def _try(self, answered: Sequence[Product]) -> bool:
        try:
            with self._engine.begin() as connection:
                record(connection, answered, now=answered[0].answered_at)
        except (DBAPIError, psycopg.OperationalError) as error:
            if isinstance(error, DBAPIError) and not error.connection_invalidated and not isinstance(error.orig, psycopg.OperationalError):
                raise
            return False
        return True


@contextmanager
def open_sinks(engine: Engine, places: Places) -> Iterator[list[DeliverySink]]:
    """The sinks of prices and products. Nothing is asked of the network."""
    kafka = KafkaSink(places.kafka_connection, places.topic_settings)
    search = SearchSink(places.search_connection)
    index = ProductWriter(places.search_connection)
    try:
        yield [kafka, search, EnrichSink(engine, index)]
    finally:
        for one in (kafka, search, index):
            one.close()


@dataclass(slots=True)
class Relaying:
    """What a relay has said of its rounds so far.

    Attributes:
        downs: rounds that ended because the sink was away, by sink.
        running: the relay itself.
    """

    downs: Counter[str] = field(default_factory=Counter)
    running: "Future[None] | None" = None

    def note(self, sink: str, done: Relayed) -> None:
        """Called from each sink's thread; each has its own entries."""
        self.downs[sink] += done.down is not None

    @property
    def has_ended(self) -> bool:
        """By itself, which no relay does."""
        return self.running is not None and self.running.done()


def run_relay(engine: Engine, sinks: Sequence[DeliverySink], stop: threading.Event, note: Callable[[str, Relayed], None]) -> None:
    """As `keeper relay` does, with short waits."""
    keep_relaying(
        engine,
        sinks,
        settings=RelaySettings(most_tries=1000, first_wait_seconds=0.05, longest_wait_seconds=0.5),
        stop=stop,
        sweep_seconds=1,
        circuits={sink.name: Circuit(first_wait_seconds=0.1, longest_wait_seconds=1) for sink in sinks},
        on_relayed=note,
    )


@contextmanager
def relaying(places: Places) -> Iterator[Relaying]:
    """A relay that runs until the end of the block, with an engine of its own."""
    engine = open_engine(places.database, connect_timeout_seconds=2)
    stop, told = threading.Event(), Relaying()
    try:
        with open_sinks(engine, places) as sinks, ThreadPoolExecutor(1) as pool:
            running = told.running = pool.submit(run_relay, engine, sinks, stop, told.note)
            try:
                yield told
            finally:
                stop.set()
                # Also where the block failed: a relay that has ended is why.
                running.result(_JOIN_SECONDS)
    finally:
        engine.dispose()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What three systems have of one round.

    Attributes:
        lost: what one of them has not.
        doubled: messages in Kafka beyond the first with their event id.
    """

    events: int
    lost: int
    doubled: int


def await_calm(stream: Stream, told: Relaying) -> None:
    """Until nothing waits for any sink, or the relay has ended; the end of its block says why."""
    wait_until(lambda: told.has_ended or not stream.waiting(), "the outbox does not empty", longest_seconds=_CALM_SECONDS)
    assert not told.has_ended


def judge(stream: Stream, points: Points) -> Verdict:
    """Every observation once in PostgreSQL, at least once in Kafka under one event id, once in Elasticsearch; the newest won."""
    wanted = {event_id_of(asin, price_type, at, amount) for (asin, price_type), some in points.items() for at, amount in some}
    expected = sorted((asin, str(price_type), at, amount) for (asin, price_type), some in points.items() for at, amount in some)
    stored = rows(stream.engine, "SELECT asin, price_type, observed_at, amount_minor FROM price_history ORDER BY 1, 2, 3")
    sent = read_topic(stream.places, Topic.PRICE_UPDATES)
    sent_ids = Counter(UUID(dict(message.headers)["event_id"].decode()) for message in sent)  # type: ignore[union-attr]
    found = _Documents(stream.places)
    documents = found.fetch(Alias.PRICES, [str(event_id) for event_id in wanted])
    lost: dict[str, set[Any]] = {
        "PostgreSQL": set(expected) - set(stored),
        "Kafka": wanted - set(sent_ids),
        "Elasticsearch": wanted - {UUID(event_id) for event_id in documents},
    }
    verdict = Verdict(len(wanted), sum(len(missing) for missing in lost.values()), sent_ids.total() - len(sent_ids))
    assert verdict.lost == 0, lost
    assert stored == expected
    assert rows(stream.engine, "SELECT event_id FROM events WHERE kind = 'price_update' GROUP BY event_id HAVING count(*) > 1") == []
    assert rows(stream.engine, "SELECT reason FROM dead_letters") == []
    assert set(sent_ids) == wanted
    assert_in_order(sent)
    assert found.count(Alias.PRICES) == len(wanted)
    assert {one.version for one in documents.values()} == {1}
    assert_newest_won(stream, documents)
    assert_products_are_current(stream, found)
    return verdict


def event_id_of(asin: str, price_type: PriceType, at: datetime, amount: int | None) -> UUID:
    """Of a price on the german marketplace."""
    return price_event_id(asin, "DE", price_type.value, int(at.timestamp()), amount)


def assert_in_order(sent: Sequence[ReceivedMessage]) -> None:
    """Of each key the first copies rise in `sequence`, and a later copy is the same message."""
    firsts: dict[bytes, ReceivedMessage] = {}
    last_sequence: dict[bytes, int] = {}
    for message in sorted(sent, key=lambda one: (one.partition, one.offset)):
        headers = dict(message.headers)
        event_id, sequence, key = headers["event_id"], int(headers["sequence"] or b""), message.key
        assert event_id is not None
        assert key is not None
        first = firsts.setdefault(event_id, message)
        assert (first.key, first.value, first.headers) == (key, message.value, message.headers)
        if first is message:
            assert last_sequence.get(key, 0) < sequence
            last_sequence[key] = sequence


def assert_newest_won(stream: Stream, documents: dict[str, indices.StoredDocument]) -> None:
    """The latest document of a series tells the current price."""
    latest: dict[tuple[str, str], Any] = {}
    for one in sorted((one.source for one in documents.values()), key=lambda source: str(source["timestamp"])):
        latest[one["asin"], one["price_type"]] = one["current_price_minor"]
    assert latest == {
        (asin, kind): minor for asin, kind, minor in rows(stream.engine, "SELECT asin, price_type, amount_minor FROM current_prices")
    }


def assert_products_are_current(stream: Stream, found: "_Documents | None" = None) -> None:
    """Each product's document is the one of its revision, whole."""
    found = found or _Documents(stream.places)
    with stream.engine.begin() as connection:
        composed = select_documents(connection, rows(stream.engine, "SELECT DISTINCT asin FROM products"))
    wanted = {one.asin: indices.StoredDocument(one.revision, json.loads(one.body)) for one in composed}
    assert found.fetch(Alias.PRODUCTS, list(wanted)) == wanted
    assert found.count(Alias.PRODUCTS) == len(wanted)


class _Documents:
    """What Elasticsearch has."""

    def __init__(self, places: Places) -> None:
        self._connection = places.search_connection

    def fetch(self, alias: Alias, ids: Sequence[str]) -> dict[str, indices.StoredDocument]:
        """By id."""
        with open_client(self._connection) as client:
            return indices.fetch_documents(client, self._connection, alias_name(self._connection, alias), ids)

    def count(self, alias: Alias) -> int:
        """All of them."""
        name = alias_name(self._connection, alias)
        with open_client(self._connection) as client:
            indices.refresh(client, self._connection, name)
            return indices.count(client, self._connection, name)


def read_topic(places: Places, topic: Topic) -> list[ReceivedMessage]:
    """Everything a topic has now."""
    connection = places.kafka_connection
    name = topic_name(connection, topic)
    config = client_config(connection) | {"group.id": f"{places.topic_prefix}reader", "enable.auto.commit": False}
    client = Consumer({**config, "queued.max.messages.kbytes": 65536})
    received: list[ReceivedMessage] = []
    try:
        ends = {}
        for partition in client.list_topics(name, timeout=_READ_SECONDS).topics[name].partitions:
            oldest, end = client.get_watermark_offsets(TopicPartition(name, partition), timeout=_READ_SECONDS)
            if end > oldest:
                ends[partition] = end
        client.assign([TopicPartition(name, partition, 0) for partition in ends])

        def is_read() -> bool:
            for message in client.consume(1000, timeout=0.2) if ends else ():
                assert message.error() is None, message.error()
                received.append(decode_message(message))
                if message.offset() == ends.get(received[-1].partition, 0) - 1:
                    del ends[received[-1].partition]
            return not ends

        wait_until(is_read, f"{name} cannot be read to its end", longest_seconds=_READ_SECONDS)
    finally:
        client.close()
    return received
