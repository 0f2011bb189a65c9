"""Keeps what lists of products are made from: the last quarters of the price types that questions look at.

Of a large catalog, lists (deals, best sellers, finder, search) know a share, as Keepa's deals cover a small part of what it tracks:
to make up the last quarters of a product takes half a millisecond.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from keeper.simulator.answers import describe_product
from keeper.simulator.catalog import MARKETPLACES, SEED_KEYBOARDS, Catalog, Marketplace, Product, list_categories, make_title
from keeper.simulator.columns import NONE, Column
from keeper.simulator.prices import DAY, FAMILIES, SEGMENT, History, Traits, derive, make_recent, visit_rhythm

# Products of a catalog that lists know: all of a small one, this many of a large one.
LISTED = 1_500
NO_AVERAGE = -2
# How far back the columns reach: the longest window, and room for the last change before it.
_REACH = 100 * DAY
# Keepa's last look lies up to a day back.
_LEEWAY = 8 * DAY


@dataclass(slots=True)
class Listing:
    """One product that the lists of a marketplace know.

    Attributes:
        product: The product.
        traits: What it is like there.
        place: The marketplace.
        root: Its root category.
        categories: Those it is listed in directly.
        every: Minutes between two looks of Keepa's own.
        phase: Their phase.
        columns: By family of price types: the minutes they are good for, from and to before, and the columns.
    """

    product: Product
    traits: Traits
    place: Marketplace
    root: int
    categories: tuple[int, ...]
    every: int
    phase: int
    columns: dict[frozenset[int], tuple[int, int, dict[int, Column]]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Title in this marketplace, as Keepa gives it, lower case."""
        return (make_title(self.product, self.place) or "").lower()

    def describe(self, name: str) -> str:
        """Returns a text of the product's description, lower case; empty where it has none."""
        return str(describe_product(self.product, self.traits, self.place)[name] or "").lower()

    def column(self, price_type: int, minute: int) -> Column | None:
        """Returns the last quarters of a price type, around `minute`."""
        family = next((each for each in FAMILIES if price_type in each), None)
        if family is None:
            return None
        found = self.columns.get(family)
        if found is None or not found[0] <= minute < found[1]:
            made = make_recent(self.traits, minute - _REACH, minute, family)
            found = self.columns[family] = (minute - _LEEWAY, (minute // SEGMENT + 1) * SEGMENT, made)
        return found[2].get(price_type)

    def year_column(self, price_type: int, minute: int) -> Column | None:
        """Returns more than the last year of a price type; made up anew each time."""
        family = next((each for each in FAMILIES if price_type in each), None)
        return None if family is None else make_recent(self.traits, minute - 380 * DAY, minute, family).get(price_type)

    def value(self, price_type: int, minute: int) -> int:
        """Returns the value in force at `minute`, -1 without one."""
        column = self.column(price_type, minute)
        return NONE if column is None else column.value_at(minute, len(column.times))


class Listings:
    """Which products lists know, by marketplace. Not thread-safe by itself: hold `lock`."""

    def __init__(self, catalog: Catalog, fetched_at: Callable[[int, str], int], listed: int = LISTED) -> None:
        """Builds nothing yet.

        Args:
            catalog: The products.
            fetched_at: Tells the Keepa minute at which a client last had a product fetched (domain, ASIN); 0 for never.
            listed: How many products lists know.

        Raises:
            ValueError: `listed` is below 1.
        """
        if listed < 1:
            raise ValueError("listed must be at least 1")
        self.lock = threading.Lock()
        self._catalog = catalog
        self._fetched_at = fetched_at
        self._listed = listed
        self._known: dict[int, list[Listing]] = {}

    def of(self, domain: int) -> list[Listing]:
        """Returns the products with prices that a marketplace's lists know, in order of the catalog."""
        known = self._known.get(domain)
        if known is None:
            place = MARKETPLACES.get(domain)
            known = [] if place is None else [self._list(product, place) for product in self._choose()]
            self._known[domain] = known
        return known

    def updated(self, listing: Listing, now: int) -> int:
        """Returns the Keepa minute at which Keepa last looked at a product."""
        fetched = self._fetched_at(listing.place.domain, listing.product.asin)
        return min(now, max(fetched, now - (now + listing.phase) % listing.every))

    def history(self, listing: Listing, now: int) -> History:
        """Returns a product's whole history."""
        return self._catalog.history(listing.product, listing.place.domain, now)

    def _list(self, product: Product, place: Marketplace) -> Listing:
        root, categories = list_categories(product, place)
        every, phase = visit_rhythm(product.asin, place.domain)
        return Listing(product, self._catalog.traits(product, place.domain), place, root, categories, every, phase)

    def _choose(self) -> Iterable[Product]:
        for number in _choose(self._catalog.size, self._listed):
            product = self._catalog.product(number)
            if product.product_type == 0:
                yield product


def measure_average(column: Column | None, updated: int, starts: list[float], end: float) -> list[int]:
    """Returns the mean weighted by time since each start, cut off as in `stats`; -1 where there was no value, -2 without a column."""
    if column is None:
        return [NO_AVERAGE] * len(starts)
    measured = column.measure(starts, end, column.count_until(updated))
    return [int(weighted / live + 1e-9) if live > 0 else NONE for weighted, live, _ in measured]


def compare(average: int, value: int) -> tuple[int, int]:
    """Returns average minus value and its share of the average in percent, halves up; 0 where there is no average or no value."""
    if average <= 0 or value <= 0:
        return 0, 0
    difference = average - value
    # In whole numbers: floor(100 * (avg - current) / avg + 0.5).
    return difference, (200 * difference + average) // (2 * average)


def _choose(size: int, listed: int) -> Iterable[int]:
    """Returns the numbers of the products that lists know: the real keyboards and an even sample of the others."""
    if size <= listed:
        return range(size)
    seeds = min(SEED_KEYBOARDS, listed)
    wanted = listed - seeds
    # Not every n-th: what a generated product is repeats by hundreds.
    stride = (size - seeds) // max(1, wanted)
    return [*range(seeds), *(seeds + place * stride + derive("listed", place) % stride for place in range(wanted))]
