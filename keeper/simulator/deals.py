"""Finds the deals of a marketplace and writes them as Keepa does: the keys and the arithmetic of a recorded page.

A deal is a product whose value of the requested price type changed within the chosen days and which passes the filters. To find
them, only the price types a request looks at are made up, and only for the last quarters, and kept; the whole history is
made up for the rows of a page alone.
"""

import math
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keeper.simulator.answers import describe_product, find_lightning, image_name
from keeper.simulator.catalog import MARKETPLACES, Product, list_categories
from keeper.simulator.clock import KEEPA_EPOCH_MINUTES
from keeper.simulator.columns import NONE
from keeper.simulator.listings import NO_AVERAGE, Listing, Listings, compare, measure_average
from keeper.simulator.prices import (
    AMAZON,
    DAY,
    LIGHTNING_DEAL,
    NEW,
    PRICES,
    PRIME_EXCL,
    RATING,
    SALES,
    TYPES,
    WAREHOUSE,
    History,
    Traits,
    derive,
)
from keeper.simulator.selection import DEALS_PER_PAGE, KNOWN_TEXTS, MAX_DEALS, UNKNOWN_TEXTS, DealSelection

# What a change must be younger than, by `dateRange`, and what its averages cover.
RANGE_DAYS = (1, 7, 31, 90)
AVERAGED_DAYS = (2, 7, 30, 90)
# Their average to compare with is Amazon's price or the lowest new one (Keepa API docs, deals), and recorded rows give the
# difference of the month as their last one, too.
REFERRING = frozenset({LIGHTNING_DEAL, WAREHOUSE, PRIME_EXCL})
CACHED_SECONDS = 120.0
CACHED_PAGES = 32
_COMMENTS = {
    2: "Der Artikel wird in der Originalverpackung zugestellt.",
    3: "Kleine Kratzer an der Unterseite.",
    4: "Minimale Gebrauchsspuren.",
    5: "Großer Schaden am Karton. Nicht essenzielles Zubehör fehlt.",
}


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A product at a moment, as far as filters and order need it.

    Attributes:
        listing: The product.
        updated: Keepa minute at which Keepa last looked.
        value: Of the requested price type; -1 for none.
        since: Keepa minute since when.
        delta: Average minus value, by date range.
        percent: The same in percent of the average.
        last: Value before minus value.
        was_out: Whether the value before was none.
    """

    listing: Listing
    updated: int
    value: int
    since: int
    delta: tuple[int, ...]
    percent: tuple[int, ...]
    last: int
    was_out: bool


@dataclass(frozen=True, slots=True)
class DealPage:
    """One page of deals; the rows are shared and must not be changed.

    Attributes:
        rows: As Keepa writes them, at most 150.
        counts: Number of deals by root category, whatever category was asked for.
        domain: Keepa's marketplace id.
    """

    rows: Sequence[dict[str, Any]]
    counts: dict[int, int]
    domain: int

    def as_json(self) -> dict[str, Any]:
        """Returns the object `deals`."""
        place = MARKETPLACES.get(self.domain)
        return {
            "dr": list(self.rows),
            "categoryIds": list(self.counts),
            "categoryNames": [place.root[1] if place is not None and root == place.root[0] else "?" for root in self.counts],
            "categoryCount": list(self.counts.values()),
            "drDateIndex": [],
        }


class DealBoard:
    """Answers `/deal` over one catalog. Thread-safe."""

    def __init__(self, listings: Listings) -> None:
        """Builds nothing yet."""
        self._listings = listings
        self._evaluated: OrderedDict[tuple[int, int], tuple[int, float, list[_Candidate]]] = OrderedDict()
        self._pages: OrderedDict[DealSelectionKey, tuple[float, DealPage]] = OrderedDict()

    def page(self, selection: DealSelection, now: float) -> tuple[DealPage, bool]:
        """Returns a page of deals, and whether it is the answer to the same question of at most two minutes before.

        Args:
            selection: What is asked for.
            now: Simulated Unix seconds.
        """
        key = _key(selection)
        with self._listings.lock:
            found = self._pages.get(key)
            if found is not None and 0 <= now - found[0] < CACHED_SECONDS:
                return found[1], True
            page = self._make_page(selection, now)
            self._pages[key] = (now, page)
            self._pages.move_to_end(key)
            while len(self._pages) > CACHED_PAGES:
                self._pages.popitem(last=False)
        return page, False

    def _make_page(self, selection: DealSelection, now: float) -> DealPage:
        if selection.domain not in MARKETPLACES:
            return DealPage((), {}, selection.domain)
        minutes, candidates = self._evaluate(selection.domain, selection.price_type, now)
        found = [each for each in candidates if self._passes(each, selection, minutes)]
        counts = Counter(each.listing.root for each in found)
        found = [each for each in found if _is_in_categories(each.listing, selection)]
        found.sort(key=_order(selection, int(minutes)))
        if "singleVariation" in selection.switches:
            found = _one_of_each_family(found)
        start = selection.page * DEALS_PER_PAGE
        shown = found[start : min(start + DEALS_PER_PAGE, MAX_DEALS)]
        rows = [self._make_row(each, selection.price_type, minutes) for each in shown]
        return DealPage(rows, dict(counts), selection.domain)

    def _evaluate(self, domain: int, price_type: int, now: float) -> tuple[float, list[_Candidate]]:
        """Returns the moment and what changed in the last 90 days before it. All questions of one minute share one moment."""
        minutes = now / 60 - KEEPA_EPOCH_MINUTES
        found = self._evaluated.get((domain, price_type))
        if found is not None and found[0] == int(minutes) and found[1] <= minutes:
            return found[1], found[2]
        candidates = [
            candidate for listing in self._listings.of(domain) if (candidate := self._look(listing, price_type, minutes)) is not None
        ]
        self._evaluated[domain, price_type] = (int(minutes), minutes, candidates)
        self._evaluated.move_to_end((domain, price_type))
        while len(self._evaluated) > 8:
            self._evaluated.popitem(last=False)
        return minutes, candidates

    def _look(self, listing: Listing, price_type: int, minutes: float) -> _Candidate | None:
        now = int(minutes)
        column = listing.column(price_type, now)
        if column is None:
            return None
        updated = self._listings.updated(listing, now)
        count = column.count_until(updated)
        # The first entry may stand for an older one.
        if count < 2 or column.times[count - 1] < minutes - RANGE_DAYS[-1] * DAY:
            return None
        value, before = column.totals[count - 1], column.totals[count - 2]
        starts = [minutes - days * DAY for days in AVERAGED_DAYS]
        if price_type in REFERRING:
            averages = _refer(*(measure_average(listing.column(each, now), updated, starts, minutes) for each in (AMAZON, NEW)))
        else:
            averages = measure_average(column, updated, starts, minutes)
        delta, percent = zip(*(compare(average, value) for average in averages), strict=True)
        last = delta[2] if price_type in REFERRING else (before - value if before >= 0 and value >= 0 else 0)
        return _Candidate(listing, updated, value, column.times[count - 1], delta, percent, last, before < 0)

    def _passes(self, each: _Candidate, selection: DealSelection, minutes: float) -> bool:
        switches = selection.switches
        if each.since < minutes - RANGE_DAYS[selection.date_range] * DAY:
            return False
        if "isOutOfStock" in switches:
            if each.value > 0 or each.since < minutes - DAY:
                return False
        elif each.value <= 0:
            return False
        if "isBackInStock" in switches and not (each.was_out and each.since >= minutes - DAY):
            return False
        sign = -1 if "isRisers" in switches else 1
        delta, percent = sign * each.delta[selection.date_range], sign * each.percent[selection.date_range]
        if sign < 0 and delta <= 0:
            return False
        for name, value in (
            ("currentRange", each.value),
            ("deltaRange", delta),
            ("deltaPercentRange", percent),
            ("deltaLastRange", sign * each.last),
        ):
            bounds = selection.ranges.get(name)
            if bounds is not None and not bounds[0] <= value <= bounds[1]:
                return False
        return self._passes_others(each, selection, minutes)

    def _passes_others(self, each: _Candidate, selection: DealSelection, minutes: float) -> bool:
        """Tries what needs other price types or the description; the dearest last."""
        switches, listing, updated = selection.switches, each.listing, each.updated
        texts = selection.texts
        if texts or selection.title_words:
            title = listing.title
            if not all(word in title for word in selection.title_words):
                return False
            if any(name in UNKNOWN_TEXTS for name in texts):
                return False
            if any(listing.describe(name) not in texts[name] for name in KNOWN_TEXTS if name in texts):
                return False
        if "hasReviews" in switches and not listing.traits.rating:
            return False
        if selection.min_rating is not None and listing.value(RATING, updated) < selection.min_rating:
            return False
        if "mustHaveAmazonOffer" in switches and listing.value(AMAZON, updated) <= 0:
            return False
        if "mustNotHaveAmazonOffer" in switches and listing.value(AMAZON, updated) > 0:
            return False
        if "isPrimeExclusive" in switches and listing.value(PRIME_EXCL, updated) <= 0:
            return False
        if "isLowestOffer" in switches and each.value != listing.value(NEW, updated):
            return False
        if selection.warehouse_conditions and (
            listing.value(WAREHOUSE, updated) <= 0 or warehouse_condition(listing.traits) not in selection.warehouse_conditions
        ):
            return False
        ranks = selection.ranges.get("salesRankRange")
        if ranks is not None:
            rank = listing.value(SALES, updated)
            if rank <= 0 or not ranks[0] <= rank <= ranks[1]:
                return False
        # What is not the lowest of 90 days is not the lowest of all.
        if switches & {"isLowest", "isLowest90"}:
            recent = listing.column(selection.price_type, int(minutes))
            if recent is None or each.value > recent.lowest_since(minutes - 90 * DAY, recent.count_until(updated)):
                return False
        return not switches & {"isLowest", "isHighest"} or self._is_extreme(each, selection, minutes)

    def _is_extreme(self, each: _Candidate, selection: DealSelection, minutes: float) -> bool:
        history = self._listings.history(each.listing, int(minutes))
        column = history.columns[selection.price_type]
        if column is None or each.value < 0:
            return False
        lowest, highest = column.lowest(each.updated), column.highest(each.updated)
        if "isLowest" in selection.switches and (lowest is None or each.value > lowest[1]):
            return False
        return "isHighest" not in selection.switches or (highest is not None and each.value >= highest[1])

    def _make_row(self, each: _Candidate, price_type: int, minutes: float) -> dict[str, Any]:
        product, traits = each.listing.product, each.listing.traits
        history = self._listings.history(each.listing, int(minutes))
        return make_deal(product, traits, history, price_type, each.updated, minutes)


def make_deal(product: Product, traits: Traits, history: History, price_type: int, updated: int, minutes: float) -> dict[str, Any]:
    """Returns one row of `dr`: every price type, gated ones included.

    Args:
        product: The product.
        traits: What it is like in this marketplace.
        history: Its history there.
        price_type: The one the deal is of.
        updated: Keepa minute at which Keepa last looked; nothing later is shown.
        minutes: Keepa minutes now, the end of the averages.
    """
    place = MARKETPLACES[traits.domain]
    counts = [0 if column is None else column.count_until(updated) for column in history.columns]
    current, since, before = [NONE] * TYPES, [NONE] * TYPES, [NONE] * TYPES
    averages = [[NO_AVERAGE] * TYPES for _ in AVERAGED_DAYS]
    starts = [minutes - days * DAY for days in AVERAGED_DAYS]
    for each, (column, count) in enumerate(zip(history.columns, counts, strict=True)):
        if column is None or not count:
            continue
        current[each], since[each] = column.totals[count - 1], column.times[count - 1]
        before[each] = column.totals[count - 2] if count > 1 else NONE
        for row, average in enumerate(measure_average(column, updated, starts, minutes)):
            averages[row][each] = average
    delta, percent = [[0] * TYPES for _ in AVERAGED_DAYS], [[0] * TYPES for _ in AVERAGED_DAYS]
    for each in range(TYPES):
        own = [row[each] for row in averages]
        compared = _refer([row[AMAZON] for row in averages], [row[NEW] for row in averages]) if each in REFERRING else own
        for row, average in enumerate(compared):
            delta[row][each], percent[row][each] = compare(average, current[each])
    last = [old - value if old >= 0 and value >= 0 else 0 for old, value in zip(before, current, strict=True)]
    for each in REFERRING:
        last[each] = delta[2][each]
    day_ago = minutes - DAY
    root, categories = list_categories(product, place)
    lightning = find_lightning(history, updated) or (0, 0)
    condition = warehouse_condition(traits) if current[WAREHOUSE] > 0 else 0
    drops = history.rank_drops
    until = bisect_left(drops, updated + 1)
    deal: dict[str, Any] = {
        "asin": product.asin,
        "title": describe_product(product, traits, place)["title"],
        "rootCat": root,
        "categories": [*categories],
        "image": None if derive("no image", product.asin) % 75 == 3 else [ord(sign) for sign in f"{image_name(product, 0, 'l')}.jpg"],
        "current": current,
        "currentSince": since,
        "avg": averages,
        "delta": delta,
        "deltaPercent": percent,
        "deltaLast": last,
        "creationDate": since[price_type],
        "lastUpdate": updated,
        "dateIntervalIndex": 0,
        "backInStock": [
            each in PRICES and current[each] > 0 and counts[each] > 1 and before[each] < 0 and since[each] >= day_ago
            for each in range(TYPES)
        ],
        "lightningStart": lightning[0],
        "lightningEnd": max(0, lightning[1]),
        "salesRankDrops30": NONE,
        "salesRankDrops90": NONE,
        "salesRankDrops180": NONE,
        "salesRankDrops365": NONE,
        "warehouseCondition": condition,
    }
    if counts[SALES]:
        for days in (30, 90, 180, 365):
            deal[f"salesRankDrops{days}"] = until - bisect_left(drops, minutes - days * DAY, 0, until)
    if condition:
        deal["warehouseConditionComment"] = _COMMENTS[condition]
    if product.parent is not None:
        deal["parentAsin"] = product.parent
    return deal


def warehouse_condition(traits: Traits) -> int:
    """Returns the condition of what Amazon's warehouse offers: 2 like new to 5 acceptable."""
    return 2 + derive("condition", traits.asin, traits.domain) % 4


def _refer(amazon: Sequence[int], new: Sequence[int]) -> list[int]:
    """Returns Amazon's average where there is one, else that of the lowest new offer."""
    return [first if first > 0 else second for first, second in zip(amazon, new, strict=True)]


def _is_in_categories(listing: Listing, selection: DealSelection) -> bool:
    held = {listing.root, *listing.categories}
    return (not selection.included or bool(held & selection.included)) and not held & selection.excluded


def _order(selection: DealSelection, now: int) -> Callable[[_Candidate], tuple[float, int]]:
    row, kind = selection.date_range, abs(selection.sort)
    inverted = selection.sort < 0
    rising = -1 if "isRisers" in selection.switches else 1

    def place(each: _Candidate) -> tuple[float, int]:
        if kind == 1:
            first: float = -each.since
        elif kind == 2:
            first = -rising * each.delta[row]
        elif kind == 4:
            first = -rising * each.percent[row]
        else:
            rank = each.listing.value(SALES, min(now, each.updated))
            # Without a rank: last, whichever way.
            return (math.inf if rank <= 0 else (-rank if inverted else rank)), each.listing.product.number
        return (-first if inverted else first), each.listing.product.number

    return place


def _one_of_each_family(found: Sequence[_Candidate]) -> list[_Candidate]:
    seen: set[str] = set()
    kept = []
    for each in found:
        family = each.listing.product.parent
        if family is None or family not in seen:
            kept.append(each)
        if family is not None:
            seen.add(family)
    return kept


DealSelectionKey = tuple[object, ...]


def _key(selection: DealSelection) -> DealSelectionKey:
    return (
        selection.domain,
        selection.price_type,
        selection.page,
        selection.date_range,
        selection.sort,
        tuple(sorted(selection.ranges.items())),
        selection.switches,
        selection.min_rating,
        selection.warehouse_conditions,
        selection.title_words,
        tuple(sorted((name, tuple(sorted(wanted))) for name, wanted in selection.texts.items())),
        selection.included,
        selection.excluded,
    )
