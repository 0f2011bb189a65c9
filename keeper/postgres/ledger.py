"""The token ledger: one locked row with Keepa's last word, and a row per reservation."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from keeper.domain.budget import Bucket, Priority, Reservation
from keeper.domain.tokens import KeepaCall


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger under its lock.

    Attributes:
        now: business time, read after the lock was had.
        clock_speed: business seconds in a second of the machine.
        bucket: None until Keepa has been asked once.
        said_at: Keepa's own time of that word.
        unexplained_tokens: gone without a request of ours, not yet beyond doubt.
    """

    now: datetime
    clock_speed: float
    key_fingerprint: str | None
    bucket: Bucket | None
    said_at: datetime | None
    reservations: tuple[Reservation, ...]
    unexplained_tokens: int
    foreign_tokens: int
    foreign_seen_at: datetime | None


def lock_ledger(connection: Connection) -> Ledger:
    """Lock the ledger for this transaction; reservations of the dead are written off first.

    A request whose answer never came may have been executed: its tokens count as spent until Keepa says otherwise.
    """
    connection.execute(text("SELECT 1 FROM token_ledger FOR UPDATE"))
    connection.execute(
        text(
            """
            WITH dead AS (DELETE FROM token_reservations WHERE expires_at < clock_timestamp() RETURNING tokens, is_granted)
            UPDATE token_ledger SET tokens = token_ledger.tokens - lost.tokens
            FROM (SELECT coalesce(sum(tokens), 0) AS tokens FROM dead WHERE is_granted) lost WHERE lost.tokens > 0
            """
        )
    )
    return read_ledger(connection)


def read_ledger(connection: Connection) -> Ledger:
    """The ledger without a lock, for people."""
    row = connection.execute(
        text(
            """
            SELECT keeper_now() AS now, clock_speed, token_ledger.* FROM token_ledger, installation
            """
        )
    ).one()
    reservations = connection.execute(
        # Also those that have expired since: until they are written off they count.
        text("SELECT id, tokens, priority, is_granted FROM token_reservations")
    ).all()
    bucket = None
    if row.observed_at is not None:
        bucket = Bucket(row.tokens, row.refill_per_minute, row.flow_reduction_per_minute, row.observed_at, row.next_refill_at)
    return Ledger(
        now=row.now,
        clock_speed=row.clock_speed,
        key_fingerprint=row.key_fingerprint,
        bucket=bucket,
        said_at=row.said_at,
        reservations=tuple(Reservation(one.id, one.tokens, Priority(one.priority), one.is_granted) for one in reservations),
        unexplained_tokens=row.unexplained_tokens,
        foreign_tokens=row.foreign_tokens,
        foreign_seen_at=row.foreign_seen_at,
    )


def insert_reservation(
    connection: Connection, *, operation: str, tokens: int, priority: Priority, is_granted: bool, lease_seconds: float
) -> int:
    """Set tokens aside; the caller has the lock and has decided. Returns the reservation's id."""
    reservation_id: int = connection.execute(
        text(
            """
            INSERT INTO token_reservations (operation, priority, tokens, is_granted, expires_at)
            VALUES (:operation, :priority, :tokens, :is_granted, clock_timestamp() + make_interval(secs => :lease_seconds)) RETURNING id
            """
        ),
        {"operation": operation, "priority": int(priority), "tokens": tokens, "is_granted": is_granted, "lease_seconds": lease_seconds},
    ).scalar_one()
    return reservation_id


def update_reservation(connection: Connection, reservation_id: int, *, is_granted: bool, lease_seconds: float) -> bool:
    """Grant it, or show that its owner still waits. False if it is gone."""
    updated = connection.execute(
        text(
            """
            UPDATE token_reservations
            SET is_granted = :is_granted, expires_at = clock_timestamp() + make_interval(secs => :lease_seconds) WHERE id = :id
            """
        ),
        {"id": reservation_id, "is_granted": is_granted, "lease_seconds": lease_seconds},
    )
    return updated.rowcount == 1


def delete_reservation(connection: Connection, reservation_id: int) -> tuple[int, str | None]:
    """Give it back. Returns its tokens and what they were for; 0 and None if it was gone."""
    row = connection.execute(
        text("DELETE FROM token_reservations WHERE id = :id RETURNING tokens, operation"), {"id": reservation_id}
    ).one_or_none()
    return (0, None) if row is None else (row.tokens, row.operation)


def update_bucket(
    connection: Connection, bucket: Bucket, *, said_at: datetime, key_fingerprint: str | None, unexplained_tokens: int
) -> None:
    """Keepa's new word on the bucket, and its own time of it."""
    connection.execute(
        text(
            """
            UPDATE token_ledger SET key_fingerprint = :key_fingerprint, tokens = :tokens, refill_per_minute = :refill_per_minute,
                flow_reduction_per_minute = :flow_reduction, observed_at = :observed_at, next_refill_at = :next_refill_at,
                said_at = :said_at,
                unexplained_tokens = :unexplained_tokens
            """
        ),
        {
            "key_fingerprint": key_fingerprint,
            "tokens": bucket.tokens,
            "refill_per_minute": bucket.refill_per_minute,
            "flow_reduction": bucket.flow_reduction_per_minute,
            "observed_at": bucket.observed_at,
            "next_refill_at": bucket.next_refill_at,
            "said_at": said_at,
            "unexplained_tokens": unexplained_tokens,
        },
    )


def add_foreign_tokens(connection: Connection, tokens: int, *, now: datetime) -> None:
    """Somebody else spent on this key."""
    connection.execute(
        text("UPDATE token_ledger SET foreign_tokens = foreign_tokens + :tokens, foreign_seen_at = :now, unexplained_tokens = 0"),
        {"tokens": tokens, "now": now},
    )


def write_off(connection: Connection, tokens: int) -> None:
    """An answer got lost: count its upper bound as spent until Keepa says otherwise."""
    connection.execute(text("UPDATE token_ledger SET tokens = tokens - :tokens"), {"tokens": tokens})


def forget_bucket(connection: Connection) -> None:
    """Another key is in use: what was known of the old one's bucket does not hold."""
    connection.execute(text("UPDATE token_ledger SET observed_at = NULL, key_fingerprint = NULL, tokens = 0, unexplained_tokens = 0"))


def has_call(connection: Connection, call_id: UUID) -> bool:
    """Whether this call is settled already."""
    found: bool = connection.execute(text("SELECT EXISTS (SELECT 1 FROM keepa_calls WHERE id = :id)"), {"id": call_id}).scalar_one()
    return found


def insert_call(connection: Connection, call_id: UUID, call: KeepaCall, *, now: datetime, reserved_for: str | None = None) -> None:
    """One row per call, failures included.

    Args:
        reserved_for: the operation of its reservation, which may be narrower than Keepa's own word; None where it had none.
    """
    connection.execute(
        text(
            """
            INSERT INTO keepa_calls (id, called_at, operation, marketplace, asin_count, tokens_consumed, tokens_left,
                refill_per_minute, refill_in_ms, response_time_ms, success, error, reserved_for)
            VALUES (:id, :now, :operation, :domain, :asin_count, :tokens_consumed, :tokens_left,
                :refill_rate, :refill_in, :response_time_ms, :success, :error, :reserved_for)
            """
        ),
        {
            "id": call_id,
            "now": now,
            "operation": call.operation,
            "domain": call.domain,
            "asin_count": call.asin_count,
            "tokens_consumed": call.tokens_consumed,
            "tokens_left": call.tokens_left,
            "refill_rate": call.refill_rate,
            "refill_in": call.refill_in,
            "response_time_ms": call.response_time_ms,
            "success": call.success,
            "error": call.error,
            "reserved_for": reserved_for,
        },
    )


def select_spent(connection: Connection, *, since: datetime, tokens_left_below: int) -> int:
    """Tokens of the calls settled since then that left less than so many."""
    tokens: int = connection.execute(
        text("SELECT coalesce(sum(tokens_consumed), 0) FROM keepa_calls WHERE called_at >= :since AND tokens_left < :below"),
        {"since": since, "below": tokens_left_below},
    ).scalar_one()
    return tokens


def select_used(connection: Connection, operations: Collection[str], *, since: datetime) -> dict[str, int]:
    """Tokens by what they were reserved for: of the calls since then, and of all that is reserved now, granted or waiting."""
    rows = connection.execute(
        text(
            """
            SELECT operation, sum(tokens) AS tokens FROM (
                SELECT coalesce(reserved_for, operation) AS operation, tokens_consumed AS tokens FROM keepa_calls WHERE called_at >= :since
                UNION ALL
                SELECT operation, tokens FROM token_reservations
            ) used WHERE operation = ANY(:operations) GROUP BY operation
            """
        ),
        {"since": since, "operations": list(operations)},
    )
    return {row.operation: int(row.tokens or 0) for row in rows}


def delete_old_calls(connection: Connection, *, before: datetime) -> int:
    """Rows of `keepa_calls` older than `before`. Returns how many went."""
    return connection.execute(text("DELETE FROM keepa_calls WHERE called_at < :before"), {"before": before}).rowcount


@dataclass(frozen=True, slots=True)
class Spending:
    """What the calls of one operation came to."""

    operation: str
    calls: int
    failed: int
    asins: int
    tokens: int


def select_spending(connection: Connection, *, since: datetime) -> list[Spending]:
    """Calls since a moment of business time, by operation, the dearest first."""
    rows = connection.execute(
        text(
            """
            SELECT operation, count(*), count(*) FILTER (WHERE NOT success), sum(asin_count), coalesce(sum(tokens_consumed), 0)
            FROM keepa_calls WHERE called_at >= :since GROUP BY operation ORDER BY 5 DESC, 1
            """
        ),
        {"since": since},
    )
    return [Spending(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Reserved:
    """Tokens set aside for one operation.

    Attributes:
        granted: of requests that may be on their way.
        waiting: of requests that wait for their turn.
    """

    operation: str
    granted: int
    waiting: int


def select_reserved(connection: Connection) -> list[Reserved]:
    """Reservations by operation, the largest first. Those that have expired count until they are written off."""
    rows = connection.execute(
        text(
            """
            SELECT operation, coalesce(sum(tokens) FILTER (WHERE is_granted), 0), coalesce(sum(tokens) FILTER (WHERE NOT is_granted), 0)
            FROM token_reservations GROUP BY operation ORDER BY sum(tokens) DESC, operation
            """
        )
    )
    return [Reserved(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class HourSpending:
    """What the calls of one hour came to.

    Attributes:
        hour_at: its beginning, UTC.
    """

    hour_at: datetime
    calls: int
    failed: int
    tokens: int


def select_hourly_spending(connection: Connection, *, now: datetime) -> list[HourSpending]:
    """The last 24 hours of the clock, oldest first, the running one last; also those without a call."""
    rows = connection.execute(
        text(
            """
            WITH spent AS (
                SELECT date_trunc('hour', called_at, 'UTC') AS hour_at, count(*) AS calls, count(*) FILTER (WHERE NOT success) AS failed,
                    coalesce(sum(tokens_consumed), 0) AS tokens
                FROM keepa_calls WHERE called_at >= :first GROUP BY 1
            )
            SELECT hour_at, coalesce(calls, 0), coalesce(failed, 0), coalesce(tokens, 0)
            FROM generate_series(CAST(:first AS timestamptz), :now, interval '1 hour') AS hour_at LEFT JOIN spent USING (hour_at)
            ORDER BY hour_at
            """
        ),
        {"now": now, "first": now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=23)},
    )
    return [HourSpending(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Demand:
    """What all active watches ask for.

    Attributes:
        products: each product of a marketplace once.
    """

    products: int
    tokens_per_minute: float


def select_demand(connection: Connection, *, plain_tokens: int, buybox_tokens: int) -> Demand:
    """What checking every watched product by its shortest interval costs.

    A check of the buy box serves the product's other watches too: they cost their own only where they are due more often.
    Reads every active watch.

    Args:
        plain_tokens, buybox_tokens: cost of one product without and with the buy box.
    """
    row = connection.execute(
        text(
            """
            WITH product AS (
                SELECT 60.0::float8 / min(interval_seconds) FILTER (WHERE price_type = 'BUY_BOX_SHIPPING') AS buybox,
                    60.0::float8 / min(interval_seconds) FILTER (WHERE price_type <> 'BUY_BOX_SHIPPING') AS plain
                FROM watched_products WHERE is_active GROUP BY asin, marketplace
            )
            SELECT count(*) AS products,
                coalesce(sum(:buybox_tokens * coalesce(buybox, 0)
                    + :plain_tokens * greatest(coalesce(plain, 0) - coalesce(buybox, 0), 0)), 0) AS tokens_per_minute
            FROM product
            """
        ),
        {"plain_tokens": plain_tokens, "buybox_tokens": buybox_tokens},
    ).one()
    return Demand(row.products, float(row.tokens_per_minute))
