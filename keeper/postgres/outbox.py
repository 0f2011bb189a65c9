"""Events and the outbox: written with what they tell of, read by shard, deleted on acknowledgement."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from keeper.domain.events import ROUTES, Event, EventKind, OutboxMessage, Sink
from keeper.postgres.engine import driver_of

SHARDS = 16
OUTBOX_CHANNEL = "keeper_outbox"

# Stored with the row, so the hash decides once and for all; hashtextextended is the same on every platform PostgreSQL runs on.
SHARD_OF_KEY = "(hashtextextended({key}, 0) & 15)::smallint"


def sinks_of(kind: EventKind, active: Collection[Sink]) -> list[str]:
    """The active sinks that carry this kind."""
    return [sink.value for sink in ROUTES[kind] if sink in active]


def insert_events(connection: Connection, events: Sequence[Event], active: Collection[Sink]) -> None:
    """Store events and a thin outbox row for each active sink, in their order. The caller has locked what they tell of."""
    if not events:
        return
    by_kind: dict[EventKind, list[Event]] = {}
    for event in events:
        by_kind.setdefault(event.kind, []).append(event)
    for kind, group in by_kind.items():
        connection.execute(
            text(
                f"""
                WITH added AS (
                    INSERT INTO events (event_id, kind, key, version, payload)
                    SELECT event_id, :kind, key, version, payload
                    FROM unnest(CAST(:ids AS uuid[]), CAST(:keys AS text[]), CAST(:versions AS bigint[]), CAST(:payloads AS json[]))
                        WITH ORDINALITY AS new (event_id, key, version, payload, position)
                    ORDER BY position
                    RETURNING key, recorded_on, seq
                )
                INSERT INTO outbox (sink, shard, key, event_on, event_seq)
                SELECT sink, {SHARD_OF_KEY.format(key="key")}, key, recorded_on, seq
                FROM added CROSS JOIN unnest(CAST(:sinks AS text[])) AS sink ORDER BY seq
                """
            ),
            {
                "kind": kind.value,
                "ids": [event.event_id for event in group],
                "keys": [event.key for event in group],
                "versions": [event.version for event in group],
                "payloads": [json.dumps(event.payload, ensure_ascii=False) for event in group],
                "sinks": sinks_of(kind, active),
            },
        )
    if any(sinks_of(kind, active) for kind in by_kind):
        notify_relays(connection)


def notify_relays(connection: Connection) -> None:
    """Wake the relays that listen, when this transaction commits; PostgreSQL folds several calls into one."""
    connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": OUTBOX_CHANNEL})


def listen(connection: Connection) -> None:
    """Let this connection, which must be in autocommit, hear `notify_relays`."""
    connection.execute(text(f"LISTEN {OUTBOX_CHANNEL}"))


def wait_for_notice(connection: Connection, *, longest_seconds: float) -> bool:
    """Wait for `notify_relays` on a listening connection. False when nobody called.

    Raises:
        psycopg.OperationalError: the server went away.
    """
    return any(True for _ in driver_of(connection).notifies(timeout=longest_seconds, stop_after=1))


def try_lock_shard(connection: Connection, sink: Sink, shard: int) -> bool:
    """A session lock: held until unlocked or the connection ends."""
    held: bool = connection.execute(
        text("SELECT pg_try_advisory_lock(hashtext('keeper.relay.' || :sink), :shard)"), {"sink": sink.value, "shard": shard}
    ).scalar_one()
    return held


def unlock_shard(connection: Connection, sink: Sink, shard: int) -> None:
    """Give the shard to others."""
    connection.execute(text("SELECT pg_advisory_unlock(hashtext('keeper.relay.' || :sink), :shard)"), {"sink": sink.value, "shard": shard})


def select_shards(connection: Connection, sink: Sink) -> list[int]:
    """Shards that have something a relay could deliver now."""
    query = text(
        """
        SELECT shard FROM generate_series(0, :shards - 1) AS shard
        WHERE EXISTS (SELECT 1 FROM outbox o WHERE o.sink = :sink AND o.shard = shard.shard)
        """
    )
    return list(connection.execute(query, {"sink": sink.value, "shards": SHARDS}).scalars())


def select_messages(connection: Connection, sink: Sink, shard: int, *, after_id: int, limit: int) -> list[OutboxMessage]:
    """The next messages of a shard in order, without the keys that wait for a later try.

    A key whose message before `after_id` was refused waits for the next pass, even where its wait has ended meanwhile: order.
    """
    rows = connection.execute(
        text(
            """
            SELECT o.id, e.event_id, e.kind, o.key, e.version, e.payload, o.tries, o.refusals,
                coalesce(extract(epoch FROM clock_timestamp() - o.failing_since), 0)::float8 AS failing_seconds
            FROM (
                SELECT id, key, event_on, event_seq, tries, refusals, failing_since FROM outbox o
                WHERE sink = :sink AND shard = :shard AND id > :after_id
                    AND NOT EXISTS (
                        SELECT 1 FROM outbox held WHERE held.sink = :sink AND held.shard = :shard AND held.key = o.key
                            AND held.id <= o.id AND held.next_try_at IS NOT NULL
                            AND (held.id <= :after_id OR held.next_try_at > clock_timestamp())
                    )
                ORDER BY id LIMIT :limit
            ) o JOIN events e ON e.recorded_on = o.event_on AND e.seq = o.event_seq
            ORDER BY o.id
            """
        ),
        {"sink": sink.value, "shard": shard, "after_id": after_id, "limit": limit},
    )
    return [
        OutboxMessage(
            row.id, row.event_id, EventKind(row.kind), row.key, row.version, row.payload, row.tries, row.refusals, row.failing_seconds
        )
        for row in rows
    ]


def delete_messages(connection: Connection, sink: Sink, shard: int, ids: Sequence[int]) -> None:
    """The sink has acknowledged them."""
    connection.execute(
        text("DELETE FROM outbox WHERE sink = :sink AND shard = :shard AND id = ANY(:ids)"),
        {"sink": sink.value, "shard": shard, "ids": list(ids)},
    )


def postpone_message(
    connection: Connection, sink: Sink, shard: int, message_id: int, *, wait_seconds: float, failure: str, is_refusal: bool
) -> None:
    """It was tried in vain: one more try later, and its key waits with it."""
    connection.execute(
        text(
            """
            UPDATE outbox SET tries = tries + 1, refusals = refusals + CAST(:is_refusal AS boolean)::integer,
                failing_since = coalesce(failing_since, clock_timestamp()),
                next_try_at = clock_timestamp() + make_interval(secs => :wait_seconds), last_failure = :failure
            WHERE sink = :sink AND shard = :shard AND id = :id
            """
        ),
        {
            "sink": sink.value,
            "shard": shard,
            "id": message_id,
            "wait_seconds": wait_seconds,
            "failure": failure,
            "is_refusal": is_refusal,
        },
    )


def bury_message(connection: Connection, sink: Sink, shard: int, message_id: int, *, reason: str) -> None:
    """After the last try: copy it whole to the dead letters and let the key's next message go."""
    connection.execute(
        text(
            """
            WITH gone AS (DELETE FROM outbox WHERE sink = :sink AND shard = :shard AND id = :id RETURNING *)
            INSERT INTO dead_letters (sink, key, event_id, kind, version, payload, recorded_at, tries, reason)
            SELECT gone.sink, gone.key, e.event_id, e.kind, e.version, e.payload, e.recorded_at, gone.tries + 1, :reason
            FROM gone JOIN events e ON e.recorded_on = gone.event_on AND e.seq = gone.event_seq
            """
        ),
        {"sink": sink.value, "shard": shard, "id": message_id, "reason": reason},
    )


def retry_dead_alerts(connection: Connection, alert_ids: Sequence[int] | None) -> int:
    """Queue the deliveries of alerts that were given up once more, with their event ids and in their order; their counts begin anew.

    An event that is not kept any more is made again from its dead letter.

    Args:
        alert_ids: of these alerts only; None for all.

    Returns:
        How many deliveries wait again.
    """
    count: int = connection.execute(
        text(
            f"""
            WITH gone AS (
                DELETE FROM dead_letters l WHERE sink = :sink AND (
                    CAST(:alert_ids AS bigint[]) IS NULL
                    OR (l.payload->>'delivery_id')::bigint IN (SELECT id FROM deliveries WHERE alert_id = ANY(CAST(:alert_ids AS bigint[])))
                )
                RETURNING *
            ), kept AS (
                SELECT DISTINCT ON (gone.id) gone.id, e.recorded_on, e.seq
                FROM gone JOIN events e ON e.event_id = gone.event_id AND e.kind = gone.kind
                    AND e.recorded_on BETWEEN gone.recorded_at::date - 1 AND gone.recorded_at::date + 1
                ORDER BY gone.id, e.seq
            ), added AS (
                INSERT INTO events (event_id, kind, key, version, payload)
                SELECT event_id, kind, key, version, payload FROM gone WHERE id NOT IN (SELECT id FROM kept) ORDER BY id
                RETURNING event_id, recorded_on, seq
            ), queued AS (
                INSERT INTO outbox (sink, shard, key, event_on, event_seq)
                SELECT gone.sink, {SHARD_OF_KEY.format(key="gone.key")}, gone.key,
                    coalesce(kept.recorded_on, added.recorded_on), coalesce(kept.seq, added.seq)
                FROM gone LEFT JOIN kept USING (id) LEFT JOIN added USING (event_id) ORDER BY gone.id
                RETURNING 1
            ), revived AS (
                UPDATE deliveries d SET status = 'pending' FROM gone
                WHERE d.id = (gone.payload->>'delivery_id')::bigint AND d.status = 'dead'
            )
            SELECT count(*) FROM queued
            """
        ),
        {"sink": Sink.NOTIFY.value, "alert_ids": None if alert_ids is None else list(alert_ids)},
    ).scalar_one()
    if count:
        notify_relays(connection)
    return count


def has_due_message(connection: Connection, sink: Sink) -> bool:
    """Whether a relay could deliver something now: a message that waits for no later try, of its own or of its key."""
    is_due: bool = connection.execute(
        text(
            """
            SELECT EXISTS (
                SELECT 1 FROM outbox o WHERE o.sink = :sink AND NOT EXISTS (
                    SELECT 1 FROM outbox held WHERE held.sink = :sink AND held.shard = o.shard AND held.key = o.key
                        AND held.id <= o.id AND held.next_try_at > clock_timestamp()
                )
            )
            """
        ),
        {"sink": sink.value},
    ).scalar_one()
    return is_due


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one sink."""

    sink: str
    messages: int
    postponed: int
    oldest_at: datetime | None
    dead_letters: int


def select_backlog(connection: Connection) -> list[Backlog]:
    """What waits, by sink; the sinks without anything are left out."""
    rows = connection.execute(
        text(
            """
            SELECT coalesce(waiting.sink, dead.sink) AS sink, coalesce(messages, 0) AS messages, coalesce(postponed, 0) AS postponed,
                (SELECT e.recorded_at FROM events e WHERE e.recorded_on = oldest_on AND e.seq = oldest_seq) AS oldest_at,
                coalesce(dead.letters, 0) AS dead_letters
            FROM (
                SELECT sink, count(*) AS messages, count(next_try_at) AS postponed, min(event_on) AS oldest_on, min(event_seq) AS oldest_seq
                FROM outbox GROUP BY sink
            ) waiting FULL JOIN (SELECT sink, count(*) AS letters FROM dead_letters GROUP BY sink) dead USING (sink)
            ORDER BY 1
            """
        )
    )
    return [Backlog(row.sink, row.messages, row.postponed, row.oldest_at, row.dead_letters) for row in rows]


def next_try_in_seconds(connection: Connection, sink: Sink) -> float | None:
    """Seconds until the next postponed message may be tried, at least 0; None when nothing is postponed."""
    seconds: float | None = connection.execute(
        text(
            "SELECT extract(epoch FROM min(next_try_at) - clock_timestamp())::float8 FROM outbox "
            "WHERE sink = :sink AND next_try_at IS NOT NULL"
        ),
        {"sink": sink.value},
    ).scalar_one()
    return None if seconds is None else max(0.0, seconds)
