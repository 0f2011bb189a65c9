"""Consumers of foreign events, in a thread or in a process to be killed, and what others produce for them."""

import json
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from keeper.consume import consume, enrich_batch
from keeper.domain.delivery import SinkDown
from keeper.domain.events import Sink
from keeper.domain.price_series import minute_of
from keeper.domain.price_type import PriceType
from keeper.ingest import ingest_deals, ingest_prices
from keeper.kafka.consumer import ReceivedMessage, TopicConsumer, measure_lag
from keeper.kafka.dead_letters import bury
from keeper.kafka.line import Record
from keeper.kafka.producer import Publisher
from keeper.kafka.products import EnrichedTopic
from keeper.kafka.topics import DEAD_LETTERS, Group, Topic, topic_name
from keeper.keepa.wire import MINUTES_TO_2011
from keeper.postgres.engine import open_engine
from keeper.search.products import ProductWriter
from tests.chaos.streams import START, Places, Points, Stream, Verdict, assert_products_are_current, pause, read_topic
from tests.chaos.test_kills import start
from tests.integration.makers import NOW, add_user, add_watch, rows, use_sinks
from tests.services.waiting import wait_until

CONSUMED: Final = {
    "prices": (Topic.PRICE_UPDATES, Group.PRICES),
    "deals": (Topic.DEAL_UPDATES, Group.DEALS),
    "enrich": (Topic.RAW_PRODUCTS, Group.ENRICHMENT),
}
GERMANY: Final = 3
_BATCH_SECONDS = 60.0
_END_SECONDS = 60.0


def run_consumer(
    name: str,
    places: Places,
    *,
    stop: threading.Event,
    batch_size: int,
    longest_pause_seconds: float = 300.0,
    on_work: Callable[[], None] = lambda: None,
) -> None:
    """As `keeper consume` does.

    Args:
        on_work: told before each batch is written.
    """
    topic, group = CONSUMED[name]
    connection = places.kafka_connection
    engine = open_engine(places.database)
    publisher = Publisher(connection, places.topic_settings)
    index = ProductWriter(places.search_connection)
    source = TopicConsumer(
        connection, topic, group, places.topic_settings, batch_size=batch_size, longest_pause_seconds=longest_pause_seconds
    )

    def work(batch: Sequence[ReceivedMessage]) -> Sequence[tuple[ReceivedMessage, str]]:
        on_work()
        if name == "prices":
            return ingest_prices(engine, batch, now=NOW).rejected
        if name == "deals":
            return ingest_deals(engine, batch, now=NOW, watch_user_id=None).rejected
        return enrich_batch(engine, batch, now=lambda: NOW, index=index, topic=EnrichedTopic(publisher, places.topic_prefix))

    try:
        consume(source, work, lambda dead: bury(publisher, connection, topic, dead), stop=stop)
    finally:
        source.close()
        publisher.close()
        index.close()
        engine.dispose()


@contextmanager
def consuming(places: Places, names: Sequence[str], *, batch_size: int) -> Iterator[Callable[[], bool]]:
    """Consumers that run until the end of the block. Yields: whether one has ended by itself, which none does; the block's end says why."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(names)) as pool:
        running = [pool.submit(run_consumer, name, places, stop=stop, batch_size=batch_size) for name in names]
        try:
            yield lambda: any(one.done() for one in running)
        finally:
            stop.set()
    for one in running:
        one.result()


class ConsumerProcess:
    """A consumer in a process of its own.

    Attributes:
        batches: it has begun to write so many.
    """

    def __init__(self, name: str, places: Places) -> None:
        self.batches = 0
        self._name = name
        self._process = start("consume_process", name, places.as_word())
        self._reader = threading.Thread(target=self._count, daemon=True)
        self._reader.start()

    def kill_amid(self, batch: int, seconds: float) -> None:
        """SIGKILL it while it writes a batch."""
        wait_until(lambda: self.batches >= batch, f"consumer of {self._name} gets no batch", longest_seconds=_BATCH_SECONDS)
        pause(seconds)
        self._process.kill()
        assert self._ended() == -9

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """SIGTERM, at which it leaves its group and ends well; after an error SIGKILL."""
        if self._process.poll() is not None:
            return
        if error is None:
            self._process.terminate()
            assert self._ended() == 0
        else:
            self._process.kill()
            self._ended()

    def _ended(self) -> int:
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._reader.join()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def _count(self) -> None:
        assert self._process.stdout is not None
        for _ in self._process.stdout:
            self.batches += 1


def lag(places: Places, name: str) -> int:
    """Messages that a consumer has not committed."""
    return sum(measure_lag(places.kafka_connection, *CONSUMED[name]).values())


def is_consumed(places: Places) -> bool:
    """No consumer has anything left to commit. A broker that has just come is asked again."""
    try:
        return not any(lag(places, name) for name in CONSUMED)
    except SinkDown:
        return False


def is_calm(stream: Stream) -> bool:
    """Nothing to consume, nothing to relay, and nothing to consume of what was relayed meanwhile."""
    return is_consumed(stream.places) and not stream.waiting() and is_consumed(stream.places)


@dataclass(frozen=True, slots=True)
class Foreign:
    """What somebody else produced.

    Attributes:
        points: what it tells, all of it new.
        events: different ones.
    """

    records: list[Record]
    points: Points
    events: int


def make_foreign(random: Random, places: Places) -> dict[str, Foreign]:
    """Something for each consumer, each of other products."""
    return {
        "prices": make_prices(random, places, products=40, steps=15),
        "deals": make_prices(random, places, products=30, steps=10, topic=Topic.DEAL_UPDATES, letter="D"),
        "enrich": make_answers(random, places, products=60, steps=4),
    }


def watch_half(stream: Stream, foreign: Mapping[str, Foreign]) -> None:
    """Every second series is watched; events go where they go with everything switched on."""
    user_id = add_user(stream.engine)
    for some in foreign.values():
        for asin, price_type in list(some.points)[::2]:
            add_watch(stream.engine, user_id, asin=asin, price_type=price_type, now=START)
    use_sinks(stream.engine, {Sink.KAFKA, Sink.SEARCH}, without=())


def judge_consumed(stream: Stream, foreign: Mapping[str, Foreign]) -> Verdict:
    """Every foreign event recorded once, every product's newest document in the index and in Kafka, and no dead letter."""
    points = {series: some for one in foreign.values() for series, some in one.points.items()}
    expected = sorted((asin, at, amount) for (asin, _), some in points.items() for at, amount in some)
    stored = rows(stream.engine, "SELECT asin, observed_at, amount_minor FROM price_history ORDER BY 1, 2")
    verdict = Verdict(sum(one.events for one in foreign.values()), len(set(expected) - set(stored)), _count_doubled(stream))
    assert stored == expected
    ingested = dict(rows(stream.engine, "SELECT topic, count(*) FROM ingested_events GROUP BY topic"))
    assert ingested == {f"{stream.places.topic_prefix}{CONSUMED[name][0]}": one.events for name, one in foreign.items()}
    newest = {asin: some[-1][1] for (asin, price_type), some in points.items() if price_type is PriceType.NEW}
    assert dict(rows(stream.engine, "SELECT asin, amount_minor FROM current_prices")) == newest
    assert_products_are_current(stream)
    for topic in DEAD_LETTERS.values():
        assert read_topic(stream.places, topic) == []
    return verdict


def _count_doubled(stream: Stream) -> int:
    """Each product's newest document was published, and one event id is one document. Returns how many were published twice."""
    bodies: dict[str, bytes | None] = {}
    revisions: Counter[str] = Counter()
    sent = read_topic(stream.places, Topic.ENRICHED_PRODUCTS)
    for message in sent:
        event = json.loads(message.value or b"")
        assert bodies.setdefault(event["event_id"], message.value) == message.value
        revisions[event["asin"]] = max(revisions[event["asin"]], event["revision"])
    assert revisions == dict(rows(stream.engine, "SELECT asin, sum(revision)::bigint FROM products GROUP BY asin"))
    return len(sent) - len(bodies)


def produce(places: Places, records: Sequence[Record]) -> None:
    """Acknowledged, topics made before."""
    publisher = Publisher(places.kafka_connection, places.topic_settings)
    try:
        publisher.connect()
        for first in range(0, len(records), 500):
            assert set(publisher.publish(records[first : first + 500])) <= {None}
    finally:
        publisher.close()


def make_prices(
    random: Random, places: Places, *, products: int, steps: int, topic: Topic = Topic.PRICE_UPDATES, letter: str = "P"
) -> Foreign:
    """Prices of each product, oldest first; every tenth event comes twice."""
    points: Points = {}
    records = []
    name = topic_name(places.kafka_connection, topic)
    for step in range(steps):
        for number in range(products):
            asin, amount = f"{letter}{number:09d}", 1000 + 100 * step + random.randrange(100)
            at = START + timedelta(hours=step, minutes=random.randrange(60))
            points.setdefault((asin, PriceType.NEW), []).append((at, amount))
            value = json.dumps(price_event(random, asin, at, amount)).encode()
            records += [Record(name, asin, value, [])] * (2 if random.random() < 0.1 else 1)
    return Foreign(records, points, products * steps)


def price_event(random: Random, asin: str, at: datetime, amount_minor: int) -> dict[str, Any]:
    """As somebody else would produce it."""
    return {
        "asin": asin,
        "domain": "de",
        "timestamp": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "current_price": amount_minor / 100,
        "product_title": "Tastatur",
        "event_id": str(UUID(int=random.getrandbits(128), version=4)),
    }


def make_answers(random: Random, places: Places, *, products: int, steps: int) -> Foreign:
    """Keepa's own answers on each product, each with the whole history so far."""
    points: Points = {}
    records = []
    name = topic_name(places.kafka_connection, Topic.RAW_PRODUCTS)
    for step in range(steps):
        for number in range(products):
            asin = f"R{number:09d}"
            at = START + timedelta(hours=step, minutes=random.randrange(60))
            known = points.setdefault((asin, PriceType.NEW), [])
            known.append((at, 1000 + 100 * step + random.randrange(100)))
            records.append(Record(name, asin, json.dumps(raw_event(asin, known)).encode(), []))
    return Foreign(records, points, products * steps)


def raw_event(asin: str, known: Sequence[tuple[datetime, int | None]]) -> dict[str, Any]:
    """Keepa's answer at the time of the last point, as an event."""
    flat = [number for at, amount in known for number in (minute_of(at) - MINUTES_TO_2011, -1 if amount is None else amount)]
    return {
        "asin": asin,
        "domain": "de",
        "timestamp": f"{known[-1][0]:%Y-%m-%dT%H:%M:%SZ}",
        "product": {"asin": asin, "domainId": GERMANY, "productType": 0, "title": "Maus", "csv": [None, flat]},
    }
