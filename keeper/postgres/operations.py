"""What a day of work came to, as the operations report asks it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class CollectedDay:
    """What one source of deals brought.

    Attributes:
        seen: rows it told of.
        counted: rows of which it is known whether they are of a product group, `members` those that are. Where no page says so, of the
            deals found that day.
        median_score: of the deals found that day; None without any.
    """

    source: str
    pages: int
    seen: int
    counted: int
    members: int
    added: int
    glitches: int
    median_score: float | None


def select_collected(connection: Connection, *, since: datetime) -> list[CollectedDay]:
    """By source, the most productive first."""
    rows = connection.execute(
        text(
            """
            SELECT c.source, c.pages, c.seen, coalesce(c.counted, d.found, 0), coalesce(c.members, d.members, 0), c.added, c.glitches,
                d.median_score
            FROM (
                SELECT source, count(*) AS pages, sum(seen) AS seen, sum(seen) FILTER (WHERE members IS NOT NULL) AS counted,
                    sum(members) AS members, sum(kept) AS kept, sum(added) AS added, sum(glitches) AS glitches
                FROM deal_collections WHERE collected_at > :since GROUP BY source
            ) c
            LEFT JOIN (
                SELECT source, count(*) AS found, count(product_group) AS members,
                    percentile_cont(0.5) WITHIN GROUP (ORDER BY deal_score) AS median_score
                FROM collected_deals WHERE first_seen_at > :since GROUP BY source
            ) d USING (source)
            ORDER BY c.kept DESC, c.source
            """
        ),
        {"since": since},
    )
    return [CollectedDay(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class CallsOfDay:
    """What one operation of Keepa's cost."""

    operation: str
    calls: int
    failed: int
    tokens: int
    median_ms: float


def select_calls(connection: Connection, *, since: datetime) -> list[CallsOfDay]:
    """By operation, the dearest first."""
    rows = connection.execute(
        text(
            """
            SELECT operation, count(*), count(*) FILTER (WHERE NOT success), coalesce(sum(tokens_consumed), 0)::bigint,
                percentile_cont(0.5) WITHIN GROUP (ORDER BY response_time_ms)
            FROM keepa_calls WHERE called_at > :since GROUP BY operation ORDER BY 4 DESC, operation
            """
        ),
        {"since": since},
    )
    return [CallsOfDay(*row) for row in rows]


def select_refill(connection: Connection) -> int:
    """Tokens a minute; 0 where Keepa has not been asked yet."""
    rate: int = connection.execute(text("SELECT refill_per_minute FROM token_ledger")).scalar_one()
    return rate


@dataclass(frozen=True, slots=True)
class ToldDay:
    """What people were told.

    Attributes:
        last_date: of the latest report of deals; None before the first.
    """

    alerts: int
    deal_alerts: int
    held: int
    reports: int
    empty_reports: int
    last_date: date | None


def select_told(connection: Connection, *, since: datetime) -> ToldDay:
    """Alerts and reports since then."""
    row = connection.execute(
        text(
            """
            SELECT (SELECT count(*) FROM price_alerts WHERE created_at > :since),
                (SELECT count(*) FROM deal_alerts WHERE created_at > :since AND NOT is_held),
                (SELECT count(*) FROM deal_alerts WHERE created_at > :since AND is_held),
                (SELECT count(*) FROM deal_reports WHERE created_at > :since AND kind = 'deals'),
                (SELECT count(*) FROM deal_reports WHERE created_at > :since AND kind = 'deals' AND deal_count = 0),
                (SELECT max(report_date) FROM deal_reports WHERE kind = 'deals')
            """
        ),
        {"since": since},
    ).one()
    return ToldDay(*row)


@dataclass(frozen=True, slots=True)
class FailedDay:
    """What failed.

    Attributes:
        dead_letters: by sink, given up within a day of the machine.
        dead_deliveries: to channels, of what was told since then.
        pending_deliveries: that have failed at least once and are tried again.
        failed_checks: products whose last check brought nothing.
        queries: of the feed whose last pass failed, with why; one that nobody has asked for another day was removed.
    """

    dead_letters: Sequence[tuple[str, int]]
    dead_deliveries: int
    pending_deliveries: int
    failed_checks: int
    queries: Sequence[tuple[str, str]]


def select_failures(connection: Connection, *, since: datetime) -> FailedDay:
    """Since then; dead letters are on the machine's clock."""
    letters = connection.execute(
        text("SELECT sink, count(*) FROM dead_letters WHERE died_at > clock_timestamp() - interval '1 day' GROUP BY sink ORDER BY sink")
    ).all()
    queries = connection.execute(
        text(
            "SELECT name || ' ' || price_type, failure FROM deal_queries "
            "WHERE failure IS NOT NULL AND asked_at > :since - interval '1 day' ORDER BY 1 LIMIT 20"
        ),
        {"since": since},
    ).all()
    row = connection.execute(
        text(
            """
            SELECT (SELECT count(*) FROM deliveries WHERE status = 'dead' AND created_at > :since),
                (SELECT count(*) FROM deliveries WHERE status = 'pending' AND tries > 0),
                (SELECT count(*) FROM planned_checks WHERE last_failure IS NOT NULL)
            """
        ),
        {"since": since},
    ).one()
    dead_deliveries, pending_deliveries, failed_checks = row
    return FailedDay(
        [(sink, dead) for sink, dead in letters], dead_deliveries, pending_deliveries, failed_checks, [(name, why) for name, why in queries]
    )


@dataclass(frozen=True, slots=True)
class Administrator:
    """Somebody who is told how Keeper works."""

    user_id: int
    name: str
    timezone: str


def select_administrators(connection: Connection) -> list[Administrator]:
    """By id."""
    return [
        Administrator(*row) for row in connection.execute(text("SELECT id, name, timezone FROM users WHERE role = 'admin' ORDER BY id"))
    ]
