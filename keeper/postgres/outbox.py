"""Events and the outbox: written with what they tell of, read by shard, deleted on acknowledgement."""

import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import psycopg
from sqlalchemy import Connection, text

from keeper.domain.events import Event, EventKind, OutboxMessage, Sink
from keeper.postgres.engine import driver_of

SHARDS = 16
OUTBOX_CHANNEL = "keeper_outbox"

# Stored with the row, so the hash decides once and for all; hashtextextended is the same on every platform PostgreSQL runs on.
SHARD_OF_KEY = "(hashtextextended({key}, 0) & 15)::smallint"

# The first row of each sink and shard that has any, by the key: however much waits, so many looks into the index.
FIRST_OF_SHARDS = f"""
    WITH RECURSIVE waiting (sink) AS (
        (SELECT sink FROM outbox ORDER BY sink LIMIT 1)
        UNION ALL
        SELECT (SELECT o.sink FROM outbox o WHERE o.sink > waiting.sink ORDER BY o.sink LIMIT 1) FROM waiting WHERE waiting.sink IS NOT NULL
    )
    SELECT waiting.sink, first.event_on, first.event_seq
    FROM waiting CROSS JOIN generate_series(0, {SHARDS - 1}) AS shard CROSS JOIN LATERAL (
        SELECT event_on, event_seq FROM outbox o WHERE o.sink = waiting.sink AND o.shard = shard.shard ORDER BY event_seq LIMIT 1
    ) first
"""

# As they are stored, compressed: Keepa's answers take a tenth of their size, and in memory four times that where one sign is wide.
_MOST_STORED_BYTES = 1024 * 1024
KINDS_BY_VALUE = {kind.value: kind for kind in EventKind}

# JSON has no such sign in it.
_BETWEEN = "\x1e"
# Of a message that was neither tried nor asked for by a request: tries, refusals, failing_seconds, request_id.
_PLAIN = (itertools.repeat(0), itertools.repeat(0), itertools.repeat(0.0), itertools.repeat(None))
_PLAIN_JSON = "[0, 0, 0.0, null]"


def insert_events(connection: Connection, events: Sequence[Event], routes: Mapping[EventKind, Sequence[str]]) -> None:
    """Store events and a thin outbox row for each sink of their kind, in their order. The caller has locked what they tell of.

    Args:
        routes: of `sinks.lock_routes` in this transaction.
    """
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
                    FROM unnest(
                            CAST(:ids AS uuid[]), CAST(:keys AS text[]), CAST(:versions AS bigint[]),
                            CAST(string_to_array(:payloads, :between) AS json[])
                        )
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
                "ids": "{" + ",".join(str(event.event_id) for event in group) + "}",
                "keys": [event.key for event in group],
                "versions": [event.version for event in group],
                # An array of the driver's escapes every quote, twice as slow as all the rest.
                "payloads": _BETWEEN.join(event.body for event in group),
                "between": _BETWEEN,
                "sinks": list(routes.get(kind, ())),
            },
        )
    if any(routes.get(kind) for kind in by_kind):
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


def try_lock_shards(connection: Connection, sink: str, shards: Collection[int]) -> list[int]:
    """Session locks, held until unlocked or the connection ends. Returns the shards that are held now."""
    tried = connection.execute(
        text(
            """
            SELECT shard, pg_try_advisory_lock(hashtext('keeper.relay.' || :sink), shard) AS is_held
            FROM unnest(CAST(:shards AS integer[])) AS shard
            """
        ),
        {"sink": sink, "shards": list(shards)},
    )
    return [shard for shard, is_held in tried if is_held]


def unlock_shards(connection: Connection, sink: str, shards: Collection[int]) -> None:
    """Give the shards to others."""
    connection.execute(
        text("SELECT pg_advisory_unlock(hashtext('keeper.relay.' || :sink), shard) FROM unnest(CAST(:shards AS integer[])) AS shard"),
        {"sink": sink, "shards": list(shards)},
    )


def limit_silence(connection: Connection, *, seconds: float | None) -> None:
    """Let the server end this session, and free its locks, when it has asked nothing for so long; None for never."""
    value = "0" if seconds is None else f"{round(seconds * 1000)}ms"
    connection.execute(text("SELECT set_config('idle_session_timeout', :value, false)"), {"value": value})


def select_shards(connection: Connection, sink: str) -> list[int]:
    """Shards that have something a relay could deliver now."""
    query = text(
        """
        SELECT shard FROM generate_series(0, :shards - 1) AS shard
        WHERE EXISTS (SELECT 1 FROM outbox o WHERE o.sink = :sink AND o.shard = shard.shard)
            AND NOT EXISTS (SELECT 1 FROM sinks WHERE name = :sink AND fill_until IS NOT NULL)
        """
    )
    return list(connection.execute(query, {"sink": sink, "shards": SHARDS}).scalars())


@dataclass(frozen=True, slots=True)
class Page:
    """The next messages of some shards.

    Attributes:
        messages: in order, also over the shards.
        gone: shards and numbers of rows whose event is not kept any more; nobody can deliver them.
        is_settled: nobody was writing when it was read, so nothing can still come to light before its last messages.
    """

    messages: list[OutboxMessage]
    gone: list[tuple[int, int]]
    is_settled: bool


# A page is one row: the driver takes as long for 12 values of each message as PostgreSQL for all else. No JSON has the separator in it, and
# no more have numbers, UUIDs and kinds commas; keys are an array. What is seldom there is told of those messages only that have it.
_PAGE = f"""
    SELECT
        string_agg(shard::text, ',' ORDER BY event_seq), string_agg(event_seq::text, ',' ORDER BY event_seq),
        string_agg(coalesce(event_id::text, ''), ',' ORDER BY event_seq), string_agg(coalesce(kind, ''), ',' ORDER BY event_seq),
        array_agg(key ORDER BY event_seq), string_agg(coalesce(version::text, '0'), ',' ORDER BY event_seq),
        string_agg(coalesce(payload::text, ''), '{_BETWEEN}' ORDER BY event_seq),
        string_agg(
            CASE WHEN tries = 0 AND failing_since IS NULL AND request_id IS NULL THEN ''
                ELSE json_build_array(
                    tries, refusals, coalesce(extract(epoch FROM clock_timestamp() - failing_since), 0)::float8, request_id
                )::text END,
            '{_BETWEEN}' ORDER BY event_seq
        ),
        (SELECT pg_snapshot_xmin(pg_current_snapshot()) = pg_snapshot_xmax(pg_current_snapshot()))
    FROM (
        SELECT o.*, e.event_id, e.kind, e.version, e.payload, e.request_id,
            sum(pg_column_size(e.payload)) OVER (ORDER BY o.event_seq ROWS UNBOUNDED PRECEDING) - pg_column_size(e.payload) AS bytes_before
        FROM (
            SELECT place.shard, waiting.* FROM unnest(%(shards)s::smallint[], %(after)s::bigint[]) AS place (shard, after_seq),
                LATERAL (
                    SELECT event_seq, key, event_on, tries, refusals, failing_since FROM outbox o
                    WHERE sink = %(sink)s AND o.shard = place.shard AND event_seq > place.after_seq
                        -- Mostly nothing waits for a later try: that is asked once, and of a key only where something does. A clock that
                        -- went on meanwhile would let a message pass whose first was left out.
                        AND (
                            NOT EXISTS (
                                SELECT 1 FROM outbox any_held WHERE any_held.sink = %(sink)s
                                    AND any_held.shard = ANY(%(shards)s::smallint[]) AND any_held.next_try_at IS NOT NULL
                            ) OR NOT EXISTS (
                                SELECT 1 FROM outbox held WHERE held.sink = %(sink)s AND held.shard = place.shard AND held.key = o.key
                                    AND held.event_seq <= o.event_seq AND held.next_try_at IS NOT NULL
                                    AND (held.event_seq <= place.after_seq OR held.next_try_at > statement_timestamp())
                            )
                        )
                    ORDER BY event_seq LIMIT %(limit)s
                ) waiting
            ORDER BY waiting.event_seq
        ) o LEFT JOIN LATERAL (
            -- One look into the key for each row, whatever the statistics say: those of a new day's partition are missing, and a
            -- plain join then reads all events for each page.
            SELECT * FROM events e WHERE e.recorded_on = o.event_on AND e.seq = o.event_seq LIMIT 1
        ) e ON true
    ) page
    WHERE coalesce(bytes_before, 0) < %(most_bytes)s
"""


def select_messages(connection: Connection, sink: str, after: Mapping[int, int], *, limit: int) -> Page:
    """The next messages of some shards in order, without the keys that wait for a later try.

    A key whose message before its shard's number in `after` was refused waits for the next pass, even where its wait has ended meanwhile:
    order.

    Args:
        after: for each shard the number its messages come after; to be moved past a page that is settled only. What a transaction still
            under way then has numbered comes to light later; what follows it of the same key must not overtake it.
        limit: of all together, each shard having an equal share; a page whose events are large ends earlier.
    """
    parameters = {
        "sink": sink,
        "shards": list(after),
        "after": list(after.values()),
        "limit": -(-limit // len(after)),
        "most_bytes": _MOST_STORED_BYTES,
    }
    # The driver's own row: SQLAlchemy's way to it costs more than all else that is done here.
    [row] = cast("psycopg.Cursor[Any]", connection.exec_driver_sql(_PAGE, parameters).cursor).fetchall()
    shards, seqs, event_ids, kinds, keys, versions, bodies, seldom, is_settled = row
    if seqs is None:
        return Page([], [], is_settled=True)
    event_ids = event_ids.split(",")
    places = [*map(int, shards.split(","))], [*map(int, seqs.split(","))]
    facts: Sequence[Iterable[object]] = _PLAIN
    if seldom.strip(_BETWEEN):
        facts = tuple(zip(*(json.loads(one or _PLAIN_JSON) for one in seldom.split(_BETWEEN)), strict=True))
    kinds = [KINDS_BY_VALUE[kind] if kind else None for kind in kinds.split(",")]
    rows = zip(places[1], event_ids, kinds, keys, map(int, versions.split(",")), bodies.split(_BETWEEN), places[0], *facts, strict=False)
    if "" not in event_ids:
        return Page(list(map(OutboxMessage._make, rows)), [], is_settled)
    gone = [place for place, event_id in zip(zip(*places, strict=True), event_ids, strict=True) if not event_id]
    return Page([OutboxMessage._make(row) for row in rows if row[1]], gone, is_settled)


def delete_messages(connection: Connection, sink: str, taken: Iterable[tuple[int, int]]) -> None:
    """The sink has acknowledged them.

    Args:
        taken: shard and number of each.
    """
    by_shard: dict[int, list[int]] = {}
    for shard, seq in taken:
        by_shard.setdefault(shard, []).append(seq)
    for shard, seqs in by_shard.items():
        connection.execute(
            text("DELETE FROM outbox WHERE sink = :sink AND shard = :shard AND event_seq = ANY(CAST(:seqs AS bigint[]))"),
            # The driver looks into each number for signs to escape.
            {"sink": sink, "shard": shard, "seqs": f"{{{','.join(map(str, seqs))}}}"},
        )


def postpone_message(
    connection: Connection, sink: str, shard: int, seq: int, *, wait_seconds: float, failure: str, is_refusal: bool
) -> None:
    """It was tried in vain: one more try later, and its key waits with it."""
    connection.execute(
        text(
            """
            UPDATE outbox SET tries = tries + 1, refusals = refusals + CAST(:is_refusal AS boolean)::integer,
                failing_since = coalesce(failing_since, clock_timestamp()),
                next_try_at = clock_timestamp() + make_interval(secs => :wait_seconds), last_failure = :failure
            WHERE sink = :sink AND shard = :shard AND event_seq = :seq
            """
        ),
        {
            "sink": sink,
            "shard": shard,
            "seq": seq,
            "wait_seconds": wait_seconds,
            "failure": failure,
            "is_refusal": is_refusal,
        },
    )


def bury_message(connection: Connection, sink: str, shard: int, seq: int, *, reason: str) -> None:
    """After the last try: copy it whole to the dead letters and let the key's next message go."""
    connection.execute(
        text(
            """
            WITH gone AS (DELETE FROM outbox WHERE sink = :sink AND shard = :shard AND event_seq = :seq RETURNING *)
            INSERT INTO dead_letters (sink, key, event_id, kind, version, payload, recorded_at, tries, reason)
            SELECT gone.sink, gone.key, e.event_id, e.kind, e.version, e.payload, e.recorded_at, gone.tries + 1, :reason
            FROM gone JOIN events e ON e.recorded_on = gone.event_on AND e.seq = gone.event_seq
            """
        ),
        {"sink": sink, "shard": shard, "seq": seq, "reason": reason},
    )


def retry_dead_alerts(connection: Connection, alert_ids: Sequence[int] | None) -> int:
    """Queue the deliveries of alerts that were given up once more; see `retry_dead_letters`.

    Args:
        alert_ids: of these alerts only; None for all.

    Returns:
        How many deliveries wait again.
    """
    condition = """
        CAST(:alert_ids AS bigint[]) IS NULL
        OR (payload->>'delivery_id')::bigint IN (SELECT id FROM deliveries WHERE alert_id = ANY(CAST(:alert_ids AS bigint[])))
    """
    revived = """
        , revived AS (
            UPDATE deliveries d SET status = 'pending' FROM gone WHERE d.id = (gone.payload->>'delivery_id')::bigint AND d.status = 'dead'
        )
    """
    alert_ids = None if alert_ids is None else list(alert_ids)
    return _queue_again(connection, Sink.NOTIFY, condition, revived, {"alert_ids": alert_ids})


def retry_dead_letters(connection: Connection, sink: str, ids: Sequence[int] | None) -> int:
    """Queue what was given up for a sink once more, with its event ids, in its order; its counts begin anew.

    An event that is not kept any more is made again from its dead letter, and so are the later ones of its key, so that none of them goes
    before it. What waits already stays there once. Idempotent: what is queued is no dead letter any more.

    Args:
        ids: of these dead letters only; None for all.

    Returns:
        How many messages wait again.
    """
    condition = "CAST(:ids AS bigint[]) IS NULL OR id = ANY(CAST(:ids AS bigint[]))"
    return _queue_again(connection, sink, condition, "", {"ids": None if ids is None else list(ids)})


def _queue_again(connection: Connection, sink: str, condition: str, further: str, parameters: Mapping[str, object]) -> int:
    count: int = connection.execute(
        text(
            f"""
            WITH gone AS (
                DELETE FROM dead_letters WHERE sink = :sink AND ({condition}) RETURNING *
            ), letter AS (
                SELECT DISTINCT ON (event_id) * FROM gone ORDER BY event_id, id
            ), kept AS (
                SELECT DISTINCT ON (letter.id) letter.id, e.recorded_on, e.seq
                FROM letter JOIN events e ON e.event_id = letter.event_id AND e.kind = letter.kind
                    AND e.recorded_on BETWEEN letter.recorded_at::date - 1 AND letter.recorded_at::date + 1
                ORDER BY letter.id, e.seq
            ), known AS (
                SELECT letter.*, kept.recorded_on, kept.seq,
                    bool_or(kept.seq IS NULL) OVER (PARTITION BY letter.key ORDER BY letter.id) AS is_made_again
                FROM letter LEFT JOIN kept USING (id)
            ), added AS (
                INSERT INTO events (event_id, kind, key, version, payload)
                SELECT event_id, kind, key, version, payload FROM known WHERE is_made_again ORDER BY id
                RETURNING event_id, recorded_on, seq
            ), queued AS (
                INSERT INTO outbox (sink, shard, key, event_on, event_seq)
                SELECT known.sink, {SHARD_OF_KEY.format(key="known.key")}, known.key,
                    coalesce(added.recorded_on, known.recorded_on), coalesce(added.seq, known.seq)
                FROM known LEFT JOIN added USING (event_id) ORDER BY known.id
                ON CONFLICT DO NOTHING RETURNING 1
            )
            {further}
            SELECT count(*) FROM queued
            """
        ),
        {"sink": sink, **parameters},
    ).scalar_one()
    if count:
        notify_relays(connection)
    return count


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up.

    Attributes:
        key: what its order is kept by, mostly an ASIN.
    """

    id: int
    kind: str
    key: str
    event_id: UUID
    tries: int
    reason: str
    died_at: datetime


def select_dead_letters(connection: Connection, sink: str, *, limit: int) -> list[DeadLetter]:
    """What was given up for a sink, oldest first."""
    rows = connection.execute(
        text("SELECT id, kind, key, event_id, tries, reason, died_at FROM dead_letters WHERE sink = :sink ORDER BY id LIMIT :limit"),
        {"sink": sink, "limit": limit},
    )
    return [DeadLetter(*row) for row in rows]


def has_due_message(connection: Connection, sink: str) -> bool:
    """Whether a relay could deliver something now: a message that waits for no later try, of its own or of its key."""
    is_due: bool = connection.execute(
        text(
            """
            SELECT EXISTS (
                SELECT 1 FROM outbox o WHERE o.sink = :sink AND NOT EXISTS (
                    SELECT 1 FROM outbox held WHERE held.sink = :sink AND held.shard = o.shard AND held.key = o.key
                        AND held.event_seq <= o.event_seq AND held.next_try_at > clock_timestamp()
                )
            )
            """
        ),
        {"sink": sink},
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
            f"""
            WITH oldest AS (
                SELECT DISTINCT ON (sink) sink, event_on, event_seq FROM ({FIRST_OF_SHARDS}) first ORDER BY sink, event_seq
            )
            SELECT coalesce(waiting.sink, dead.sink) AS sink, coalesce(messages, 0) AS messages, coalesce(postponed, 0) AS postponed,
                (
                    SELECT e.recorded_at FROM events e JOIN oldest o ON e.recorded_on = o.event_on AND e.seq = o.event_seq
                    WHERE o.sink = waiting.sink
                ) AS oldest_at,
                coalesce(dead.letters, 0) AS dead_letters
            FROM (
                SELECT sink, count(*) AS messages, count(next_try_at) AS postponed FROM outbox GROUP BY sink
            ) waiting FULL JOIN (SELECT sink, count(*) AS letters FROM dead_letters GROUP BY sink) dead USING (sink)
            ORDER BY 1
            """
        )
    )
    return [Backlog(row.sink, row.messages, row.postponed, row.oldest_at, row.dead_letters) for row in rows]


def select_newest_reason(connection: Connection, sink: str) -> str | None:
    """Why the newest dead letter of a sink is one."""
    reason: str | None = connection.execute(
        text("SELECT reason FROM dead_letters WHERE sink = :sink ORDER BY id DESC LIMIT 1"), {"sink": sink}
    ).scalar_one_or_none()
    return reason


def delete_old_dead_letters(connection: Connection, *, days: int) -> int:
    """Forget what was given up so long ago. Returns how many."""
    return connection.execute(
        text("DELETE FROM dead_letters WHERE died_at < clock_timestamp() - make_interval(days => :days)"), {"days": days}
    ).rowcount


def next_try_in_seconds(connection: Connection, sink: str) -> float | None:
    """Seconds until the next postponed message may be tried, at least 0; None when nothing is postponed."""
    seconds: float | None = connection.execute(
        text(
            "SELECT extract(epoch FROM min(next_try_at) - clock_timestamp())::float8 FROM outbox "
            "WHERE sink = :sink AND next_try_at IS NOT NULL"
        ),
        {"sink": sink},
    ).scalar_one()
    return None if seconds is None else max(0.0, seconds)
