"""Which systems receive events, and the queueing of kept events for one that is switched on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, text

from keeper.domain.events import EventKind
from keeper.postgres.engine import driver_of
from keeper.postgres.outbox import KINDS_BY_VALUE, SHARD_OF_KEY, SHARDS, notify_relays

# Whoever records holds it shared, so that one who switches a sink waits until no event is under way that does not know of it.
_LOCK = "hashtext('keeper.sinks')"
_LOCK_ROUTES = f"""
    SELECT pg_advisory_xact_lock_shared({_LOCK});
    SELECT kind, array_agg(name ORDER BY name) FROM sinks, unnest(kinds) AS kind GROUP BY kind
"""

Routes = Mapping[EventKind, Sequence[str]]


@dataclass(frozen=True, slots=True)
class SinkRow:
    """A system that receives events.

    Attributes:
        fill_until: events up to this one are still being queued; None when that is done.
    """

    name: str
    kinds: tuple[str, ...]
    fill_until: int | None
    created_at: datetime


def lock_routes(connection: Connection) -> Routes:
    """The sinks of each kind, unchanged until this transaction ends. Before anything else of the transaction is locked."""
    with driver_of(connection).cursor() as cursor:
        # Two statements, so that the second sees what was committed while the first waited, and one way there and back.
        cursor.execute(_LOCK_ROUTES, prepare=False)
        cursor.nextset()
        rows = cursor.fetchall()
    return {KINDS_BY_VALUE[kind]: names for kind, names in rows if kind in KINDS_BY_VALUE}


def lock_sinks(connection: Connection) -> None:
    """Wait until nobody records, and keep others from it until this transaction ends: to be short."""
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def select_sinks(connection: Connection) -> list[SinkRow]:
    """All of them, by name."""
    rows = connection.execute(text("SELECT name, kinds, fill_until, created_at FROM sinks ORDER BY name"))
    return [SinkRow(row.name, tuple(row.kinds), row.fill_until, row.created_at) for row in rows]


def insert_sink(connection: Connection, name: str, kinds: Collection[EventKind], *, from_oldest: bool) -> None:
    """After `lock_sinks`: from here on every event of these kinds is queued for it. One that is there already stays as it is.

    Args:
        from_oldest: the kept events too; `queue_kept_events` is to follow.
    """
    connection.execute(
        text(
            """
            INSERT INTO sinks (name, kinds, fill_until)
            VALUES (:name, :kinds, CASE WHEN :from_oldest THEN (SELECT last_value FROM event_seq) END)
            ON CONFLICT DO NOTHING
            """
        ),
        {"name": name, "kinds": sorted(kind.value for kind in kinds), "from_oldest": from_oldest},
    )


def set_kinds(connection: Connection, name: str, kinds: Collection[EventKind]) -> None:
    """After `lock_sinks`: from here on it takes these kinds; what is queued stays."""
    connection.execute(
        text("UPDATE sinks SET kinds = :kinds WHERE name = :name"), {"name": name, "kinds": sorted(kind.value for kind in kinds)}
    )


def queue_kept_events(connection: Connection, name: str, *, after: tuple[date, int] | None, limit: int) -> tuple[date, int] | None:
    """Queue the next kept events for a sink that is being filled, by day and number. Returns the last one's, None at the end.

    Idempotent: what is queued already stays queued once. Nothing is delivered before all are, so their order among each other is free.

    Args:
        after: what the call before has returned; None for the first.
    """
    after_on, after_seq = after or (date.min, 0)
    last = connection.execute(
        text(
            f"""
            WITH filled AS MATERIALIZED (
                -- So that one who switches it off waits for this share.
                SELECT name, kinds, fill_until FROM sinks WHERE name = :name FOR SHARE
            ), kept AS (
                SELECT e.key, e.recorded_on, e.seq FROM events e
                WHERE e.recorded_on >= :after_on AND (e.recorded_on, e.seq) > (:after_on, :after_seq)
                    AND e.seq <= (SELECT fill_until FROM filled) AND e.kind = ANY((SELECT kinds FROM filled)::text[])
                ORDER BY e.recorded_on, e.seq LIMIT :limit
            ), queued AS (
                INSERT INTO outbox (sink, shard, key, event_on, event_seq)
                SELECT :name, {SHARD_OF_KEY.format(key="key")}, key, recorded_on, seq FROM kept ON CONFLICT DO NOTHING
            )
            SELECT recorded_on, seq FROM kept ORDER BY recorded_on DESC, seq DESC LIMIT 1
            """
        ),
        {"name": name, "after_on": after_on, "after_seq": after_seq, "limit": limit},
    ).one_or_none()
    return None if last is None else (last.recorded_on, last.seq)


def mark_filled(connection: Connection, name: str) -> None:
    """Its kept events are queued: relays may begin."""
    connection.execute(text("UPDATE sinks SET fill_until = NULL WHERE name = :name"), {"name": name})
    notify_relays(connection)


def delete_sink(connection: Connection, name: str) -> bool:
    """After `lock_sinks`: it receives nothing more. False when there is none of this name."""
    return connection.execute(text("DELETE FROM sinks WHERE name = :name"), {"name": name}).rowcount > 0


def move_queued(connection: Connection, name: str, *, to: str) -> int:
    """Switch the sink `name` off and hand what waits for it to another one. Returns how many rows were moved.

    The shards of `to` are held meanwhile, so that nothing is under way to it: an event that waits for both is delivered after this
    transaction, and one row of it is enough. Before anything else of the transaction is locked; waits as long as a relay is at work there.
    """
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtext('keeper.relay.' || :to), shard) FROM generate_series(0, :shards - 1) AS shard"),
        {"to": to, "shards": SHARDS},
    )
    lock_sinks(connection)
    moved = connection.execute(
        text(
            """
            UPDATE outbox o SET sink = :to WHERE sink = :name AND NOT EXISTS (
                SELECT 1 FROM outbox there WHERE there.sink = :to AND there.shard = o.shard AND there.event_seq = o.event_seq
            )
            """
        ),
        {"name": name, "to": to},
    ).rowcount
    connection.execute(text("DELETE FROM outbox WHERE sink = :name"), {"name": name})
    delete_sink(connection, name)
    notify_relays(connection)
    return moved


def delete_queued(connection: Connection, name: str, *, limit: int) -> int:
    """Drop what is queued for a sink that is switched off, some rows at a time. Returns how many."""
    return connection.execute(
        text("DELETE FROM outbox WHERE ctid = ANY(ARRAY(SELECT ctid FROM outbox WHERE sink = :name LIMIT :limit))"),
        {"name": name, "limit": limit},
    ).rowcount
