"""Opportunities that are told: which were not announced yet, who listens, and what they were told."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from keeper.domain.events import Event, EventKind, opportunity_alert_event_id
from keeper.domain.opportunity_query import LEAST_ROI_PCT
from keeper.postgres.outbox import insert_events
from keeper.postgres.sinks import Routes

Lane = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Unannounced:
    """An opportunity that was not announced.

    Attributes:
        told_minor: the profit that was announced of the same gap before it went and came back, in euro cents; None: nothing was.
    """

    opportunity_id: int
    profit_minor: int
    told_minor: int | None


def lock_unannounced(
    connection: Connection, *, least_roi_pct: Decimal, remembered: timedelta, better_by_pct: int, limit: int
) -> list[Unannounced]:
    """The best by return that nobody was told of: there, surely the same article, not stale, the profit known and of this return.

    One that the comparison is at work on waits for the next call.

    Args:
        remembered: for so long after a gap is gone it is known what was announced of it.
        better_by_pct: one that is marked as known comes where it is better by so much.
    """
    rows = connection.execute(
        text(
            f"""
            SELECT o.id, o.profit_minor, coalesce(o.announced_profit_minor, (
                SELECT max(b.announced_profit_minor) FROM opportunities b
                WHERE b.asin = o.asin AND b.source_market = o.source_market AND b.target_market = o.target_market
                    AND b.closed_at > o.first_seen_at - CAST(:remembered AS interval)
            )) AS told_minor
            FROM opportunities o
            WHERE o.closed_at IS NULL AND cardinality(o.doubts) = 0 AND o.announced_at IS NULL AND NOT o.is_stale
                AND o.profit_minor IS NOT NULL AND o.roi_pct IS NOT NULL
                AND coalesce(o.roi_pct, {LEAST_ROI_PCT}) >= :least
                AND (o.announced_profit_minor IS NULL OR (
                    o.profit_minor > o.announced_profit_minor
                    AND (o.profit_minor - CAST(o.announced_profit_minor AS bigint)) * 100 >=
                        abs(CAST(o.announced_profit_minor AS bigint)) * :better_by
                ))
            ORDER BY coalesce(o.roi_pct, {LEAST_ROI_PCT}) DESC, o.id DESC LIMIT :limit FOR NO KEY UPDATE OF o SKIP LOCKED
            """
        ),
        {"least": least_roi_pct, "remembered": remembered, "better_by": better_by_pct, "limit": limit},
    )
    return [Unannounced(*row) for row in rows]


def mark_announced(connection: Connection, ids: Sequence[int], *, now: datetime) -> None:
    """They were told."""
    if ids:
        connection.execute(
            text(
                "UPDATE opportunities SET announced_at = :now, announced_profit_minor = profit_minor WHERE id = ANY(CAST(:ids AS bigint[]))"
            ),
            {"ids": list(ids), "now": now},
        )


def mark_known(connection: Connection, told: Mapping[int, int]) -> None:
    """They are gaps that came back no better: what was announced of them, by id, is theirs too, and of those that come after them."""
    if told:
        connection.execute(
            text(
                """
                UPDATE opportunities o SET announced_profit_minor = k.told
                FROM unnest(CAST(:ids AS bigint[]), CAST(:told AS integer[])) AS k (id, told) WHERE o.id = k.id
                """
            ),
            {"ids": list(told), "told": list(told.values())},
        )


def select_listeners(connection: Connection, user_ids: Collection[int]) -> dict[int, Mapping[str, Any] | None]:
    """Those of them who have a channel, by id: the profile of their own seller, None for the default one."""
    rows = connection.execute(
        text(
            """
            SELECT u.id, s.profile FROM users u LEFT JOIN seller_profiles s ON s.user_id = u.id
            WHERE u.id = ANY(CAST(:user_ids AS bigint[])) AND EXISTS (SELECT 1 FROM channels c WHERE c.user_id = u.id) ORDER BY u.id
            """
        ),
        {"user_ids": list(user_ids)},
    )
    return {row.id: row.profile for row in rows}


@dataclass(frozen=True, slots=True)
class Listener:
    """A user who is told something just now.

    Attributes:
        told: opportunities since the time asked for.
        rule_ids: their active rules.
    """

    told: int
    rule_ids: frozenset[int]


def lock_listener(connection: Connection, user_id: int, *, since: datetime) -> Listener:
    """Nobody else tells the user any opportunity until this transaction ends, and none of their rules goes."""
    connection.execute(text("SELECT 1 FROM users WHERE id = :user_id FOR NO KEY UPDATE"), {"user_id": user_id})
    # Statements of their own: what the one before has waited for is seen only by a later one.
    rule_ids = connection.execute(
        text("SELECT id FROM opportunity_rules WHERE user_id = :user_id AND is_active ORDER BY id FOR KEY SHARE"), {"user_id": user_id}
    ).scalars()
    told: int = connection.execute(
        text("SELECT count(*) FROM opportunity_alerts WHERE user_id = :user_id AND created_at > :since"),
        {"user_id": user_id, "since": since},
    ).scalar_one()
    return Listener(told, frozenset(rule_ids))


def select_told(connection: Connection, user_id: int, asins: Collection[str], *, since: datetime) -> dict[Lane, tuple[frozenset[int], int]]:
    """What a user was told of these products: by lane the opportunities, and the best profit since that time, in euro cents.

    Whenever it was, an opportunity that was told is among them.
    """
    rows = connection.execute(
        text(
            """
            SELECT o.asin, o.source_market, o.target_market, array_agg(o.id) AS ids,
                coalesce(max((a.content ->> 'profit_minor')::integer) FILTER (WHERE a.created_at > :since), -2147483648) AS profit_minor
            FROM opportunity_alerts a JOIN opportunities o ON o.id = a.opportunity_id
            WHERE a.user_id = :user_id AND o.asin = ANY(CAST(:asins AS text[])) GROUP BY o.asin, o.source_market, o.target_market
            """
        ),
        {"user_id": user_id, "asins": list(asins), "since": since},
    )
    return {(row.asin, row.source_market, row.target_market): (frozenset(row.ids), row.profit_minor) for row in rows}


@dataclass(frozen=True, slots=True)
class NewOpportunityAlert:
    """An opportunity for a user.

    Attributes:
        arbitrage_id: of the opportunity's own event; with user and channel it makes that of each message.
        content: JSON.
    """

    user_id: int
    rule_id: int
    opportunity_id: int
    arbitrage_id: UUID
    content: str


def insert_alerts(connection: Connection, alerts: Sequence[NewOpportunityAlert], *, now: datetime, routes: Routes) -> tuple[int, int]:
    """Each opportunity once to a user, with a delivery to each channel. Returns how many are new, and how many deliveries."""
    if not alerts:
        return 0, 0
    rows = connection.execute(
        text(
            """
            WITH new AS (
                SELECT * FROM unnest(CAST(:user_ids AS bigint[]), CAST(:rule_ids AS bigint[]), CAST(:opportunity_ids AS bigint[]),
                    CAST(:contents AS json[])) WITH ORDINALITY AS n (user_id, rule_id, opportunity_id, content, place)
            ), added AS (
                INSERT INTO opportunity_alerts (user_id, rule_id, opportunity_id, content, created_at)
                SELECT user_id, rule_id, opportunity_id, content, :now FROM new ORDER BY place
                ON CONFLICT (user_id, opportunity_id) DO NOTHING RETURNING id, user_id, opportunity_id
            ), sent AS (
                INSERT INTO deliveries (opportunity_alert_id, channel_id)
                SELECT added.id, channels.id FROM added JOIN channels USING (user_id) ORDER BY added.id, channels.id
                RETURNING id, opportunity_alert_id, channel_id
            )
            SELECT added.id AS alert_id, added.user_id, added.opportunity_id, sent.id AS delivery_id, sent.channel_id
            FROM added LEFT JOIN sent ON sent.opportunity_alert_id = added.id ORDER BY sent.id
            """
        ),
        {
            "user_ids": [one.user_id for one in alerts],
            "rule_ids": [one.rule_id for one in alerts],
            "opportunity_ids": [one.opportunity_id for one in alerts],
            "contents": [one.content for one in alerts],
            "now": now,
        },
    ).all()
    arbitrage_ids = {one.opportunity_id: one.arbitrage_id for one in alerts}
    events = [
        Event.of(
            opportunity_alert_event_id(row.user_id, arbitrage_ids[row.opportunity_id], row.channel_id),
            EventKind.OPPORTUNITY_ALERT,
            str(row.channel_id),
            {"delivery_id": row.delivery_id, "channel_id": row.channel_id, "opportunity_alert_id": row.alert_id},
        )
        for row in rows
        if row.delivery_id is not None
    ]
    insert_events(connection, events, routes)
    return len({row.alert_id for row in rows}), len(events)
