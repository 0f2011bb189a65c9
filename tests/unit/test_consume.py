"""Batches of Kafka: what is buried, and what waits for a system that is away."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from keeper.consume import Rejected, consume
from keeper.domain.delivery import SinkDown


@dataclass(frozen=True)
class Received:
    """A message."""

    topic: str = "price-updates"
    value: bytes | None = b"{}"


@dataclass
class Member:
    """Has one batch, and ends the loop when that is committed."""

    batch: list[Received]
    stop: threading.Event = field(default_factory=threading.Event)
    committed: list[Received] = field(default_factory=list)

    def read_batch(self, longest_seconds: float) -> list[Received]:  # noqa: ARG002
        return self.batch

    def commit(self, batch: Sequence[Received]) -> None:
        self.committed += batch
        self.stop.set()

    def keep_alive(self) -> None:
        """It stays."""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keeper.consume._FIRST_WAIT_SECONDS", 0.001)


def consumed(error: Exception, *, failures: int) -> tuple[Member, int, list[str]]:
    """Two messages whose work fails so often. Returns the member, how often work was asked for, and the reasons of what was buried."""
    member, asked, buried = Member([Received(), Received()]), 0, list[str]()

    def work(batch: Sequence[Received]) -> Rejected[Received]:
        nonlocal asked
        asked += 1
        if asked <= failures:
            raise error
        return ()

    consume(member, work, lambda rejected: buried.extend(reason for _, reason in rejected), stop=member.stop)
    return member, asked, buried


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(PoolTimeout("QueuePool limit of size 8 overflow 2 reached"), id="no connection is free"),
        pytest.param(PendingRollbackError("Can't reconnect until invalid transaction is rolled back."), id="cut amid a transaction"),
        pytest.param(InterfaceError("SELECT", {}, psycopg.InterfaceError("the cursor is closed")), id="cut amid an answer"),
        pytest.param(psycopg.InterfaceError("the cursor is closed"), id="cut amid a COPY"),
        pytest.param(psycopg.OperationalError("the connection is lost"), id="lost amid a COPY"),
        pytest.param(OperationalError("SELECT", {}, psycopg.OperationalError("refused")), id="no server"),
        pytest.param(DBAPIError("SELECT", {}, psycopg.Error("?"), connection_invalidated=True), id="another end of a connection"),
        pytest.param(SinkDown("nobody is there"), id="no index"),
    ],
)
def test_an_outage_buries_nothing_and_the_batch_is_tried_again(error: Exception) -> None:
    member, asked, buried = consumed(error, failures=3)
    assert (buried, asked, len(member.committed)) == ([], 4, 2)


def test_a_message_that_fails_in_a_way_nobody_foresaw_is_buried_and_costs_no_other() -> None:
    """The batch fails, then the first of its messages alone."""
    member, asked, buried = consumed(ZeroDivisionError(), failures=2)
    assert (asked, len(member.committed)) == (3, 2)
    assert buried == ["ZeroDivisionError while it was worked on; the log of the consumer tells more"]
