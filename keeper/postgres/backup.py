"""What a backup says of itself, and what a restore does around it, in SQL that holds for every schema since the first."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg import sql
from sqlalchemy import Connection, Engine, text

from keeper.domain.events import Sink
from keeper.postgres.engine import answering_within

# The tables whose rows a backup counts, and a restore counts again. Those that a schema does not have yet are left out.
COUNTED: Final = (
    "users", "api_keys", "channels", "watched_products", "products", "current_prices", "price_history", "price_alerts", "deliveries",
    "collected_deals", "deal_filters", "deal_reports", "deal_alerts", "opportunities", "opportunity_rules", "opportunity_alerts",
    "keepa_calls", "events", "outbox", "dead_letters",
)  # fmt: skip
# Any row in one of these is somebody's.
_PRECIOUS: Final = ("users", "products", "price_history", "collected_deals", "candidates")
# What was raised after the backup is not known, and no document may come back under a version that stands for another state.
REVISIONS_RAISED: Final = 1_000_000_000
_NUMBERS_LEFT_OUT: Final = 1000


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """What a database is, before anything is done with it.

    Attributes:
        revision: of its schema; None without one.
        source: `keepa` or `simulator`; None before the first use.
        tables: in the schema public, whosever they are.
        others: Keeper's programs that are connected beside us, as they call themselves.
    """

    name: str
    server_version: str
    server_major: int
    revision: str | None
    source: str | None
    channel_key: str | None
    tables: int
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewestEvent:
    """The last event that was recorded."""

    seq: int
    kind: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A moment of the database that others can look at, too.

    Attributes:
        name: for `pg_dump --snapshot`.
        taken_at: the machine's clock.
        business_at: Keeper's clock, which may be a simulator's.
    """

    name: str
    taken_at: datetime
    business_at: datetime


@dataclass(frozen=True, slots=True)
class StoredChannel:
    """A channel with its URL, encrypted."""

    user: str
    name: str
    url_encrypted: str


def select_state(connection: Connection) -> DatabaseState:
    """What this database is."""
    row = connection.execute(
        text(
            """
            SELECT current_database() AS name, current_setting('server_version') AS server_version,
                current_setting('server_version_num')::integer / 10000 AS server_major,
                to_regclass('public.installation') IS NOT NULL AND to_regclass('public.alembic_version') IS NOT NULL AS is_ours,
                (
                    SELECT count(*) FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT EXISTS (
                        SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
                    )
                ) AS tables,
                ARRAY(
                    SELECT DISTINCT application_name FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name ^@ 'keeper' ORDER BY 1
                ) AS others
            """
        )
    ).one()
    revision = source = channel_key = None
    if row.is_ours:
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
        source, channel_key = connection.execute(text("SELECT keepa_source, channel_key_fingerprint FROM installation")).one()
    return DatabaseState(row.name, row.server_version, row.server_major, revision, source, channel_key, row.tables, tuple(row.others))


def has_rows(connection: Connection) -> bool:
    """Whether anything is in the database that somebody would miss."""
    return any(
        connection.execute(text(f"SELECT EXISTS (SELECT 1 FROM {table})")).scalar_one() for table in _existing(connection, _PRECIOUS)
    )


@contextmanager
def hold_snapshot(engine: Engine) -> Iterator[tuple[Connection, Snapshot]]:
    """A transaction that sees one moment and lets others see it, for as long as the block takes."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, answering_within(connection, None):
        # Counting may take its time, and pg_dump more of it.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        row = connection.execute(text("SELECT pg_export_snapshot(), clock_timestamp(), keeper_now()")).one()
        try:
            yield connection, Snapshot(*row)
        finally:
            connection.rollback()


def count_rows(connection: Connection) -> dict[str, int]:
    """Rows of the tables in COUNTED. Reads them whole."""
    return {table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() for table in _existing(connection, COUNTED)}


def count_waiting(connection: Connection) -> dict[str, int]:
    """Messages that wait, by sink."""
    rows = connection.execute(text("SELECT sink, count(*) AS messages FROM outbox GROUP BY sink ORDER BY sink"))
    return {row.sink: row.messages for row in rows}


def select_newest_event(connection: Connection) -> NewestEvent | None:
    """None where no event is kept."""
    row = connection.execute(text("SELECT seq, kind, recorded_at FROM events ORDER BY recorded_on DESC, seq DESC LIMIT 1")).one_or_none()
    return None if row is None else NewestEvent(*row)


def select_extensions(connection: Connection) -> list[str]:
    """Those that Keeper's schema needs and has."""
    return list(connection.execute(text("SELECT extname FROM pg_extension WHERE extname IN ('unaccent', 'pg_trgm') ORDER BY 1")).scalars())


def select_channels(connection: Connection) -> list[StoredChannel]:
    """Everybody's channels, by user and name."""
    rows = connection.execute(text("SELECT u.name, c.name, c.url_encrypted FROM channels c JOIN users u ON u.id = c.user_id ORDER BY 1, 2"))
    return [StoredChannel(*row) for row in rows]


def select_sinks(connection: Connection) -> list[str]:
    """Where events go besides people's channels. After the migration."""
    return list(connection.execute(text("SELECT name FROM sinks WHERE name <> :notify ORDER BY 1"), {"notify": Sink.NOTIFY}).scalars())


def analyze(engine: Engine) -> None:
    """Statistics for the planner: a restored table has none."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection, answering_within(connection, None):
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("ANALYZE"))
        connection.execute(text("RESET statement_timeout"))


def _existing(connection: Connection, tables: tuple[str, ...]) -> list[str]:
    known = set(
        connection.execute(
            text("SELECT name FROM unnest(CAST(:names AS text[])) AS name WHERE to_regclass(name) IS NOT NULL"), {"names": list(tables)}
        ).scalars()
    )
    return [table for table in tables if table in known]


# What a restore runs in psql, in one transaction with the backup: before it, and after it.

# Everything in public but what extensions have made; they, and the schema itself, may be another's.
DROP_EVERYTHING: Final = """
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = '30s';
SET LOCAL client_min_messages = warning;
DO $$
DECLARE
    gone record;
    is_there boolean;
BEGIN
    FOR gone IN
        SELECT 1 AS turn, format('TABLE %s', c.oid::regclass) AS what, 'pg_class'::regclass AS class, c.oid FROM pg_class c
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
        UNION ALL SELECT 2, format('SEQUENCE %s', c.oid::regclass), 'pg_class'::regclass, c.oid FROM pg_class c
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'S'
            AND NOT EXISTS (
                SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
            )
        UNION ALL SELECT 3, format('ROUTINE %s', p.oid::regprocedure), 'pg_proc'::regclass, p.oid FROM pg_proc p
        WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT 4, format('TEXT SEARCH CONFIGURATION public.%I', cfgname), 'pg_ts_config'::regclass, oid FROM pg_ts_config
        WHERE cfgnamespace = 'public'::regnamespace
        UNION ALL SELECT 5, format('TEXT SEARCH DICTIONARY public.%I', dictname), 'pg_ts_dict'::regclass, oid FROM pg_ts_dict
        WHERE dictnamespace = 'public'::regnamespace
        ORDER BY turn
    LOOP
        SELECT NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = gone.oid AND d.classid = gone.class AND d.deptype = 'e') INTO is_there;
        IF is_there THEN
            EXECUTE format('DROP %s CASCADE', gone.what);
        END IF;
    END LOOP;
END $$;
"""

# Nobody of those who held them lives, and what Keepa's bucket holds is asked anew.
_FORGET_LEASES: Final = """
DELETE FROM check_claims;
DELETE FROM token_reservations;
UPDATE token_ledger SET observed_at = NULL, next_refill_at = NULL, said_at = NULL, tokens = 0, unexplained_tokens = 0;
DO $$
BEGIN
    IF to_regclass('idempotent_requests') IS NOT NULL THEN
        DELETE FROM idempotent_requests WHERE status IS NULL;
    END IF;
    -- What is wrong now is told anew; of what was wrong then nobody is told that it is over. Another Prefect may schedule by now.
    IF to_regclass('troubles') IS NOT NULL THEN
        UPDATE troubles SET ended_at = greatest(seen_at, opened_at), told_end = told WHERE ended_at IS NULL;
        DELETE FROM schedulers;
    END IF;
    -- A rebuild that was under way filled an index that nobody will put in place.
    IF to_regclass('sinks') IS NOT NULL THEN
        DELETE FROM outbox WHERE sink LIKE 'search.%';
        DELETE FROM sinks WHERE name LIKE 'search.%';
    END IF;
END $$;
"""

# Since the backup, documents may have gone out under higher versions, and rows under higher numbers: neither is given to something else.
# A mail's Message-ID is made of such numbers, and a reader drops what it takes for a repeat.
_RAISE_NUMBERS: Final = """
UPDATE products SET revision = revision + {raised};
UPDATE collected_deals SET revision = revision + {raised};
SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, last_value + least(last_value, {raised}) + {left_out})
FROM (SELECT schemaname, sequencename, coalesce(last_value, 0) AS last_value FROM pg_sequences WHERE schemaname = 'public') known;
"""

# Whether it was sent between the backup and now nobody knows.
_HOLD_NOTIFICATIONS: Final = """
WITH gone AS (
    DELETE FROM outbox WHERE sink = {notify} RETURNING *
), held AS (
    INSERT INTO dead_letters (sink, key, event_id, kind, version, payload, recorded_at, tries, reason)
    SELECT gone.sink, gone.key, e.event_id, e.kind, e.version, e.payload, e.recorded_at, gone.tries, {reason}
    FROM gone JOIN events e ON e.recorded_on = gone.event_on AND e.seq = gone.event_seq ORDER BY gone.event_seq
    RETURNING payload
)
UPDATE deliveries SET status = 'dead', last_failure = {reason}
WHERE status = 'pending' AND id IN (SELECT (payload->>'delivery_id')::bigint FROM held);
"""


def write_after(counts: Mapping[str, int], *, held_reason: str | None) -> str:
    """The SQL that follows the backup in its transaction: nothing of it stays where the rows are not those that were counted.

    Args:
        held_reason: why notifications that waited are kept as dead letters; None leaves them to the next relay.
    """
    parts = ["SET LOCAL search_path = public;", *(_write_check(table, rows) for table, rows in counts.items()), _FORGET_LEASES]
    if held_reason is not None:
        parts.append(_write(_HOLD_NOTIFICATIONS, notify=sql.Literal(Sink.NOTIFY.value), reason=sql.Literal(held_reason)))
    parts.append(_RAISE_NUMBERS.format(raised=REVISIONS_RAISED, left_out=_NUMBERS_LEFT_OUT))
    return "\n".join(parts)


def _write_check(table: str, rows: int) -> str:
    return _write(
        """
        DO $$ BEGIN
            IF (SELECT count(*) FROM {table}) <> {rows} THEN
                RAISE EXCEPTION {complaint};
            END IF;
        END $$;
        """,
        table=sql.Identifier(table),
        rows=sql.Literal(rows),
        complaint=sql.Literal(f"{table} has not the {rows} rows that the backup counted; nothing was changed"),
    )


def _write(template: str, **parts: sql.Composable) -> str:
    return sql.SQL(template).format(**parts).as_string(None)
