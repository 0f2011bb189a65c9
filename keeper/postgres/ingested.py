"""Events of others that were recorded: a second copy is the same event."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text


def insert_ids(connection: Connection, event_ids: Sequence[UUID], topic: str) -> set[UUID]:
    """Note that these are recorded with this transaction. Returns those that were not before.

    In order of id, so that two consumers of the same copies wait for one another and never deadlock.
    """
    rows = connection.execute(
        text(
            "INSERT INTO ingested_events (event_id, topic) SELECT event_id, :topic FROM unnest(CAST(:ids AS uuid[])) AS event_id "
            "ORDER BY event_id ON CONFLICT DO NOTHING RETURNING event_id"
        ),
        {"ids": list(event_ids), "topic": topic},
    )
    return set(rows.scalars())


def delete_old(connection: Connection, *, days: int) -> int:
    """Forget what was ingested so long ago that the topic does not hold it any more. Returns how many."""
    return connection.execute(
        text("DELETE FROM ingested_events WHERE ingested_at < clock_timestamp() - make_interval(days => :days)"), {"days": days}
    ).rowcount
