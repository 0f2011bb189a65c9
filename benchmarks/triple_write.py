"""Prices to PostgreSQL, Kafka and Elasticsearch at once, on the real servers: how many, how soon, and what the relay itself costs.

- `end_to_end`: 100,000 observations, each a change of a watched price and so an event, are recorded, two transactions at a time, while
  both sinks are relayed by a process of its own, as `keeper relay` does; it ends when both queues are empty. In turns with it, on new
  topics and indices: the three raw limits with the same bytes (COPY of the events' rows, produce, `_bulk`) and the reference's loop, one
  observation at a time.
- `delay`: 100 observations a second for a minute; from the commit until a consumer of Kafka has the event, and until Elasticsearch
  gives the document by its id.
- `relay`: a backlog of a million events to a sink that acknowledges at once.
- `enrich`: own messages of `raw.keepa_updates` through one consumer and through three, to the index and to `products.enriched`.

The servers are started here, unless KEEPER_KAFKA_BOOTSTRAP_SERVERS or KEEPER_ELASTICSEARCH_URL name others.
"""

import argparse
import json
import multiprocessing
import os
import random
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from multiprocessing.context import SpawnContext
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import httpx
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from elasticsearch import Elasticsearch
from sqlalchemy import Engine, text

from benchmarks.decode import HISTORY, NEVER_ASKED
from benchmarks.decode import batch as recorded_answer
from benchmarks.figures import database, say
from benchmarks.record import WATCHED, run_copy, run_verb
from keeper.consume import consume, enrich_batch
from keeper.domain.delivery import Outcome, Turn
from keeper.domain.events import EventKind, OutboxMessage, Sink, price_event_id
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_series import PriceSeries, minute_of
from keeper.domain.product import Product, ProductKind, ProductStats
from keeper.domain.watch import Watch
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.consumer import ReceivedMessage, TopicConsumer
from keeper.kafka.line import Record
from keeper.kafka.producer import KafkaSink, Publisher
from keeper.kafka.products import EnrichedTopic
from keeper.kafka.topics import Group, Topic, TopicSettings, ensure, topic_name
from keeper.postgres.engine import driver_of, open_engine
from keeper.postgres.outbox import SHARD_OF_KEY
from keeper.postgres.watches import insert_watches
from keeper.record import LARGEST_BATCH, record
from keeper.relay import RelaySettings, keep_relaying, relay
from keeper.search.connection import SearchConnection
from keeper.search.connection import open_client as open_search
from keeper.search.indices import make_missing
from keeper.search.mapping import Alias, alias_name
from keeper.search.products import ProductWriter
from keeper.search.sink import SearchSink
from keeper.sinks import switch_on
from tests.services.cluster import Cluster
from tests.services.elasticsearch import ElasticsearchCluster
from tests.services.kafka import KafkaCluster

OBSERVATIONS = 100_000
REFERENCE_OBSERVATIONS = 2_000
# Java goes on translating its code for so long: a new Elasticsearch took 23.6, 12.2, 8.2 and 4.4 CPU seconds for the first four times
# 100,000 events, and whoever comes later in a pair would gain by it.
WARM_UP_OBSERVATIONS = 100_000
WARM_UP_PAIRS = 4
PAIRS = 3
# Several requests are under way at a time, and each records what it brings.
RECORDING_AT_ONCE = 2
BULK_DOCUMENTS = 2_000
BULK_THREADS = 2
DELAY_SECONDS = 60
# Not counted: a server that has just been started translates its code first.
DELAY_WARM_UP_SECONDS = 10
DELAY_PER_SECOND = 100
DELAY_TRANSACTIONS_PER_SECOND = 10
BACKLOG = 1_000_000
SMALL_BACKLOG = 100_000
ENRICH_MESSAGES = 6_000
LONGEST_SECONDS = 600.0
PARTS = ("end_to_end", "delay", "relay", "enrich")
SPAWN: SpawnContext = multiprocessing.get_context("spawn")

Figures = list[tuple[str, float, str, str]]


@dataclass(frozen=True, slots=True)
class Systems:
    """The two servers.

    Attributes:
        prefix: of every topic, group, index and template made here.
    """

    kafka: str
    elasticsearch: str
    prefix: str

    def apart(self, name: str) -> "Systems":
        """The same servers with topics and indices of their own."""
        return replace(self, prefix=f"{self.prefix}{name}-")

    def kafka_connection(self) -> KafkaConnection:
        return KafkaConnection(self.kafka, topic_prefix=self.prefix)

    def search_connection(self) -> SearchConnection:
        return SearchConnection((self.elasticsearch,), index_prefix=self.prefix)


class Event(NamedTuple):
    """What one event is for Kafka and Elasticsearch."""

    key: str
    event_id: str
    body: bytes


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--observations", type=int, default=OBSERVATIONS, help="of end_to_end")
    parser.add_argument("--backlog", type=int, default=BACKLOG, help="of relay")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--profile", action="store_true", help="where the time goes in the process that relays, by function")
    arguments = parser.parse_args()
    parts = (arguments.only,) if arguments.only else PARTS
    figures: Figures = []
    with ExitStack() as stack:
        if "relay" in parts:
            figures += measure_relay(arguments.backlog, arguments.pairs, arguments.profile)
        if set(parts) - {"relay"}:
            systems = stack.enter_context(services())
            if "end_to_end" in parts:
                figures += measure_end_to_end(systems, arguments.observations, arguments.pairs, arguments.profile)
            if "delay" in parts:
                figures += measure_delay(systems)
            if "enrich" in parts:
                figures += measure_enrich(systems, arguments.pairs, arguments.profile)
    say("triple_write", figures)


def tell(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def services() -> Iterator[Systems]:
    """Given servers, which lose what was made there, or new ones."""
    kafka, elasticsearch = os.environ.get("KEEPER_KAFKA_BOOTSTRAP_SERVERS"), os.environ.get("KEEPER_ELASTICSEARCH_URL")
    with ExitStack() as stack:
        started: list[Cluster] = []
        if kafka is None:
            started.append(brokers := KafkaCluster(_folder("kafka"), is_temporary=True, is_quick=False, say=tell))
        if elasticsearch is None:
            started.append(nodes := ElasticsearchCluster(_folder("elasticsearch"), is_temporary=True, is_quick=False, say=tell))
        for cluster in started:
            stack.callback(cluster.remove)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda cluster: cluster.start(), started))
        systems = Systems(kafka or brokers.bootstrap_servers, elasticsearch or nodes.url, f"bench-{secrets.token_hex(3)}-")
        stack.callback(_clean, systems)
        yield systems


def _folder(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"keeper-bench-{name}-"))
    folder.chmod(0o755)
    return folder


def _clean(systems: Systems) -> None:
    admin = AdminClient({"bootstrap.servers": systems.kafka, "log_level": 0})
    if topics := [name for name in admin.list_topics(timeout=15).topics if name.startswith(systems.prefix)]:
        for deleted in admin.delete_topics(topics, operation_timeout=15).values():
            deleted.result(15)
    with httpx.Client(base_url=systems.elasticsearch, timeout=30) as client:
        client.delete(f"/{systems.prefix}*?expand_wildcards=all").raise_for_status()
        client.delete(f"/_index_template/{systems.prefix}*")


# What is recorded


def asins_of(count: int) -> list[str]:
    return [f"B{number:09d}" for number in range(count)]


def seen(asins: Sequence[str], at: datetime, round_number: int) -> list[Product]:
    """A check of every ASIN: the watched price types, all of them moved in each round."""
    minute = minute_of(at) - 2
    chance = random.Random(1)
    found = []
    for asin in asins:
        current = {price_type: chance.randrange(1000, 90000) + round_number for price_type in WATCHED}
        found.append(
            Product(
                asin=asin, marketplace=Marketplace.DE, kind=ProductKind.STANDARD, answered_at=at, updated_at=at,
                title=f"Cherry KC 1000 Tastatur, QWERTZ, kabelgebunden, flaches Design {asin}", brand="CHERRY",
                category_ids=(340843031,), category_path=("Computer & Zubehör", "Tastaturen"), eans=("4025112081200",),
                sales_rank=1200, series={one: PriceSeries((minute,), (amount,)) for one, amount in current.items()},
                stats=ProductStats(current, {}, {}, {}, {}, {}, {}, {}),
            )
        )  # fmt: skip
    return found


def fill(engine: Engine, asins: Sequence[str], at: datetime) -> None:
    """A user who watches five price types of every ASIN, and a first check of everything that no sink hears of."""
    with engine.begin() as connection:
        user_id = connection.execute(text("INSERT INTO users (name) VALUES ('bench') RETURNING id")).scalar_one()
        for start in range(0, len(asins), 1000):
            watches = [Watch(asin, Marketplace.DE, kind, Money(500, "EUR")) for asin in asins[start : start + 1000] for kind in WATCHED]
            insert_watches(connection, user_id, watches, now=at)
    record_all(engine, seen(asins, at, 0), at)
    settle(engine)


def record_all(engine: Engine, products: Sequence[Product], at: datetime, raw: Callable[[str], bytes] | None = None) -> None:
    for start in range(0, len(products), LARGEST_BATCH):
        with engine.begin() as connection:
            record(connection, products[start : start + LARGEST_BATCH], now=at, raw=raw)


def settle(engine: Engine) -> None:
    """Forget the events of the last round, and leave no work behind."""
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE outbox, events"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))


def await_merges(systems: Systems) -> None:
    """Elasticsearch works on after it has answered; the next measurement does not pay for that."""
    with httpx.Client(base_url=systems.elasticsearch, timeout=60) as client:
        client.post(f"/{systems.prefix}*/_flush")
        while any(node["indices"]["merges"]["current"] for node in client.get("/_nodes/stats/indices/merge").json()["nodes"].values()):
            time.sleep(0.2)


# The process that relays


@contextmanager
def relaying(engine: Engine, systems: Systems, *, profile: bool = False) -> Iterator[Callable[[int], None]]:
    """Both sinks relayed by a process of its own. Yields a function that waits until so many messages were acknowledged."""
    stop, ready, delivered = SPAWN.Event(), SPAWN.Event(), SPAWN.Value("q", 0)
    process = SPAWN.Process(target=_keep_relaying, args=(_url(engine), systems, stop, ready, delivered, profile))
    process.start()

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + LONGEST_SECONDS
        while delivered.value < count:
            assert process.is_alive() and time.monotonic() < deadline, f"{delivered.value} of {count} delivered"
            time.sleep(0.005)
        assert delivered.value == count

    try:
        assert ready.wait(60)
        yield wait_for
    finally:
        stop.set()
        process.join(30)


def _keep_relaying(url: str, systems: Systems, stop: Any, ready: Any, delivered: Any, profile: bool) -> None:
    engine = open_engine(url, pool_size=16)
    kafka = KafkaSink(systems.kafka_connection(), TopicSettings())
    search = SearchSink(systems.search_connection())
    for sink in (kafka, search):
        sink.connect()
    ended = threading.Event()

    def watch() -> None:
        stop.wait()
        ended.set()

    def note(_sink: str, done: Any) -> None:
        assert done.down is None and not done.refused and not done.dead, done
        with delivered.get_lock():
            delivered.value += done.delivered

    threading.Thread(target=watch, daemon=True).start()
    with sampled(profile):
        keep_relaying(engine, [kafka, search], settings=RelaySettings(), stop=ended, on_listening=ready.set, on_relayed=note)
    kafka.close()
    search.close()
    engine.dispose()


@contextmanager
def sampled(is_wanted: bool) -> Iterator[None]:
    """Say where the threads of this process stood, looked at a hundred times a second: the innermost lines of ours."""
    if not is_wanted:
        yield
        return
    seen_at: dict[str, int] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            for ident, frame in sys._current_frames().items():
                if ident != threading.get_ident():
                    where = _place(frame)
                    seen_at[where] = seen_at.get(where, 0) + 1

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    yield
    over.set()
    watcher.join()
    for where, times in sorted(seen_at.items(), key=lambda one: -one[1])[:40]:
        tell(f"{times:7d} {where}")


def cpu_seconds() -> dict[str, float]:
    """What the processes of each program have used since they began; those that have ended, or began before this one, count no more."""
    own = _stat(os.getpid())
    used: dict[str, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, facts = (folder / "cmdline").read_bytes(), _stat(int(folder.name))
        except OSError:
            continue
        name = next((name for name, mark in _PROGRAMS.items() if mark in command), None)
        name = "recording" if int(folder.name) == os.getpid() else name
        if name is not None and facts.started >= own.started:
            used[name] = used.get(name, 0.0) + facts.cpu_seconds
    return dict(sorted(used.items()))


class _Stat(NamedTuple):
    cpu_seconds: float
    started: int


def _stat(pid: int) -> _Stat:
    facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return _Stat((int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK"), int(facts[19]))


_PROGRAMS = {"PostgreSQL": b"postgres", "Elasticsearch": b"org.elasticsearch", "Kafka": b"kafka.Kafka", "relay": b"multiprocessing.spawn"}


def _place(frame: Any) -> str:
    inner = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
    while frame is not None and "/keeper/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}:{frame.f_lineno} < {inner}" if frame is not None else inner


def _url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


# end_to_end


def measure_end_to_end(systems: Systems, observations: int, pairs: int, profile: bool) -> Figures:
    asins = asins_of(observations // len(WATCHED))
    at = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=1)
    rates: dict[str, list[float]] = {"ours": [], "copy": [], "produce": [], "bulk": [], "reference": []}
    with database() as engine:
        fill(engine, asins, at)
        for sink in (Sink.KAFKA, Sink.SEARCH):
            switch_on(engine, sink.value, [EventKind.PRICE_UPDATE], from_oldest=False)
        for pair in range(1 - WARM_UP_PAIRS, pairs + 1):
            is_counted = pair > 0
            share = asins if is_counted else asins[: WARM_UP_OBSERVATIONS // len(WATCHED)]
            at += timedelta(minutes=10)
            products = seen(share, at, pair + WARM_UP_PAIRS)
            count = len(products) * len(WATCHED)
            apart = systems.apart(f"ours{pair}")
            with relaying(engine, apart, profile=profile and is_counted) as wait_for:
                spent = cpu_seconds()
                started = time.perf_counter()
                recorded = run_verb(engine, products, at, RECORDING_AT_ONCE)
                wait_for(2 * count)
                seconds = time.perf_counter() - started
                if profile:
                    tell("CPU seconds: " + ", ".join(f"{name} {used - spent.get(name, 0):.2f}" for name, used in cpu_seconds().items()))
            check_arrived(engine, apart, count)
            await_merges(apart)
            done = {"ours": count / seconds} | raw_limits(engine, systems.apart(f"raw{pair}"))
            done["reference"] = reference_loop(engine, systems.apart(f"loop{pair}"), REFERENCE_OBSERVATIONS if is_counted else 200)
            settle(engine)
            rounded = ", ".join(f"{name} {rate:,.0f}" for name, rate in done.items())
            tell(f"{'pair' if is_counted else 'warm-up'} {pair}: per second {rounded}; recorded after {recorded:.1f} of {seconds:.1f} s")
            if is_counted:
                for name, rate in done.items():
                    rates[name].append(rate)
    limits = [min(triple) for triple in zip(rates["copy"], rates["produce"], rates["bulk"], strict=True)]
    return [
        ("end_to_end_per_second", median(rates["ours"]), "1/s", ""),
        ("ratio_to_reference_loop", _ratio(rates["ours"], rates["reference"]), "x", ">= 30"),
        ("ratio_to_slowest_limit", _ratio(rates["ours"], limits), "x", ">= 0.4"),
        ("reference_loop_per_second", median(rates["reference"]), "1/s", ""),
        ("copy_rows_per_second", median(rates["copy"]), "1/s", ""),
        ("produce_events_per_second", median(rates["produce"]), "1/s", ""),
        ("bulk_documents_per_second", median(rates["bulk"]), "1/s", ""),
    ]


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return median(own / other for own, other in zip(ours, theirs, strict=True))


def check_arrived(engine: Engine, systems: Systems, count: int) -> None:
    """Every event once in both, and nothing waits."""
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM outbox")).scalar_one() == 0
        assert connection.execute(text("SELECT count(*) FROM events")).scalar_one() == count
    assert count_produced(systems) == count
    assert count_indexed(systems) == count


def count_produced(systems: Systems) -> int:
    """Messages in the topic of prices."""
    topic = topic_name(systems.kafka_connection(), Topic.PRICE_UPDATES)
    reader = Consumer({"bootstrap.servers": systems.kafka, "group.id": f"{systems.prefix}count"})
    ends = [reader.get_watermark_offsets(TopicPartition(topic, one), timeout=15)[1] for one in range(TopicSettings().partitions)]
    reader.close()
    return sum(ends)


def count_indexed(systems: Systems) -> int:
    """Documents of prices."""
    with httpx.Client(base_url=systems.elasticsearch, timeout=60) as client:
        alias = alias_name(systems.search_connection(), Alias.PRICES)
        client.post(f"/{alias}/_refresh").raise_for_status()
        count: int = client.get(f"/{alias}/_count").json()["count"]
    return count


def raw_limits(engine: Engine, systems: Systems) -> dict[str, float]:
    """What each of the three systems does alone, with the events that were recorded last."""
    with engine.connect() as connection, driver_of(connection).cursor() as cursor:
        with cursor.copy("COPY (SELECT * FROM events) TO STDOUT") as copy:
            rows = b"".join(bytes(chunk) for chunk in copy)
        found = cursor.execute("SELECT key, event_id::text, payload::text FROM events ORDER BY seq").fetchall()
    events = [Event(key, event_id, body.encode()) for key, event_id, body in found]
    return {
        "copy": len(events) / run_copy(engine, {"events": rows}),
        "produce": len(events) / produce_all(systems, events),
        "bulk": len(events) / index_all(systems, events),
    }


def _producer(systems: Systems) -> Producer:
    return Producer(
        {
            "bootstrap.servers": systems.kafka,
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )


def produce_all(systems: Systems, events: Sequence[Event]) -> float:
    """Seconds until all are acknowledged."""
    connection = systems.kafka_connection()
    ensure(connection, TopicSettings())
    topic = topic_name(connection, Topic.PRICE_UPDATES)
    producer = _producer(systems)
    producer.list_topics(topic, timeout=15)
    started = time.perf_counter()
    for place, event in enumerate(events):
        producer.produce(topic, event.body, event.key)
        if place % 1000 == 0:
            producer.poll(0)
    assert producer.flush(LONGEST_SECONDS) == 0
    seconds = time.perf_counter() - started
    assert count_produced(systems) == len(events)
    return seconds


def index_all(systems: Systems, events: Sequence[Event]) -> float:
    """Seconds of `_bulk` by two threads, requests made before."""
    connection = systems.search_connection()
    with open_search(connection) as client:
        make_missing(client, connection)
        requests = [_bulk_of(events[start : start + BULK_DOCUMENTS]) for start in range(0, len(events), BULK_DOCUMENTS)]

        def send(request: bytes) -> None:
            answer: Any = client.perform_request(
                "POST",
                f"/{alias_name(connection, Alias.PRICES)}/_bulk",
                params={"filter_path": "errors"},
                headers={"accept": "application/json", "content-type": "application/x-ndjson"},
                body=request,
            ).body
            assert answer["errors"] is False

        with ThreadPoolExecutor(BULK_THREADS) as pool:
            started = time.perf_counter()
            list(pool.map(send, requests))
            seconds = time.perf_counter() - started
    assert count_indexed(systems) == len(events)
    await_merges(systems)
    return seconds


def _bulk_of(events: Sequence[Event]) -> bytes:
    return b"".join(b'{"index":{"_id":"%b"}}\n%b\n' % (event.event_id.encode(), event.body) for event in events)


def reference_loop(engine: Engine, systems: Systems, count: int) -> float:
    """Observations per second one by one: insert and commit, produce and flush, index."""
    with engine.begin() as connection:
        found = connection.execute(text("SELECT key, event_id::text, payload::text FROM events ORDER BY seq LIMIT :n"), {"n": count}).all()
        connection.execute(text("CREATE TABLE IF NOT EXISTS bare_loop (id bigserial PRIMARY KEY, asin text, payload json)"))
    kafka, search = systems.kafka_connection(), systems.search_connection()
    ensure(kafka, TopicSettings())
    producer = _producer(systems)
    producer.list_topics(topic_name(kafka, Topic.PRICE_UPDATES), timeout=15)
    with open_search(search) as client:
        make_missing(client, search)
        started = time.perf_counter()
        for key, event_id, body in found:
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO bare_loop (asin, payload) VALUES (:asin, :payload)"), {"asin": key, "payload": body})
            producer.produce(topic_name(kafka, Topic.PRICE_UPDATES), body.encode(), key)
            producer.flush()
            client.index(index=alias_name(search, Alias.PRICES), id=event_id, document=body.encode())
        seconds = time.perf_counter() - started
    await_merges(systems)
    return len(found) / seconds


# delay


def measure_delay(systems: Systems) -> Figures:
    """Ten observations in each transaction; each is looked for from its commit on."""
    apart = systems.apart("delay")
    warm_up = DELAY_WARM_UP_SECONDS * DELAY_TRANSACTIONS_PER_SECOND
    transactions = warm_up + DELAY_SECONDS * DELAY_TRANSACTIONS_PER_SECOND
    asins_each = DELAY_PER_SECOND // DELAY_TRANSACTIONS_PER_SECOND // len(WATCHED)
    asins = asins_of(transactions * asins_each)
    at = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=1)
    with database() as engine:
        fill(engine, asins, at)
        for sink in (Sink.KAFKA, Sink.SEARCH):
            switch_on(engine, sink.value, [EventKind.PRICE_UPDATE], from_oldest=False)
        at += timedelta(minutes=10)
        products = seen(asins, at, 1)
        with relaying(engine, apart), watched(apart) as arrivals:
            counted: list[str] = []
            started = time.monotonic()
            for number in range(transactions):
                time.sleep(max(0.0, started + number / DELAY_TRANSACTIONS_PER_SECOND - time.monotonic()))
                share = products[number * asins_each : (number + 1) * asins_each]
                with engine.begin() as connection:
                    record(connection, share, now=at)
                committed_at = time.monotonic()
                event_ids = [event_id for product in share for event_id in event_ids_of(product)]
                arrivals.committed.update(dict.fromkeys(event_ids, committed_at))
                if number >= warm_up:
                    counted += event_ids
            taken = time.monotonic() - started
            assert taken < transactions / DELAY_TRANSACTIONS_PER_SECOND * 1.1, f"{taken:.0f} s: too slow for this rate"
            deadline = time.monotonic() + 60
            while min(len(arrivals.kafka), len(arrivals.search)) < len(arrivals.committed) and time.monotonic() < deadline:
                time.sleep(0.05)
        assert set(arrivals.kafka) == set(arrivals.search) == set(arrivals.committed)
        settle(engine)
    figures: Figures = []
    for name, there in (("kafka", arrivals.kafka), ("search", arrivals.search)):
        # An event may be there before the recording process has come to look at its clock.
        delays_ms = [max(0.0, there[event_id] - arrivals.committed[event_id]) * 1000 for event_id in counted]
        percentiles = quantiles(delays_ms, n=100)
        figures += [
            (f"{name}_delay_p50_ms", percentiles[49], "ms", ""),
            (f"{name}_delay_p99_ms", percentiles[98], "ms", "< 2000"),
        ]
    tell(", ".join(f"{figure} {value:,.0f}" for figure, value, _, _ in figures))
    return figures


def event_ids_of(product: Product) -> list[str]:
    return [
        str(price_event_id(product.asin, product.marketplace.value, price_type.value, series.minutes[0] * 60, series.amounts[0]))
        for price_type, series in product.series.items()
    ]


@dataclass(slots=True)
class Arrivals:
    """When each event was committed, and seen in both systems, on this machine's monotonic clock."""

    committed: dict[str, float]
    kafka: dict[str, float]
    search: dict[str, float]


@contextmanager
def watched(systems: Systems) -> Iterator[Arrivals]:
    """Look for every event: a consumer at the end of the topic, and realtime gets of the ids not seen yet."""
    arrivals = Arrivals({}, {}, {})
    over, is_reading = threading.Event(), threading.Event()

    def read_kafka() -> None:
        connection = systems.kafka_connection()
        topic = topic_name(connection, Topic.PRICE_UPDATES)
        reader = Consumer({"bootstrap.servers": systems.kafka, "group.id": f"{systems.prefix}delay", "fetch.wait.max.ms": 20})
        reader.assign([TopicPartition(topic, one, 0) for one in range(TopicSettings().partitions)])
        is_reading.set()
        while not over.is_set():
            for message in reader.consume(1000, timeout=0.01):
                assert message.error() is None, message.error()
                arrivals.kafka.setdefault(dict(message.headers() or ())["event_id"].decode(), time.monotonic())
        reader.close()

    def ask_elasticsearch() -> None:
        alias = alias_name(systems.search_connection(), Alias.PRICES)
        with Elasticsearch(systems.elasticsearch) as client:
            while not over.wait(0.02):
                if missing := [event_id for event_id in list(arrivals.committed) if event_id not in arrivals.search]:
                    answer: Any = client.mget(index=alias, ids=missing, source=False, filter_path="docs._id,docs.found").body
                    for document in answer["docs"]:
                        if document.get("found"):
                            arrivals.search[document["_id"]] = time.monotonic()

    threads = [threading.Thread(target=work, daemon=True) for work in (read_kafka, ask_elasticsearch)]
    for thread in threads:
        thread.start()
    is_reading.wait(30)
    yield arrivals
    over.set()
    for thread in threads:
        thread.join(10)


# relay


class NullSink:
    """Acknowledges at once, in batches of the size of Kafka's sink, and notes when each was stored."""

    name: str = "null"
    batch_size = 4000
    shards_at_once = 2

    def __init__(self) -> None:
        self.stored: list[tuple[float, int]] = []

    def connect(self) -> None:
        """Always there."""

    def deliver(self, messages: Sequence[OutboxMessage], turn: Turn) -> Iterator[list[Outcome]]:  # noqa: ARG002
        """All of them."""
        yield [Outcome(message) for message in messages]
        self.stored.append((time.monotonic(), len(messages)))

    def store(self, connection: object, outcome: Outcome, *, is_dead: bool) -> None:
        """Nothing."""


class Drained(NamedTuple):
    """What draining a backlog took."""

    seconds: float
    first_tenth_seconds: float
    last_tenth_seconds: float
    peak_kilobytes: float


def measure_relay(backlog: int, rounds: int, profile: bool) -> Figures:
    large: list[Drained] = []
    small: list[Drained] = []
    with database() as engine:
        fill_events(engine, backlog)
        for _ in range(rounds):
            for count, kept in ((min(SMALL_BACKLOG, backlog), small), (backlog, large)):
                queue_backlog(engine, count)
                kept.append(drain_apart(engine, count, profile=profile and count == backlog))
                one = kept[-1]
                tell(
                    f"{count:,} rows: {count / one.seconds:,.0f}/s, first tenth {one.first_tenth_seconds:.2f} s, "
                    f"last {one.last_tenth_seconds:.2f} s, peak {one.peak_kilobytes / 1000:.0f} MB"
                )
    return [
        ("relay_rows_per_second", median(backlog / one.seconds for one in large), "1/s", ">= 30,000"),
        ("relay_slowdown", median(one.last_tenth_seconds / one.first_tenth_seconds for one in large), "x", "<= 2"),
        ("relay_peak_memory_ratio", _ratio([one.peak_kilobytes for one in large], [one.peak_kilobytes for one in small]), "x", "<= 1.2"),
        ("relay_peak_mb", median(one.peak_kilobytes for one in large) / 1000, "MB", ""),
    ]


def fill_events(engine: Engine, count: int) -> None:
    """Events as prices make them."""
    sample = seen(asins_of(1), datetime.now(UTC), 0)[0]
    body = (
        f'{{"asin":"%s","product_title":"{sample.title}","current_price":499.99,"target_price":5.00,"previous_price":512.50,'
        '"price_change":2.44,"price_change_percent":2.44,"domain":"de","currency":"EUR","timestamp":"2026-11-20T05:31:00Z",'
        '"event_type":"price_update","event_id":"5cba5c2c-8a2b-5a0e-9d5c-0d6f1b0f8f5e","schema_version":1,"price_type":"NEW",'
        '"current_price_minor":49999,"target_price_minor":500,"previous_price_minor":51250}'
    )
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                INSERT INTO events (event_id, kind, key, payload)
                SELECT gen_random_uuid(), :kind, asin, format(:body, asin)::json
                FROM generate_series(1, :count) AS n, LATERAL (SELECT 'B' || lpad((n % 200000)::text, 9, '0') AS asin) p
                """
            ),
            {"kind": EventKind.PRICE_UPDATE.value, "body": body, "count": count},
        )


def queue_backlog(engine: Engine, count: int) -> None:
    """The first of these events wait for the null sink."""
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE outbox"))
        connection.execute(
            text(
                f"""
                INSERT INTO outbox (sink, shard, key, event_on, event_seq)
                SELECT :sink, {SHARD_OF_KEY.format(key="key")}, key, recorded_on, seq FROM events ORDER BY seq LIMIT :count
                """
            ),
            {"sink": NullSink.name, "count": count},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CHECKPOINT"))


def drain_apart(engine: Engine, count: int, *, profile: bool) -> Drained:
    """In a process of its own, whose memory is only the relay's."""
    receiving, sending = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_drain, args=(_url(engine), count, sending, profile))
    process.start()
    sending.close()
    drained: Drained = receiving.recv()
    process.join(30)
    return drained


def _drain(url: str, count: int, told: Any, profile: bool) -> None:
    engine = open_engine(url, pool_size=16)
    sink = NullSink()
    started = time.monotonic()
    with sampled(profile):
        done = relay(engine, sink, settings=RelaySettings(), longest_seconds=LONGEST_SECONDS)
    seconds = time.monotonic() - started
    assert done.delivered == count and done.is_complete, done
    stored, first, last = 0, seconds, 0.0
    for at, messages in sorted(sink.stored):
        stored += messages
        if stored <= count // 10:
            first = at - started
        if stored <= count - count // 10:
            last = at - started
    told.send(Drained(seconds, first, seconds - last, _peak_kilobytes()))


def _peak_kilobytes() -> float:
    """Of this program: ru_maxrss would count what its parent had before it became this one."""
    return next(float(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))


# enrich


def measure_enrich(systems: Systems, rounds: int, profile: bool, members: Sequence[int] = (1, 3)) -> Figures:
    """Keepa's answers on products that are recorded, as the Kafka sink sends them."""
    body, _ = recorded_answer(without=(*HISTORY, *NEVER_ASKED))
    asins = asins_of(ENRICH_MESSAGES)
    at = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=1)
    rates: dict[int, list[float]] = {count: [] for count in members}
    answers = [json.dumps(product, ensure_ascii=False).encode() for product in json.loads(body)["products"]]
    with database() as engine:
        fill(engine, asins, at)
        switch_on(engine, Sink.KAFKA.value, [EventKind.RAW_PRODUCT], from_oldest=False)
        record_all(engine, seen(asins, at, 1), at, raw=lambda asin: answers[int(asin[1:]) % len(answers)])
        with engine.begin() as connection:
            found = connection.execute(text("SELECT key, event_id::text, payload::text FROM events ORDER BY seq")).all()
            connection.execute(text("TRUNCATE outbox"))
        events = [Event(key, event_id, payload.encode()) for key, event_id, payload in found]
        assert len(events) == ENRICH_MESSAGES
        bytes_each = sum(len(one.body) for one in events) / len(events)
        enrich_by(engine, systems.apart("enrich"), events[: len(events) // 4], 3, profile=False)
        for number in range(rounds):
            for instances in members:
                rate = enrich_by(engine, systems.apart(f"enrich{number}{instances}"), events, instances, profile=profile)
                rates[instances].append(rate)
                tell(f"enrich, {instances} instances: {rate:,.0f} messages/s of {bytes_each:,.0f} bytes")
        settle(engine)
    return [(f"enrich_messages_per_second_{instances}", median(seen_rates), "1/s", "") for instances, seen_rates in rates.items()]


def enrich_by(engine: Engine, systems: Systems, events: Sequence[Event], instances: int, *, profile: bool) -> float:
    """Messages per second from the moment the members, who have their partitions, may read the full topic, until all are committed."""
    connection = systems.kafka_connection()
    ensure(connection, TopicSettings())
    hold, go, stop = SPAWN.Event(), SPAWN.Event(), SPAWN.Event()
    assigned, committed = SPAWN.Array("i", instances), SPAWN.Value("q", 0)
    processes = [
        SPAWN.Process(
            target=_keep_enriching, args=(_url(engine), systems, number, assigned, committed, hold, go, stop, profile and number == 0)
        )
        for number in range(instances)
    ]
    for process in processes:
        process.start()
    try:
        _await(lambda: all(assigned[:]) and sum(assigned[:]) == TopicSettings().partitions, processes)
        hold.set()
        publisher = Publisher(connection, TopicSettings())
        topic = topic_name(connection, Topic.RAW_PRODUCTS)
        refusals = publisher.publish([Record(topic, event.key, event.body, [("kind", b"raw_product")]) for event in events])
        assert not any(refusals)
        publisher.close()
        started = time.monotonic()
        go.set()
        _await(lambda: committed.value >= len(events), processes)
        seconds = time.monotonic() - started
        assert committed.value == len(events)
    finally:
        stop.set()
        for process in processes:
            process.join(30)
    await_merges(systems)
    return len(events) / seconds


def _await(is_done: Callable[[], bool], processes: Sequence[Any]) -> None:
    deadline = time.monotonic() + 120
    while not is_done():
        assert all(process.is_alive() for process in processes) and time.monotonic() < deadline
        time.sleep(0.005)


def _keep_enriching(
    url: str, systems: Systems, number: int, assigned: Any, committed: Any, hold: Any, go: Any, stop: Any, profile: bool
) -> None:
    engine = open_engine(url)
    connection = systems.kafka_connection()
    member = TopicConsumer(connection, Topic.RAW_PRODUCTS, Group.ENRICHMENT, TopicSettings())
    index = ProductWriter(systems.search_connection())
    index.connect()
    publisher = Publisher(connection, TopicSettings())
    publisher.connect()
    topic = EnrichedTopic(publisher, systems.prefix)
    ended = threading.Event()

    class Gate:
        """Reads nothing between `hold` and `go`."""

        def read_batch(self, longest_seconds: float) -> list[ReceivedMessage]:
            assigned[number] = len(member.assigned)
            if stop.is_set():
                ended.set()
                return []
            if hold.is_set() and not go.is_set():
                member.keep_alive()
                go.wait(0.5)
                return []
            return member.read_batch(min(longest_seconds, 0.2))

        def commit(self, batch: Sequence[ReceivedMessage]) -> None:
            member.commit(batch)

        def keep_alive(self) -> None:
            member.keep_alive()

    def note(messages: int, rejected: int) -> None:
        assert not rejected
        with committed.get_lock():
            committed.value += messages

    def work(batch: Sequence[ReceivedMessage]) -> Sequence[tuple[ReceivedMessage, str]]:
        return enrich_batch(engine, batch, now=lambda: datetime.now(UTC), index=index, topic=topic)

    with sampled(profile):
        consume(Gate(), work, lambda _rejected: None, stop=ended, on_batch=note)
    member.close()
    publisher.close()
    index.close()
    engine.dispose()


if __name__ == "__main__":
    main()
