"""Sums over everything, for people who look at the whole."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Totals:
    """What a database holds.

    Attributes:
        checks: products Keepa was asked for with success.
        price_points: change points of the history.
    """

    watches: int
    checks: int
    tokens: int
    price_points: int
    alerts: int
    delivered: int
    deals: int
    reports: int


def select_totals(connection: Connection) -> Totals:
    """Counts whole tables: for demos and small databases."""
    row = connection.execute(
        text(
            """
            SELECT (SELECT count(*) FROM watched_products WHERE is_active),
                (SELECT coalesce(sum(asin_count), 0) FROM keepa_calls WHERE success),
                (SELECT coalesce(sum(tokens_consumed), 0) FROM keepa_calls), (SELECT count(*) FROM price_history),
                (SELECT count(*) FROM price_alerts), (SELECT count(*) FROM deliveries WHERE status = 'delivered'),
                (SELECT count(*) FROM collected_deals), (SELECT count(*) FROM deal_reports)
            """
        )
    ).one()
    return Totals(*(int(value) for value in row))


@dataclass(frozen=True, slots=True)
class Drop:
    """A watched price that fell."""

    asin: str
    title: str | None
    previous_minor: int
    amount_minor: int
    currency: str
    observed_at: datetime


def select_largest_drops(connection: Connection, *, limit: int) -> list[Drop]:
    """The largest falls among all events, in percent of the price before."""
    rows = connection.execute(
        text(
            """
            SELECT h.asin, p.title, h.previous_minor, h.amount_minor, h.currency, h.observed_at
            FROM price_history h JOIN products p USING (asin, marketplace)
            WHERE h.event_id IS NOT NULL AND h.amount_minor < h.previous_minor
            ORDER BY (h.previous_minor - h.amount_minor)::float8 / h.previous_minor DESC LIMIT :limit
            """
        ),
        {"limit": limit},
    )
    return [Drop(*row) for row in rows]
