"""The one table of endpoints: path, methods, what they cost and which fields they answer with.

Costs: Keepa API docs, one page per request; the product extras are confirmed by recorded answers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

OFFERS_PER_PAGE = 10
MINUTES_PER_DAY = 1440


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of the API.

    Attributes:
        path: Without a trailing slash; one is accepted on the wire.
        methods: HTTP methods it answers.
        base_cost: Tokens per `cost_unit`.
        cost_unit: What `base_cost` is counted per.
        payload: Fields next to the envelope in an answer that worked.
    """

    path: str
    methods: tuple[str, ...]
    base_cost: int
    cost_unit: str
    payload: tuple[str, ...]


ENDPOINTS: Mapping[str, Endpoint] = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint("/token", ("GET",), 0, "request", ()),
        Endpoint("/product", ("GET",), 1, "product", ("products",)),
        Endpoint("/deal", ("GET", "POST"), 5, "page", ("deals", "dealsCached")),
        Endpoint("/query", ("GET", "POST"), 10, "request", ("asinList", "totalResults", "searchInsights")),
        Endpoint("/bestsellers", ("GET",), 50, "list", ("bestSellersList",)),
        Endpoint("/category", ("GET",), 1, "request", ("categories", "categoryParents")),
        Endpoint("/search", ("GET",), 10, "product search", ("products", "asinList", "categories")),
    )
}

QUERY_ASINS_PER_TOKEN = 100
QUERY_STATS_EXTRA = 30
QUERY_MATCHES_PER_TOKEN = 1_000_000
CATEGORY_SEARCH_COST = 1
SEARCH_RATING_CEILING = 5
BUYBOX_EXTRA = 2
RATING_EXTRA = 1
RATING_FRESH_MINUTES = 14 * MINUTES_PER_DAY
STOCK_EXTRA = 2
STOCK_FRESH_MINUTES = 7 * MINUTES_PER_DAY
UPDATE_EXTRA = 1
UPDATE_FRESH_MINUTES = 60
HISTORICAL_VARIATIONS_EXTRA = 1
OFFERS_PAGE_COST = 6
OFFERS_FLOOR = 5
OFFERS_FAILED_COST = 1


def count_query_cost(*, returned: int, matched: int, stats: bool) -> int:
    """Returns the tokens a `/query` costs. What is counted per hundred or per million counts when begun."""
    cost = ENDPOINTS["/query"].base_cost + math.ceil(returned / QUERY_ASINS_PER_TOKEN)
    return cost + (QUERY_STATS_EXTRA + math.ceil(matched / QUERY_MATCHES_PER_TOKEN) if stats else 0)


@dataclass(frozen=True, slots=True)
class ProductFacts:
    """What the price of one product in a `/product` request depends on.

    Attributes:
        age_minutes: Age of our data before the request; None means there were none.
        rating_age_minutes: Age of the rating data.
        stock_age_minutes: Age of the stock data.
        has_parent: Whether the product is a variation.
        offers_fetched: Offers a fetch found; None means that recent offers data were used instead.
    """

    age_minutes: int | None
    rating_age_minutes: int
    stock_age_minutes: int
    has_parent: bool
    offers_fetched: int | None


def count_product_cost(
    facts: ProductFacts, *, offers: int | None, buybox: bool, rating: bool, stock: bool, update_hours: float, historical_variations: bool
) -> int:
    """Returns the tokens one product of a `/product` request costs.

    `stats`, `history`, `days`, `videos`, `aplus` and `only-live-offers` add nothing. `offers` replaces the base cost and makes
    `buybox` moot.
    """
    cost = ENDPOINTS["/product"].base_cost
    if offers is not None:
        if facts.offers_fetched is None:
            cost = OFFERS_FLOOR
        elif facts.offers_fetched == 0:
            cost = OFFERS_FAILED_COST
        else:
            cost = max(OFFERS_FLOOR, OFFERS_PAGE_COST * math.ceil(facts.offers_fetched / OFFERS_PER_PAGE))
        if stock and facts.stock_age_minutes < STOCK_FRESH_MINUTES:
            cost += STOCK_EXTRA
    else:
        if buybox:
            cost += BUYBOX_EXTRA
        if update_hours == 0 and facts.age_minutes is not None and facts.age_minutes < UPDATE_FRESH_MINUTES:
            cost += UPDATE_EXTRA
    if rating and facts.rating_age_minutes < RATING_FRESH_MINUTES:
        cost += RATING_EXTRA
    if historical_variations and facts.has_parent:
        cost += HISTORICAL_VARIATIONS_EXTRA
    return cost
