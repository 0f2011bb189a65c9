"""What people search for, and what they find: the rules that hold whatever searches."""

import base64
import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType

LARGEST_PAGE: Final = 1000
LONGEST_TEXT: Final = 300
MOST_TERMS: Final = 20
MOST_CHOICES: Final = 50
LARGEST_COUNT: Final = 2_000_000_000
LARGEST_AMOUNT_MINOR: Final = 1_000_000_000
# Beyond this a total is "so many or more": an exact one costs a look at every match.
LARGEST_TOTAL: Final = 1_000
MOST_SUGGESTIONS: Final = 20
# How many of a facet's values are counted.
MOST_COUNTS: Final = 20
SHORTEST_BEGINNING: Final = 2

_CURSOR_VERSION = 1
_LONGEST_CURSOR = 1000
_LARGEST_NUMBER = 1 << 62

DISCOUNT_BANDS_PCT: Final = (0, 10, 25, 50, 75)
_PRICE_BANDS = (0, 25, 50, 100, 200, 500)
# What 1 EUR is in others, in order of magnitude.
_BAND_FACTORS = {"JPY": 100, "INR": 100, "MXN": 20, "BRL": 5}


class SearchInvalid(KeeperError):
    """A query that cannot be answered.

    Attributes:
        field: which part of it.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class SearchSubject(StrEnum):
    """What is searched."""

    PRODUCTS = "products"
    DEALS = "deals"


class SearchSort(StrEnum):
    """The order of the hits; what has no such value comes last, equal ones by id.

    RELEVANCE without words is NEWEST, and of deals may be so where LARGEST_TOTAL or more have the words: they tell nothing apart. NEWEST is
    the first sight of a product, and the change of price of a deal. SCORE is how good a deal is.
    """

    RELEVANCE = "relevance"
    PRICE_ASCENDING = "price"
    PRICE_DESCENDING = "-price"
    DISCOUNT = "discount"
    RATING = "rating"
    NEWEST = "newest"
    SCORE = "score"


class FacetName(StrEnum):
    """What hits are counted by."""

    BRAND = "brand"
    CATEGORY = "category"
    MARKETPLACE = "marketplace"
    PRICE = "price"
    DISCOUNT = "discount"


@dataclass(frozen=True, slots=True)
class SearchTerm:
    """One word, or several in a row, that a hit must have in its title or its brand.

    Attributes:
        is_phrase: it stood in quotes.
        is_alike: nothing has it as it is written, so words within a few letters of it count.
    """

    words: str
    is_phrase: bool = False
    is_alike: bool = False


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What somebody asks for. All conditions hold at once; within `brands` and within `categories` any one does.

    Attributes:
        text: words, all of which must be there; in quotes a phrase. Empty: everything that the conditions allow.
        price_from_minor, price_to_minor: inclusive, in the marketplace's currency. What has no price is outside of any range.
        discount_from_pct: of the list price, 0 to 100.
        rating_from: stars, 0 to 5.
        brands: exact but for case.
        categories: for products the name of any category on the path, or the id of any; for deals the name of the category.
        price_type: of deals; None means any.
        includes_ended: of deals; products have none.
        includes_glitches: deals that may be a mistake and are not announced, too.
        discount_to_pct: of deals, as all that follow: of the list price, 0 to 100.
        below_median_from_pct: how far below its median of 90 days the price must be at least.
        reviews_from: how many must have rated it.
        rank_to: the sales rank it may have at most.
        score_from: the least quality score, 0 to 100.
        layouts: any of these, as the product group names them.
        group: name of a product group.
        has_facets: whether counts are wanted.
        limit: hits on a page.
        cursor: of the page before; it belongs to the same query only.

    Raises:
        SearchInvalid: something is out of its bounds.
    """

    subject: SearchSubject
    text: str = ""
    marketplace: Marketplace = Marketplace.DE
    price_from_minor: int | None = None
    price_to_minor: int | None = None
    discount_from_pct: float | None = None
    rating_from: float | None = None
    brands: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    price_type: PriceType | None = None
    includes_ended: bool = False
    sort: SearchSort = SearchSort.RELEVANCE
    has_facets: bool = False
    limit: int = 20
    cursor: str | None = None
    discount_to_pct: float | None = None
    below_median_from_pct: float | None = None
    reviews_from: int | None = None
    rank_to: int | None = None
    score_from: float | None = None
    layouts: tuple[str, ...] = ()
    group: str | None = None
    includes_glitches: bool = False

    def __post_init__(self) -> None:
        _check_text("text", self.text)
        _check_range("price_from", self.price_from_minor, 0, LARGEST_AMOUNT_MINOR)
        _check_range("price_to", self.price_to_minor, 0, LARGEST_AMOUNT_MINOR)
        if self.price_from_minor is not None and self.price_to_minor is not None and self.price_from_minor > self.price_to_minor:
            raise SearchInvalid("price_to", "must not be below price_from")
        _check_range("discount_from", self.discount_from_pct, 0, 100)
        _check_range("rating_from", self.rating_from, 0, 5)
        _check_choices("brands", self.brands)
        _check_choices("categories", self.categories)
        _check_range("limit", self.limit, 1, LARGEST_PAGE)
        _check_range("discount_to", self.discount_to_pct, 0, 100)
        if self.discount_from_pct is not None and self.discount_to_pct is not None and self.discount_from_pct > self.discount_to_pct:
            raise SearchInvalid("discount_to", "must not be below discount_from")
        _check_range("below_median_from", self.below_median_from_pct, 0, 100)
        _check_range("reviews_from", self.reviews_from, 0, LARGEST_COUNT)
        _check_range("rank_to", self.rank_to, 0, LARGEST_COUNT)
        _check_range("score_from", self.score_from, 0, 100)
        _check_choices("layouts", self.layouts)
        _check_choices("group", () if self.group is None else (self.group,))
        if self.subject is SearchSubject.PRODUCTS:
            self._refuse_conditions_on_deals()

    def _refuse_conditions_on_deals(self) -> None:
        if self.sort is SearchSort.SCORE:
            raise SearchInvalid("sort", "only deals have a score")
        asked = {
            "price_type": self.price_type, "includes_ended": self.includes_ended or None,
            "includes_glitches": self.includes_glitches or None, "discount_to": self.discount_to_pct,
            "below_median_from": self.below_median_from_pct, "reviews_from": self.reviews_from, "rank_to": self.rank_to,
            "score_from": self.score_from, "layouts": self.layouts or None, "group": self.group,
        }  # fmt: skip
        for field, value in asked.items():
            if value is not None:
                raise SearchInvalid(field, "is a condition on deals")

    @property
    def fingerprint(self) -> str:
        """The same for the same question, whatever its page."""
        asked = (
            self.subject, " ".join(self.text.split()), self.marketplace, self.price_from_minor, self.price_to_minor, self.discount_from_pct,
            self.rating_from, sorted(self.brands), sorted(self.categories), self.price_type, self.includes_ended, self.sort,
            self.discount_to_pct, self.below_median_from_pct, self.reviews_from, self.rank_to, self.score_from, sorted(self.layouts),
            self.group, self.includes_glitches,
        )  # fmt: skip
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended.

    Attributes:
        key: the last hit's value of the sort.
        ids: its id, in parts; settles the order of equal keys.
    """

    key: int | float
    ids: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where to go on.

    Attributes:
        alike: which terms of the query, by their number from 0, were searched for by likeness.
    """

    position: Position
    alike: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A product of one marketplace, or a deal on it.

    Attributes:
        category: the innermost name.
        price: None where there is no offer; the current one of a product, the deal's own of a deal.
        discount_pct: of the list price; None where that is unknown or not above the price.
        rating: stars, 0 to 5.
        seen_from: a product's or deal's first sight; None where what searches does not know it.
        seen_until: the latest one, likewise.
        deal_id, price_type, changed_at: of a deal; None on a product.
        ended_at: None on a product and on a deal that runs.
        score: how good a deal is, 0 to 100; None on a product, as all that follows.
        below_median_pct: how far the price is below `median_90`, its median of 90 days.
        lowest_year: the least it cost within a year before.
        is_glitch: whether the price may be a mistake, and is told nobody yet.
    """

    asin: str
    marketplace: Marketplace
    title: str | None
    brand: str | None
    category: str | None
    price: Money | None
    list_price: Money | None
    discount_pct: float | None
    rating: float | None
    review_count: int | None
    sales_rank: int | None
    image_url: str | None = None
    seen_from: datetime | None = None
    seen_until: datetime | None = None
    deal_id: str | None = None
    price_type: PriceType | None = None
    changed_at: datetime | None = None
    ended_at: datetime | None = None
    score: float | None = None
    layout: str | None = None
    group: str | None = None
    median_90: Money | None = None
    below_median_pct: float | None = None
    lowest_year: Money | None = None
    is_year_low: bool | None = None
    is_all_time_low: bool | None = None
    is_list_price_fiction: bool | None = None
    is_glitch: bool | None = None


@dataclass(frozen=True, slots=True)
class FacetCount:
    """Hits that have one value; of a band `2500-5000`, its upper end outside, or `50000-`."""

    value: str
    hits: int


@dataclass(frozen=True, slots=True)
class Facet:
    """Hits by value: most first, bands in their order; at most MOST_COUNTS, none of them 0.

    The marketplaces are counted without the price range, which is in the currency of one of them.
    """

    name: FacetName
    counts: tuple[FacetCount, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a searcher found.

    Attributes:
        total: all hits, at most LARGEST_TOTAL, which means so many or more; None on later pages.
        end: where this page ended, when there is another.
    """

    hits: tuple[SearchHit, ...]
    total: int | None
    end: Position | None


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of an answer.

    Attributes:
        next_cursor: None on the last page.
        total: see `Found`.
        alike: words of the query that nothing has, and for which others within a few letters were taken.
        facets: empty unless asked for.
    """

    hits: tuple[SearchHit, ...]
    next_cursor: str | None
    total: int | None
    alike: tuple[str, ...] = ()
    facets: tuple[Facet, ...] = ()


def parse_terms(text: str) -> tuple[SearchTerm, ...]:
    """The words and phrases of a text. A quote without its other half, as in 27" Monitor, is none.

    Raises:
        SearchInvalid: a text without any word, or with more than MOST_TERMS terms.
    """
    terms = []
    for quoted, plain in re.findall(r'"([^"]*)"|([^\s"]+)', unicodedata.normalize("NFKC", text)):
        words = " ".join((quoted or plain).split())
        if any(sign.isalnum() for sign in words):
            terms.append(SearchTerm(words, is_phrase=bool(quoted)))
    if text.strip() and not terms:
        raise SearchInvalid("text", "holds no word; leave it empty to see everything")
    if len(terms) > MOST_TERMS:
        raise SearchInvalid("text", f"holds {len(terms)} words; at most {MOST_TERMS}")
    return tuple(dict.fromkeys(terms))


def encode_cursor(query: SearchQuery, cursor: Cursor) -> str:
    """Opaque text for the next question."""
    parts = [_CURSOR_VERSION, query.fingerprint, list(cursor.alike), cursor.position.key, *cursor.position.ids]
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def decode_cursor(query: SearchQuery, text: str) -> Cursor:
    """The reverse.

    Raises:
        SearchInvalid: not one of ours, or another query's.
    """
    try:
        if len(text) > _LONGEST_CURSOR:
            raise ValueError("too long")
        parts = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        version, fingerprint, alike, key, *ids = parts
        is_sound = (
            version == _CURSOR_VERSION
            and all(type(number) is int and 0 <= number < MOST_TERMS for number in alike)
            and type(key) in (int, float)
            and math.isfinite(key)
            and abs(key) < _LARGEST_NUMBER
            and 0 < len(ids) <= 4
            and all(_is_id(part) for part in ids)
        )
    except (ValueError, TypeError, RecursionError, OverflowError):
        is_sound = False
    if not is_sound:
        raise SearchInvalid("cursor", "is not one that Keeper gave; begin without one")
    if fingerprint != query.fingerprint:
        raise SearchInvalid("cursor", "belongs to another query; begin without one")
    return Cursor(Position(key, tuple(ids)), tuple(alike))


def most_letters_off(word: str) -> int:
    """How many letters may differ for two words to be alike: as Elasticsearch's fuzziness AUTO has it."""
    return 0 if len(word) < 3 else 1 if len(word) < 6 else 2


def is_alike(word: str, other: str) -> bool:
    """Whether `other` may be what `word` was meant to be: letters added, left out, changed, or two neighbours swapped."""
    most = most_letters_off(word)
    if abs(len(word) - len(other)) > most:
        return False
    before: list[int] = []
    row = list(range(len(other) + 1))
    for number, letter in enumerate(word, 1):
        two_before, before, row = before, row, [number]
        for place, sign in enumerate(other, 1):
            cost = min(before[place] + 1, row[place - 1] + 1, before[place - 1] + (letter != sign))
            if number > 1 and place > 1 and letter == other[place - 2] and word[number - 2] == sign:
                cost = min(cost, two_before[place - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return False
    return row[-1] <= most


def price_bands_minor(currency: str) -> tuple[int, ...]:
    """The lower ends of the bands prices are counted by, in the currency's minor units."""
    factor = _BAND_FACTORS.get(currency, 1)
    return tuple(round(Money.parse(str(end * factor), currency).amount_minor) if end else 0 for end in _PRICE_BANDS)


def band_name(ends: Sequence[int], number: int) -> str:
    """Of the band that begins with `ends[number]`."""
    return f"{ends[number]}-{ends[number + 1]}" if number + 1 < len(ends) else f"{ends[number]}-"


def check_beginning(text: str) -> str | None:
    """What suggestions are asked for; None where it is too short for any.

    Raises:
        SearchInvalid: too long, or no text.
    """
    _check_text("text", text)
    beginning = " ".join(unicodedata.normalize("NFKC", text).split())
    return beginning if sum(sign.isalnum() for sign in beginning) >= SHORTEST_BEGINNING else None


def _is_id(part: object) -> bool:
    if isinstance(part, str):
        return len(part) <= 64 and part.isascii() and part.isprintable()
    return type(part) is int and abs(part) < _LARGEST_NUMBER


def _check_text(field: str, text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise SearchInvalid(field, f"has {len(text)} characters; at most {LONGEST_TEXT}")
    if any(unicodedata.category(sign) == "Cs" or sign == "\x00" for sign in text):
        raise SearchInvalid(field, "holds a character that is none")


def _check_range(field: str, value: float | None, lowest: float, highest: float) -> None:
    if value is not None and not lowest <= value <= highest:
        raise SearchInvalid(field, f"must be from {lowest} to {highest}")


def _check_choices(field: str, choices: Collection[str]) -> None:
    if len(choices) > MOST_CHOICES:
        raise SearchInvalid(field, f"names {len(choices)}; at most {MOST_CHOICES}")
    for choice in choices:
        _check_text(field, choice)
