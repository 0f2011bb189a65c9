"""What Keepa is asked, and what it can cost at most."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keeper.domain.deal import DEAL_PRICE_TYPES, MOST_PAGES, MOST_WORDS, PAGE_SIZE, DateRange, DealQuery
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.keepa.errors import RequestInvalid

MAX_ASINS = 100
# What a request costs at most, by Keepa's documentation of October 2026; a list of bestsellers costs nothing where there is none, and
# up to ten categories cost as much as one.
DEAL_PAGE_TOKENS = 5
BESTSELLERS_TOKENS = 50
CATEGORIES_TOKENS = 1
CATEGORY_SEARCH_TOKENS = 1
PRODUCT_SEARCH_TOKENS = 10
MAX_CATEGORIES = 10
MAX_FOUND = 10_000

DOMAIN_IDS: Mapping[Marketplace, int] = {
    Marketplace.US: 1,
    Marketplace.UK: 2,
    Marketplace.DE: 3,
    Marketplace.FR: 4,
    Marketplace.JP: 5,
    Marketplace.CA: 6,
    Marketplace.IT: 8,
    Marketplace.ES: 9,
    Marketplace.IN: 10,
    Marketplace.MX: 11,
    Marketplace.BR: 12,
}

ASIN = re.compile(r"[A-Z0-9]{10}", re.ASCII)
_PRICE_INDEXES = {price_type: index for index, price_type in enumerate(PriceType)}
_DATE_RANGES = {DateRange.DAY: 0, DateRange.WEEK: 1, DateRange.MONTH: 2, DateRange.QUARTER: 3}
_NEWEST_FIRST = 1
_LEAST_FALL_PCT = 10
_HIGHEST = 2**31 - 1
_UNKNOWN_CATEGORY = 2**63 - 1
_FINDER_TOKENS = 10
_ASINS_PER_FINDER_TOKEN = 100
_LEAST_PER_PAGE = 50
_MOST_VALUES = 50
_STANDARD_PRODUCT = 0
_LEAST_LETTERS = 3
_OFFERS_PER_PAGE = 10
_TOKENS_PER_OFFER_PAGE = 6


@dataclass(frozen=True, slots=True)
class Request:
    """One call. `body`, when set, is JSON and makes it a POST. Holds no key."""

    endpoint: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    marketplace: Marketplace | None = None
    asin_count: int = 0
    is_slow: bool = False


@dataclass(frozen=True, slots=True)
class ProductOptions:
    """What a product request asks beside the product itself.

    Attributes:
        stats_days: interval of the statistics; None leaves the statistics out. Costs nothing.
        history_days: length of the price history; None leaves the history out. Costs nothing.
        buybox: prices and sellers of the buy box as Keepa last saw them; 2 tokens. Keepa ignores it with `offers`.
        rating: history of rating and review count; at most 1 token.
        update_hours: ask Amazon again where Keepa's state is older; 0 always (1 token more), -1 never; None is Keepa's own, one hour.
        offers: fetch the first so many offers now, 20 to 100; slow, and 6 tokens per ten instead of 1 token.
    """

    stats_days: int | None = None
    history_days: int | None = None
    buybox: bool = False
    rating: bool = False
    update_hours: int | None = None
    offers: int | None = None

    def __post_init__(self) -> None:
        for name in ("stats_days", "history_days"):
            days = getattr(self, name)
            if days is not None and days < 1:
                raise RequestInvalid(f"{name} is {days}; it must be at least 1, or None")
        if self.offers is not None and not 20 <= self.offers <= 100:
            raise RequestInvalid(f"offers is {self.offers}; Keepa fetches 20 to 100")
        if self.update_hours is not None and self.update_hours < -1:
            raise RequestInvalid(f"update_hours is {self.update_hours}; it must be -1 (never), 0 (always) or more")


@dataclass(frozen=True, slots=True)
class FinderQuery:
    """Which products of a marketplace to find, the best sold first. What is given must all hold; ranges are inclusive, None is open.

    Attributes:
        root_category_id: of the whole tree.
        categories: in one of which a product is listed directly.
        words: all of which the title must hold; one with a blank is a phrase.
        brands: one of them.
        price_type: of which the range of prices is.
        per_page: ASINs an answer holds, 50 to 10,000; a token for each hundred.
    """

    marketplace: Marketplace
    root_category_id: int | None = None
    categories: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    price_type: PriceType = PriceType.NEW
    price_from_minor: int | None = None
    price_to_minor: int | None = None
    rank_from: int | None = None
    rank_to: int | None = None
    rating_from_tenths: int | None = None
    reviews_from: int | None = None
    per_page: int = 1000

    def __post_init__(self) -> None:
        if not _LEAST_PER_PAGE <= self.per_page <= MAX_FOUND:
            raise RequestInvalid(f"per_page is {self.per_page}; Keepa gives {_LEAST_PER_PAGE} to {MAX_FOUND}")
        if not self.price_type.is_price:
            raise RequestInvalid(f"{self.price_type} is no price")
        for first, last in (("price_from_minor", "price_to_minor"), ("rank_from", "rank_to")):
            least, most = getattr(self, first), getattr(self, last)
            if any(bound is not None and not 0 <= bound <= _HIGHEST for bound in (least, most)):
                raise RequestInvalid(f"{first} and {last} must be from 0 to {_HIGHEST}")
            if least is not None and most is not None and least > most:
                raise RequestInvalid(f"{last} must not be below {first}")
        if self.rating_from_tenths is not None and not 0 <= self.rating_from_tenths <= 50:
            raise RequestInvalid("rating_from_tenths must be from 0 to 50")
        if self.reviews_from is not None and not 0 <= self.reviews_from <= _HIGHEST:
            raise RequestInvalid(f"reviews_from must be from 0 to {_HIGHEST}")
        for name in ("categories", "brands"):
            if len(getattr(self, name)) > _MOST_VALUES:
                raise RequestInvalid(f"{name}: at most {_MOST_VALUES}")
        if any('"' in word or not word.strip() for word in self.words):
            raise RequestInvalid("words must not be empty or hold quotation marks")


def finder_cost_upper_bound(query: FinderQuery) -> int:
    """Tokens a page of the finder can cost at most: 10, and 1 for each begun hundred of ASINs."""
    return _FINDER_TOKENS + -(-query.per_page // _ASINS_PER_FINDER_TOKEN)


def cost_upper_bound(asin_count: int, options: ProductOptions) -> int:
    """Tokens a product request can cost at most. The answer says what it did cost.

    Keepa's documentation of the product request, October 2026: 1 a product, +2 with `buybox`, +1 with `rating`, +1 with `update=0`;
    with `offers` 6 for each page of ten in place of the 1, and `buybox` is ignored.
    """
    if options.offers is not None:
        pages = -(-options.offers // _OFFERS_PER_PAGE)
        return asin_count * (_TOKENS_PER_OFFER_PAGE * pages + options.rating)
    return asin_count * (1 + 2 * options.buybox + options.rating + (options.update_hours == 0))


def token_request() -> Request:
    """Asks for the state of the bucket; free, but the same fields come with every answer."""
    return Request("token")


def product_request(asins: Sequence[str], marketplace: Marketplace, options: ProductOptions) -> Request:
    """Asks for up to 100 products of one marketplace.

    Raises:
        RequestInvalid: no ASIN, too many, one twice, or one that is none.
    """
    if not 1 <= len(asins) <= MAX_ASINS:
        raise RequestInvalid(f"a product request takes 1 to {MAX_ASINS} ASINs, not {len(asins)}")
    for asin in asins:
        if not ASIN.fullmatch(asin):
            raise RequestInvalid(f"{asin!r} is no ASIN: ten capital letters or digits, as in the product's address")
    if len(set(asins)) != len(asins):
        raise RequestInvalid(f"asked twice in one request: {', '.join(sorted({asin for asin in asins if asins.count(asin) > 1}))}")
    parameters = {"domain": str(DOMAIN_IDS[marketplace]), "asin": ",".join(asins)}
    if options.stats_days is not None:
        parameters["stats"] = str(options.stats_days)
    if options.history_days is None:
        parameters["history"] = "0"
    else:
        parameters |= {"history": "1", "days": str(options.history_days)}
    if options.buybox:
        parameters["buybox"] = "1"
    if options.rating:
        parameters["rating"] = "1"
    if options.update_hours is not None:
        parameters["update"] = str(options.update_hours)
    if options.offers is not None:
        parameters["offers"] = str(options.offers)
    return Request("product", parameters, marketplace=marketplace, asin_count=len(asins), is_slow=options.offers is not None)


def deal_request(query: DealQuery, page: int) -> Request:
    """Asks for one page of the feed, the newest first; pages of one query are to be asked within two minutes, so long Keepa keeps it.

    Keepa looks at ranges and filters only where their switch is set. An upper price is closed by the largest there is, an upper rank by
    -1; a range of ranks leaves out products that have none.

    Raises:
        RequestInvalid: no such page, or a fall Keepa does not know.
    """
    if not 0 <= page < MOST_PAGES:
        raise RequestInvalid(f"page is {page}; Keepa gives {MOST_PAGES} of {PAGE_SIZE} deals, the first is 0")
    if query.price_type not in DEAL_PRICE_TYPES:
        raise RequestInvalid(f"{query.price_type} has no deals")
    ranges: dict[str, Any] = {}
    if query.price_from_minor is not None or query.price_to_minor is not None:
        ranges["currentRange"] = [query.price_from_minor or 0, _HIGHEST if query.price_to_minor is None else query.price_to_minor]
    if query.fall_pct_from is not None or query.fall_pct_to is not None:
        fall = [
            _LEAST_FALL_PCT if query.fall_pct_from is None else query.fall_pct_from,
            100 if query.fall_pct_to is None else query.fall_pct_to,
        ]
        if not _LEAST_FALL_PCT <= fall[0] <= fall[1] <= 100:
            raise RequestInvalid(f"Keepa knows falls from {_LEAST_FALL_PCT} to 100 percent, not from {fall[0]} to {fall[1]}")
        ranges["deltaPercentRange"] = fall
    if query.rank_from is not None or query.rank_to is not None:
        ranges["salesRankRange"] = [query.rank_from or 0, -1 if query.rank_to is None else query.rank_to]
    filters: dict[str, Any] = {}
    if query.rating_from_tenths is not None:
        filters["minRating"] = query.rating_from_tenths
    for name, values in (("includeCategories", query.categories), ("excludeCategories", query.not_categories), ("brand", query.brands)):
        if values:
            filters[name] = list(values)
    if words := " ".join(query.words).split():
        if len(words) > MOST_WORDS:
            raise RequestInvalid(f"{len(words)} words; Keepa looks for {MOST_WORDS} at most")
        filters["titleSearch"] = " ".join(words)
    for name, is_set in (
        ("isLowest", query.is_lowest),
        ("isLowest90", query.is_lowest_90),
        ("hasReviews", query.has_reviews),
        ("mustHaveAmazonOffer", query.must_have_amazon_offer),
        ("filterErotic", query.without_erotic),
        ("singleVariation", query.single_variation),
    ):
        if is_set:
            filters[name] = True
    selection = {
        "page": page,
        "domainId": DOMAIN_IDS[query.marketplace],
        "priceTypes": [_PRICE_INDEXES[query.price_type]],
        "dateRange": _DATE_RANGES[query.date_range],
        "sortType": _NEWEST_FIRST,
    }
    if ranges:
        selection["isRangeEnabled"] = True
    if filters:
        selection["isFilterEnabled"] = True
    return Request("deal", body=_json(selection | ranges | filters), marketplace=query.marketplace)


def finder_request(query: FinderQuery, page: int) -> Request:
    """Asks for one page of ASINs. Keepa does not keep the order between pages, so an ASIN may come twice or not at all.

    Raises:
        RequestInvalid: no such page, or nothing to find by.
    """
    if page < 0 or page * query.per_page > MAX_FOUND:
        raise RequestInvalid(f"page is {page}; the first is 0, and Keepa finds no more than {MAX_FOUND}")
    wished: dict[str, Any] = {
        "rootCategory": [query.root_category_id] if query.root_category_id is not None else None,
        "categories_include": list(query.categories) or None,
        "title": " ".join(f'"{word.strip()}"' if len(word.split()) > 1 else word.strip() for word in query.words) or None,
        "brand": list(query.brands) or None,
        f"current_{query.price_type}_gte": query.price_from_minor,
        f"current_{query.price_type}_lte": query.price_to_minor,
        "current_SALES_gte": query.rank_from,
        "current_SALES_lte": query.rank_to,
        "current_RATING_gte": query.rating_from_tenths,
        "current_COUNT_REVIEWS_gte": query.reviews_from,
    }
    filters = {name: value for name, value in wished.items() if value is not None}
    if not filters:
        raise RequestInvalid("nothing to find by: name a category, words, a brand or a range")
    selection = {
        **filters,
        "productType": [_STANDARD_PRODUCT],
        "sort": [["current_SALES", "asc"]],
        "page": page,
        "perPage": query.per_page,
    }
    return Request("query", {"domain": str(DOMAIN_IDS[query.marketplace])}, body=_json(selection), marketplace=query.marketplace)


def bestsellers_request(marketplace: Marketplace, category_id: int) -> Request:
    """Asks for the whole list of bestsellers of a category, the best first.

    Raises:
        RequestInvalid: no category, or a marketplace Keepa has no lists of.
    """
    _check_categories(marketplace, [category_id], most=1)
    return Request("bestsellers", {"domain": str(DOMAIN_IDS[marketplace]), "category": str(category_id)}, marketplace=marketplace)


def categories_request(marketplace: Marketplace, category_ids: Sequence[int]) -> Request:
    """Asks for up to ten categories; none at all asks for every root.

    Raises:
        RequestInvalid: too many, what is no category, or a marketplace Keepa has no categories of.
    """
    _check_categories(marketplace, category_ids, most=MAX_CATEGORIES)
    asked = ",".join(map(str, category_ids)) or "0"
    return Request("category", {"domain": str(DOMAIN_IDS[marketplace]), "category": asked, "parents": "0"}, marketplace=marketplace)


def category_search_request(marketplace: Marketplace, term: str) -> Request:
    """Asks for categories whose name holds all the words of a term, each of three letters or more.

    Raises:
        RequestInvalid: no words, one too short, or a marketplace Keepa has no categories of.
    """
    _check_categories(marketplace, [], most=0)
    words = term.split()
    if not words or any(len(word) < _LEAST_LETTERS for word in words):
        raise RequestInvalid(f"Keepa looks for categories by words of {_LEAST_LETTERS} letters and more")
    return Request("search", {"domain": str(DOMAIN_IDS[marketplace]), "type": "category", "term": " ".join(words)}, marketplace=marketplace)


def product_search_request(marketplace: Marketplace, term: str) -> Request:
    """Asks for the ASINs of what Amazon's own search finds first.

    Raises:
        RequestInvalid: no words.
    """
    words = term.split()
    if not words:
        raise RequestInvalid("nothing to search for")
    parameters = {"domain": str(DOMAIN_IDS[marketplace]), "type": "product", "term": " ".join(words), "asins-only": "1"}
    return Request("search", parameters, marketplace=marketplace)


def _check_categories(marketplace: Marketplace, category_ids: Sequence[int], *, most: int) -> None:
    if marketplace is Marketplace.BR:
        raise RequestInvalid("Keepa has no categories of BR")
    if len(category_ids) > most or len(set(category_ids)) != len(category_ids):
        raise RequestInvalid(f"a request takes {most} categories, each once, not {len(category_ids)}")
    if unknown := [category_id for category_id in category_ids if not 0 < category_id < _UNKNOWN_CATEGORY]:
        raise RequestInvalid(f"no category: {', '.join(map(str, unknown))}")


def _json(selection: Mapping[str, Any]) -> bytes:
    return json.dumps(selection, ensure_ascii=False, separators=(",", ":")).encode()
