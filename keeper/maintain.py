"""The verb `maintain`: partitions ahead, the dead written off, what has served its time removed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection, Engine

from keeper.domain.errors import KeeperError
from keeper.postgres import ingested, ledger, outbox, partitions, watches
from keeper.search.connection import SearchConnection, open_client
from keeper.search.indices import delete_older
from keeper.search.mapping import Alias


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept, days.

    Attributes:
        ingested: ids of recorded foreign events; to outlast their topics.
    """

    events: int
    calls: int
    ingested: int
    dead_letters: int


@dataclass(frozen=True, slots=True)
class Maintained:
    """What one call did."""

    partitions_made: int
    event_days_dropped: int
    calls_removed: int
    ingested_forgotten: int
    dead_letters_removed: int


@dataclass(frozen=True, slots=True)
class Retired:
    """What one call did to the indices.

    Attributes:
        documents: how many were deleted.
        problem: why not all that are old; empty where all were.
    """

    documents: int
    problem: str = ""


def maintain(engine: Engine, *, now: datetime, retention: Retention) -> Maintained:
    """Idempotent; meant to run once a day.

    In several transactions: each lock ends soon, and none is held while another kind is waited for.
    """
    with engine.begin() as connection:
        # Whoever claims products or settles a call holds the ledger; the partitions below are nobody's business there.
        ledger.lock_ledger(connection)
        watches.delete_dead_claims(connection)
        removed = ledger.delete_old_calls(connection, before=now - timedelta(days=retention.calls))
    with engine.begin() as connection:
        forgotten = ingested.delete_old(connection, days=retention.ingested)
        dead_letters = outbox.delete_old_dead_letters(connection, days=retention.dead_letters)
    return Maintained(
        partitions_made=_until_done(engine, partial(partitions.make_partitions, now=now, at_most=1)),
        event_days_dropped=_until_done(engine, partial(partitions.drop_event_days, keep_days=retention.events, at_most=1)),
        calls_removed=removed,
        ingested_forgotten=forgotten,
        dead_letters_removed=dead_letters,
    )


def retire_documents(connection: SearchConnection, *, now: datetime, days: Mapping[Alias, int | None]) -> Retired:
    """Delete the documents that have served their time; None keeps an index's for good. Idempotent.

    An Elasticsearch that is down does so another day.
    """
    deleted = 0
    try:
        client = open_client(connection)
        try:
            for alias, kept_days in days.items():
                if kept_days is not None:
                    deleted += delete_older(client, connection, alias, before=now - timedelta(days=kept_days))
        finally:
            client.close()
    except KeeperError as error:
        return Retired(deleted, str(error))
    return Retired(deleted)


def _until_done(engine: Engine, step: Callable[[Connection], int]) -> int:
    """A transaction for each step, until one finds nothing to do. Returns how much they did."""
    total = 0
    while True:
        with engine.begin() as connection:
            done = step(connection)
        if not done:
            return total
        total += done
