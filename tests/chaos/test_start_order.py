"""Whichever system comes up last: the program that was there before all of them works then, without a restart."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.chaos.conftest import Chaos, rounds
from tests.chaos.consumers import CONSUMED, consuming, is_calm, judge_consumed, make_foreign, produce, watch_half
from tests.chaos.streams import Recorder, Stream, await_calm, judge, make_checks, relaying, watch_all
from tests.services.waiting import wait_until

_CALM_SECONDS = 120.0
# Each system is once the last one in the first three.
ORDERS: Final = (
    ("kafka", "elasticsearch", "postgres"),
    ("elasticsearch", "postgres", "kafka"),
    ("postgres", "kafka", "elasticsearch"),
    ("elasticsearch", "kafka", "postgres"),
    ("postgres", "elasticsearch", "kafka"),
    ("kafka", "postgres", "elasticsearch"),
)


def kill_all(stream: Stream) -> Mapping[str, Callable[[], object]]:
    """Nothing is there any more. Returns how each system is started."""
    stream.engine.dispose()
    stream.kill_postgres()
    stream.kafka.kill(1)
    stream.elasticsearch.kill(1)
    return {
        "postgres": stream.postgres.start,
        "kafka": lambda: stream.kafka.start_node(1),
        "elasticsearch": lambda: stream.elasticsearch.start_node(1),
    }


@rounds(lambda count: 3 if count <= 3 else len(ORDERS))
def test_systems_may_start_in_any_order(chaos: Chaos, stream: Stream) -> None:
    order = ORDERS[chaos.number]
    chaos.name = f"{chaos.name}, {' '.join(order)}"
    checks, points = make_checks(chaos.random, products=40, steps=8)
    watch_all(stream.engine, points)
    starts = kill_all(stream)
    with relaying(stream.places) as told, Recorder(stream.engine, checks) as recorder:
        for system in order:
            recorder.ask(2)
            starts[system]()
        recorder.finish()
        await_calm(stream, told)
    verdict = judge(stream, points)
    chaos.say(events=verdict.events, lost=verdict.lost, doubled=verdict.doubled)


@rounds(lambda count: 3 if count <= 3 else len(ORDERS))
def test_consumers_may_be_there_before_the_systems_whatever_their_order(chaos: Chaos, stream: Stream) -> None:
    """What others have produced waits in the topics; what is relayed meanwhile comes to them too."""
    order = ORDERS[chaos.number]
    chaos.name = f"{chaos.name}, {' '.join(order)}"
    foreign = make_foreign(chaos.random, stream.places)
    watch_half(stream, foreign)
    produce(stream.places, [record for some in foreign.values() for record in some.records])
    starts = kill_all(stream)
    with relaying(stream.places), consuming(stream.places, tuple(CONSUMED), batch_size=100) as has_ended:
        for system in order:
            starts[system]()
        wait_until(lambda: has_ended() or is_calm(stream), "the consumers do not come to an end", longest_seconds=_CALM_SECONDS)
        assert not has_ended()
    verdict = judge_consumed(stream, foreign)
    chaos.say(events=verdict.events, lost=verdict.lost, doubled=verdict.doubled)
