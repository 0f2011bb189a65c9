"""The verb `maintain`: partitions ahead, the dead written off, what has served its time removed."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from keeper.postgres import ledger, partitions, watches


@dataclass(frozen=True, slots=True)
class Maintained:
    """What one call did."""

    partitions_made: int
    event_days_dropped: int
    calls_removed: int


def maintain(connection: Connection, *, now: datetime, events_days: int, calls_days: int) -> Maintained:
    """Idempotent; meant to run once a day."""
    # The ledger first, as in every settling transaction, which writes events after it: the other way round they could wait for one another.
    ledger.lock_ledger(connection)
    watches.delete_dead_claims(connection)
    removed = ledger.delete_old_calls(connection, before=now - timedelta(days=calls_days))
    made = partitions.make_partitions(connection, now=now)
    dropped = partitions.drop_event_days(connection, keep_days=events_days)
    return Maintained(made, dropped, removed)
