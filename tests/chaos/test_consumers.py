"""Consumers killed in the middle of a batch: every foreign event is recorded once, and every product's document is the newest."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from keeper.domain.events import Sink
from keeper.domain.price_type import PriceType
from keeper.kafka.topics import Topic
from tests.chaos.conftest import Chaos
from tests.chaos.consumers import ConsumerProcess, lag, make_answers, make_prices, produce
from tests.chaos.streams import START, Places, Stream, assert_products_are_current, read_topic, relaying
from tests.integration.makers import add_user, add_watch, rows, use_sinks
from tests.services.waiting import wait_until

KILLS_OF_EACH = 2
CONSUMERS = ("prices", "enrich")
_CALM_SECONDS = 120.0


def is_calm(stream: Stream) -> bool:
    """Nothing to consume, nothing to relay, and nothing to consume of what was relayed meanwhile."""

    def is_consumed() -> bool:
        return not any(lag(stream.places, name) for name in CONSUMERS)

    return is_consumed() and not stream.waiting() and is_consumed()


def assert_enriched(stream: Stream) -> int:
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


def live_and_die(places: Places, name: str, batch: int, seconds: float) -> None:
    """A consumer that is killed so long after it has begun to write its nth batch."""
    with ConsumerProcess(name, places) as one:
        one.kill_amid(batch, seconds)


def test_consumers_killed_amid_a_batch_record_everything_once(chaos: Chaos, stream: Stream) -> None:
    prices = make_prices(chaos.random, stream.places, products=40, steps=15)
    answers = make_answers(chaos.random, stream.places, products=60, steps=4)
    points = prices.points | answers.points
    user_id = add_user(stream.engine)
    for asin, price_type in list(points)[::2]:
        add_watch(stream.engine, user_id, asin=asin, price_type=price_type, now=START)
    use_sinks(stream.engine, {Sink.KAFKA, Sink.SEARCH}, without=())
    produce(stream.places, [*prices.records, *answers.records])
    kills = 0
    with relaying(stream.places), ThreadPoolExecutor(len(CONSUMERS)) as pool, ExitStack() as last:
        for _ in range(KILLS_OF_EACH):
            moments = [(name, chaos.random.randrange(1, 4), chaos.random.uniform(0, 0.06)) for name in CONSUMERS]
            for killed in [pool.submit(live_and_die, stream.places, *moment) for moment in moments]:
                killed.result()
                kills += 1
        for name in CONSUMERS:
            last.enter_context(ConsumerProcess(name, stream.places))
        wait_until(lambda: is_calm(stream), "the consumers do not come to an end", longest_seconds=_CALM_SECONDS)
    expected = sorted((asin, at, amount) for (asin, _), some in points.items() for at, amount in some)
    stored = rows(stream.engine, "SELECT asin, observed_at, amount_minor FROM price_history ORDER BY 1, 2")
    doubled = assert_enriched(stream)
    lost = len(set(expected) - set(stored))
    chaos.say(events=prices.events + answers.events, interruptions=kills, lost=lost, doubled=doubled)
    assert stored == expected
    assert rows(stream.engine, "SELECT topic, count(*) FROM ingested_events GROUP BY topic ORDER BY topic") == [
        (f"{stream.places.topic_prefix}{topic}", events)
        for topic, events in ((Topic.PRICE_UPDATES, prices.events), (Topic.RAW_PRODUCTS, answers.events))
    ]
    newest = {asin: some[-1][1] for (asin, price_type), some in points.items() if price_type is PriceType.NEW}
    assert dict(rows(stream.engine, "SELECT asin, amount_minor FROM current_prices")) == newest
    assert_products_are_current(stream)
    for topic in (Topic.DEAD_PRICE_UPDATES, Topic.DEAD_RAW_PRODUCTS):
        assert read_topic(stream.places, topic) == []
