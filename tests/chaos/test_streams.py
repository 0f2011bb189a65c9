"""Prices go to PostgreSQL, Kafka and Elasticsearch while a process, a server or the network fails: none of them loses any."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

import pytest

from keeper.domain.events import Sink
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import open_engine
from tests.chaos.conftest import Chaos, rounds
from tests.chaos.streams import (
    Places,
    Points,
    Recorder,
    Relaying,
    Stream,
    await_calm,
    judge,
    lent_stream,
    make_checks,
    pause,
    relaying,
    watch_all,
    with_port,
)
from tests.chaos.test_kills import kill_after, start
from tests.services.elasticsearch import ElasticsearchCluster
from tests.services.kafka import KafkaCluster
from tests.services.proxy import Proxy
from tests.services.waiting import wait_until

PRODUCTS = 60
STEPS = 10
KILLS_OF_RELAY = 3
MOST_STARTS = 20
FAULTS: Final = ("cut", "slow", "half_open")
SYSTEMS: Final = ("postgres", "kafka", "elasticsearch")
# What each system takes; the others go on while it is away.
SINKS_OF: Final = {"postgres": (), "kafka": (Sink.KAFKA,), "elasticsearch": (Sink.SEARCH, Sink.ENRICH)}


@contextmanager
def running(chaos: Chaos, stream: Stream, places: Places) -> Iterator[tuple[Recorder, Relaying, Points]]:
    """A recorder and a relay that reach the systems at `places`; at the end of the block all is recorded and nothing waits."""
    checks, points = make_checks(chaos.random, products=PRODUCTS, steps=STEPS)
    watch_all(stream.engine, points)
    engine = open_engine(places.database, connect_timeout_seconds=2)
    try:
        with relaying(places) as told, Recorder(engine, checks) as recorder:
            recorder.ask(2)
            yield recorder, told, points
            recorder.finish()
            await_calm(stream, told)
    finally:
        engine.dispose()


def go_on_without(stream: Stream, told: Relaying, recorder: Recorder, system: str) -> None:
    """While a system is away: a part of the checks is recorded, the relay notices, and the other sinks get everything."""
    downs = {sink: told.downs[sink] for sink in SINKS_OF[system]}
    recorded = recorder.recorded
    recorder.ask(4)
    wait_until(lambda: recorder.recorded >= recorded + 4, "nothing is recorded meanwhile")
    for sink, count in downs.items():
        wait_until(lambda sink=sink, count=count: told.downs[sink] > count, f"nobody notices that {sink} is away")  # type: ignore[misc]
    wait_until(lambda: set(stream.waiting()) <= set(downs), "the other sinks wait too")


def say(chaos: Chaos, stream: Stream, points: Points, interruptions: int) -> int:
    """Judge the round and tell its figures. Returns how many messages were doubled."""
    verdict = judge(stream, points)
    chaos.say(events=verdict.events, interruptions=interruptions, lost=verdict.lost, doubled=verdict.doubled)
    return verdict.doubled


def test_a_relay_killed_while_it_delivers_loses_nothing(chaos: Chaos, stream: Stream) -> None:
    checks, points = make_checks(chaos.random, products=PRODUCTS, steps=STEPS)
    watch_all(stream.engine, points)
    kills = 0
    with Recorder(stream.engine, checks) as recorder:
        for _ in range(KILLS_OF_RELAY):
            recorder.ask(STEPS // KILLS_OF_RELAY)
            kills += kill_after(start("stream_relay_process", stream.places.as_word()), chaos.random.uniform(0.02, 1.0))
        recorder.finish()
    for _ in range(MOST_STARTS):
        if not kill_after(start("stream_relay_process", stream.places.as_word()), 120):
            break
    assert not stream.waiting()
    say(chaos, stream, points, kills)


def test_a_broker_killed_and_started_again_loses_nothing(chaos: Chaos, stream: Stream) -> None:
    with running(chaos, stream, stream.places) as (recorder, told, points):
        pause(chaos.random.uniform(0, 1.5))
        stream.kafka.kill(1)
        try:
            go_on_without(stream, told, recorder, "kafka")
        finally:
            stream.kafka.start_node(1)
    say(chaos, stream, points, 1)


def test_an_elasticsearch_killed_and_started_again_loses_nothing(chaos: Chaos, stream: Stream) -> None:
    with running(chaos, stream, stream.places) as (recorder, told, points):
        pause(chaos.random.uniform(0, 1.5))
        stream.elasticsearch.kill(1)
        try:
            go_on_without(stream, told, recorder, "elasticsearch")
        finally:
            stream.elasticsearch.start_node(1)
    assert say(chaos, stream, points, 1) == 0


def test_a_database_restarted_at_once_loses_nothing(chaos: Chaos, stream: Stream) -> None:
    with running(chaos, stream, stream.places) as (recorder, _, points):
        for checks in (3, 3):
            recorder.ask(checks)
            pause(chaos.random.uniform(0, 1))
            stream.kill_postgres()
            pause(chaos.random.uniform(0, 0.5))
            stream.engine.dispose()
            stream.postgres.start()
    say(chaos, stream, points, 2)


def fault_of(chaos: Chaos) -> tuple[str, str]:
    """Any three rounds in a row have each fault and each system, any nine all nine pairs; the seed says in which order."""
    order = Random(f"{chaos.seed}/network")
    faults, systems = order.sample(FAULTS, 3), order.sample(SYSTEMS, 3)
    return faults[chaos.number % 3], systems[(chaos.number + chaos.number // 3) % 3]


@contextmanager
def behind_proxies(stream: Stream) -> Iterator[tuple[Places, Mapping[str, Proxy]]]:
    """The three systems with a proxy before each, and these by system."""
    with ExitStack() as open_proxies:
        (kafka,) = open_proxies.enter_context(stream.kafka.open_proxies())
        postgres = open_proxies.enter_context(Proxy(stream.postgres.address().port))
        elasticsearch = open_proxies.enter_context(Proxy(stream.elasticsearch.port(1, "http")))
        places = replace(
            stream.places,
            database=with_port(stream.places.database, postgres.port),
            brokers=stream.kafka.proxied_bootstrap_servers,
            search=f"http://{elasticsearch.address}",
        )
        yield places, {"postgres": postgres, "kafka": kafka, "elasticsearch": elasticsearch}


def apply_fault(chaos: Chaos, proxy: Proxy, fault: str) -> None:
    """Until the proxy is restored."""
    match fault:
        case "cut":
            proxy.cut()
        case "half_open":
            proxy.half_open()
        case _:
            proxy.slow(bytes_per_second=chaos.random.uniform(20_000, 200_000), delay_seconds=chaos.random.uniform(0.005, 0.05))


def test_a_network_that_fails_loses_nothing(chaos: Chaos, stream: Stream) -> None:
    fault, system = fault_of(chaos)
    chaos.name = f"{chaos.name}, {fault} to {system}"
    with behind_proxies(stream) as (places, proxies):
        with running(chaos, stream, places) as (recorder, told, points):
            pause(chaos.random.uniform(0, 1))
            apply_fault(chaos, proxies[system], fault)
            try:
                if system == "postgres" or fault == "slow":
                    recorder.ask(4)
                    pause(chaos.random.uniform(0.5, 2))
                else:
                    go_on_without(stream, told, recorder, system)
            finally:
                proxies[system].restore()
        say(chaos, stream, points, 1)


@pytest.mark.slow
@rounds(lambda count: max(1, count // 3))
def test_one_of_three_brokers_killed_loses_nothing_and_stops_nothing(
    chaos: Chaos, mortal_postgres: EmbeddedServer, elasticsearch_cluster: ElasticsearchCluster, kafka_jars: Path, tmp_path: Path
) -> None:
    cluster = KafkaCluster(tmp_path, 3, is_temporary=True)
    cluster.start()
    try:
        with lent_stream(mortal_postgres, cluster, elasticsearch_cluster) as stream:
            with running(chaos, stream, stream.places) as (recorder, told, points):
                pause(chaos.random.uniform(0, 2))
                killed = chaos.random.randrange(1, 4)
                cluster.kill(killed)
                recorder.finish()
                await_calm(stream, told)
            say(chaos, stream, points, 1)
            cluster.start_node(killed)
    finally:
        cluster.remove()
