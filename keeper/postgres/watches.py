"""Watches: what users want checked, what is due, who is checking it."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from keeper.domain.errors import KeeperError
from keeper.domain.product import ProductKind
from keeper.domain.watch import Watch

_FAILURES = json.dumps({kind.value: kind.failure for kind in ProductKind if kind.failure})


class WatchExists(KeeperError):
    """The user already watches this price."""


class WatchUnknown(KeeperError):
    """No such active watch of this user."""


@dataclass(frozen=True, slots=True)
class WatchRow:
    """A watch as it stands, with the current price."""

    watch_id: int
    user: str
    asin: str
    marketplace: str
    price_type: str
    title: str | None
    target_minor: int | None
    currency: str
    interval_seconds: int
    hysteresis_pct: float
    is_armed: bool
    amount_minor: int | None
    observed_at: datetime | None
    last_checked_at: datetime | None
    next_check_at: datetime
    last_failure: str | None


@dataclass(frozen=True, slots=True)
class DueBatch:
    """Products of one marketplace that one request can check.

    Attributes:
        history_days: how much history the request must bring so that no change since the last check is missed.
        joined_asins: with commas between them; a hundred strings in one, because a million would cost 60 MB more.
        tokens: upper bound of the request's cost.
    """

    marketplace: str
    buybox: bool
    history_days: int
    joined_asins: str
    tokens: int

    @property
    def asins(self) -> tuple[str, ...]:
        """The products."""
        return tuple(self.joined_asins.split(","))


def insert_watches(connection: Connection, user_id: int, watches: Sequence[Watch], *, now: datetime) -> list[int]:
    """Add watches in one statement; the first check is due at once.

    Returns:
        The ids of those that are new, in order; one that the user already has is left as it is.
    """
    if not watches:
        return []
    rows = connection.execute(
        text(
            """
            INSERT INTO watched_products (user_id, asin, marketplace, price_type, target_minor, currency, interval_seconds, hysteresis_pct,
                created_at, next_check_at)
            SELECT :user_id, asin, marketplace, price_type, target_minor, currency, interval_seconds, hysteresis_pct, :now, :now
            FROM unnest(CAST(:asins AS text[]), CAST(:marketplaces AS text[]), CAST(:price_types AS text[]), CAST(:targets AS integer[]),
                CAST(:currencies AS text[]), CAST(:intervals AS integer[]), CAST(:hystereses AS numeric[]))
                WITH ORDINALITY AS new (asin, marketplace, price_type, target_minor, currency, interval_seconds, hysteresis_pct, position)
            ORDER BY position
            ON CONFLICT (asin, marketplace, price_type, user_id) WHERE is_active DO NOTHING
            RETURNING id
            """
        ),
        {
            "user_id": user_id,
            "now": now,
            "asins": [watch.asin for watch in watches],
            "marketplaces": [watch.marketplace.value for watch in watches],
            "price_types": [watch.price_type.value for watch in watches],
            "targets": [watch.target.amount_minor if watch.target else None for watch in watches],
            "currencies": [watch.marketplace.currency for watch in watches],
            "intervals": [round(watch.interval.total_seconds()) for watch in watches],
            "hystereses": [watch.hysteresis_pct for watch in watches],
        },
    )
    return list(rows.scalars())


def insert_watch(connection: Connection, user_id: int, watch: Watch, *, now: datetime) -> int:
    """Add one.

    Raises:
        WatchExists: the user already watches this price.
    """
    ids = insert_watches(connection, user_id, [watch], now=now)
    if not ids:
        raise WatchExists(
            f"{watch.asin} in {watch.marketplace} ({watch.price_type}) is watched already; remove that watch first, or change its target"
        )
    return ids[0]


def update_target(connection: Connection, user_id: int, watch_id: int, target_minor: int | None) -> None:
    """Another target arms the watch again.

    Raises:
        WatchUnknown: not an active watch of this user.
    """
    updated = connection.execute(
        text(
            """
            UPDATE watched_products SET is_armed = is_armed OR target_minor IS DISTINCT FROM :target, target_minor = :target
            WHERE id = :id AND user_id = :user_id AND is_active
            """
        ),
        {"id": watch_id, "user_id": user_id, "target": target_minor},
    )
    if updated.rowcount == 0:
        raise WatchUnknown(f"there is no active watch {watch_id} of yours; `keeper watch list` shows them")


def deactivate_watch(connection: Connection, user_id: int, watch_id: int) -> None:
    """Stop watching; alerts and history stay.

    Raises:
        WatchUnknown: not an active watch of this user.
    """
    updated = connection.execute(
        text("UPDATE watched_products SET is_active = false WHERE id = :id AND user_id = :user_id AND is_active"),
        {"id": watch_id, "user_id": user_id},
    )
    if updated.rowcount == 0:
        raise WatchUnknown(f"there is no active watch {watch_id} of yours; `keeper watch list` shows them")


def select_watches(connection: Connection, *, user_id: int | None = None, after_id: int = 0, limit: int = 1000) -> list[WatchRow]:
    """Active watches by id, of one user or of all."""
    rows = connection.execute(
        text(
            """
            SELECT w.id, u.name, w.asin, w.marketplace, w.price_type, p.title, w.target_minor, w.currency, w.interval_seconds,
                w.hysteresis_pct::float8, w.is_armed, c.amount_minor, c.observed_at, w.last_checked_at, w.next_check_at, w.last_failure
            FROM watched_products w JOIN users u ON u.id = w.user_id
            LEFT JOIN products p USING (asin, marketplace)
            LEFT JOIN current_prices c USING (asin, marketplace, price_type)
            WHERE w.is_active AND w.id > :after_id AND (CAST(:user_id AS bigint) IS NULL OR w.user_id = :user_id)
            ORDER BY w.id LIMIT :limit
            """
        ),
        {"user_id": user_id, "after_id": after_id, "limit": limit},
    )
    return [WatchRow(*row) for row in rows]


def find_watch(connection: Connection, user_id: int, watch_id: int) -> WatchRow:
    """An active watch of a user.

    Raises:
        WatchUnknown: see there.
    """
    for watch in select_watches(connection, user_id=user_id, after_id=watch_id - 1, limit=1):
        if watch.watch_id == watch_id:
            return watch
    raise WatchUnknown(f"there is no active watch {watch_id} of yours; `keeper watch list` shows them")


def make_due(connection: Connection, user_id: int, *, now: datetime) -> int:
    """All active watches of a user are due now. Returns how many were not."""
    return connection.execute(
        text(
            "UPDATE watched_products SET next_check_at = :now "
            "WHERE user_id = :user_id AND is_active AND removed_at IS NULL AND next_check_at > :now"
        ),
        {"user_id": user_id, "now": now},
    ).rowcount


def select_target(connection: Connection, asin: str, marketplace: str, price_type: str, *, user_id: int | None = None) -> int | None:
    """The highest target of the active watches on a price, of one user or of all; None without any."""
    target: int | None = connection.execute(
        text(
            """
            SELECT max(target_minor) FROM watched_products
            WHERE is_active AND asin = :asin AND marketplace = :marketplace AND price_type = :price_type
                AND (CAST(:user_id AS bigint) IS NULL OR user_id = :user_id)
            """
        ),
        {"asin": asin, "marketplace": marketplace, "price_type": price_type, "user_id": user_id},
    ).scalar_one()
    return target


def select_buybox_asins(connection: Connection, asins: Collection[str], marketplace: str) -> set[str]:
    """Those of the ASINs whose buy box somebody watches."""
    found = connection.execute(
        text(
            """
            SELECT DISTINCT asin FROM watched_products
            WHERE is_active AND asin = ANY(:asins) AND marketplace = :marketplace AND price_type = 'BUY_BOX_SHIPPING'
            """
        ),
        {"asins": list(asins), "marketplace": marketplace},
    )
    return set(found.scalars())


_DUE = """
    WITH due AS (
        SELECT asin, marketplace, price_type, next_check_at, last_checked_at FROM watched_products
        WHERE is_active AND next_check_at <= :until {conditions} AND (asin, marketplace) NOT IN (SELECT asin, marketplace FROM check_claims)
        ORDER BY next_check_at LIMIT :most_watches
    ), product AS (
        SELECT asin, marketplace, min(next_check_at) AS due_at, bool_or(price_type = 'BUY_BOX_SHIPPING') AS buybox,
            max(CASE WHEN last_checked_at > :day_ago THEN 2 WHEN last_checked_at > :month_ago THEN 31 ELSE 365 END) AS history_days
        FROM due GROUP BY asin, marketplace
    )
"""
# Sorted once, by due time: an array keeps that order for each kind of request, and a place in it is the number of a batch.
_BATCHED = """
    , paid AS (
        SELECT *, sum(CASE WHEN buybox THEN :buybox_tokens ELSE :plain_tokens END) OVER (ORDER BY due_at ROWS UNBOUNDED PRECEDING) AS spent
        FROM product
    ), kind AS (
        SELECT marketplace, buybox, history_days, array_agg(asin) AS asins, array_agg(spent) AS spent_until
        FROM paid WHERE spent <= :tokens GROUP BY marketplace, buybox, history_days
    )
    SELECT marketplace, buybox, history_days, string_agg(asin, ',') AS asins,
        count(*) * CASE WHEN buybox THEN :buybox_tokens ELSE :plain_tokens END AS tokens
    FROM kind, unnest(asins, spent_until) WITH ORDINALITY AS one (asin, spent, place)
    GROUP BY marketplace, buybox, history_days, (place - 1) / CASE WHEN buybox THEN :buybox_size ELSE :plain_size END
    ORDER BY min(spent)
"""


def select_due_batches(
    connection: Connection,
    *,
    now: datetime,
    until: datetime,
    tokens: int,
    plain_tokens: int,
    buybox_tokens: int,
    plain_size: int,
    buybox_size: int,
    interval_seconds: int | None = None,
    most_watches: int | None = None,
) -> list[DueBatch]:
    """Due products of all users, each once, oldest due first as far as `tokens` go, cut into requests in SQL.

    Args:
        until: watches due up to here are taken.
        plain_tokens, buybox_tokens: cost of one product without and with the buy box.
        plain_size, buybox_size: products in one request, likewise; a buybox_size of 0 leaves the watches of the buy box waiting.
        interval_seconds: only watches of this interval.
        most_watches: how many due watches are looked at, the oldest first; enough for `tokens` unless very many share a product.
    """
    conditions = []
    if interval_seconds:
        conditions.append("AND interval_seconds = :interval_seconds")
    if not buybox_size:
        conditions.append("AND price_type <> 'BUY_BOX_SHIPPING'")
    # For a million due watches the server's own 4 MB mean a dozen passes over files; the setting ends with the transaction.
    connection.execute(text("SELECT set_config('work_mem', '64MB', true)"))
    query = _DUE.format(conditions=" ".join(conditions)) + _BATCHED
    rows = connection.execute(
        text(query),
        {
            "until": until,
            "day_ago": now - timedelta(days=1),
            "month_ago": now - timedelta(days=30),
            "tokens": tokens,
            "plain_tokens": plain_tokens,
            "buybox_tokens": buybox_tokens,
            "plain_size": plain_size,
            "buybox_size": max(1, buybox_size),
            "most_watches": most_watches if most_watches is not None else 4 * tokens + 1000,
            **({"interval_seconds": interval_seconds} if interval_seconds else {}),
        },
    )
    return [DueBatch(*row) for row in rows]


def next_due_at(connection: Connection, *, shorter_than: timedelta) -> datetime | None:
    """When the next watch with a shorter interval is due; None without such watches."""
    at: datetime | None = connection.execute(
        text("SELECT min(next_check_at) FROM watched_products WHERE is_active AND interval_seconds < :seconds"),
        {"seconds": round(shorter_than.total_seconds())},
    ).scalar_one()
    return at


def claim_products(connection: Connection, batch_id: UUID, asins: Collection[str], marketplace: str, *, lease_seconds: float) -> set[str]:
    """Claim products for one request; the caller holds the ledger's lock.

    Returns:
        The claimed ASINs; others are being checked by somebody else right now.
    """
    claimed = connection.execute(
        text(
            """
            INSERT INTO check_claims (asin, marketplace, batch_id, expires_at)
            SELECT asin, :marketplace, :batch_id, clock_timestamp() + make_interval(secs => :lease_seconds)
            FROM unnest(CAST(:asins AS text[])) AS asin ORDER BY asin
            ON CONFLICT (asin, marketplace) DO UPDATE SET batch_id = excluded.batch_id, expires_at = excluded.expires_at
                WHERE check_claims.expires_at < clock_timestamp()
            RETURNING asin
            """
        ),
        {"asins": list(asins), "marketplace": marketplace, "batch_id": batch_id, "lease_seconds": lease_seconds},
    )
    return set(claimed.scalars())


def renew_claims(connection: Connection, batch_id: UUID, *, lease_seconds: float) -> int:
    """Start the leases of a request's claims anew. Returns how many are still its own."""
    return connection.execute(
        text("UPDATE check_claims SET expires_at = clock_timestamp() + make_interval(secs => :lease_seconds) WHERE batch_id = :batch_id"),
        {"batch_id": batch_id, "lease_seconds": lease_seconds},
    ).rowcount


def delete_dead_claims(connection: Connection) -> None:
    """Claims whose owner did not come back in time."""
    connection.execute(text("DELETE FROM check_claims WHERE expires_at < clock_timestamp()"))


def release_claims(connection: Connection, batch_id: UUID) -> None:
    """Nobody checks these any more; they stay due."""
    connection.execute(text("DELETE FROM check_claims WHERE batch_id = :batch_id"), {"batch_id": batch_id})


def reschedule_checked(connection: Connection, *, now: datetime, buybox: bool) -> None:
    """The staged products, but for those seen by the way, have been checked: their watches are due an interval later, their claims end.

    A watch of the buy box counts as checked only where the request asked for it.
    """
    connection.execute(
        text(
            """
            UPDATE watched_products w SET last_checked_at = :now, next_check_at = :now + make_interval(secs => w.interval_seconds),
                last_failure = CAST(:failures AS json) ->> s.kind
            FROM stage_product s
            WHERE w.asin = s.asin AND w.marketplace = s.marketplace AND w.is_active AND NOT s.is_partial
                AND (:buybox OR w.price_type <> 'BUY_BOX_SHIPPING')
            """
        ),
        {"now": now, "buybox": buybox, "failures": _FAILURES},
    )
    connection.execute(
        text(
            "DELETE FROM check_claims c USING stage_product s WHERE c.asin = s.asin AND c.marketplace = s.marketplace AND NOT s.is_partial"
        )
    )


def postpone_failed(
    connection: Connection, asins: Collection[str], marketplace: str, *, failure: str, now: datetime, wait: timedelta
) -> None:
    """A check brought nothing: say why, and try again after `wait` or the watch's interval, whichever is shorter."""
    connection.execute(
        # As `record` does, so that a late answer on the same products waits and does not deadlock.
        text("SELECT 1 FROM products WHERE marketplace = :marketplace AND asin = ANY(:asins) ORDER BY asin, marketplace FOR UPDATE"),
        {"asins": list(asins), "marketplace": marketplace},
    )
    connection.execute(
        text(
            """
            UPDATE watched_products SET last_failure = :failure,
                next_check_at = :now + least(make_interval(secs => interval_seconds), make_interval(secs => :wait_seconds))
            WHERE marketplace = :marketplace AND asin = ANY(:asins) AND is_active
            """
        ),
        {"asins": list(asins), "marketplace": marketplace, "failure": failure, "now": now, "wait_seconds": wait.total_seconds()},
    )
    connection.execute(
        text("DELETE FROM check_claims WHERE marketplace = :marketplace AND asin = ANY(:asins)"),
        {"asins": list(asins), "marketplace": marketplace},
    )


def count_overdue(connection: Connection, *, now: datetime, interval_seconds: int | None = None, most_watches: int = 10_000) -> int:
    """Products whose watches are overdue and which nobody checks just now, among the `most_watches` due first."""
    count: int = connection.execute(
        text(
            """
            SELECT count(DISTINCT (asin, marketplace)) FROM (
                SELECT asin, marketplace FROM watched_products
                WHERE is_active AND next_check_at <= :now
                    AND interval_seconds = coalesce(CAST(:interval_seconds AS integer), interval_seconds)
                    AND (asin, marketplace) NOT IN (SELECT asin, marketplace FROM check_claims)
                ORDER BY next_check_at LIMIT :most_watches
            ) AS overdue
            """
        ),
        {"now": now, "interval_seconds": interval_seconds, "most_watches": most_watches},
    ).scalar_one()
    return count
