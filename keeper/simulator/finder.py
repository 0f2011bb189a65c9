"""Answers `/query`, the product finder: filters over values, averages and texts, ANDed; ASINs out."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keeper.simulator.clock import KEEPA_EPOCH_MINUTES
from keeper.simulator.columns import NONE, Column
from keeper.simulator.listings import Listing, Listings, compare, measure_average
from keeper.simulator.lists import summarise
from keeper.simulator.prices import DAY, FAMILIES
from keeper.simulator.requests import ParameterError
from keeper.simulator.selection import KNOWN_TEXTS, UNKNOWN_TEXTS, flag, read_selection, whole

MIN_PER_PAGE, MAX_PER_PAGE = 50, 10_000
MAX_SORTS = 3
MAX_VALUES = 50
EXCLUDES = "✜"
PRICE_TYPES = (
    "AMAZON", "NEW", "USED", "SALES", "LISTPRICE", "COLLECTIBLE", "REFURBISHED", "NEW_FBM_SHIPPING", "LIGHTNING_DEAL", "WAREHOUSE",
    "NEW_FBA", "COUNT_NEW", "COUNT_USED", "COUNT_REFURBISHED", "COUNT_COLLECTIBLE", "EXTRA_INFO_UPDATES", "RATING", "COUNT_REVIEWS",
    "BUY_BOX_SHIPPING", "USED_NEW_SHIPPING", "USED_VERY_GOOD_SHIPPING", "USED_GOOD_SHIPPING", "USED_ACCEPTABLE_SHIPPING",
    "COLLECTIBLE_NEW_SHIPPING", "COLLECTIBLE_VERY_GOOD_SHIPPING", "COLLECTIBLE_GOOD_SHIPPING", "COLLECTIBLE_ACCEPTABLE_SHIPPING",
    "REFURBISHED_SHIPPING", "EBAY_NEW_SHIPPING", "EBAY_USED_SHIPPING", "TRADE_IN", "RENTAL", "BUY_BOX_USED_SHIPPING", "PRIME_EXCL",
    "COUNT_NEW_FBA", "COUNT_NEW_FBM",
)  # fmt: skip
# Families by price type, and what a name in them asks for.
_DAYS = {"avg": (1, 7, 30, 90, 180, 365), "delta": (1, 7, 30, 90), "deltaPercent": (1, 7, 30, 90)}
_MEASURE = re.compile(r"(deltaPercent|deltaLast|delta|current|avg|lastPriceChange)([0-9]*)_([A-Z_]+)")
_MARK = re.compile(r"(backInStock|isLowest|isLowest90)_([A-Z_]+)")
_LIMIT = re.compile(r"(.+)_(gte|lte)")
_WORD = re.compile(r'(-?)"([^"]*)"|(-?)(\S+)')
_LONGEST = 90
# Averages never are negative; differences may be, and none has no difference.
_SIGNED = frozenset({"delta", "deltaPercent", "deltaLast"})


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a product that can be filtered and sorted by.

    Attributes:
        kind: Family of the name.
        days: Window; 0 without.
        price_type: Index of the price type; None for what has none (`monthlySold`, `lastUpdate`).
    """

    kind: str
    days: int
    price_type: int | None


@dataclass(frozen=True, slots=True)
class Limit:
    """A measure and the bounds it must lie within, both included; None means open."""

    measure: Measure
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Mark:
    """A truth about a price type (`backInStock`, `isLowest`, `isLowest90`), and what it must be."""

    kind: str
    price_type: int
    wanted: bool


@dataclass(frozen=True, slots=True)
class FinderQuery:
    """A `/query` that makes sense.

    Attributes:
        page: From 0.
        per_page: ASINs a page.
        sort: Measures in order of weight, and whether the highest comes first.
        limits: What numbers must lie within.
        marks: What must be true of price types, or must not.
        texts: Values by field, lower case, with the mark of exclusion.
        title: Words and phrases, and whether they must be missing.
        roots: Wanted root categories; empty means all.
        included: Categories of which one must hold the product.
        excluded: Categories of which none may.
        product_types: Wanted ones; empty means those with prices.
        flags: Names of other truths, and what they must be.
    """

    page: int
    per_page: int
    sort: tuple[tuple[Measure, bool], ...]
    limits: tuple[Limit, ...]
    marks: tuple[Mark, ...]
    texts: Mapping[str, tuple[str, ...]]
    title: tuple[tuple[str, bool], ...]
    roots: frozenset[int]
    included: frozenset[int]
    excluded: frozenset[int]
    product_types: frozenset[int]
    flags: Mapping[str, bool]


_FLAGS = ("hasReviews", "hasParentASIN", "singleVariation")
_PLAIN_NUMBERS = ("monthlySold", "lastUpdate", "trackingSince", "variationCount")


def parse_query(text: str | None) -> FinderQuery:
    """Returns the query that a selection describes. Nulls are ignored.

    Raises:
        ParameterError: A field is unknown or malformed (400), or out of range (405).
    """
    fields = {name: value for name, value in read_selection(text).items() if value is not None}
    page, per_page = _paging(fields)
    sort = _read_sort(fields.pop("sort", []))
    if not fields:
        raise ParameterError(400, "selection")
    numbers = {name: frozenset(_whole_list(fields, name)) for name in
               ("rootCategory", "categories_include", "categories_exclude", "productType", "availabilityAmazon")}  # fmt: skip
    amazon = numbers["availabilityAmazon"]
    title = fields.pop("title", "")
    if not isinstance(title, str):
        raise ParameterError(400, "title")
    flags = {name: flag(fields, name) for name in _FLAGS if name in fields}
    texts = {name: _text_list(fields, name) for name in (*KNOWN_TEXTS, *UNKNOWN_TEXTS, "partNumber") if name in fields}
    for name in (*numbers, *flags, *texts):
        fields.pop(name, None)
    limits, marks = _read_measures(fields)
    if amazon:
        # In stock or not is all this catalog knows.
        has_offer = 0 in amazon
        if not (has_offer and -1 in amazon):
            current = Measure("current", 0, 0)
            limits.append(Limit(current, 0, None) if has_offer else Limit(current, None, -1))
    return FinderQuery(
        page=page,
        per_page=per_page,
        sort=sort,
        limits=tuple(limits),
        marks=tuple(marks),
        texts=texts,
        title=_read_title(title),
        roots=numbers["rootCategory"],
        included=numbers["categories_include"],
        excluded=numbers["categories_exclude"],
        product_types=numbers["productType"],
        flags=flags,
    )


def _paging(fields: dict[str, Any]) -> tuple[int, int]:
    page, per_page = whole(fields, "page") or 0, whole(fields, "perPage")
    fields.pop("page", None)
    fields.pop("perPage", None)
    per_page = MIN_PER_PAGE if per_page is None else per_page
    if not MIN_PER_PAGE <= per_page <= MAX_PER_PAGE:
        raise ParameterError(405, "perPage")
    if page < 0 or (page > 0 and page * per_page > MAX_PER_PAGE):
        raise ParameterError(405, "page")
    return page, per_page


def _read_sort(entries: Any) -> tuple[tuple[Measure, bool], ...]:
    if not isinstance(entries, list):
        raise ParameterError(400, "sort")
    if len(entries) > MAX_SORTS:
        raise ParameterError(405, "sort")
    sort = []
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or entry[1] not in ("asc", "desc") or not isinstance(entry[0], str):
            raise ParameterError(400, "sort")
        measure = _read_measure(entry[0])
        if measure is None:
            raise ParameterError(400, "sort")
        sort.append((measure, entry[1] == "desc"))
    return tuple(sort) or ((Measure("current", 0, 3), False),)


def _read_measures(fields: Mapping[str, Any]) -> tuple[list[Limit], list[Mark]]:
    limits: dict[Measure, Limit] = {}
    marks = []
    for name in fields:
        mark, limit = _MARK.fullmatch(name), _LIMIT.fullmatch(name)
        if mark is not None and mark[2] in PRICE_TYPES:
            marks.append(Mark(mark[1], PRICE_TYPES.index(mark[2]), flag(fields, name)))
            continue
        measure = None if limit is None else _read_measure(limit[1])
        if limit is None or measure is None:
            raise ParameterError(400, name)
        value = fields[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ParameterError(400, name)
        before = limits.get(measure, Limit(measure, None, None))
        is_low = limit[2] == "gte"
        limits[measure] = Limit(measure, value if is_low else before.low, before.high if is_low else value)
    return list(limits.values()), marks


def _read_measure(name: str) -> Measure | None:
    if name in _PLAIN_NUMBERS:
        return Measure(name, 0, None)
    found = _MEASURE.fullmatch(name)
    if found is None or found[3] not in PRICE_TYPES:
        return None
    kind, days = found[1], int(found[2] or 0)
    if days not in _DAYS.get(kind, (0,)):
        return None
    return Measure(kind, days, PRICE_TYPES.index(found[3]))


def _read_title(title: str) -> tuple[tuple[str, bool], ...]:
    return tuple(
        ((phrase or word).lower(), bool(not_phrase or not_word))
        for not_phrase, phrase, not_word, word in _WORD.findall(title)
        if phrase or word
    )


def _whole_list(fields: Mapping[str, Any], name: str) -> list[int]:
    values = fields.get(name, [])
    values = values if isinstance(values, list) else [values]
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise ParameterError(400, name)
    if len(values) > MAX_VALUES:
        raise ParameterError(405, name)
    return values


def _text_list(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = fields[name] if isinstance(fields[name], list) else [fields[name]]
    if not all(isinstance(value, str) for value in values):
        raise ParameterError(400, name)
    if len(values) > MAX_VALUES:
        raise ParameterError(405, name)
    return tuple(value.lower() for value in values)


class Finder:
    """Answers `/query` over the products lists know. Thread-safe."""

    def __init__(self, listings: Listings) -> None:
        """Builds nothing yet."""
        self._listings = listings

    def find(self, domain: int, query: FinderQuery, now: float, *, stats: bool) -> tuple[list[str], int, dict[str, Any] | None]:
        """Returns one page of ASINs, how many match, and what is known about those that do (None unless `stats`).

        Args:
            domain: Keepa's marketplace id.
            query: What is asked for.
            now: Simulated Unix seconds.
            stats: Whether insights are wanted.
        """
        minutes = now / 60 - KEEPA_EPOCH_MINUTES
        with self._listings.lock:
            found = [_Look(self._listings, listing, minutes) for listing in self._listings.of(domain)]
            found = [look for look in found if _matches(look, query)]
            for measure, is_descending in reversed(query.sort):
                found.sort(key=_order(measure, is_descending))
            if query.flags.get("singleVariation"):
                found = _one_of_each_family(found)
            insights = summarise([look.listing for look in found]) if stats else None
        start = query.page * query.per_page
        return [look.listing.product.asin for look in found[start : start + query.per_page]], len(found), insights


class _Look:
    """One product at a moment."""

    __slots__ = ("_listings", "_minutes", "_updated", "listing")

    def __init__(self, listings: Listings, listing: Listing, minutes: float) -> None:
        self._listings = listings
        self._minutes = minutes
        self._updated: int | None = None
        self.listing = listing

    @property
    def updated(self) -> int:
        """Keepa minute at which Keepa last looked."""
        if self._updated is None:
            self._updated = self._listings.updated(self.listing, int(self._minutes))
        return self._updated

    def column(self, price_type: int, *, year: bool = False, whole_history: bool = False) -> tuple[Column | None, int]:
        """Returns a price type's values and how many of them Keepa has seen."""
        if year:
            column = self.listing.year_column(price_type, int(self._minutes))
        elif whole_history or not any(price_type in family for family in FAMILIES):
            column = self._listings.history(self.listing, int(self._minutes)).columns[price_type]
        else:
            column = self.listing.column(price_type, int(self._minutes))
        return column, 0 if column is None else column.count_until(self.updated)

    def measure(self, measure: Measure) -> float | None:
        """Returns a number; None where there is none."""
        if measure.price_type is None:
            return self._measure_plain(measure.kind)
        column, count = self.column(measure.price_type, year=measure.days > _LONGEST, whole_history=measure.kind == "lastPriceChange")
        if column is None or not count:
            return None
        value = column.totals[count - 1]
        if measure.kind == "current":
            return value if value >= 0 else None
        if measure.kind == "lastPriceChange":
            return column.times[count - 1]
        if measure.kind == "deltaLast":
            before = column.totals[count - 2] if count > 1 else NONE
            return before - value if before >= 0 and value >= 0 else None
        average = measure_average(column, self.updated, [self._minutes - measure.days * DAY], self._minutes)[0]
        if measure.kind == "avg":
            return average if average >= 0 else None
        if average <= 0 or value <= 0:
            return None
        difference, percent = compare(average, value)
        return percent if measure.kind == "deltaPercent" else difference

    def _measure_plain(self, kind: str) -> float | None:
        if kind == "lastUpdate":
            return self.updated
        history = self._listings.history(self.listing, int(self._minutes))
        if kind == "trackingSince":
            return history.first
        if kind == "variationCount":
            return int(self.listing.product.parent is not None)
        sold = history.monthly_sold
        value = NONE if sold is None else sold.value_at(self.updated, sold.count_until(self.updated))
        return value if value > 0 else None

    def has_mark(self, mark: Mark) -> bool:
        """Whether something is true of a price type."""
        column, count = self.column(mark.price_type)
        if column is None or not count:
            return False
        value = column.totals[count - 1]
        if mark.kind == "backInStock":
            return value > 0 and count > 1 and column.totals[count - 2] < 0 and column.times[count - 1] >= self._minutes - DAY
        # What is not the lowest of 90 days is not the lowest of all.
        if value < 0 or value > column.lowest_since(self._minutes - 90 * DAY, count):
            return False
        if mark.kind == "isLowest90":
            return True
        column, count = self.column(mark.price_type, whole_history=True)
        lowest = None if column is None else column.lowest(self.updated)
        return lowest is not None and value == lowest[1]


def _matches(look: _Look, query: FinderQuery) -> bool:
    listing = look.listing
    held = {listing.root, *listing.categories}
    if query.product_types and 0 not in query.product_types:
        return False
    if (query.roots and listing.root not in query.roots) or (query.included and not held & query.included) or held & query.excluded:
        return False
    if query.title:
        title = listing.title
        if any((word in title) is is_missing for word, is_missing in query.title):
            return False
    if not all(_has_text(look, name, wanted) for name, wanted in query.texts.items()):
        return False
    truths: Mapping[str, Callable[[], bool]] = {
        "hasReviews": lambda: listing.traits.rating > 0,
        "hasParentASIN": lambda: listing.product.parent is not None,
    }
    if any(truths[name]() is not wanted for name, wanted in query.flags.items() if name in truths):
        return False
    return all(_lies_within(look, limit) for limit in query.limits) and all(look.has_mark(mark) is mark.wanted for mark in query.marks)


def _has_text(look: _Look, name: str, wanted: Sequence[str]) -> bool:
    held = "" if name in UNKNOWN_TEXTS else look.listing.describe(name)
    excluded = [value.removeprefix(EXCLUDES) for value in wanted if value.startswith(EXCLUDES)]
    included = [value for value in wanted if not value.startswith(EXCLUDES)]
    return held not in excluded and (not included or held in included)


def _lies_within(look: _Look, limit: Limit) -> bool:
    value = look.measure(limit.measure)
    if value is None:
        # No value reads -1, and only who asks for that gets it.
        return limit.measure.kind not in _SIGNED and limit.high is not None and limit.high < 0 and (limit.low is None or limit.low <= NONE)
    return (limit.low is None or value >= limit.low) and (limit.high is None or value <= limit.high)


def _order(measure: Measure, is_descending: bool) -> Callable[[_Look], tuple[bool, float]]:
    def place(look: _Look) -> tuple[bool, float]:
        value = look.measure(measure)
        # Without a value: last, whichever way.
        return value is None, 0 if value is None else (-value if is_descending else value)

    return place


def _one_of_each_family(found: Sequence[_Look]) -> list[_Look]:
    seen: set[str] = set()
    kept = []
    for look in found:
        family = look.listing.product.parent
        if family is None or family not in seen:
            kept.append(look)
        if family is not None:
            seen.add(family)
    return kept
