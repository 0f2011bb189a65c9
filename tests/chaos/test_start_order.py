"""Whichever system comes up last: the program that was there before all of them works then, without a restart."""

from collections.abc import Callable
from typing import Final

from tests.chaos.conftest import Chaos, rounds
from tests.chaos.streams import Recorder, Stream, await_calm, judge, make_checks, relaying, watch_all

# Each system is once the last one in the first three.
ORDERS: Final = (
    ("kafka", "elasticsearch", "postgres"),
    ("elasticsearch", "postgres", "kafka"),
    ("postgres", "kafka", "elasticsearch"),
    ("elasticsearch", "kafka", "postgres"),
    ("postgres", "elasticsearch", "kafka"),
    ("kafka", "postgres", "elasticsearch"),
)


@rounds(lambda count: 3 if count <= 3 else len(ORDERS))
def test_systems_may_start_in_any_order(chaos: Chaos, stream: Stream) -> None:
    order = ORDERS[chaos.number]
    chaos.name = f"{chaos.name}, {' '.join(order)}"
    checks, points = make_checks(chaos.random, products=40, steps=8)
    watch_all(stream.engine, points)
    stream.engine.dispose()
    stream.kill_postgres()
    stream.kafka.kill(1)
    stream.elasticsearch.kill(1)
    starts: dict[str, Callable[[], object]] = {
        "postgres": stream.postgres.start,
        "kafka": lambda: stream.kafka.start_node(1),
        "elasticsearch": lambda: stream.elasticsearch.start_node(1),
    }
    with relaying(stream.places) as told, Recorder(stream.engine, checks) as recorder:
        for system in order:
            recorder.ask(2)
            starts[system]()
        recorder.finish()
        await_calm(stream, told)
    verdict = judge(stream, points)
    chaos.say(events=verdict.events, lost=verdict.lost, doubled=verdict.doubled)
