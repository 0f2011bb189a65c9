"""Deals: search in PostgreSQL and in Elasticsearch, counts, one of them, and one that is posted."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, status
from fastapi.responses import Response
from pydantic import AfterValidator, AwareDatetime, Field, StrictBool, StringConstraints
from sqlalchemy import Connection
from starlette.convertors import Convertor, register_url_convertor

from api.access import Admin, Reader
from api.conditional import answer
from api.live import House, Live
from api.once import OnceOnly
from api.problems import problems
from api.query import LEFT_OUT
from api.schemas import NO_TEXT, Amount, Answer, Body, Store, in_whole_units
from keeper.audit import Action, note
from keeper.collect import collect
from keeper.domain.deal import DEAL_PRICE_TYPES, DealInvalid, DealSighting, DealSource
from keeper.domain.events import deal_id_of
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_series import minute_of, time_of
from keeper.domain.price_type import PriceType
from keeper.domain.search import (
    LARGEST_COUNT,
    LARGEST_PAGE,
    LONGEST_TEXT,
    MOST_CHOICES,
    MOST_SUGGESTIONS,
    SearchHit,
    SearchPage,
    SearchQuery,
    SearchSort,
    SearchSubject,
)
from keeper.find import Searcher, find, suggest
from keeper.postgres import deal_filters, deal_totals, installation
from keeper.postgres.deal_filters import DealKey, FoundDeal
from keeper.postgres.deal_totals import DealTotal
from keeper.postgres.search import PostgresSearcher
from keeper.search.connection import SearchNotConfigured

router = APIRouter(tags=["deals"])

_DEAL_ID = r"[A-Z0-9]{10}-[A-Z]{2}-[A-Z_]{3,40}-[0-9]{1,10}"
_LATEST_SIGHTINGS = 100
_TOP_DISCOUNTS = 10
# The earliest price Keepa can know of.
_EARLIEST_MINUTE = 21_564_000
_NEXT_MINUTE = timedelta(minutes=1)
_HOSTS = {marketplace.value: marketplace.host for marketplace in Marketplace}


class _DealConvertor(Convertor[str]):
    """`{deal_id:deal}`: the id of a deal, which is no other word of a path."""

    regex = _DEAL_ID

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("deal", _DealConvertor())


def _has_deals(price_type: PriceType) -> PriceType:
    if price_type not in DEAL_PRICE_TYPES:
        raise ValueError(f"has no deals; choose one of {', '.join(DEAL_PRICE_TYPES)}")
    return price_type


# A NUL is no character of a text.
Words = Annotated[str, StringConstraints(max_length=LONGEST_TEXT, pattern=r"^[^\x00]*$")]
Choices = Annotated[list[Words], Field(max_length=MOST_CHOICES)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), NO_TEXT]
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT), NO_TEXT]
Stars = Annotated[float, Field(ge=0, le=5, allow_inf_nan=False), NO_TEXT]
DealType = Annotated[PriceType, AfterValidator(_has_deals), Field(json_schema_extra={"enum": [one.value for one in DEAL_PRICE_TYPES]})]


class DealSearch(Body):
    """What is asked for. All conditions hold at once, within a list any one does."""

    text: Words = Field("", description='Words that must all be there; a phrase in "quotes"', examples=["cherry tastatur"])
    marketplace: Marketplace = Field(Marketplace.DE, description="The Amazon store")
    price_from: Amount | None = None
    price_to: Amount | None = None
    discount_from: Percent | None = Field(None, description="Percent of the list price")
    discount_to: Percent | None = Field(None, description="Percent of the list price")
    below_median_from: Percent | None = Field(None, description="Percent below the median price of 90 days")
    rating_from: Stars | None = Field(None, description="Stars")
    reviews_from: Count | None = Field(None, description="How many rated it at least")
    rank_to: Count | None = Field(None, description="The sales rank it may have at most")
    score_from: Percent | None = Field(None, description="The least quality score, 0 to 100")
    brands: Choices = Field([], description="Exact but for case")
    categories: Choices = Field([], description="The deal's category")
    price_type: DealType | None = Field(None, description="Which price fell; null: any")
    layouts: Choices = Field([], description="As the product group names them", examples=[["qwertz"]])
    group: Words | None = Field(None, description="A product group", examples=["keyboards"])
    includes_ended: StrictBool = Field(False, description="Deals that are over, too")
    includes_glitches: StrictBool = Field(False, description="Deals whose price may be a mistake, of which nobody is told yet, too")
    sort: SearchSort = SearchSort.RELEVANCE
    facets: StrictBool = Field(False, description="Count hits by brand, category, store, price and discount, too")
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE), NO_TEXT] = Field(20, description="Hits on a page")
    cursor: Annotated[str, StringConstraints(max_length=1000)] | None = Field(None, description="From `next_cursor` of the page before")

    def query(self) -> SearchQuery:
        """The same for those who search.

        Raises:
            SearchInvalid: see there.
        """
        return SearchQuery(
            SearchSubject.DEALS,
            self.text,
            self.marketplace,
            in_minor_units(self.price_from, self.marketplace.currency),
            in_minor_units(self.price_to, self.marketplace.currency),
            self.discount_from,
            self.rating_from,
            tuple(self.brands),
            tuple(self.categories),
            self.price_type,
            self.includes_ended,
            self.sort,
            self.facets,
            self.limit,
            self.cursor,
            discount_to_pct=self.discount_to,
            below_median_from_pct=self.below_median_from,
            reviews_from=self.reviews_from,
            rank_to=self.rank_to,
            score_from=self.score_from,
            layouts=tuple(self.layouts),
            group=self.group,
            includes_glitches=self.includes_glitches,
        )


class DealHit(Answer):
    """A deal as a search shows it."""

    deal_id: str
    asin: str
    marketplace: Marketplace
    price_type: PriceType
    title: str | None
    brand: str | None
    category: str | None
    price: float | None = Field(description="In whole units")
    price_minor: int | None
    list_price: float | None
    currency: str
    discount_pct: float | None = Field(description="Of the list price")
    median_90: float | None = Field(description="The median price of 90 days")
    below_median_pct: float | None = Field(description="How far the price is below it; below 0 it is above")
    lowest_year: float | None = Field(description="The least it cost within a year before")
    is_year_low: bool | None
    is_all_time_low: bool | None
    is_list_price_fiction: bool | None = Field(description="It was never sold near its list price")
    is_glitch: bool | None = Field(description="The price may be a mistake; nobody is told of it before it was seen twice")
    score: float | None = Field(description="How good the deal is, 0 to 100")
    rating: float | None = Field(description="Stars, 0 to 5")
    review_count: int | None
    sales_rank: int | None
    layout: str | None
    group: str | None
    image_url: str | None
    link: str = Field(description="Its page at Amazon")
    since: datetime = Field(description="When the price became this")
    ended_at: datetime | None


class Tally(Answer):
    """Hits with one value."""

    value: str
    hits: int


class DealPage(Answer):
    """One page of hits."""

    deals: list[DealHit]
    total: int | None = Field(description="All hits, 1,000 meaning so many or more; null on later pages")
    alike: list[str] = Field(description="Words nothing has, for which similar ones were taken")
    facets: dict[str, list[Tally]] = Field(description="Hits by value, where `facets` was asked for")
    next_cursor: str | None = Field(description="Send the same body with it as `cursor` for the next page; null on the last one")


class DealTitles(Answer):
    """Titles for what somebody has begun to type."""

    titles: list[str]


class Sighting(Answer):
    """A deal was seen."""

    seen_at: datetime
    query: str | None = Field(description="The query of the feed, or the file of seeds")
    sales_rank: int | None


class DealShown(Answer):
    """A deal as it stands."""

    deal_id: str
    asin: str
    marketplace: Marketplace
    price_type: PriceType
    title: str | None
    brand: str | None
    category: str | None
    price: float
    price_minor: int
    previous_price: float | None
    list_price: float | None
    currency: str
    discount_pct: float | None
    median_90: float | None
    average_90: float | None
    below_median_pct: float | None
    lowest_year: float | None
    lowest_ever: float | None
    highest_year: float | None
    is_year_low: bool | None
    is_all_time_low: bool | None
    is_list_price_fiction: bool | None
    is_glitch: bool
    score: float | None
    rating: float | None
    review_count: int | None
    sales_rank: int | None
    prime_eligible: bool | None
    layout: str | None
    group: str | None
    image_url: str | None
    link: str
    since: datetime
    first_seen_at: datetime
    last_seen_at: datetime
    announced_at: datetime | None = Field(description="Since when people are told of it; null while it may be a mistake")
    ended_at: datetime | None


class OneDeal(DealShown):
    """A deal with all that is known of it."""

    score_parts: dict[str, float | None] = Field(description="What the score is the sum of; null: not known")
    source: str = Field(description="`feed`, `seeds` or `posted`")
    sightings: int = Field(description="How often it was seen with a later look of Keepa's")
    seen: list[Sighting] = Field(description="The last 100 times it was seen, the latest first")
    revision: int


class Aggregate(Answer):
    """The running deals of one value."""

    value: str
    count: int
    currency: str
    average_price: float | None
    median_price: float | None
    largest_discount_pct: float | None


class Aggregations(Answer):
    """Running deals counted."""

    by_brand: list[Aggregate]
    by_category: list[Aggregate]
    by_marketplace: list[Aggregate] = Field(description="Of all stores, each in its currency")
    by_discount: list[Aggregate] = Field(description="In bands such as `25-50`, the upper end outside")
    top_discounts: list[DealHit]


class PostedDeal(Body):
    """A deal that somebody knows of."""

    asin: Annotated[str, Field(pattern=r"^[A-Z0-9]{10}$", examples=["B00OCMRV40"])]
    marketplace: Marketplace = Marketplace.DE
    price_type: DealType = PriceType.NEW
    price: Amount
    list_price: Amount | None = None
    previous_price: Amount | None = None
    title: Annotated[Words, Field(min_length=1)] | None = None
    brand: Annotated[Words, Field(min_length=1)] | None = None
    category: Annotated[Words, Field(min_length=1)] | None = None
    image_url: Annotated[str, StringConstraints(max_length=1000, pattern=r"^https://[!-~]+$")] | None = None
    rating: Stars | None = None
    review_count: Count | None = None
    sales_rank: Annotated[int, Field(ge=1, le=LARGEST_COUNT), NO_TEXT] | None = None
    since: AwareDatetime | None = Field(None, description="When the price became this, to the minute; null: now")

    def sighting(self, now: datetime) -> DealSighting:
        """As a source tells of one.

        Raises:
            DealInvalid: see there.
        """
        changed_minute = minute_of(self.since or now)
        if not _EARLIEST_MINUTE <= changed_minute <= minute_of(now + _NEXT_MINUTE):
            raise DealInvalid(f"since: must be from {time_of(_EARLIEST_MINUTE):%Y-%m-%d} to now, not {self.since}")
        currency = self.marketplace.currency
        amount_minor = in_minor_units(self.price, currency)
        assert amount_minor is not None  # noqa: S101  the price is required
        return DealSighting(
            self.asin,
            self.marketplace,
            self.price_type,
            changed_minute,
            minute_of(now),
            amount_minor,
            title=self.title,
            brand=self.brand,
            image_url=self.image_url,
            category=self.category,
            list_price_minor=in_minor_units(self.list_price, currency),
            previous_minor=in_minor_units(self.previous_price, currency),
            rating_tenths=None if self.rating is None else round(self.rating * 10),
            review_count=self.review_count,
            sales_rank=self.sales_rank,
            current={self.price_type: amount_minor},
            current_since={self.price_type: changed_minute},
        )


class TakenDeal(Answer):
    """What became of a posted deal."""

    deal_id: str
    is_new: bool = Field(description="False: it was known")
    is_announced: bool = Field(
        description="People are told of it from now on; false: they were, or it may be a mistake until it is seen twice"
    )


def in_minor_units(amount: Decimal | None, currency: str) -> int | None:
    """Of an amount in whole units.

    Raises:
        AmountInvalid: it has more decimals than its currency.
    """
    return None if amount is None else Money.parse(str(amount), currency).amount_minor


@router.post("/deals/search", responses=problems(body=True))
def search_deals(body: DealSearch, _: Reader, live: House) -> DealPage:
    """Find deals by words and by what is known of their worth; in PostgreSQL."""
    with _postgres(live) as searcher:
        return _page(find(searcher, body.query()))


@router.post("/deals/es-search", responses=problems(body=True))
def search_deals_in_elasticsearch(body: DealSearch, _: Reader, live: House) -> DealPage:
    """The same in Elasticsearch; 503 where there is none or it does not answer, and then `deals/search` does."""
    query = body.query()
    if not live.settings.elasticsearch.url:
        raise SearchNotConfigured("KEEPER_ELASTICSEARCH_URL is not set, so there is no Elasticsearch to ask")
    with live.place(live.waits), live.resources.searcher() as searcher:
        return _page(find(searcher, query))


@router.get("/deals/aggregations", responses=problems(), response_model=Aggregations)
def aggregate_deals(
    _: Reader,
    live: House,
    request: Request,
    marketplace: Store = Marketplace.DE,
    days: Annotated[int, Query(ge=1, le=365, description="Deals whose price changed within so many days")] = 30,
    group: Annotated[Words | None, LEFT_OUT, Query(description="Of this product group only")] = None,
    includes_glitches: Annotated[bool, Query(description="Deals whose price may be a mistake, of which nobody is told yet, too")] = False,
) -> Response:
    """Running deals by brand, category, store and discount, with their average and median prices, and the largest discounts."""
    with live.begin() as connection:
        since = installation.select_now(connection) - timedelta(days=days)
        totals = deal_totals.select_totals(connection, marketplace, since=since, group=group, includes_glitches=includes_glitches)
        query = SearchQuery(
            SearchSubject.DEALS,
            marketplace=marketplace,
            group=group,
            sort=SearchSort.DISCOUNT,
            limit=_TOP_DISCOUNTS,
            includes_glitches=includes_glitches,
        )
        top = find(PostgresSearcher(connection), query).hits
    return answer(
        request,
        Aggregations(
            by_brand=[_total(one) for one in totals["brand"]],
            by_category=[_total(one) for one in totals["category"]],
            by_marketplace=[_total(one) for one in totals["marketplace"]],
            by_discount=[_total(one) for one in totals["discount"]],
            top_discounts=[_hit(one) for one in top if one.discount_pct is not None],
        ),
    )


@router.get("/deals/suggest", responses=problems())
def suggest_deals(
    _: Reader,
    live: House,
    text: Annotated[Words, Query(description="What has been typed; less than two letters suggest nothing")],
    marketplace: Store = Marketplace.DE,
    limit: Annotated[int, Query(ge=1, le=MOST_SUGGESTIONS)] = 10,
) -> DealTitles:
    """Titles of running deals in which every word begins a word."""
    with _postgres(live) as searcher:
        return DealTitles(titles=list(suggest(searcher, SearchSubject.DEALS, text, marketplace=marketplace, limit=limit)))


@router.post("/deals/index", status_code=status.HTTP_201_CREATED, responses=problems(409, body=True), response_model=TakenDeal)
def index_deal(body: PostedDeal, caller: Admin, live: House, once: OnceOnly) -> TakenDeal | Response:
    """Tell Keeper of a deal. It is judged, kept and published as those that Keepa tells of, so a key of scope `admin` is needed."""
    groups = live.resources.product_groups()

    def effect(connection: Connection) -> TakenDeal:
        now = installation.select_now(connection)
        sighting = body.sighting(now)
        done = collect(
            connection,
            [sighting],
            now=now,
            source=DealSource.POSTED,
            groups=groups,
            only_groups=False,
            instant_per_hour=live.settings.reports.instant_per_hour,
        )
        changed_second = sighting.changed_minute * 60
        deal_id = deal_id_of(sighting.asin, sighting.marketplace.value, sighting.price_type.value, changed_second)
        if not done.kept:
            raise DealInvalid(f"a later price of {sighting.asin} in {sighting.marketplace} ({sighting.price_type}) is known")
        note(connection, caller.actor, Action.DEAL_POST, deal_id)
        return TakenDeal(deal_id=deal_id, is_new=done.added > 0, is_announced=bool(done.announced))

    taken = once.change(effect, status=status.HTTP_201_CREATED)
    live.relay_soon()
    return taken


@router.get("/deals/{deal_id:deal}", responses=problems(404), response_model=OneDeal)
def get_deal(
    deal_id: Annotated[str, Path(pattern=f"^{_DEAL_ID}$", examples=["B00OCMRV40-DE-NEW-1795173360"])],
    _: Reader,
    live: House,
    request: Request,
) -> Response:
    """One deal: its price among those of 90 days and a year, what its score is made of, and when it was seen."""
    asin, marketplace, price_type, changed_second = deal_id.split("-")
    key = DealKey(asin, marketplace, price_type, time_of(0) + timedelta(seconds=int(changed_second)))
    with live.begin() as connection:
        deal = deal_filters.find_deal(connection, key)
        seen = deal_filters.select_sightings(connection, key, limit=_LATEST_SIGHTINGS)
    return answer(
        request,
        OneDeal(
            **deal_fields(deal),
            score_parts=deal.score_parts or {},
            source=deal.source,
            sightings=deal.sightings,
            seen=[Sighting(seen_at=seen_at, query=query, sales_rank=sales_rank) for seen_at, query, sales_rank in seen],
            revision=deal.revision,
        ),
    )


def deal_fields(deal: FoundDeal) -> dict[str, Any]:
    """Of a DealShown."""

    def whole(amount_minor: int | None) -> float | None:
        return in_whole_units(amount_minor, deal.currency)

    return {
        "deal_id": deal.deal_id,
        "asin": deal.asin,
        "marketplace": deal.marketplace,
        "price_type": deal.price_type,
        "title": deal.title,
        "brand": deal.brand,
        "category": deal.category,
        "price": whole(deal.amount_minor),
        "price_minor": deal.amount_minor,
        "previous_price": whole(deal.previous_minor),
        "list_price": whole(deal.list_price_minor),
        "currency": deal.currency,
        "discount_pct": deal.discount_pct,
        "median_90": whole(deal.median_90_minor),
        "average_90": whole(deal.average_90_minor),
        "below_median_pct": deal.below_median_pct,
        "lowest_year": whole(deal.lowest_year_minor),
        "lowest_ever": whole(deal.lowest_ever_minor),
        "highest_year": whole(deal.highest_year_minor),
        "is_year_low": deal.is_year_low,
        "is_all_time_low": deal.is_all_time_low,
        "is_list_price_fiction": deal.is_list_price_fiction,
        "is_glitch": deal.is_glitch,
        "score": deal.deal_score,
        "rating": None if deal.rating_tenths is None else deal.rating_tenths / 10,
        "review_count": deal.review_count,
        "sales_rank": deal.sales_rank,
        "prime_eligible": deal.prime_eligible,
        "layout": deal.layout,
        "group": deal.product_group,
        "image_url": deal.image_url,
        "link": link_of(deal),
        "since": deal.changed_at,
        "first_seen_at": deal.first_seen_at,
        "last_seen_at": deal.last_seen_at,
        "announced_at": deal.announced_at,
        "ended_at": deal.ended_at,
    }


def link_of(deal: FoundDeal) -> str:
    """The product's page at Amazon."""
    return f"https://{_HOSTS[deal.marketplace]}/dp/{deal.asin}"


@contextmanager
def _postgres(live: Live) -> Iterator[Searcher]:
    with live.begin() as connection:
        yield PostgresSearcher(connection)


def _page(page: SearchPage) -> DealPage:
    return DealPage(
        deals=[_hit(hit) for hit in page.hits],
        total=page.total,
        alike=list(page.alike),
        facets={facet.name.value: [Tally(value=one.value, hits=one.hits) for one in facet.counts] for facet in page.facets},
        next_cursor=page.next_cursor,
    )


def _hit(hit: SearchHit) -> DealHit:
    assert hit.deal_id is not None and hit.price_type is not None and hit.changed_at is not None  # noqa: S101  it is a deal
    return DealHit(
        deal_id=hit.deal_id,
        asin=hit.asin,
        marketplace=hit.marketplace,
        price_type=hit.price_type,
        title=hit.title,
        brand=hit.brand,
        category=hit.category,
        price=_whole(hit.price),
        price_minor=hit.price.amount_minor if hit.price else None,
        list_price=_whole(hit.list_price),
        currency=hit.marketplace.currency,
        discount_pct=hit.discount_pct,
        median_90=_whole(hit.median_90),
        below_median_pct=hit.below_median_pct,
        lowest_year=_whole(hit.lowest_year),
        is_year_low=hit.is_year_low,
        is_all_time_low=hit.is_all_time_low,
        is_list_price_fiction=hit.is_list_price_fiction,
        is_glitch=hit.is_glitch,
        score=hit.score,
        rating=hit.rating,
        review_count=hit.review_count,
        sales_rank=hit.sales_rank,
        layout=hit.layout,
        group=hit.group,
        image_url=hit.image_url,
        link=f"https://{hit.marketplace.host}/dp/{hit.asin}",
        since=hit.changed_at,
        ended_at=hit.ended_at,
    )


def _whole(money: Money | None) -> float | None:
    return in_whole_units(money.amount_minor, money.currency) if money else None


def _total(one: DealTotal) -> Aggregate:
    return Aggregate(
        value=one.value,
        count=one.deals,
        currency=one.currency,
        average_price=in_whole_units(one.average_minor, one.currency),
        median_price=in_whole_units(one.median_minor, one.currency),
        largest_discount_pct=one.largest_discount_pct,
    )
