"""Alerts, their deliveries, and the state of the watches that raise them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid5

from sqlalchemy import Connection, text

from keeper.domain.alert import PriceAlert, encode_alert
from keeper.domain.events import NAMESPACE, Event, EventKind
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.postgres.outbox import insert_events
from keeper.postgres.sinks import Routes


@dataclass(frozen=True, slots=True)
class Candidate:
    """A watch whose state the staged price may change."""

    watch_id: int
    user_id: int
    asin: str
    marketplace: str
    price_type: str
    amount_minor: int
    previous_minor: int | None
    target_minor: int
    is_armed: bool
    hysteresis_pct: float
    currency: str
    observed_at: datetime
    highest_since_minor: int | None


def select_candidates(connection: Connection) -> list[Candidate]:
    """Of the watches in `stage_near` those that are armed with the staged price at the target, or unarmed with a price above it.

    `previous_minor`: the price before this one, also where it changed at an earlier check (a new watch, another target).
    `highest_since_minor`, of unarmed watches: the highest staged price since the last alert, so that a price that left the target and
    came back between two checks is a crossing of its own.
    """
    rows = connection.execute(
        text(
            """
            SELECT w.id, w.user_id, w.asin, w.marketplace, w.price_type, c.amount_minor,
                CASE WHEN change.asin IS NOT NULL OR NOT w.is_armed THEN change.previous_minor ELSE
                    (SELECT h.amount_minor FROM price_history h
                     WHERE h.asin = s.asin AND h.marketplace = s.marketplace AND h.price_type = s.price_type
                        AND h.observed_at < c.observed_at AND h.amount_minor <> c.amount_minor
                     ORDER BY h.observed_at DESC LIMIT 1)
                END,
                w.target_minor, w.is_armed,
                w.hysteresis_pct::float8, c.currency, c.observed_at,
                CASE WHEN change.asin IS NOT NULL AND NOT w.is_armed THEN
                    (SELECT max(h.amount_minor) FROM stage_history h
                     WHERE h.asin = s.asin AND h.marketplace = s.marketplace AND h.price_type = s.price_type
                        AND to_timestamp(h.minute * 60.0) > (SELECT max(a.observed_at) FROM price_alerts a WHERE a.watch_id = w.id))
                END
            FROM stage_near s
            JOIN watched_products w ON w.id = s.watch_id
            JOIN current_prices c ON c.asin = s.asin AND c.marketplace = s.marketplace AND c.price_type = s.price_type
            LEFT JOIN change ON change.asin = s.asin AND change.marketplace = s.marketplace AND change.price_type = s.price_type
            WHERE w.is_active AND w.target_minor IS NOT NULL AND s.amount_minor IS NOT NULL
                AND (
                    CASE WHEN w.is_armed THEN s.amount_minor <= w.target_minor ELSE s.amount_minor > w.target_minor END
                    OR (change.asin IS NOT NULL AND NOT w.is_armed)
                )
                AND c.amount_minor = s.amount_minor
            ORDER BY w.id FOR UPDATE OF w
            """
        )
    )
    return [Candidate(*row) for row in rows]


def set_armed(connection: Connection, watch_ids: Sequence[int], *, is_armed: bool) -> None:
    """Arm or disarm watches."""
    if watch_ids:
        connection.execute(
            text("UPDATE watched_products SET is_armed = :is_armed WHERE id = ANY(:ids)"), {"ids": list(watch_ids), "is_armed": is_armed}
        )


def insert_alerts(connection: Connection, candidates: Sequence[Candidate], *, now: datetime, routes: Routes) -> int:
    """One alert per watch, a delivery per channel of its user, and an event per delivery. Returns how many alerts are new."""
    if not candidates:
        return 0
    rows = connection.execute(
        text(
            """
            WITH fired AS (
                SELECT * FROM unnest(CAST(:watch_ids AS bigint[]), CAST(:user_ids AS bigint[]), CAST(:asins AS text[]),
                    CAST(:marketplaces AS text[]), CAST(:price_types AS text[]), CAST(:amounts AS integer[]), CAST(:previous AS integer[]),
                    CAST(:targets AS integer[]), CAST(:currencies AS text[]), CAST(:times AS timestamptz[]))
                    AS f (watch_id, user_id, asin, marketplace, price_type, amount_minor, previous_minor, target_minor,
                        currency, observed_at)
            ), added AS (
                INSERT INTO price_alerts (watch_id, user_id, asin, marketplace, price_type, amount_minor, previous_minor, target_minor,
                    lowest_in_year_minor, currency, observed_at, created_at)
                SELECT f.watch_id, f.user_id, f.asin, f.marketplace, f.price_type, f.amount_minor, f.previous_minor, f.target_minor,
                    least(
                        (SELECT min(h.amount_minor) FROM price_history h
                         WHERE h.asin = f.asin AND h.marketplace = f.marketplace AND h.price_type = f.price_type
                            AND h.observed_at > :year_ago AND h.observed_at <= :now),
                        (SELECT h.amount_minor FROM price_history h
                         WHERE h.asin = f.asin AND h.marketplace = f.marketplace AND h.price_type = f.price_type
                            AND h.observed_at <= :year_ago ORDER BY h.observed_at DESC LIMIT 1)
                    ),
                    f.currency, f.observed_at, :now
                FROM fired f ORDER BY f.watch_id
                ON CONFLICT (watch_id, observed_at, target_minor) DO NOTHING
                RETURNING *
            ), sent AS (
                INSERT INTO deliveries (alert_id, channel_id)
                SELECT added.id, channels.id FROM added JOIN channels USING (user_id) RETURNING id, alert_id, channel_id
            )
            SELECT added.*, p.title, p.image_url, sent.id AS delivery_id, sent.channel_id
            FROM added LEFT JOIN sent ON sent.alert_id = added.id
            LEFT JOIN products p ON p.asin = added.asin AND p.marketplace = added.marketplace
            ORDER BY sent.id
            """
        ),
        {
            "watch_ids": [one.watch_id for one in candidates],
            "user_ids": [one.user_id for one in candidates],
            "asins": [one.asin for one in candidates],
            "marketplaces": [one.marketplace for one in candidates],
            "price_types": [one.price_type for one in candidates],
            "amounts": [one.amount_minor for one in candidates],
            "previous": [one.previous_minor for one in candidates],
            "targets": [one.target_minor for one in candidates],
            "currencies": [one.currency for one in candidates],
            "times": [one.observed_at for one in candidates],
            "now": now,
            "year_ago": now - timedelta(days=365),
        },
    ).all()
    events = []
    for row in rows:
        if row.delivery_id is None:
            continue
        alert = PriceAlert(
            alert_id=str(row.id),
            asin=row.asin,
            marketplace=Marketplace(row.marketplace),
            price_type=PriceType(row.price_type),
            title=row.title or row.asin,
            price=Money(row.amount_minor, row.currency),
            previous_price=Money(row.previous_minor, row.currency) if row.previous_minor else None,
            target=Money(row.target_minor, row.currency),
            lowest_in_year=Money(row.lowest_in_year_minor, row.currency) if row.lowest_in_year_minor else None,
            image_url=row.image_url,
            observed_at=row.observed_at,
        )
        payload = {"delivery_id": row.delivery_id, "channel_id": row.channel_id, "alert": encode_alert(alert)}
        event_id = uuid5(NAMESPACE, f"delivery/{row.watch_id}/{row.observed_at.isoformat()}/{row.target_minor}/{row.channel_id}")
        events.append(Event.of(event_id, EventKind.ALERT, str(row.channel_id), payload))
    insert_events(connection, events, routes)
    return len({row.id for row in rows})


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """What a relay needs to deliver one alert or report to one channel.

    Attributes:
        content: of the report, or the alert of a deal or an opportunity; None for the alert of a price, which its event tells.
    """

    delivery_id: int
    channel_id: int
    status: str
    url_encrypted: str
    content: Mapping[str, Any] | None = None


def select_delivery(connection: Connection, delivery_id: int) -> PendingDelivery | None:
    """None when the channel, or what is to be told, has been deleted."""
    row = connection.execute(
        text(
            """
            SELECT d.id, d.channel_id, d.status, c.url_encrypted, coalesce(r.content, a.content, t.content)
            FROM deliveries d JOIN channels c ON c.id = d.channel_id
            LEFT JOIN deal_reports r ON r.id = d.report_id LEFT JOIN deal_alerts a ON a.id = d.deal_alert_id
            LEFT JOIN opportunity_alerts t ON t.id = d.opportunity_alert_id
            WHERE d.id = :id
            """
        ),
        {"id": delivery_id},
    ).one_or_none()
    return None if row is None else PendingDelivery(*row)


def mark_delivered(connection: Connection, delivery_id: int, *, receipt: str) -> None:
    """The far side has acknowledged."""
    connection.execute(
        text(
            """
            UPDATE deliveries SET status = 'delivered', tries = tries + 1, delivered_at = keeper_now(), receipt = :receipt,
                last_failure = NULL
            WHERE id = :id AND status <> 'delivered'
            """
        ),
        {"id": delivery_id, "receipt": receipt},
    )


def mark_failed(connection: Connection, delivery_id: int, *, failure: str, is_dead: bool) -> None:
    """The far side refused, or could not be reached; dead after the last try."""
    connection.execute(
        text(
            """
            UPDATE deliveries SET tries = tries + 1, last_failure = :failure, status = CASE WHEN :is_dead THEN 'dead' ELSE status END
            WHERE id = :id AND status = 'pending'
            """
        ),
        {"id": delivery_id, "failure": failure, "is_dead": is_dead},
    )


@dataclass(frozen=True, slots=True)
class AlertRow:
    """An alert with what became of one of its deliveries; without a channel all of that is None."""

    alert_id: int
    watch_id: int
    user: str
    asin: str
    marketplace: str
    price_type: str
    title: str | None
    amount_minor: int
    previous_minor: int | None
    target_minor: int
    lowest_in_year_minor: int | None
    currency: str
    observed_at: datetime
    created_at: datetime
    channel: str | None
    status: str | None
    tries: int | None
    delivered_at: datetime | None
    last_failure: str | None
    receipt: str | None


def select_alerts(
    connection: Connection,
    *,
    user_id: int | None = None,
    asin: str | None = None,
    marketplace: str | None = None,
    before_id: int | None = None,
    limit: int = 100,
) -> list[AlertRow]:
    """The newest `limit` alerts, newest first, a row per delivery and one for an alert without.

    Args:
        user_id, asin, marketplace: None for all.
        before_id: only alerts older than this one.
    """
    wanted = {"user_id": user_id, "asin": asin, "marketplace": marketplace}
    # Only what is asked for is named: with `IS NULL OR` a prepared plan could not use the index of one user's alerts.
    conditions = [f"{column} = :{column}" for column, value in wanted.items() if value is not None]
    if before_id is not None:
        conditions.append("id < :before_id")
    rows = connection.execute(
        text(
            f"""
            SELECT a.id, a.watch_id, u.name, a.asin, a.marketplace, a.price_type, p.title, a.amount_minor, a.previous_minor, a.target_minor,
                a.lowest_in_year_minor, a.currency, a.observed_at, a.created_at, c.name, d.status, d.tries, d.delivered_at, d.last_failure,
                d.receipt
            FROM (
                SELECT * FROM price_alerts {"WHERE " + " AND ".join(conditions) if conditions else ""} ORDER BY id DESC LIMIT :limit
            ) a JOIN users u ON u.id = a.user_id
            LEFT JOIN products p ON p.asin = a.asin AND p.marketplace = a.marketplace
            LEFT JOIN deliveries d ON d.alert_id = a.id LEFT JOIN channels c ON c.id = d.channel_id
            ORDER BY a.id DESC, d.id
            """
        ),
        {name: value for name, value in wanted.items() if value is not None}
        | ({} if before_id is None else {"before_id": before_id})
        | {"limit": limit},
    )
    return [AlertRow(*row) for row in rows]


def count_deliveries(connection: Connection) -> dict[str, int]:
    """How many deliveries there are by status; a status without any is left out."""
    rows = connection.execute(text("SELECT status, count(*) AS deliveries FROM deliveries GROUP BY status ORDER BY status"))
    return {row.status: row.deliveries for row in rows}
