"""Rounds and seeds of the kill tests, and what they found: a line each at the end."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from keeper.postgres.embedded import EmbeddedServer, temporary_server
from keeper.postgres.engine import open_engine
from keeper.postgres.migrate import migrate
from tests.chaos.streams import TEMPLATE, Stream, lent_stream
from tests.services.elasticsearch import ElasticsearchCluster
from tests.services.kafka import KafkaCluster

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "3"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
_found: list[str] = []

F = TypeVar("F", bound=Callable[..., None])


def rounds(of: Callable[[int], int]) -> Callable[[F], F]:
    """A kill test with other rounds than CHAOS_ROUNDS; `of` says how many."""

    def mark(function: F) -> F:
        vars(function)["rounds"] = of
        return function

    return mark


def _rounds_of(function: Any) -> int:
    of: Callable[[int], int] = getattr(function, "rounds", int)
    return of(ROUNDS)


class Chaos:
    """One round's randomness, and where it says what it found."""

    def __init__(self, name: str, number: int, rounds: int = ROUNDS) -> None:
        self.name = name
        self.number = number
        self.seed = SEED
        self._rounds = rounds
        self.random = random.Random(f"{SEED}/{name}/{number}")

    def say(self, **facts: int) -> None:
        """Keep the round's facts for the terminal."""
        shown = ", ".join(f"{name} {value}" for name, value in facts.items())
        _found.append(f"chaos {self.name} round {self.number + 1}/{self._rounds}, seed {SEED}: {shown}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each kill test once a round."""
    if "chaos" in metafunc.fixturenames:
        numbers = range(_rounds_of(metafunc.function))
        metafunc.parametrize("chaos", numbers, indirect=True, ids=lambda number: f"round{number + 1}")


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Chaos:
    """This round."""
    return Chaos(request.function.__name__.removeprefix("test_"), request.param, _rounds_of(request.function))


@pytest.fixture(scope="session")
def mortal_postgres() -> Iterator[EmbeddedServer]:
    """A server to be killed, on a TCP port. Unlike the session's it has on disk what it has said is committed."""
    with temporary_server(tcp_port=0, settings={"synchronous_commit": "on"}) as server:
        server.create_database(TEMPLATE)
        engine = open_engine(server.dsn(TEMPLATE))
        migrate(engine, now=datetime.now(UTC))
        engine.dispose()
        yield server


@pytest.fixture(scope="session")
def mortal_kafka(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """A broker to be killed, with a listener behind a proxy."""
    options = {"group.min.session.timeout.ms": "1000"}
    cluster = KafkaCluster(tmp_path_factory.mktemp("kafka"), proxied=True, options=options, is_temporary=True)
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture
def stream(mortal_postgres: EmbeddedServer, mortal_kafka: KafkaCluster, elasticsearch_cluster: ElasticsearchCluster) -> Iterator[Stream]:
    """The three systems for one round. The session's node of Elasticsearch is killed too, because one start takes as long as a round."""
    with lent_stream(mortal_postgres, mortal_kafka, elasticsearch_cluster) as lent:
        yield lent


def _lines() -> list[str]:
    """CHAOS_SEED=n replays."""
    return [*_found, f"CHAOS_SEED={SEED} CHAOS_ROUNDS={ROUNDS} replays them"] if _found else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was found."""
    for line in _lines():
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """One of several processes has no terminal, but the standard error of the one that has."""
    if hasattr(config, "workerinput"):
        for line in _lines():
            print(line, file=sys.__stderr__, flush=True)
