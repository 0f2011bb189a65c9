"""Deals: a price that fell, as a source told of it, and what is asked of Keepa's feed of them."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import PriceSeries, average, minute_of, summarize, time_of
from keeper.domain.price_type import PriceType
from keeper.domain.product import Product

# Keepa's feed takes these and the sales rank (Keepa API documentation, "Browsing Deals"), which is no price.
DEAL_PRICE_TYPES = (
    PriceType.AMAZON,
    PriceType.NEW,
    PriceType.USED,
    PriceType.COLLECTIBLE,
    PriceType.REFURBISHED,
    PriceType.NEW_FBM_SHIPPING,
    PriceType.LIGHTNING_DEAL,
    PriceType.WAREHOUSE,
    PriceType.NEW_FBA,
    PriceType.BUY_BOX_SHIPPING,
    PriceType.USED_NEW_SHIPPING,
    PriceType.USED_VERY_GOOD_SHIPPING,
    PriceType.USED_GOOD_SHIPPING,
    PriceType.USED_ACCEPTABLE_SHIPPING,
    PriceType.BUY_BOX_USED_SHIPPING,
    PriceType.PRIME_EXCL,
)
# How many offers of its kind there are, by the type of a price.
OFFER_COUNTS: Mapping[PriceType, PriceType] = {
    **dict.fromkeys(PriceType, PriceType.COUNT_NEW),
    PriceType.USED: PriceType.COUNT_USED,
    PriceType.WAREHOUSE: PriceType.COUNT_USED,
    PriceType.USED_NEW_SHIPPING: PriceType.COUNT_USED,
    PriceType.USED_VERY_GOOD_SHIPPING: PriceType.COUNT_USED,
    PriceType.USED_GOOD_SHIPPING: PriceType.COUNT_USED,
    PriceType.USED_ACCEPTABLE_SHIPPING: PriceType.COUNT_USED,
    PriceType.BUY_BOX_USED_SHIPPING: PriceType.COUNT_USED,
    PriceType.REFURBISHED: PriceType.COUNT_REFURBISHED,
    PriceType.COLLECTIBLE: PriceType.COUNT_COLLECTIBLE,
}
MOST_CATEGORIES = 500
MOST_WORDS = 50
# A page that holds fewer is the last.
PAGE_SIZE = 150
MOST_PAGES = 67
# The windows of the feed's averages, in its order; the first is of 48 hours, whatever its date range is called.
AVERAGE_DAYS = (2, 7, 31, 90)

_DAY = 1440
_YEAR = 365 * _DAY
# Keepa's own means stand in where the history does not reach back, by the nearest of its windows.
_STATS_DAYS = {31: 30, 90: 90}


class DealSource(StrEnum):
    """Where a deal was seen."""

    SEEDS = "seeds"
    FEED = "feed"
    POSTED = "posted"


class DateRange(StrEnum):
    """How far back a change of price counts."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"

    @property
    def days(self) -> int:
        """So long a change is shown at most."""
        return AVERAGE_DAYS[list(DateRange).index(self)]


@dataclass(frozen=True, slots=True)
class DealSighting:
    """One product whose price of one type was seen to be a deal.

    Minutes count from 1970-01-01T00:00Z, as in a PriceSeries. The same deal is the same asin, marketplace, price type and time of change.

    Attributes:
        changed_minute: since when the price is what it is.
        updated_minute: when Keepa last looked at the product; a second sighting is one with a later look.
        previous_minor: the price before; None where it was none, or is unknown.
        list_price_minor: what the manufacturer recommends, as Amazon shows it.
        averages_minor: time-weighted means by days (2, 7, 31, 90), without the windows that have none.
        highest_year_minor: the most it cost within a year; None where nobody knows, as in the feed.
        lowest_year_minor, lowest_ever_minor: likewise the least, the present price not counted.
        median_90_minor: time-weighted, of the 90 days; None in the feed.
        current: all of Keepa's present values by type; None means no offer. Prices in minor units, ranks and counts plain, rating x 10.
        current_since: the minutes they hold since.
    """

    asin: str
    marketplace: Marketplace
    price_type: PriceType
    changed_minute: int
    updated_minute: int
    amount_minor: int
    title: str | None = None
    brand: str | None = None
    image_url: str | None = None
    previous_minor: int | None = None
    list_price_minor: int | None = None
    averages_minor: Mapping[int, int] = field(default_factory=dict)
    highest_year_minor: int | None = None
    lowest_year_minor: int | None = None
    lowest_ever_minor: int | None = None
    median_90_minor: int | None = None
    rating_tenths: int | None = None
    review_count: int | None = None
    sales_rank: int | None = None
    sales_rank_drops_90: int | None = None
    offer_count: int | None = None
    root_category_id: int | None = None
    category_ids: tuple[int, ...] = ()
    category: str | None = None
    parent_asin: str | None = None
    is_lightning: bool = False
    current: Mapping[PriceType, int | None] = field(default_factory=dict)
    current_since: Mapping[PriceType, int] = field(default_factory=dict)

    @property
    def changed_at(self) -> datetime:
        return time_of(self.changed_minute)


class RootCategory(NamedTuple):
    """How many deals a query has in one tree of categories; the name is None where the source has none."""

    name: str | None
    deal_count: int


class DealInvalid(KeeperError):
    """A deal that cannot be."""


class DealQueryInvalid(KeeperError):
    """A question to the feed that cannot be asked.

    Attributes:
        field: which part of it.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


@dataclass(frozen=True, slots=True)
class DealQuery:
    """What Keepa's feed is asked for: one marketplace, one price type. Ranges are inclusive, None is open.

    Attributes:
        name: by which people know it; with the price type it is one query.
        group: name of the product group its deals must belong to; None keeps them all.
        fall_pct: of the average of the date range; Keepa takes 10 and more.
        categories, not_categories: a root stands for its whole tree, any other for what is listed directly in it.
        words: all of which the title must hold.
    """

    name: str
    marketplace: Marketplace
    price_type: PriceType = PriceType.NEW
    date_range: DateRange = DateRange.WEEK
    group: str | None = None
    price_from_minor: int | None = None
    price_to_minor: int | None = None
    fall_pct_from: int | None = None
    fall_pct_to: int | None = None
    rank_from: int | None = None
    rank_to: int | None = None
    rating_from_tenths: int | None = None
    categories: tuple[int, ...] = ()
    not_categories: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    is_lowest: bool = False
    is_lowest_90: bool = False
    has_reviews: bool = False
    must_have_amazon_offer: bool = False
    without_erotic: bool = True
    single_variation: bool = False

    def __post_init__(self) -> None:
        if self.price_type not in DEAL_PRICE_TYPES:
            raise DealQueryInvalid("price_type", f"{self.price_type} has no deals; one of {', '.join(DEAL_PRICE_TYPES)}")
        if self.marketplace is Marketplace.BR:
            raise DealQueryInvalid("marketplace", "Keepa has no deals of BR")
        for first, last in (("price_from_minor", "price_to_minor"), ("fall_pct_from", "fall_pct_to"), ("rank_from", "rank_to")):
            least, most = getattr(self, first), getattr(self, last)
            if any(bound is not None and bound < 0 for bound in (least, most)):
                raise DealQueryInvalid(first, "must not be negative")
            if least is not None and most is not None and least > most:
                raise DealQueryInvalid(last, f"must not be below {first}")
        if self.fall_pct_from is not None and self.fall_pct_from < 10:
            raise DealQueryInvalid("fall_pct_from", "Keepa knows falls of 10 percent and more")
        if self.rating_from_tenths is not None and not 0 <= self.rating_from_tenths <= 50:
            raise DealQueryInvalid("rating_from_tenths", "must be from 0 to 50")
        for name in ("categories", "not_categories"):
            if len(getattr(self, name)) > MOST_CATEGORIES:
                raise DealQueryInvalid(name, f"at most {MOST_CATEGORIES}")
        if len(self.words) > MOST_WORDS:
            raise DealQueryInvalid("words", f"at most {MOST_WORDS}")


def sighting_of(product: Product, price_type: PriceType, now: datetime) -> DealSighting | None:
    """What a product's own history says of its present price; None where there is no offer of that type.

    Nothing of the history is believed beyond the answer; windows of days end at `now`. The lows and the high are those of the time
    before the present price, which lasts since it last became what it is. The lowest ever is known from Keepa's statistics, or from a
    history that reaches back to where Keepa began to track the product.
    """
    answered = minute_of(product.answered_at)
    series = _until(product.series.get(price_type), answered)
    stats = product.stats
    values = dict(stats.current) if stats is not None else {}
    for known_type, known in product.series.items():
        if known_type not in values and (index := bisect_right(known.minutes, answered) - 1) >= 0:
            values[known_type] = known.amounts[index]
    amount = values.get(price_type)
    if amount is None or amount <= 0:
        return None
    begun = _stretch(series)
    if begun >= 0 and series.amounts[begun] == amount:
        changed = series.minutes[begun]
    else:
        looked = product.updated_at or product.answered_at
        changed = min(answered, minute_of(looked if len(series) else product.price_changed_at or looked))
        if len(series) and changed <= series.minutes[-1]:
            changed = min(answered, series.minutes[-1] + 1)
    stop = bisect_left(series.minutes, changed)
    past = PriceSeries(series.minutes[:stop], series.amounts[:stop])
    end = max(minute_of(now), changed)
    year = summarize(past, end - _YEAR, changed) if end - _YEAR < changed else None
    return DealSighting(
        asin=product.asin,
        marketplace=product.marketplace,
        price_type=price_type,
        changed_minute=changed,
        updated_minute=minute_of(product.updated_at or product.answered_at),
        amount_minor=amount,
        title=product.title,
        brand=product.brand,
        image_url=product.image_urls[0] if product.image_urls else None,
        previous_minor=next((before for before in reversed(past.amounts) if before is not None), None),
        list_price_minor=values.get(PriceType.LISTPRICE),
        averages_minor=_averages(product, price_type, series, end),
        highest_year_minor=year.highest.amount if year is not None and year.highest else None,
        lowest_year_minor=year.lowest.amount if year is not None and year.lowest else None,
        lowest_ever_minor=_lowest_ever(product, price_type, past, changed),
        median_90_minor=summarize(series, end - 90 * _DAY, end).median,
        rating_tenths=product.rating_tenths,
        review_count=product.review_count,
        sales_rank=product.sales_rank,
        sales_rank_drops_90=stats.sales_rank_drops.get(90) if stats is not None else None,
        offer_count=values.get(OFFER_COUNTS[price_type]),
        root_category_id=product.root_category_id,
        category_ids=product.category_ids,
        category=product.category_path[-1] if product.category_path else None,
        parent_asin=product.parent_asin,
        is_lightning=price_type is PriceType.LIGHTNING_DEAL or values.get(PriceType.LIGHTNING_DEAL) is not None,
        current=values,
        current_since={
            known_type: known.minutes[start]
            for known_type, known in ((one, _until(told, answered)) for one, told in product.series.items())
            if (start := _stretch(known)) >= 0
        },
    )


def _until(series: PriceSeries | None, minute: int) -> PriceSeries:
    if series is None:
        return PriceSeries((), ())
    stop = bisect_right(series.minutes, minute)
    return series if stop == len(series) else PriceSeries(series.minutes[:stop], series.amounts[:stop])


def _stretch(series: PriceSeries) -> int:
    """Where the last value began, through points that repeat it; -1 without any."""
    index = len(series) - 1
    while index > 0 and series.amounts[index - 1] == series.amounts[index]:
        index -= 1
    return index


def _averages(product: Product, price_type: PriceType, series: PriceSeries, end: int) -> dict[int, int]:
    averages: dict[int, int] = {}
    for days in AVERAGE_DAYS:
        start = end - days * _DAY
        mean = None
        if product.stats is not None and not (len(series) and series.minutes[0] <= start):
            mean = product.stats.average.get(_STATS_DAYS.get(days, -1), {}).get(price_type)
        if mean is None:
            mean = average(series, start, end)
        if mean is not None and mean > 0:
            averages[days] = mean
    return averages


def _lowest_ever(product: Product, price_type: PriceType, past: PriceSeries, changed: int) -> int | None:
    lowest = min((amount for amount in past.amounts if amount is not None), default=None)
    told = product.stats.lowest.get(price_type) if product.stats is not None else None
    if told is not None:
        # A low of the present price says that all before it was higher, not how much.
        return lowest if told.minute >= changed else told.amount if lowest is None else min(told.amount, lowest)
    since = product.tracking_since
    return lowest if since is not None and len(past) and past.minutes[0] <= minute_of(since) + _DAY else None
