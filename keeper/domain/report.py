"""A user's daily report: when it is due, what it holds, and its JSON, from which alone its text and HTML are made."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_series import PriceSeries
from keeper.domain.price_type import PriceType

T = TypeVar("T")


class ReportUnreadable(KeeperError):
    """A stored report that this version of Keeper cannot read."""


class TimezoneUnknown(KeeperError):
    """Not the name of a time zone."""


class ReportKind(StrEnum):
    """What a report is of; a user gets at most one of each a day."""

    DEALS = "deals"
    OPERATIONS = "operations"


class Mark(StrEnum):
    """How a deal stands to the last report.

    NEW was announced since. KNOWN, CHEAPER and DEARER were told in it, UNTOLD was not, though it ran already: others were better then, or
    no filter wanted it.
    """

    NEW = "new"
    CHEAPER = "cheaper"
    DEARER = "dearer"
    KNOWN = "known"
    UNTOLD = "untold"

    @property
    def is_news(self) -> bool:
        """Whether it is worth a look of its own."""
        return self in (Mark.NEW, Mark.CHEAPER)

    @property
    def was_told(self) -> bool:
        """Whether the last report has told it, at this price or a lower one."""
        return self in (Mark.KNOWN, Mark.DEARER)


class OfferKey(NamedTuple):
    """What a deal is a deal of; a further fall of its price is another deal of the same offer."""

    asin: str
    marketplace: str
    price_type: str


def read_timezone(name: str) -> ZoneInfo:
    """A time zone by its name in the IANA database.

    Raises:
        TimezoneUnknown: there is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise TimezoneUnknown(f"{name!r} is no time zone; write it like Europe/Berlin, America/New_York or UTC") from None


def due_date(now: datetime, *, timezone: ZoneInfo, report_hour: int, last_date: date | None) -> date | None:
    """The local date whose report is due; None where its hour has not come, or it is there.

    Where clocks skip the hour it comes with the first minute after the gap; where they repeat it, with the first of the two.
    A missed hour is made up for until the local day ends, not later.
    """
    today = now.astimezone(timezone).date()
    comes_at = datetime.combine(today, time(report_hour), timezone).astimezone(UTC)
    return today if comes_at <= now and (last_date is None or last_date < today) else None


def sketch(series: PriceSeries, start_minute: int, end_minute: int, bars: int) -> tuple[int | None, ...]:
    """The lowest value in each of `bars` equal spans of time; None in one without an offer."""
    edges = [start_minute + (end_minute - start_minute) * bar // bars for bar in range(bars + 1)]
    found: list[int | None] = []
    for begin, end in pairwise(edges):
        first = max(bisect_right(series.minutes, begin) - 1, 0)
        # What begins at the very end is the present price.
        stop = bisect_right(series.minutes, end) if end == end_minute else bisect_left(series.minutes, end)
        amounts = [amount for amount in series.amounts[first:stop] if amount is not None]
        found.append(min(amounts) if amounts else None)
    return tuple(found)


def is_fall(amount_minor: int | None, before_minor: int | None) -> bool:
    """Whether a price fell so far that it is told: by a percent at least, what is less is noise."""
    return amount_minor is not None and before_minor is not None and amount_minor * 100 <= before_minor * 99


def price_to_remember(amount_minor: int | None, before_minor: int | None) -> int | None:
    """What the next report compares a watched price with, after this one compared it with `before_minor`.

    Falls too small to be told add up, and while there is no offer the price before is what the next one is measured by.
    """
    is_small = amount_minor is not None and before_minor is not None and amount_minor <= before_minor
    keeps_before = amount_minor is None or (is_small and not is_fall(amount_minor, before_minor))
    return before_minor if keeps_before else amount_minor


@dataclass(frozen=True, slots=True)
class ReportDeal:
    """A deal as a report tells it.

    Attributes:
        changed_at: since when the price is what it is.
        median_90: time-weighted, of the 90 days before.
        lowest_year: of the year before, the present price not counted.
        discount_pct: of the list price.
        below_median_pct: below `median_90`; negative above it.
        score: of its quality; None where it was not judged.
        chart: of the days before, the lowest price of each of equal spans, oldest first; empty without history.
    """

    asin: str
    marketplace: Marketplace
    price_type: PriceType
    changed_at: datetime
    title: str
    brand: str | None
    image_url: str | None
    price: Money
    list_price: Money | None
    median_90: Money | None
    lowest_year: Money | None
    discount_pct: float | None
    below_median_pct: float | None
    rating_tenths: int | None
    review_count: int | None
    sales_rank: int | None
    score: float | None
    layout: str | None
    is_year_low: bool
    is_all_time_low: bool
    is_list_price_fiction: bool
    chart: tuple[int | None, ...] = ()

    @property
    def key(self) -> tuple[OfferKey, datetime]:
        """What makes it the same deal."""
        return self.offer, self.changed_at

    @property
    def offer(self) -> OfferKey:
        """What it is a deal of."""
        return OfferKey(self.asin, self.marketplace.value, self.price_type.value)

    @property
    def link(self) -> str:
        """The product's page in the store."""
        return f"https://{self.marketplace.host}/dp/{self.asin}"


@dataclass(frozen=True, slots=True)
class ReportEntry:
    """A deal in one user's report.

    Attributes:
        before: what the last report said of its price, where that was another.
    """

    deal: ReportDeal
    mark: Mark
    before: Money | None = None


@dataclass(frozen=True, slots=True)
class GoneDeal:
    """A deal of the last report that is over."""

    asin: str
    marketplace: Marketplace
    title: str
    price: Money

    @property
    def link(self) -> str:
        return f"https://{self.marketplace.host}/dp/{self.asin}"


@dataclass(frozen=True, slots=True)
class FilterPart:
    """What one filter found.

    Attributes:
        entries: the best, best first.
        has_more: more deals match than are told.
    """

    filter_id: int
    name: str
    has_more: bool
    entries: tuple[ReportEntry, ...]
    gone: tuple[GoneDeal, ...] = ()


@dataclass(frozen=True, slots=True)
class WatchDrop:
    """A watched price that is lower than the last report knew it.

    Attributes:
        before: what it was then; a day ago where that report did not know it.
    """

    asin: str
    marketplace: Marketplace
    price_type: PriceType
    title: str
    image_url: str | None
    price: Money
    before: Money
    target: Money | None
    observed_at: datetime
    chart: tuple[int | None, ...] = ()

    @property
    def fall_pct(self) -> Decimal:
        """Of the price before, two decimals half up."""
        before = Decimal(self.before.amount_minor)
        return ((before - self.price.amount_minor) * 100 / before).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)

    @property
    def link(self) -> str:
        return f"https://{self.marketplace.host}/dp/{self.asin}"


@dataclass(frozen=True, slots=True)
class HeldAlert:
    """A deal of an instant filter that came when enough had been told that hour."""

    filter_name: str
    deal: ReportDeal
    held_at: datetime


@dataclass(frozen=True, slots=True)
class Report:
    """One user's day, complete: nothing else is looked at to show it.

    Attributes:
        since: of the last report, or a day before; what came later is new.
        chart_days: how far back the charts reach.
        problems: what the user should put right, a sentence each.
        drops, held: the largest and the best of them; `drops_found` and `held_found` of how many. The other
            held ones wait for the next report.
        watched: what each watched price must fall below in the next report, in minor units.
    """

    user: str
    report_date: date
    timezone: str
    composed_at: datetime
    since: datetime
    chart_days: int
    parts: tuple[FilterPart, ...]
    drops: tuple[WatchDrop, ...] = ()
    drops_found: int = 0
    held: tuple[HeldAlert, ...] = ()
    held_found: int = 0
    problems: tuple[str, ...] = ()
    watched: tuple[tuple[OfferKey, int], ...] = ()

    @property
    def deal_count(self) -> int:
        """Different deals in it."""
        return len({entry.deal.key for part in self.parts for entry in part.entries})

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell that the last report has not told.

        A filter that cannot be read is something, or its owner would wait for its deals for ever.
        """
        has_untold = any(not entry.mark.was_told for part in self.parts for entry in part.entries)
        return not (has_untold or self.drops or self.held or self.problems)

    @property
    def has_offers(self) -> bool:
        """Whether there is anything that could be bought."""
        return bool(self.deal_count or self.drops or self.held)

    def count(self, mark: Mark) -> int:
        """Different deals that stand so to the last report."""
        return len({entry.deal.key for part in self.parts for entry in part.entries if entry.mark is mark})

    @property
    def gone_count(self) -> int:
        return len({(one.asin, one.marketplace) for part in self.parts for one in part.gone})

    @property
    def best(self) -> tuple[ReportEntry, ...]:
        """Each deal once, best score first."""
        once = {entry.deal.key: entry for part in self.parts for entry in part.entries}
        return tuple(sorted(once.values(), key=lambda entry: -(entry.deal.score or 0.0)))


@dataclass(frozen=True, slots=True)
class DealAlert:
    """A deal that is told at once, because it matches an instant filter."""

    filter_name: str
    deal: ReportDeal


def encode_deal(deal: ReportDeal) -> dict[str, Any]:
    """As JSON values. Amounts in minor units of one currency, time in UTC with `Z`."""
    return {
        "asin": deal.asin,
        "marketplace": deal.marketplace.value,
        "price_type": deal.price_type.value,
        "changed_at": _written(deal.changed_at),
        "title": deal.title,
        "brand": deal.brand,
        "image_url": deal.image_url,
        "currency": deal.price.currency,
        "price_minor": deal.price.amount_minor,
        "list_price_minor": _minor(deal.list_price),
        "median_90_minor": _minor(deal.median_90),
        "lowest_year_minor": _minor(deal.lowest_year),
        "discount_pct": deal.discount_pct,
        "below_median_pct": deal.below_median_pct,
        "rating_tenths": deal.rating_tenths,
        "review_count": deal.review_count,
        "sales_rank": deal.sales_rank,
        "score": deal.score,
        "layout": deal.layout,
        "is_year_low": deal.is_year_low,
        "is_all_time_low": deal.is_all_time_low,
        "is_list_price_fiction": deal.is_list_price_fiction,
        "chart": list(deal.chart),
    }


def encode_report(report: Report, encode: Callable[[ReportDeal], dict[str, Any]] = encode_deal) -> dict[str, Any]:
    """The report as JSON values.

    `shown` repeats, by filter, what the next report compares with, so that it need not read all of this; `watched` is there for the same.

    Args:
        encode: of a deal; a deal that is in many reports need not be encoded for each.
    """
    return {
        "kind": ReportKind.DEALS.value,
        "user": report.user,
        "report_date": report.report_date.isoformat(),
        "timezone": report.timezone,
        "composed_at": _written(report.composed_at),
        "since": _written(report.since),
        "chart_days": report.chart_days,
        "parts": [
            {
                "filter_id": part.filter_id,
                "name": part.name,
                "has_more": part.has_more,
                "entries": [
                    {"deal": encode(entry.deal), "mark": entry.mark.value, "before_minor": _minor(entry.before)} for entry in part.entries
                ],
                "gone": [
                    {
                        "asin": one.asin,
                        "marketplace": one.marketplace.value,
                        "title": one.title,
                        "price_minor": one.price.amount_minor,
                        "currency": one.price.currency,
                    }
                    for one in part.gone
                ],
            }
            for part in report.parts
        ],
        "drops": [
            {
                "asin": drop.asin,
                "marketplace": drop.marketplace.value,
                "price_type": drop.price_type.value,
                "title": drop.title,
                "image_url": drop.image_url,
                "currency": drop.price.currency,
                "price_minor": drop.price.amount_minor,
                "before_minor": drop.before.amount_minor,
                "target_minor": _minor(drop.target),
                "observed_at": _written(drop.observed_at),
                "chart": list(drop.chart),
            }
            for drop in report.drops
        ],
        "drops_found": report.drops_found,
        "held": [{"filter": one.filter_name, "deal": encode(one.deal), "held_at": _written(one.held_at)} for one in report.held],
        "held_found": report.held_found,
        "problems": list(report.problems),
        "shown": {
            str(part.filter_id): [[*entry.deal.offer, entry.deal.price.amount_minor, entry.deal.title] for entry in part.entries]
            for part in report.parts
            if part.entries
        },
        "watched": [[*offer, amount_minor] for offer, amount_minor in report.watched],
    }


def decode_deal(value: Mapping[str, Any]) -> ReportDeal:
    """The inverse of `encode_deal`.

    Raises:
        ReportUnreadable: a key is missing or holds something else.
    """
    return _reading(lambda: _deal(value))


def decode_report(content: Mapping[str, Any]) -> Report:
    """The inverse of `encode_report`; unknown keys are ignored.

    Raises:
        ReportUnreadable: a key is missing or holds something else than `encode_report` writes.
    """
    return _reading(lambda: _report(content))


def encode_deal_alert(alert: DealAlert) -> dict[str, Any]:
    """As JSON values."""
    return {"filter": alert.filter_name, "deal": encode_deal(alert.deal)}


def decode_deal_alert(content: Mapping[str, Any]) -> DealAlert:
    """The inverse of `encode_deal_alert`.

    Raises:
        ReportUnreadable: a key is missing or holds something else.
    """
    return _reading(lambda: DealAlert(str(content["filter"]), _deal(content["deal"])))


def _reading(read: Callable[[], T]) -> T:
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReportUnreadable(f"a stored report cannot be read ({error!r}); it was written by another version of Keeper") from error


def _report(content: Mapping[str, Any]) -> Report:
    return Report(
        user=str(content["user"]),
        report_date=date.fromisoformat(content["report_date"]),
        timezone=str(content["timezone"]),
        composed_at=_time(content["composed_at"]),
        since=_time(content["since"]),
        chart_days=int(content["chart_days"]),
        parts=tuple(_parts(content["parts"])),
        drops=tuple(
            WatchDrop(
                asin=str(drop["asin"]),
                marketplace=Marketplace(drop["marketplace"]),
                price_type=PriceType(drop["price_type"]),
                title=str(drop["title"]),
                image_url=drop["image_url"],
                price=Money(int(drop["price_minor"]), str(drop["currency"])),
                before=Money(int(drop["before_minor"]), str(drop["currency"])),
                target=_money(drop["target_minor"], drop["currency"]),
                observed_at=_time(drop["observed_at"]),
                chart=tuple(drop["chart"]),
            )
            for drop in content["drops"]
        ),
        drops_found=int(content["drops_found"]),
        held=tuple(HeldAlert(str(one["filter"]), _deal(one["deal"]), _time(one["held_at"])) for one in content["held"]),
        held_found=int(content["held_found"]),
        problems=tuple(str(one) for one in content["problems"]),
        watched=tuple((OfferKey(*map(str, offer)), int(amount_minor)) for *offer, amount_minor in content.get("watched", ())),
    )


def _parts(parts: Sequence[Mapping[str, Any]]) -> Iterator[FilterPart]:
    for part in parts:
        entries = []
        for entry in part["entries"]:
            deal = _deal(entry["deal"])
            entries.append(ReportEntry(deal, Mark(entry["mark"]), _money(entry["before_minor"], deal.price.currency)))
        gone = tuple(
            GoneDeal(
                str(one["asin"]), Marketplace(one["marketplace"]), str(one["title"]), Money(int(one["price_minor"]), str(one["currency"]))
            )
            for one in part["gone"]
        )
        yield FilterPart(int(part["filter_id"]), str(part["name"]), bool(part["has_more"]), tuple(entries), gone)


def _deal(value: Mapping[str, Any]) -> ReportDeal:
    currency = str(value["currency"])
    return ReportDeal(
        asin=str(value["asin"]),
        marketplace=Marketplace(value["marketplace"]),
        price_type=PriceType(value["price_type"]),
        changed_at=_time(value["changed_at"]),
        title=str(value["title"]),
        brand=value["brand"],
        image_url=value["image_url"],
        price=Money(int(value["price_minor"]), currency),
        list_price=_money(value["list_price_minor"], currency),
        median_90=_money(value["median_90_minor"], currency),
        lowest_year=_money(value["lowest_year_minor"], currency),
        discount_pct=value["discount_pct"],
        below_median_pct=value["below_median_pct"],
        rating_tenths=value["rating_tenths"],
        review_count=value["review_count"],
        sales_rank=value["sales_rank"],
        score=value["score"],
        layout=value["layout"],
        is_year_low=bool(value["is_year_low"]),
        is_all_time_low=bool(value["is_all_time_low"]),
        is_list_price_fiction=bool(value["is_list_price_fiction"]),
        chart=tuple(value["chart"]),
    )


def _minor(money: Money | None) -> int | None:
    return None if money is None else money.amount_minor


def _money(amount_minor: int | None, currency: str) -> Money | None:
    return None if amount_minor is None else Money(int(amount_minor), str(currency))


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _time(text: str) -> datetime:
    read = datetime.fromisoformat(text)
    if read.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return read.astimezone(UTC)
