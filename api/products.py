"""Search."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field

from api.access import Reader
from api.live import House, Live
from api.paging import following
from api.problems import problems
from api.schemas import Answer, AskedAmount, Store, in_whole_units
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money, minor_digits
from keeper.domain.search import (
    LARGEST_PAGE,
    LONGEST_TEXT,
    MOST_CHOICES,
    MOST_SUGGESTIONS,
    SearchHit,
    SearchQuery,
    SearchSort,
    SearchSubject,
)
from keeper.find import Searcher, find, suggest

router = APIRouter(tags=["products"])

# A NUL is no character of a text.
_TEXT = r"^[^\x00]*$"

Text = Annotated[
    str,
    Query(
        max_length=LONGEST_TEXT,
        pattern=_TEXT,
        description='Words that must all be there; a phrase in "quotes"',
        examples=["cherry tastatur"],
    ),
]
Choices = Annotated[list[Annotated[str, Field(max_length=LONGEST_TEXT, pattern=_TEXT)]], Query(max_length=MOST_CHOICES)]
PriceBound = Annotated[AskedAmount | None, Query()]


class ProductHit(Answer):
    """A product in one store."""

    asin: str
    marketplace: Marketplace
    title: str | None
    brand: str | None
    category: str | None
    price: float | None = Field(description="The current one, in whole units; null: no offer")
    price_minor: int | None
    list_price: float | None
    currency: str
    discount_pct: float | None = Field(description="Of the list price")
    rating: float | None = Field(description="Stars, 0 to 5")
    review_count: int | None
    sales_rank: int | None
    image_url: str | None
    link: str = Field(description="Its page at Amazon")
    first_seen_at: datetime | None
    last_seen_at: datetime | None


class Count(Answer):
    """Hits with one value."""

    value: str
    hits: int


class ProductPage(Answer):
    """One page of hits."""

    products: list[ProductHit]
    total: int | None = Field(description="All hits, 1,000 meaning so many or more; null on later pages")
    alike: list[str] = Field(description="Words nothing has, for which similar ones were taken")
    facets: dict[str, list[Count]] = Field(description="Hits by value, where `facets` was asked for")
    next: str | None


class Suggestions(Answer):
    """Titles for what somebody has begun to type."""

    titles: list[str]


class ProductSort(StrEnum):
    """The order of products: a SearchSort, but for the score, which only deals have."""

    RELEVANCE = SearchSort.RELEVANCE.value
    PRICE_ASCENDING = SearchSort.PRICE_ASCENDING.value
    PRICE_DESCENDING = SearchSort.PRICE_DESCENDING.value
    DISCOUNT = SearchSort.DISCOUNT.value
    RATING = SearchSort.RATING.value
    NEWEST = SearchSort.NEWEST.value


@contextmanager
def _searcher(live: Live) -> Iterator[Searcher]:
    """Elasticsearch is waited for in one of the places for that; PostgreSQL ends a slow query by itself."""
    with ExitStack() as stack:
        if live.settings.elasticsearch.url:
            stack.enter_context(live.place(live.waits))
        yield stack.enter_context(live.resources.searcher())


def _minor(amount: Decimal | None, marketplace: Marketplace) -> int | None:
    return None if amount is None else int(amount.scaleb(minor_digits(marketplace.currency)))


def _shown(hit: SearchHit) -> ProductHit:
    price, list_price = hit.price, hit.list_price
    return ProductHit(
        asin=hit.asin,
        marketplace=hit.marketplace,
        title=hit.title,
        brand=hit.brand,
        category=hit.category,
        price=_whole(price),
        price_minor=price.amount_minor if price else None,
        list_price=_whole(list_price),
        currency=hit.marketplace.currency,
        discount_pct=hit.discount_pct,
        rating=hit.rating,
        review_count=hit.review_count,
        sales_rank=hit.sales_rank,
        image_url=hit.image_url,
        link=f"https://{hit.marketplace.host}/dp/{hit.asin}",
        first_seen_at=hit.seen_from,
        last_seen_at=hit.seen_until,
    )


def _whole(money: Money | None) -> float | None:
    return in_whole_units(money.amount_minor, money.currency) if money else None


@router.get("/products/search", responses=problems())
def search_products(
    _: Reader,
    live: House,
    request: Request,
    text: Text = "",
    marketplace: Store = Marketplace.DE,
    price_from: PriceBound = None,
    price_to: PriceBound = None,
    discount_from: Annotated[float | None, Query(ge=0, le=100, allow_inf_nan=False, description="Percent of the list price")] = None,
    rating_from: Annotated[float | None, Query(ge=0, le=5, allow_inf_nan=False, description="Stars")] = None,
    brand: Choices = [],  # noqa: B006  FastAPI copies it
    category: Choices = [],  # noqa: B006
    sort: ProductSort = ProductSort.RELEVANCE,
    facets: Annotated[bool, Query(description="Count hits by brand, category, store, price and discount, too")] = False,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Hits on a page")] = 20,
    cursor: Annotated[str | None, Query(max_length=1000, description="From `next` of the page before")] = None,
) -> ProductPage:
    """Find products by words, price, discount, rating, brand and category; in Elasticsearch where there is one, else in PostgreSQL."""
    query = SearchQuery(
        SearchSubject.PRODUCTS,
        text,
        marketplace,
        _minor(price_from, marketplace),
        _minor(price_to, marketplace),
        discount_from,
        rating_from,
        tuple(brand),
        tuple(category),
        sort=SearchSort(sort.value),
        has_facets=facets,
        limit=limit,
        cursor=cursor,
    )
    with _searcher(live) as searcher:
        page = find(searcher, query)
    return ProductPage(
        products=[_shown(hit) for hit in page.hits],
        total=page.total,
        alike=list(page.alike),
        facets={facet.name.value: [Count(value=one.value, hits=one.hits) for one in facet.counts] for facet in page.facets},
        next=following(request, page.next_cursor) if page.next_cursor else None,
    )


@router.get("/products/suggest", responses=problems())
def suggest_products(
    _: Reader,
    live: House,
    text: Annotated[
        str,
        Query(max_length=LONGEST_TEXT, pattern=_TEXT, description="What has been typed; less than two letters suggest nothing"),
    ],
    marketplace: Store = Marketplace.DE,
    limit: Annotated[int, Query(ge=1, le=MOST_SUGGESTIONS)] = 10,
) -> Suggestions:
    """Titles in which every word begins a word."""
    with _searcher(live) as searcher:
        return Suggestions(titles=list(suggest(searcher, SearchSubject.PRODUCTS, text, marketplace=marketplace, limit=limit)))
