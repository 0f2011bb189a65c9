"""Consumers that are killed in the middle of a batch, or behind a network that fails: every foreign event is recorded once, and every
product's document is the newest.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from tests.chaos.conftest import Chaos
from tests.chaos.consumers import CONSUMED, ConsumerProcess, consuming, is_calm, judge_consumed, make_foreign, produce, watch_half
from tests.chaos.streams import Places, Stream, pause, relaying
from tests.chaos.test_streams import apply_fault, behind_proxies, fault_of
from tests.integration.makers import one
from tests.services.waiting import wait_until

KILLS_OF_EACH = 2
BATCH_SIZE = 40
_CALM_SECONDS = 120.0


def live_and_die(places: Places, name: str, batch: int, seconds: float) -> None:
    """A consumer that is killed so long after it has begun to write its nth batch."""
    with ConsumerProcess(name, places) as process:
        process.kill_amid(batch, seconds)


def test_consumers_killed_amid_a_batch_record_everything_once(chaos: Chaos, stream: Stream) -> None:
    foreign = make_foreign(chaos.random, stream.places)
    watch_half(stream, foreign)
    produce(stream.places, [record for some in foreign.values() for record in some.records])
    kills = 0
    with relaying(stream.places), ThreadPoolExecutor(len(CONSUMED)) as pool, ExitStack() as last:
        for _ in range(KILLS_OF_EACH):
            moments = [(name, chaos.random.randrange(1, 4), chaos.random.uniform(0, 0.06)) for name in CONSUMED]
            for killed in [pool.submit(live_and_die, stream.places, *moment) for moment in moments]:
                killed.result()
                kills += 1
        for name in CONSUMED:
            last.enter_context(ConsumerProcess(name, stream.places))
        wait_until(lambda: is_calm(stream), "the consumers do not come to an end", longest_seconds=_CALM_SECONDS)
    verdict = judge_consumed(stream, foreign)
    chaos.say(events=verdict.events, interruptions=kills, lost=verdict.lost, doubled=verdict.doubled)


def test_consumers_behind_a_network_that_fails_record_everything_once(chaos: Chaos, stream: Stream) -> None:
    """The relay and whoever produces have a network of their own that holds."""
    fault, system = fault_of(chaos)
    chaos.name = f"{chaos.name}, {fault} to {system}"
    foreign = make_foreign(chaos.random, stream.places)
    watch_half(stream, foreign)
    halves = [len(some.records) // 2 for some in foreign.values()]
    before = [record for some, half in zip(foreign.values(), halves, strict=True) for record in some.records[:half]]
    after = [record for some, half in zip(foreign.values(), halves, strict=True) for record in some.records[half:]]
    with (
        behind_proxies(stream) as (places, proxies),
        relaying(stream.places),
        consuming(places, tuple(CONSUMED), batch_size=BATCH_SIZE) as has_ended,
    ):
        produce(stream.places, before)
        wait_until(lambda: has_ended() or one(stream.engine, "SELECT count(*) FROM ingested_events") > 0, "nothing is consumed")
        pause(chaos.random.uniform(0, 1))
        apply_fault(chaos, proxies[system], fault)
        try:
            produce(stream.places, after)
            pause(chaos.random.uniform(0.5, 2))
        finally:
            proxies[system].restore()
        wait_until(lambda: has_ended() or is_calm(stream), "the consumers do not come to an end", longest_seconds=_CALM_SECONDS)
        assert not has_ended()
    verdict = judge_consumed(stream, foreign)
    chaos.say(events=verdict.events, interruptions=1, lost=verdict.lost, doubled=verdict.doubled)
