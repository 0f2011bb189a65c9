"""The verb `maintain`: partitions ahead, the dead written off, what has served its time removed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection, Engine

from keeper.postgres import ledger, partitions, watches


@dataclass(frozen=True, slots=True)
class Maintained:
    """What one call did."""

    partitions_made: int
    event_days_dropped: int
    calls_removed: int


def maintain(engine: Engine, *, now: datetime, events_days: int, calls_days: int) -> Maintained:
    """Idempotent; meant to run once a day.

    In several transactions: each lock ends soon, and none is held while another kind is waited for.
    """
    with engine.begin() as connection:
        # Whoever claims products or settles a call holds the ledger; the partitions below are nobody's business there.
        ledger.lock_ledger(connection)
        watches.delete_dead_claims(connection)
        removed = ledger.delete_old_calls(connection, before=now - timedelta(days=calls_days))
    return Maintained(
        partitions_made=_until_done(engine, partial(partitions.make_partitions, now=now, at_most=1)),
        event_days_dropped=_until_done(engine, partial(partitions.drop_event_days, keep_days=events_days, at_most=1)),
        calls_removed=removed,
    )


def _until_done(engine: Engine, step: Callable[[Connection], int]) -> int:
    """A transaction for each step, until one finds nothing to do. Returns how much they did."""
    total = 0
    while True:
        with engine.begin() as connection:
            done = step(connection)
        if not done:
            return total
        total += done
