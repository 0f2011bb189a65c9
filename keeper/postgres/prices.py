"""Recording prices in bulk: COPY into temporary tables, decide there what changed, then one plain statement per table.

The caller sends at most some ten thousand observations at a time, sorted by product, and has opened the transaction. Rows of `products`
are locked first and in order, so everything else of a product has one writer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.errors import UniqueViolation
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from keeper.domain.events import EventKind
from keeper.postgres.engine import copy_rows
from keeper.postgres.outbox import SHARD_OF_KEY, notify_relays
from keeper.postgres.sinks import Routes

_STAGES = (
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS stage_price (
        asin text, marketplace text, price_type text, currency text, minute integer, amount_minor integer,
        prior_minute integer, prior_minor integer, event_id uuid
    ) ON COMMIT DELETE ROWS
    """,
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS stage_history (
        asin text, marketplace text, price_type text, currency text, minute integer, amount_minor integer
    ) ON COMMIT DELETE ROWS
    """,
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS change (
        asin text, marketplace text, price_type text, currency text, observed_at timestamptz, amount_minor integer, previous_minor integer,
        is_watched boolean, target_minor integer, event_id uuid, event_seq bigint
    ) ON COMMIT DELETE ROWS
    """,
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS stage_near (
        watch_id bigint, asin text, marketplace text, price_type text, amount_minor integer
    ) ON COMMIT DELETE ROWS
    """,
    # A batch is looked up by key, each row once, in tables whose keys are in memory: neither are these read as a whole for it, as they
    # would be where a batch is a tenth of them, nor is what was found kept for a second look.
    """
    SELECT set_config('random_page_cost', '1.1', true), set_config('enable_memoize', 'off', true),
        set_config('enable_mergejoin', 'off', true)
    """,
)


@dataclass(frozen=True, slots=True)
class Change:
    """A new current price.

    Attributes:
        previous_minor: the price before; None when there was none, or no offer.
    """

    asin: str
    marketplace: str
    price_type: str
    currency: str
    amount_minor: int | None
    previous_minor: int | None
    observed_at: datetime


def make_stages(connection: Connection) -> None:
    """The temporary tables of this session, empty in every transaction, and how this one shall look rows up."""
    for statement in _STAGES:
        connection.execute(text(statement))


def stage_prices(connection: Connection, price_lines: Iterable[str], history_lines: list[str]) -> int:
    """COPY the observations in: the newest of each series, and the older points, which may come to be known while those are read.

    Returns:
        How many prices were staged.
    """
    staged = copy_rows(connection, "stage_price", price_lines)
    connection.execute(text("SET LOCAL default_statistics_target = 10"))
    connection.execute(text("ANALYZE stage_price"))
    if history_lines:
        copy_rows(connection, "stage_history", history_lines)
    return staged


# A newest point `s` later than the known one `c` is a change when its amount differs from the one before it: the staged point before it
# where that is later than the known one, else the known one.
_AT = "to_timestamp(s.minute * 60::float8)"
_BEFORE = "CASE WHEN to_timestamp(s.prior_minute * 60::float8) > c.observed_at THEN s.prior_minor ELSE c.amount_minor END"
_IS_CHANGE = f"({_AT} > c.observed_at AND s.amount_minor IS DISTINCT FROM {_BEFORE})"


def keep_changes(connection: Connection) -> tuple[int, int, int]:
    """Keep in the temporary table `change` what is staged and differs from `current_prices`, which are still those before.

    With it which changes somebody watches, the highest active target, and the numbers of their events. In `stage_near` go the watches
    that a staged price, changed or not, may concern: most are far from their target and are looked at here only.

    Returns:
        How many prices changed, first sightings included, how many of them are watched, and how many watches are near.
    """
    counts = connection.execute(
        text(
            f"""
            WITH looked AS MATERIALIZED (
                SELECT s.asin, s.marketplace, s.price_type, s.currency, {_AT} AS observed_at, s.amount_minor,
                    CASE WHEN c.asin IS NULL THEN s.prior_minor ELSE {_BEFORE} END AS previous_minor, s.event_id,
                    w.is_watched, w.target_minor, w.near, c.asin IS NULL OR {_IS_CHANGE} AS is_change
                FROM stage_price s
                LEFT JOIN current_prices c ON c.asin = s.asin AND c.marketplace = s.marketplace AND c.price_type = s.price_type
                LEFT JOIN LATERAL (
                    SELECT true AS is_watched, max(target_minor) AS target_minor,
                        array_agg(id) FILTER (WHERE s.amount_minor <= w.target_minor OR NOT w.is_armed) AS near
                    FROM watched_products w
                    WHERE w.asin = s.asin AND w.marketplace = s.marketplace AND w.price_type = s.price_type AND w.is_active
                    HAVING count(*) > 0
                ) w ON true
            ), kept AS (
                INSERT INTO change (asin, marketplace, price_type, currency, observed_at, amount_minor, previous_minor, event_id,
                    is_watched, target_minor, event_seq)
                SELECT asin, marketplace, price_type, currency, observed_at, amount_minor, previous_minor, event_id,
                    is_watched, target_minor, CASE WHEN is_watched THEN nextval('event_seq') END
                FROM looked WHERE is_change
                RETURNING is_watched
            ), near AS (
                INSERT INTO stage_near (watch_id, asin, marketplace, price_type, amount_minor)
                SELECT unnest(near), asin, marketplace, price_type, amount_minor FROM looked WHERE near IS NOT NULL
                RETURNING 1
            )
            SELECT count(*) AS changes, count(is_watched) AS watched, (SELECT count(*) FROM near) AS near FROM kept
            """
        )
    ).one()
    return counts.changes, counts.watched, counts.near


def move_current_prices(connection: Connection, *, now: datetime, staged: int) -> None:
    """Move `current_prices` to what is staged.

    Args:
        staged: how many prices were staged; when all are known there is nothing to insert.
    """
    moved = connection.execute(
        text(
            f"""
            UPDATE current_prices c SET checked_at = :now,
                amount_minor = CASE WHEN {_IS_CHANGE} THEN s.amount_minor ELSE c.amount_minor END,
                observed_at = CASE WHEN {_IS_CHANGE} THEN {_AT} ELSE c.observed_at END
            FROM stage_price s WHERE c.asin = s.asin AND c.marketplace = s.marketplace AND c.price_type = s.price_type
            """
        ),
        {"now": now},
    ).rowcount
    if moved < staged:
        connection.execute(
            text(
                f"""
                INSERT INTO current_prices (asin, marketplace, price_type, amount_minor, currency, observed_at, checked_at)
                SELECT asin, marketplace, price_type, amount_minor, currency, {_AT}, :now FROM stage_price s
                WHERE NOT EXISTS (
                    SELECT 1 FROM current_prices c
                    WHERE c.asin = s.asin AND c.marketplace = s.marketplace AND c.price_type = s.price_type
                )
                """
            ),
            {"now": now},
        )


_HISTORY_OF_CHANGES = """
    INSERT INTO price_history (asin, marketplace, price_type, observed_at, amount_minor, currency, event_id, event_version,
        previous_minor, target_minor)
    SELECT asin, marketplace, price_type, observed_at, amount_minor, currency, CASE WHEN is_watched THEN event_id END,
        CASE WHEN is_watched THEN 1 END, CASE WHEN is_watched THEN previous_minor END, target_minor
    FROM change
"""
_UNLESS_THERE = """
    ON CONFLICT (asin, marketplace, price_type, observed_at) DO UPDATE SET amount_minor = excluded.amount_minor,
        event_id = excluded.event_id, event_version = excluded.event_version, previous_minor = excluded.previous_minor,
        target_minor = excluded.target_minor
    WHERE price_history.event_id IS NULL AND excluded.event_id IS NOT NULL
"""


def insert_history(connection: Connection) -> None:
    """Changes with their events, then the older points. A point that is there already stays as it is.

    A change is mostly later than all that is known, and then saying nothing of a conflict takes half the time. Where a point is there all
    the same, as one that was seen by the way, PostgreSQL says so and takes them back to the savepoint.
    """
    try:
        with connection.begin_nested():
            connection.execute(text(_HISTORY_OF_CHANGES))
    except IntegrityError as error:
        if not isinstance(error.orig, UniqueViolation):
            raise
        connection.execute(text(_HISTORY_OF_CHANGES + _UNLESS_THERE))
    connection.execute(
        text(
            """
            INSERT INTO price_history (asin, marketplace, price_type, observed_at, amount_minor, currency)
            SELECT asin, marketplace, price_type, to_timestamp(minute * 60::float8), amount_minor, currency FROM stage_history
            ON CONFLICT DO NOTHING
            """
        )
    )


def _whole_units(column: str) -> str:
    """A minor amount as a JSON number in whole units, exact; `null` where there is none."""
    return (
        f"coalesce(CASE change.currency WHEN 'JPY' THEN change.{column}::text "
        f"ELSE change.{column} / 100 || '.' || lpad((change.{column} % 100)::text, 2, '0') END, 'null')"
    )


_FALL = "coalesce(round((change.previous_minor - change.amount_minor) * 100.0 / change.previous_minor, 2)::text, 'null')"
# The fields of `price-updates`: Keeper adds, never removes or retypes one. Put together as text: json_build_object takes twice as long.
PRICE_UPDATE_OF = f"""
    ('{{"asin":"' || change.asin || '","product_title":' || coalesce(to_json(p.title)::text, 'null')
    || ',"current_price":' || {_whole_units("amount_minor")}
    || ',"target_price":' || {_whole_units("target_minor")}
    || ',"previous_price":' || {_whole_units("previous_minor")}
    || ',"price_change":' || {_FALL} || ',"price_change_percent":' || {_FALL}
    || ',"domain":"' || lower(change.marketplace) || '","currency":"' || change.currency
    || '","timestamp":"' || to_char(change.observed_at, 'YYYY-MM-DD"T"HH24\\:MI\\:SS"Z"')
    || '","event_type":"price_update","event_id":"' || change.event_id || '","schema_version"\\:1,"price_type":"' || change.price_type
    || '","current_price_minor":' || coalesce(change.amount_minor::text, 'null')
    || ',"target_price_minor":' || coalesce(change.target_minor::text, 'null')
    || ',"previous_price_minor":' || coalesce(change.previous_minor::text, 'null') || '}}')::json
"""


def insert_price_events(connection: Connection, routes: Routes) -> None:
    """One event per watched change, and a thin outbox row for each sink of the kind, whose relays are woken on commit."""
    connection.execute(
        text(
            f"""
            INSERT INTO events (seq, event_id, kind, key, payload)
            SELECT change.event_seq, change.event_id, :kind, change.asin, {PRICE_UPDATE_OF}
            FROM change JOIN stage_product p USING (asin, marketplace) WHERE is_watched
            """
        ),
        {"kind": EventKind.PRICE_UPDATE.value},
    )
    sinks = list(routes.get(EventKind.PRICE_UPDATE, ()))
    if sinks:
        connection.execute(
            text(
                f"""
                INSERT INTO outbox (sink, shard, key, event_on, event_seq)
                SELECT sink, {SHARD_OF_KEY.format(key="asin")}, asin, current_date, event_seq
                FROM change CROSS JOIN unnest(CAST(:sinks AS text[])) AS sink WHERE is_watched
                """
            ),
            {"sinks": sinks},
        )
        notify_relays(connection)


def select_largest_falls(connection: Connection, limit: int) -> list[Change]:
    """The changes of this transaction that fell most, in percent of the price before."""
    rows = connection.execute(
        text(
            """
            SELECT asin, marketplace, price_type, currency, amount_minor, previous_minor, observed_at FROM change
            WHERE is_watched AND amount_minor < previous_minor
            ORDER BY (previous_minor - amount_minor)::float8 / previous_minor DESC LIMIT :limit
            """
        ),
        {"limit": limit},
    )
    return [Change(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One change point."""

    observed_at: datetime
    amount_minor: int | None
    event_id: UUID | None


def select_history(
    connection: Connection, asin: str, marketplace: str, price_type: str, *, start: datetime, end: datetime
) -> Sequence[HistoryPoint]:
    """Change points from `start` to `end`, oldest first, led by the one in force at `start`."""
    rows = connection.execute(
        text(
            """
            (SELECT observed_at, amount_minor, event_id FROM price_history
             WHERE asin = :asin AND marketplace = :marketplace AND price_type = :price_type AND observed_at <= :start
             ORDER BY observed_at DESC LIMIT 1)
            UNION ALL
            (SELECT observed_at, amount_minor, event_id FROM price_history
             WHERE asin = :asin AND marketplace = :marketplace AND price_type = :price_type AND observed_at > :start AND observed_at <= :end
             ORDER BY observed_at)
            """
        ),
        {"asin": asin, "marketplace": marketplace, "price_type": price_type, "start": start, "end": end},
    )
    return [HistoryPoint(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class CurrentPrice:
    """A price as it was last seen.

    Attributes:
        amount_minor: None where there was no offer.
        observed_at: since when it is this, by Keepa.
        checked_at: when that was last true for sure.
        product_checked_at: when the whole product was last checked.
    """

    price_type: str
    amount_minor: int | None
    currency: str
    observed_at: datetime
    checked_at: datetime
    product_checked_at: datetime


def select_current(connection: Connection, asin: str, marketplace: str) -> list[CurrentPrice]:
    """All prices of a product in one store, by price type."""
    rows = connection.execute(
        text(
            """
            SELECT c.price_type, c.amount_minor, c.currency, c.observed_at, c.checked_at, p.checked_at
            FROM current_prices c JOIN products p USING (asin, marketplace)
            WHERE c.asin = :asin AND c.marketplace = :marketplace ORDER BY c.price_type
            """
        ),
        {"asin": asin, "marketplace": marketplace},
    )
    return [CurrentPrice(*row) for row in rows]
