"""The verb `report`: everybody's day, composed with the same few statements however many they are, and kept once."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, Protocol, TypeVar
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection, Engine

from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_series import PriceSeries, minute_of
from keeper.domain.price_type import PriceType
from keeper.domain.report import (
    FilterPart,
    GoneDeal,
    HeldAlert,
    Mark,
    OfferKey,
    Report,
    ReportDeal,
    ReportEntry,
    ReportKind,
    ReportUnreadable,
    TimezoneUnknown,
    WatchDrop,
    decode_deal_alert,
    due_date,
    encode_deal,
    encode_report,
    is_fall,
    price_to_remember,
    read_timezone,
    sketch,
)
from keeper.postgres import deal_filters, reports
from keeper.postgres.deal_filters import AskedFilter, BrokenFilter, FoundDeal
from keeper.postgres.engine import statements_within
from keeper.postgres.reports import HeldRow, Kept, LastReport, NewReport, Reader, WatchedRow
from keeper.postgres.sinks import lock_routes

logger = logging.getLogger(__name__)

_DAY = timedelta(days=1)
_UTC = ZoneInfo("UTC")
_CHART_BARS = 30
_MOST_DROPS = 10
_MOST_HELD = 20
_MOST_EXAMPLES = 3
# A statement that compares as many filters and deals as go into one takes a third of a minute, and a busy machine several times that.
_STATEMENT_SECONDS = 300.0


class _OfUser(Protocol):
    @property
    def user_id(self) -> int: ...


R = TypeVar("R", bound=_OfUser)


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """What a report holds.

    Attributes:
        chart_days: how far back its charts reach.
        users_at_once: are composed and kept together; more need further statements.
    """

    deals_per_filter: int = 10
    chart_days: int = 90
    users_at_once: int = 1000


@dataclass(frozen=True, slots=True)
class ReportedUser:
    """What one user's report came to."""

    user: str
    report_date: date
    report_id: int
    deals: int
    news: int
    drops: int
    held: int
    is_told: bool


@dataclass(slots=True)
class Reported:
    """What one call did.

    Attributes:
        users: whose reports are new.
        deliveries: to channels, of which none is made yet.
        published: deals that went to Kafka once more.
        examples: the first reports with deals, for people who look at the run.
    """

    users: list[ReportedUser] = field(default_factory=list)
    examples: list[Report] = field(default_factory=list)
    deliveries: int = 0
    published: int = 0

    @property
    def sentence(self) -> str:
        told = sum(1 for one in self.users if one.is_told)
        quiet = len(self.users) - told
        return (
            f"{told} report{'s' if told != 1 else ''} to {self.deliveries} channels, {quiet} empty, {self.published} deals published again"
        )


@dataclass(frozen=True, slots=True)
class _Due:
    """A reader, their day, and what is looked back at."""

    reader: Reader
    report_date: date


@dataclass(frozen=True, slots=True)
class _Composed:
    reader: Reader
    report: Report
    held_ids: tuple[int, ...]


def report(engine: Engine, *, now: datetime, settings: ReportSettings) -> Reported:
    """Compose and keep the reports that are due.

    Read in one transaction, composed in none, kept in another: a call that dies has kept some users' reports with all that belongs to
    them, or none of it. Of two calls at once one keeps each report.
    """
    with engine.begin() as connection:
        due = list(_due(reports.select_readers(connection), now))
    done = Reported()
    for first in range(0, len(due), settings.users_at_once):
        some = due[first : first + settings.users_at_once]
        with engine.begin() as connection, statements_within(connection, _STATEMENT_SECONDS):
            composed = _compose(connection, some, now=now, settings=settings)
        new = list(_encode(composed))
        with engine.begin() as connection:
            kept = reports.insert_reports(connection, new, now=now, routes=lock_routes(connection))
        _note(done, composed, kept)
    return done


def preview(connection: Connection, user_id: int, *, now: datetime, settings: ReportSettings) -> Report:
    """What a user's report would be now; nothing is kept."""
    reader = reports.find_reader(connection, user_id)
    due = _Due(reader, local_date(now, reader.timezone))
    (composed,) = _compose(connection, [due], now=now, settings=settings)
    return composed.report


def local_date(now: datetime, timezone: str) -> date:
    """The day it is there; by UTC where the name is not known."""
    return now.astimezone(_zone(timezone)).date()


def report_deal(deal: FoundDeal, chart: tuple[int | None, ...] = ()) -> ReportDeal:
    """A deal as it stands, as reports tell it."""

    def money(amount_minor: int | None) -> Money | None:
        return None if amount_minor is None else Money(amount_minor, deal.currency)

    return ReportDeal(
        asin=deal.asin,
        marketplace=Marketplace(deal.marketplace),
        price_type=PriceType(deal.price_type),
        changed_at=deal.changed_at,
        title=deal.title or deal.asin,
        brand=deal.brand,
        image_url=deal.image_url,
        price=Money(deal.amount_minor, deal.currency),
        list_price=money(deal.list_price_minor),
        median_90=money(deal.median_90_minor),
        lowest_year=money(deal.lowest_year_minor),
        discount_pct=deal.discount_pct,
        below_median_pct=deal.below_median_pct,
        rating_tenths=deal.rating_tenths,
        review_count=deal.review_count,
        sales_rank=deal.sales_rank,
        score=deal.deal_score,
        layout=deal.layout,
        is_year_low=bool(deal.is_year_low),
        is_all_time_low=bool(deal.is_all_time_low),
        is_list_price_fiction=bool(deal.is_list_price_fiction),
        chart=chart,
    )


def _zone(name: str) -> ZoneInfo:
    try:
        return read_timezone(name)
    except TimezoneUnknown as error:
        # Known when it was set, by another machine or an older database of zones.
        logger.warning("somebody's reports follow UTC: %s", error)
        return _UTC


def _due(readers: Sequence[Reader], now: datetime) -> Iterator[_Due]:
    for reader in readers:
        day = due_date(now, timezone=_zone(reader.timezone), report_hour=reader.report_hour, last_date=reader.last_date)
        if day is not None:
            yield _Due(reader, day)


def _compose(connection: Connection, due: Sequence[_Due], *, now: datetime, settings: ReportSettings) -> list[_Composed]:
    """Each question is asked once for all of them."""
    user_ids = [one.reader.user_id for one in due]
    asked, broken = deal_filters.select_asked(connection, user_ids=user_ids)
    matches = deal_filters.select_matches(connection, asked, limit_per_filter=settings.deals_per_filter + 1)
    last = reports.select_last_reports(connection, user_ids)
    watched = _grouped(_compared(reports.select_watched(connection, user_ids, since=now - _DAY), last))
    held = reports.select_held(connection, user_ids)
    running = reports.select_running(connection, {offer for one in last.values() for shown in one.shown.values() for offer in shown})
    by_filter: dict[int, list[FoundDeal]] = {}
    for match in matches:
        by_filter.setdefault(match.filter_id, []).append(match.deal)
    shown_drops = {user_id: _fallen(some)[:_MOST_DROPS] for user_id, some in watched.items()}
    offers = {OfferKey(deal.asin, deal.marketplace, deal.price_type) for some in by_filter.values() for deal in some}
    offers |= {OfferKey(drop.asin, drop.marketplace, drop.price_type) for some in shown_drops.values() for drop in some}
    since = now - timedelta(days=settings.chart_days)
    charts = _charts(reports.select_price_points(connection, offers, since=since, until=now), since, now)
    composer = _Composer(now, settings, by_filter, charts, last, running)
    filters, problems = _grouped(asked), _grouped(broken)
    waiting = _grouped(held)
    return [
        composer.compose(
            one,
            filters.get(one.reader.user_id, []),
            problems.get(one.reader.user_id, []),
            watched.get(one.reader.user_id, []),
            waiting.get(one.reader.user_id, []),
        )
        for one in due
    ]


@dataclass(frozen=True, slots=True)
class _Composer:
    """Makes reports of what was read for all users. A deal that several are told of is made once."""

    now: datetime
    settings: ReportSettings
    by_filter: Mapping[int, Sequence[FoundDeal]]
    charts: Mapping[OfferKey, tuple[int | None, ...]]
    last: Mapping[int, LastReport]
    running: Collection[OfferKey]
    _made: dict[int, ReportDeal] = field(default_factory=dict)

    def compose(
        self,
        due: _Due,
        filters: Sequence[AskedFilter],
        broken: Sequence[BrokenFilter],
        watched: Sequence[WatchedRow],
        held: Sequence[HeldRow],
    ) -> _Composed:
        reader, last = due.reader, self.last.get(due.reader.user_id)
        drops = _fallen(watched)
        waiting = sorted(_waiting(held).items(), key=lambda one: -(one[1].deal.score or 0.0))
        left = {alert_id for alert_id, _ in waiting[_MOST_HELD:]}
        composed = Report(
            user=reader.name,
            report_date=due.report_date,
            timezone=reader.timezone,
            composed_at=self.now,
            since=last.composed_at if last else self.now - _DAY,
            chart_days=self.settings.chart_days,
            parts=tuple(self._part(one, last) for one in filters),
            drops=tuple(self._drop(drop) for drop in drops[:_MOST_DROPS]),
            drops_found=len(drops),
            held=tuple(one for _, one in waiting[:_MOST_HELD]),
            held_found=len(waiting),
            watched=tuple(_remembered(watched)),
            problems=tuple(f"Your filter {one.name} cannot be read: {one.problem}" for one in broken),
        )
        return _Composed(reader, composed, tuple(row.alert_id for row in held if row.alert_id not in left))

    def _part(self, asked: AskedFilter, last: LastReport | None) -> FilterPart:
        found = self.by_filter.get(asked.filter_id, ())
        told = last.shown.get(asked.filter_id, {}) if last else {}
        # What another of the user's filters has told is told.
        everything = {offer: shown for some in last.shown.values() for offer, shown in some.items()} | dict(told) if last else {}
        entries = tuple(self._entry(deal, everything, last) for deal in found[: self.settings.deals_per_filter])
        now_told = {entry.deal.offer for entry in entries}
        gone = tuple(
            GoneDeal(offer.asin, Marketplace(offer.marketplace), title, Money(amount, Marketplace(offer.marketplace).currency))
            for offer, (amount, title) in told.items()
            if offer not in now_told and offer not in self.running
        )
        return FilterPart(asked.filter_id, asked.name, len(found) > self.settings.deals_per_filter, entries, gone)

    def _entry(self, row: FoundDeal, told: Mapping[OfferKey, tuple[int, str]], last: LastReport | None) -> ReportEntry:
        deal = self._deal(row)
        if deal.offer not in told:
            is_new = last is None or row.announced_at is None or row.announced_at > last.composed_at
            return ReportEntry(deal, Mark.NEW if is_new else Mark.UNTOLD)
        before = told[deal.offer][0]
        if before == deal.price.amount_minor:
            return ReportEntry(deal, Mark.KNOWN)
        return ReportEntry(deal, Mark.CHEAPER if deal.price.amount_minor < before else Mark.DEARER, Money(before, deal.price.currency))

    def _deal(self, row: FoundDeal) -> ReportDeal:
        # The matches of several filters share one row.
        made = self._made.get(id(row))
        if made is None:
            made = self._made[id(row)] = report_deal(row, self.charts.get(OfferKey(row.asin, row.marketplace, row.price_type), ()))
        return made

    def _drop(self, drop: WatchedRow) -> WatchDrop:
        assert drop.amount_minor is not None and drop.before_minor is not None  # noqa: S101  it fell
        return WatchDrop(
            asin=drop.asin,
            marketplace=Marketplace(drop.marketplace),
            price_type=PriceType(drop.price_type),
            title=drop.title or drop.asin,
            image_url=drop.image_url,
            price=Money(drop.amount_minor, drop.currency),
            before=Money(drop.before_minor, drop.currency),
            target=Money(drop.target_minor, drop.currency) if drop.target_minor else None,
            observed_at=drop.observed_at,
            chart=self.charts.get(OfferKey(drop.asin, drop.marketplace, drop.price_type), ()),
        )


def _compared(rows: Sequence[WatchedRow], last: Mapping[int, LastReport]) -> Iterator[WatchedRow]:
    """With the price each user's last report knew, whenever it was and whenever the store changed it; else that of a day ago."""
    for row in rows:
        told = last.get(row.user_id)
        known = told.watched.get(row.offer) if told else None
        yield row if known is None else replace(row, before_minor=known)


def _fallen(rows: Sequence[WatchedRow]) -> list[WatchedRow]:
    """Those that fell, the largest fall in percent first."""
    fallen = [row for row in rows if is_fall(row.amount_minor, row.before_minor)]
    return sorted(fallen, key=lambda row: ((row.amount_minor or 0) / (row.before_minor or 1), row.offer))


def _remembered(rows: Sequence[WatchedRow]) -> Iterator[tuple[OfferKey, int]]:
    for row in rows:
        amount_minor = price_to_remember(row.amount_minor, row.before_minor)
        if amount_minor is not None:
            yield row.offer, amount_minor


def _waiting(rows: Sequence[HeldRow]) -> dict[int, HeldAlert]:
    """By id what is worth telling still: of each product the last, and no deal that is over."""
    by_product: dict[tuple[str, Marketplace], tuple[int, HeldAlert]] = {}
    for row in rows:
        try:
            alert = decode_deal_alert(row.content)
        except ReportUnreadable as error:
            logger.warning("a deal that was held back cannot be told: %s", error)
            continue
        if not row.is_over:
            by_product[alert.deal.asin, alert.deal.marketplace] = row.alert_id, HeldAlert(alert.filter_name, alert.deal, row.held_at)
    return dict(by_product.values())


def _charts(series: Mapping[OfferKey, PriceSeries], since: datetime, until: datetime) -> dict[OfferKey, tuple[int | None, ...]]:
    start, end = minute_of(since), minute_of(until)
    return {offer: sketch(points, start, end, _CHART_BARS) for offer, points in series.items()}


def _encode(composed: Sequence[_Composed]) -> Iterator[NewReport]:
    """Each deal is written once, however many are told of it."""
    written: dict[int, msgspec.Raw] = {}

    def encode(deal: ReportDeal) -> Any:
        known = written.get(id(deal))
        if known is None:
            known = written[id(deal)] = msgspec.Raw(msgspec.json.encode(encode_deal(deal)))
        return known

    for one in composed:
        yield NewReport(
            user_id=one.reader.user_id,
            kind=ReportKind.DEALS,
            report_date=one.report.report_date,
            deal_count=one.report.deal_count,
            content=msgspec.json.encode(encode_report(one.report, encode)).decode(),
            is_told=not one.report.is_empty or one.reader.wants_empty,
            held_ids=one.held_ids,
            deals=tuple({(*deal.offer, deal.changed_at) for deal in _deals_of(one.report)}),
        )


def _deals_of(report: Report) -> Iterator[ReportDeal]:
    yield from (entry.deal for part in report.parts for entry in part.entries)
    yield from (one.deal for one in report.held)


def _note(done: Reported, composed: Sequence[_Composed], kept: Kept) -> None:
    done.deliveries += kept.deliveries
    done.published += kept.deals
    for one in composed:
        report_id = kept.by_user.get(one.reader.user_id)
        if report_id is None:
            continue
        told = one.report
        if told.deal_count and len(done.examples) < _MOST_EXAMPLES:
            done.examples.append(told)
        done.users.append(
            ReportedUser(
                user=told.user,
                report_date=told.report_date,
                report_id=report_id,
                deals=told.deal_count,
                news=told.count(Mark.NEW) + told.count(Mark.CHEAPER),
                drops=told.drops_found,
                held=told.held_found,
                is_told=not told.is_empty or one.reader.wants_empty,
            )
        )


def _grouped(rows: Iterable[R]) -> dict[int, list[R]]:
    """By user, in their order."""
    found: dict[int, list[R]] = {}
    for row in rows:
        found.setdefault(row.user_id, []).append(row)
    return found
