"""Reports and the alerts of deals: who is due, what their days hold, and what was told. Each question is one statement for all users."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from keeper.domain.errors import KeeperError
from keeper.domain.events import Event, EventKind, Sink, deal_alert_event_id, report_event_id
from keeper.domain.price_series import PriceSeries
from keeper.domain.report import OfferKey, ReportKind
from keeper.postgres.deals import DEAL_ID, Key, insert_deal_events
from keeper.postgres.engine import copy_rows, copy_text
from keeper.postgres.outbox import insert_events
from keeper.postgres.sinks import Routes

_OFFERS = "unnest(CAST(:asins AS text[]), CAST(:marketplaces AS text[]), CAST(:price_types AS text[]))"
_KEYS = f"{_OFFERS.removesuffix(')')}, CAST(:times AS timestamptz[]))"


class ReportUnknown(KeeperError):
    """The user has no report of that id."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A user who gets reports.

    Attributes:
        last_date: of their last report; None before the first.
    """

    user_id: int
    name: str
    timezone: str
    report_hour: int
    wants_empty: bool
    last_date: date | None


def select_readers(connection: Connection) -> list[Reader]:
    """Everybody who gets reports, by id."""
    rows = connection.execute(
        text(
            """
            SELECT u.id, u.name, u.timezone, u.report_hour, u.wants_empty_reports, last.report_date
            FROM users u LEFT JOIN LATERAL (
                SELECT r.report_date FROM deal_reports r WHERE r.user_id = u.id AND r.kind = 'deals' ORDER BY r.report_date DESC LIMIT 1
            ) last ON true
            WHERE u.report_hour IS NOT NULL ORDER BY u.id
            """
        )
    )
    return [Reader(*row) for row in rows]


def find_reader(connection: Connection, user_id: int) -> Reader:
    """A user as one who gets reports, whether they do or not."""
    row = connection.execute(
        text(
            """
            SELECT u.id, u.name, u.timezone, coalesce(u.report_hour, 0), u.wants_empty_reports,
                (SELECT max(r.report_date) FROM deal_reports r WHERE r.user_id = u.id AND r.kind = 'deals')
            FROM users u WHERE u.id = :user_id
            """
        ),
        {"user_id": user_id},
    ).one()
    return Reader(*row)


@dataclass(frozen=True, slots=True)
class LastReport:
    """What the next report compares with.

    Attributes:
        shown: by filter, the offers with price in minor units and title.
        watched: what it knew of each watched price.
    """

    composed_at: datetime
    shown: Mapping[int, Mapping[OfferKey, tuple[int, str]]]
    watched: Mapping[OfferKey, int]


def select_last_reports(connection: Connection, user_ids: Collection[int]) -> dict[int, LastReport]:
    """The last report of each of these users who has one."""
    rows = connection.execute(
        text(
            """
            SELECT u.id, last.created_at, last.content -> 'shown' AS shown, last.content -> 'watched' AS watched
            FROM unnest(CAST(:user_ids AS bigint[])) AS u (id) CROSS JOIN LATERAL (
                SELECT r.created_at, r.content FROM deal_reports r
                WHERE r.user_id = u.id AND r.kind = 'deals' ORDER BY r.report_date DESC LIMIT 1
            ) last
            """
        ),
        {"user_ids": list(user_ids)},
    )
    return {
        row.id: LastReport(
            row.created_at,
            {
                int(filter_id): {OfferKey(*one[:3]): (int(one[3]), str(one[4])) for one in offers}
                for filter_id, offers in (row.shown or {}).items()
            },
            {OfferKey(*one[:3]): int(one[3]) for one in row.watched or ()},
        )
        for row in rows
    }


def select_running(connection: Connection, offers: Collection[OfferKey]) -> set[OfferKey]:
    """Those of the offers that are a deal at present."""
    rows = connection.execute(
        text(
            f"""
            SELECT s.asin, s.marketplace, s.price_type FROM {_OFFERS} AS s (asin, marketplace, price_type)
            WHERE EXISTS (
                SELECT 1 FROM collected_deals d
                WHERE d.asin = s.asin AND d.marketplace = s.marketplace AND d.price_type = s.price_type AND d.ended_at IS NULL
            )
            """
        ),
        _columns_of(offers),
    )
    return {OfferKey(*row) for row in rows}


def select_price_points(
    connection: Connection, offers: Collection[OfferKey], *, since: datetime, until: datetime
) -> dict[OfferKey, PriceSeries]:
    """The recorded prices of each offer that has any: those in force since then."""
    rows = connection.execute(
        text(
            f"""
            SELECT s.asin, s.marketplace, s.price_type, points.minutes, points.amounts
            FROM {_OFFERS} AS s (asin, marketplace, price_type) CROSS JOIN LATERAL (
                SELECT array_agg((extract(epoch FROM h.observed_at) / 60)::bigint ORDER BY h.observed_at) AS minutes,
                    array_agg(h.amount_minor ORDER BY h.observed_at) AS amounts
                FROM (
                    (SELECT observed_at, amount_minor FROM price_history h
                     WHERE h.asin = s.asin AND h.marketplace = s.marketplace AND h.price_type = s.price_type AND h.observed_at <= :since
                     ORDER BY observed_at DESC LIMIT 1)
                    UNION ALL
                    SELECT observed_at, amount_minor FROM price_history h
                    WHERE h.asin = s.asin AND h.marketplace = s.marketplace AND h.price_type = s.price_type
                        AND h.observed_at > :since AND h.observed_at <= :until
                ) h
            ) points
            WHERE points.minutes IS NOT NULL
            """
        ),
        _columns_of(offers) | {"since": since, "until": until},
    )
    return {
        OfferKey(asin, marketplace, price_type): PriceSeries(minutes, amounts) for asin, marketplace, price_type, minutes, amounts in rows
    }


@dataclass(frozen=True, slots=True)
class WatchedRow:
    """A price that a user watches, as Keeper knows it.

    Attributes:
        amount_minor: None where there is no offer.
        before_minor: what it was then; None where that is not known, or it has not changed since.
    """

    user_id: int
    asin: str
    marketplace: str
    price_type: str
    title: str | None
    image_url: str | None
    amount_minor: int | None
    before_minor: int | None
    currency: str
    target_minor: int | None
    observed_at: datetime

    @property
    def offer(self) -> OfferKey:
        """Whose price it is."""
        return OfferKey(self.asin, self.marketplace, self.price_type)


def select_watched(connection: Connection, user_ids: Collection[int], *, since: datetime) -> list[WatchedRow]:
    """The prices these users watch and Keeper knows, with what each was then."""
    rows = connection.execute(
        text(
            """
            WITH watched AS MATERIALIZED (
                SELECT w.user_id, w.asin, w.marketplace, w.price_type, w.target_minor FROM watched_products w
                WHERE w.user_id = ANY(CAST(:user_ids AS bigint[])) AND w.is_active
            ), known AS MATERIALIZED (
                SELECT c.asin, c.marketplace, c.price_type, p.title, p.image_url, c.amount_minor, before.amount_minor AS before_minor,
                    c.currency, c.observed_at
                FROM (SELECT DISTINCT asin, marketplace, price_type FROM watched) w
                JOIN current_prices c USING (asin, marketplace, price_type)
                LEFT JOIN products p ON p.asin = c.asin AND p.marketplace = c.marketplace
                LEFT JOIN LATERAL (
                    SELECT h.amount_minor FROM price_history h
                    WHERE c.observed_at > :since AND h.asin = c.asin AND h.marketplace = c.marketplace AND h.price_type = c.price_type
                        AND h.observed_at <= :since
                    ORDER BY h.observed_at DESC LIMIT 1
                ) before ON true
            )
            SELECT watched.user_id, k.asin, k.marketplace, k.price_type, k.title, k.image_url, k.amount_minor, k.before_minor, k.currency,
                watched.target_minor, k.observed_at
            FROM watched JOIN known k USING (asin, marketplace, price_type)
            ORDER BY watched.user_id, k.asin, k.marketplace, k.price_type
            """
        ),
        {"user_ids": list(user_ids), "since": since},
    )
    return [WatchedRow(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A deal that was not told at once.

    Attributes:
        is_over: it is no deal any more.
    """

    alert_id: int
    user_id: int
    content: Mapping[str, Any]
    held_at: datetime
    is_over: bool


def select_held(connection: Connection, user_ids: Collection[int]) -> list[HeldRow]:
    """What waits for these users' reports, oldest first."""
    rows = connection.execute(
        text(
            """
            SELECT a.id, a.user_id, a.content, a.created_at, NOT EXISTS (
                SELECT 1 FROM collected_deals d
                WHERE d.asin = a.asin AND d.marketplace = a.marketplace AND d.price_type = a.price_type AND d.changed_at = a.changed_at
                    AND d.ended_at IS NULL
            )
            FROM deal_alerts a
            WHERE a.user_id = ANY(CAST(:user_ids AS bigint[])) AND a.is_held AND a.report_id IS NULL ORDER BY a.id
            """
        ),
        {"user_ids": list(user_ids)},
    )
    return [HeldRow(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class NewReport:
    """A report to be kept.

    Attributes:
        content: JSON.
        is_told: it is sent to the user's channels.
        held_ids: of the held alerts it tells, and of those that wait no more.
        deals: it publishes.
    """

    user_id: int
    kind: ReportKind
    report_date: date
    deal_count: int
    content: str
    is_told: bool
    held_ids: tuple[int, ...] = ()
    deals: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept of some reports.

    Attributes:
        by_user: ids of the reports that are new; somebody else may have been quicker.
        deliveries: to channels.
        deals: published.
    """

    by_user: Mapping[int, int]
    deliveries: int
    deals: int


def insert_reports(connection: Connection, reports: Sequence[NewReport], *, now: datetime, routes: Routes) -> Kept:
    """Keep each user's report, unless there is one of that day; with it its deliveries and their events, and its deals for Kafka.

    Args:
        reports: at most one of a user.
        routes: of `sinks.lock_routes` in this transaction.
    """
    connection.execute(
        text(
            "CREATE TEMPORARY TABLE IF NOT EXISTS stage_report (user_id bigint, kind text, report_date date, deal_count integer, "
            "is_told boolean, content json) ON COMMIT DELETE ROWS"
        )
    )
    connection.execute(text("TRUNCATE stage_report"))
    # As one parameter, thirty megabytes take the driver ten times as long.
    copy_rows(connection, "stage_report (user_id, kind, report_date, deal_count, is_told, content)", [_report_line(one) for one in reports])
    rows = connection.execute(
        text(
            """
            WITH present AS MATERIALIZED (
                -- A user who has gone meanwhile must not take the others' reports along.
                SELECT id FROM users WHERE id IN (SELECT user_id FROM stage_report) ORDER BY id FOR KEY SHARE
            ), added AS (
                -- In one order, so that two who compose at once wait for one another and never both.
                INSERT INTO deal_reports (user_id, kind, report_date, deal_count, content, created_at)
                SELECT user_id, kind, report_date, deal_count, content, :now FROM stage_report
                WHERE user_id = ANY(ARRAY(SELECT id FROM present)) ORDER BY user_id
                ON CONFLICT (user_id, kind, report_date) DO NOTHING RETURNING id, user_id
            ), sent AS (
                INSERT INTO deliveries (report_id, channel_id)
                SELECT added.id, channels.id FROM added JOIN channels USING (user_id)
                WHERE added.user_id IN (SELECT user_id FROM stage_report WHERE is_told) ORDER BY channels.id
                RETURNING id, report_id, channel_id
            )
            SELECT added.id AS report_id, added.user_id, sent.id AS delivery_id, sent.channel_id
            FROM added LEFT JOIN sent ON sent.report_id = added.id ORDER BY sent.id
            """
        ),
        {"now": now},
    ).all()
    by_user = {row.user_id: row.report_id for row in rows}
    mine = [one for one in reports if one.user_id in by_user]
    _mark_reported(connection, [(alert_id, by_user[one.user_id]) for one in mine for alert_id in one.held_ids])
    published = _publish(connection, sorted({key for one in mine for key in one.deals}), routes)
    events = [
        Event.of(
            report_event_id(row.report_id, row.channel_id),
            EventKind.REPORT,
            str(row.channel_id),
            {"delivery_id": row.delivery_id, "channel_id": row.channel_id, "report_id": row.report_id},
        )
        for row in rows
        if row.delivery_id is not None
    ]
    insert_events(connection, events, routes)
    return Kept(by_user, len(events), published)


def _report_line(report: NewReport) -> str:
    is_told = "t" if report.is_told else "f"
    fields = (report.user_id, report.kind.value, report.report_date, report.deal_count, is_told, copy_text(report.content))
    return "\t".join(str(field) for field in fields) + "\n"


def _mark_reported(connection: Connection, told: Sequence[tuple[int, int]]) -> None:
    if told:
        connection.execute(
            text(
                """
                UPDATE deal_alerts a SET report_id = t.report_id
                FROM unnest(CAST(:ids AS bigint[]), CAST(:report_ids AS bigint[])) AS t (id, report_id) WHERE a.id = t.id
                """
            ),
            {"ids": [alert_id for alert_id, _ in told], "report_ids": [report_id for _, report_id in told]},
        )


def _publish(connection: Connection, keys: Sequence[Key], routes: Routes) -> int:
    """The deals once more for Kafka, under the event ids of their collection. Locked, so that each tells its latest state in its order."""
    to_kafka = [sink for sink in routes.get(EventKind.DEAL_UPDATE, ()) if sink == Sink.KAFKA]
    if not keys or not to_kafka:
        return 0
    event_ids: list[UUID] = list(
        connection.execute(
            text(
                f"""
                SELECT d.event_id FROM collected_deals d
                JOIN {_KEYS} AS s (asin, marketplace, price_type, changed_at)
                    USING (asin, marketplace, price_type, changed_at)
                WHERE d.event_id IS NOT NULL ORDER BY d.asin, d.marketplace, d.price_type, d.changed_at FOR SHARE OF d
                """
            ),
            _columns_of([OfferKey(*key[:3]) for key in keys]) | {"times": [key[3] for key in keys]},
        ).scalars()
    )
    insert_deal_events(connection, event_ids, {EventKind.DEAL_UPDATE: to_kafka})
    return len(event_ids)


@dataclass(frozen=True, slots=True)
class NewDealAlert:
    """A deal for a user who has an instant filter for it."""

    user_id: int
    filter_id: int
    deal_id: str
    key: Key
    amount_minor: int
    content: str


@dataclass(frozen=True, slots=True)
class Told:
    """What became of deals that match instant filters.

    Attributes:
        told: at once; `held` for the next report.
    """

    told: int = 0
    held: int = 0
    deliveries: int = 0


@dataclass(frozen=True, slots=True)
class InstantReader:
    """A user who may be told deals at once.

    Attributes:
        told: deals at once since the time asked for.
        has_reports: what is held for them is told some day.
        has_channels: they can be told at once.
    """

    told: int
    has_reports: bool
    has_channels: bool


def lock_readers(connection: Connection, user_ids: Collection[int], *, since: datetime) -> dict[int, InstantReader]:
    """Those of them who are there, by id; nobody else tells them any deal until this transaction ends."""
    connection.execute(
        text("SELECT 1 FROM users WHERE id = ANY(CAST(:user_ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE"), {"user_ids": list(user_ids)}
    )
    # A statement of its own: what the one before has waited for is seen only by a later one.
    rows = connection.execute(
        text(
            """
            SELECT u.id, u.report_hour IS NOT NULL AS has_reports,
                (SELECT count(*) FROM deal_alerts a WHERE a.user_id = u.id AND a.created_at > :since AND NOT a.is_held) AS told,
                EXISTS (SELECT 1 FROM channels c WHERE c.user_id = u.id) AS has_channels
            FROM users u WHERE u.id = ANY(CAST(:user_ids AS bigint[]))
            """
        ),
        {"user_ids": list(user_ids), "since": since},
    )
    return {row.id: InstantReader(row.told, row.has_reports, row.has_channels) for row in rows}


@dataclass(frozen=True, slots=True)
class ToldDeal:
    """A deal that a user was told at once, or will be in their report."""

    user_id: int
    key: Key
    amount_minor: int
    told_at: datetime


def select_told(connection: Connection, user_ids: Collection[int], keys: Collection[Key]) -> list[ToldDeal]:
    """What these users were told of the products of these deals, oldest first."""
    places = sorted({key[:2] for key in keys})
    rows = connection.execute(
        text(
            """
            SELECT a.user_id, a.asin, a.marketplace, a.price_type, a.changed_at, (a.content -> 'deal' ->> 'price_minor')::integer,
                a.created_at
            FROM deal_alerts a
            JOIN unnest(CAST(:asins AS text[]), CAST(:marketplaces AS text[])) AS s (asin, marketplace) USING (asin, marketplace)
            WHERE a.user_id = ANY(CAST(:user_ids AS bigint[])) ORDER BY a.created_at, a.id
            """
        ),
        {"asins": [place[0] for place in places], "marketplaces": [place[1] for place in places], "user_ids": list(user_ids)},
    )
    return [ToldDeal(row[0], (row[1], row[2], row[3], row[4]), row[5], row[6]) for row in rows]


def insert_deal_alerts(
    connection: Connection, told: Sequence[NewDealAlert], held: Sequence[NewDealAlert], *, now: datetime, routes: Routes
) -> Told:
    """Each deal once to a user: with a delivery to each channel, or held for the report."""
    rows = connection.execute(
        text(
            f"""
            WITH added AS (
                INSERT INTO deal_alerts (user_id, filter_id, asin, marketplace, price_type, changed_at, content, is_held, created_at)
                SELECT user_id, filter_id, asin, marketplace, price_type, changed_at, content, is_held, :now
                FROM {_KEYS.removesuffix(")")}, CAST(:user_ids AS bigint[]),
                    CAST(:filter_ids AS bigint[]), CAST(:contents AS json[]), CAST(:held AS boolean[])) WITH ORDINALITY
                    AS n (asin, marketplace, price_type, changed_at, user_id, filter_id, content, is_held, place)
                ORDER BY place
                ON CONFLICT (user_id, asin, marketplace, price_type, changed_at) DO NOTHING RETURNING *
            ), sent AS (
                INSERT INTO deliveries (deal_alert_id, channel_id)
                SELECT added.id, channels.id FROM added JOIN channels USING (user_id) WHERE NOT added.is_held ORDER BY added.id, channels.id
                RETURNING id, deal_alert_id, channel_id
            )
            SELECT d.id AS alert_id, d.user_id, d.is_held, {DEAL_ID} AS deal_id, sent.id AS delivery_id, sent.channel_id
            FROM added d LEFT JOIN sent ON sent.deal_alert_id = d.id ORDER BY sent.id
            """
        ),
        _columns_of([OfferKey(*one.key[:3]) for one in (*told, *held)])
        | {
            "times": [one.key[3] for one in (*told, *held)],
            "user_ids": [one.user_id for one in (*told, *held)],
            "filter_ids": [one.filter_id for one in (*told, *held)],
            "contents": [one.content for one in (*told, *held)],
            "held": [False] * len(told) + [True] * len(held),
            "now": now,
        },
    ).all()
    events = [
        Event.of(
            deal_alert_event_id(row.user_id, row.deal_id, row.channel_id),
            EventKind.DEAL_ALERT,
            str(row.channel_id),
            {"delivery_id": row.delivery_id, "channel_id": row.channel_id, "deal_alert_id": row.alert_id},
        )
        for row in rows
        if row.delivery_id is not None
    ]
    insert_events(connection, events, routes)
    kept = {row.alert_id: row.is_held for row in rows}
    return Told(len(kept) - sum(kept.values()), sum(kept.values()), len(events))


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A kept report; `statuses` says what became of it by channel, in their order of id."""

    report_id: int
    user_id: int
    user: str
    kind: str
    report_date: date
    deal_count: int
    created_at: datetime
    statuses: Sequence[tuple[str, str, str | None]]


_REPORTS = """
    SELECT r.id, r.user_id, u.name, r.kind, r.report_date, r.deal_count, r.created_at,
        ARRAY(SELECT ARRAY[c.name, d.status, d.last_failure] FROM deliveries d JOIN channels c ON c.id = d.channel_id
              WHERE d.report_id = r.id ORDER BY c.id)
    FROM deal_reports r JOIN users u ON u.id = r.user_id
"""


def select_reports(
    connection: Connection, *, user_id: int | None = None, kind: ReportKind | None = None, before_id: int | None = None, limit: int = 100
) -> list[ReportRow]:
    """The newest reports of a user or of all, newest first."""
    wanted = {"user_id": user_id, "kind": kind.value if kind else None}
    conditions = [f"r.{column} = :{column}" for column, value in wanted.items() if value is not None]
    if before_id is not None:
        conditions.append("r.id < :before_id")
    rows = connection.execute(
        text(f"{_REPORTS} {'WHERE ' + ' AND '.join(conditions) if conditions else ''} ORDER BY r.id DESC LIMIT :limit"),
        {name: value for name, value in wanted.items() if value is not None}
        | ({} if before_id is None else {"before_id": before_id})
        | {"limit": limit},
    )
    return [_report_row(row) for row in rows]


def find_report(connection: Connection, user_id: int, report_id: int | None, *, kind: ReportKind | None = None) -> tuple[ReportRow, Any]:
    """One of a user's reports with its content.

    Args:
        report_id: None for the newest, of `kind` where one is given.

    Raises:
        ReportUnknown: there is none.
    """
    row = connection.execute(
        text(
            f"""
            SELECT r.*, c.content FROM ({_REPORTS} WHERE r.user_id = :user_id AND (CAST(:report_id AS bigint) IS NULL OR r.id = :report_id)
                AND (CAST(:kind AS text) IS NULL OR r.kind = :kind) ORDER BY r.id DESC LIMIT 1) r JOIN deal_reports c USING (id)
            """
        ),
        {"user_id": user_id, "report_id": report_id, "kind": kind.value if kind else None},
    ).one_or_none()
    if row is None:
        raise ReportUnknown("you have no report yet" if report_id is None else f"you have no report {report_id}")
    return _report_row(row[:-1]), row[-1]


def delete_old(connection: Connection, *, before: datetime) -> int:
    """Forget older reports and alerts of deals, with what waits for delivery, and what pages of deals came to. Returns the reports."""
    connection.execute(text("DELETE FROM deal_alerts WHERE created_at < :before"), {"before": before})
    connection.execute(text("DELETE FROM deal_collections WHERE collected_at < :before"), {"before": before})
    return connection.execute(text("DELETE FROM deal_reports WHERE created_at < :before"), {"before": before}).rowcount


def _report_row(row: Sequence[Any]) -> ReportRow:
    report_id, user_id, user, kind, report_date, deal_count, created_at, sent = row
    statuses = [(name, status, failure) for name, status, failure in sent]
    return ReportRow(report_id, user_id, user, kind, report_date, deal_count, created_at, statuses)


def _columns_of(offers: Collection[OfferKey]) -> dict[str, Any]:
    wanted = list(offers)
    return {
        "asins": [offer.asin for offer in wanted],
        "marketplaces": [offer.marketplace for offer in wanted],
        "price_types": [offer.price_type for offer in wanted],
    }
