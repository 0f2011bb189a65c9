"""Consumers fed what no event is: all of it lands in the dead letters as it was, and every event between is recorded once."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random
from typing import Any, Final

from keeper.domain.events import Sink
from keeper.kafka.line import Record
from keeper.kafka.topics import DEAD_LETTERS, Topic, topic_name
from tests.chaos.conftest import Chaos, rounds
from tests.chaos.consumers import CONSUMED, consuming, lag, make_answers, make_prices, price_event, produce, raw_event
from tests.chaos.streams import START, Stream, read_topic
from tests.integration.makers import rows, use_sinks
from tests.services.waiting import wait_until

BATCH_SIZE = 500
BAD: Final = {"prices": 4000, "deals": 3000, "enrich": 3000}
LARGEST_BYTES: Final = {"prices": 1024 * 1024, "deals": 1024 * 1024, "enrich": 4 * 1024 * 1024}
LARGE = 6
# The broker measures a message with what is around it.
_AROUND_BYTES = 300
_CALM_SECONDS = 180.0

_TEXT: Final[Sequence[Any]] = (None, 0, True, 1.5, [], {}, "")
# A value that the field may not have, in a message that is fine but for it.
_PLACES: Final[Sequence[tuple[str, Sequence[Any]]]] = (
    ("asin", (*_TEXT, "b07w6jg6z7", "B07W6JG6Z", "B07W6JG6Z77", "B07W6JG6Z7\n", "B07W6JG6\u0000A", "\ud800", "Ｂ07W6JG6Z7",
        ["B07W6JG6Z7"])),
    ("domain", (*_TEXT, "xx", "de ", "3", 3, ["de"], "\udfff")),
    ("currency", (*_TEXT[1:], "USD", "eur", 978)),  # null says as little as nothing
    ("timestamp", (*_TEXT, "yesterday", "2026-13-01T00:00:00Z", "1999-12-31T23:59:59Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59", "2026-02-30", "99999999999999999999", "2026-02-20T12:30:00+99:00", 1770000000)),
    ("schema_version", (0, 2, -1, 10**40, 1.0, "1", True, [], {})),
    ("event_id", (0, True, 1.5, [], {}, "", "x", "0" * 31, "g" * 32)),
)  # fmt: skip
_PRICES: Final[Sequence[tuple[str, Sequence[Any]]]] = (
    ("current_price", (True, "12.50", [], {}, 10**30, 1e300, float("nan"), float("inf"), float("-inf"))),
    ("current_price_minor", (True, "1250", 12.5, [], {}, 2**31, 10**50)),
    ("price_type", (*_TEXT[1:], "new", "SALES", "RATING", "COUNT_REVIEWS", "\ud800")),
    ("product_title", (0, True, 1.5, [], {})),
)
_DEALS: Final[Sequence[tuple[str, Sequence[Any]]]] = (
    ("current_price", (None, 0, -1)),
    ("original_price", (True, "12.50", [], {}, 1e300)),
    ("original_price_minor", ("x", 2**31)),
)
_ANSWERS: Final[Sequence[tuple[str, Sequence[Any]]]] = (
    ("product", (0, True, 1.5, "x", [], {}, {"asin": 5}, {"asin": "B000000000"})),
    ("asin", ("B000000000",)),
)
# The same of the answer inside.
_INSIDE: Final[Sequence[tuple[str, Sequence[Any]]]] = (
    ("domainId", (1, 99)),
    ("csv", ("x", 5, {})),
    ("productType", ("x", [], 1.5)),
    ("stats", ("x", [], 5)),
)
_NUMBERS: Final = (
    b"1e999999999",
    b"-1e999999999",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1" * 5000,
    b"0x10",
    b"01",
    b"1.",
    b"1e1000000000000000000",
)
_JUNK: Final = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"0",
    b'""',
    b"true",
    b"{",
    b'{"asin"',
    b"\xff\xfe",
    b"\x00" * 64,
    b"[" * 20_000,
    b'{"a":' * 20_000,
)


def _pick(bad: Sequence[tuple[str, Sequence[Any]]], random: Random) -> tuple[str, Any]:
    field, values = random.choice(bad)
    return field, random.choice(values)


def make_bad(random: Random, name: str) -> bytes | None:
    """One value that is no event of the consumer's topic."""
    good = _good(random, name)
    text = json.dumps(good).encode()

    def random_bytes() -> bytes:
        return b"\xff" + random.randbytes(random.randrange(200))

    def cut_off() -> bytes:
        return text[: random.randrange(len(text))]

    def turned() -> bytes:
        """A byte of the frame overwritten with one that no JSON has there."""
        return b"\x01" + text[1:]

    def wrong() -> bytes:
        of_type = {"prices": _PRICES, "deals": (*_PRICES, *_DEALS), "enrich": _ANSWERS}[name]
        field, value = _pick((*_PLACES, *of_type), random)
        return json.dumps(good | {field: value}).encode()

    def wrong_inside() -> bytes:
        if name != "enrich":
            return wrong()
        field, value = _pick(_INSIDE, random)
        return json.dumps(good | {"product": good["product"] | {field: value}}).encode()

    def hostile_number() -> bytes:
        number = random.choice(_NUMBERS)
        return text[:-1] + (b',"current_price":' if name != "enrich" else b',"schema_version":') + number + b"}"

    def junk() -> bytes:
        return random.choice(_JUNK)

    def nothing() -> None:
        return None

    kinds: Sequence[tuple[Callable[[], bytes | None], int]] = (
        (random_bytes, 20), (cut_off, 20), (turned, 5), (wrong, 40), (wrong_inside, 20), (hostile_number, 10), (junk, 10), (nothing, 1),
    )  # fmt: skip
    return random.choices([make for make, _ in kinds], [weight for _, weight in kinds])[0]()


def make_large(random: Random, name: str) -> bytes:
    """As large as the topic takes: noise, or an event that is fine but for its schema."""
    size = LARGEST_BYTES[name] - _AROUND_BYTES
    if random.random() < 0.5:
        return b"\xff" + random.randbytes(size - 1)
    frame = json.dumps(_good(random, name) | {"schema_version": 9, "note": ""}).encode()
    return frame[:-2] + random.randbytes(size).hex().encode()[: size - len(frame)] + b'"}'


def _good(random: Random, name: str) -> dict[str, Any]:
    at = START + timedelta(minutes=random.randrange(10_000))
    amount = random.randrange(1, 10_000)
    return raw_event("X000000000", [(at, amount)]) if name == "enrich" else price_event(random, "X000000000", at, amount)


@rounds(lambda count: max(1, count // 3))
def test_what_is_no_event_lands_in_the_dead_letters_and_stops_nobody(chaos: Chaos, stream: Stream) -> None:
    random, places = chaos.random, stream.places
    use_sinks(stream.engine, frozenset[Sink]())
    fine = {
        "prices": make_prices(random, places, products=40, steps=3),
        "deals": make_prices(random, places, products=40, steps=3, topic=Topic.DEAL_UPDATES, letter="D"),
        "enrich": make_answers(random, places, products=30, steps=2),
    }
    bad: dict[str, list[bytes | None]] = {}
    for name, (topic, _) in CONSUMED.items():
        bad[name] = [make_bad(random, name) for _ in range(BAD[name] - LARGE)] + [make_large(random, name) for _ in range(LARGE)]
        target = topic_name(places.kafka_connection, topic)
        keys = (None, b"", b"X000000000", b"\xff\x00")
        mixed = [Record(target, random.choice(keys), value, [("kind", random.randbytes(4))]) for value in bad[name]]
        random.shuffle(mixed)
        # The fine ones keep their order.
        for place, record in zip(sorted(random.sample(range(len(mixed)), len(fine[name].records))), fine[name].records, strict=True):
            mixed.insert(place, record)
        produce(places, mixed)
    with consuming(places, list(CONSUMED), batch_size=BATCH_SIZE):
        wait_until(lambda: not any(lag(places, name) for name in CONSUMED), "the consumers do not go on", longest_seconds=_CALM_SECONDS)
    lost = doubled = 0
    for name, (topic, _) in CONSUMED.items():
        letters = read_topic(places, DEAD_LETTERS[topic])
        kept, wanted = Counter(letter.value for letter in letters), Counter(bad[name])
        lost += (wanted - kept).total()
        doubled += (kept - wanted).total()
        assert all(dict(letter.headers)["keeper-reason"] for letter in letters)
        assert (kept - wanted, wanted - kept) == (Counter(), Counter()), name
    points = {series: some for one in fine.values() for series, some in one.points.items()}
    chaos.say(events=sum(one.events for one in fine.values()), unreadable=sum(BAD.values()), lost=lost, doubled=doubled)
    expected = sorted((asin, at, amount) for (asin, _), some in points.items() for at, amount in some)
    assert rows(stream.engine, "SELECT asin, observed_at, amount_minor FROM price_history ORDER BY 1, 2") == expected
    assert rows(stream.engine, "SELECT count(*) FROM ingested_events") == [sum(one.events for one in fine.values())]
