"""The catalog as a reseller sees it: products over all stores, one of them with its opportunities, and what there is in all."""

from collections import defaultdict
from datetime import date, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import Connection
from starlette.convertors import Convertor, register_url_convertor

from api.access import Reader
from api.comparison import answer_of_comparison
from api.live import House
from api.opportunities import Opportunity, Seller, own_of, shown
from api.paging import CursorInvalid, following
from api.problems import problems
from api.query import LEFT_OUT
from api.schemas import Answer, Asin
from keeper.domain.exchange import EURO
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity import FoundOpportunity
from keeper.domain.price_type import PriceType
from keeper.domain.seller_offer import SellerOffer
from keeper.opportunities import Own, find_best, recompute
from keeper.postgres import installation
from keeper.postgres.catalog import MarketRow, ProductRow, select_markets, select_products
from keeper.postgres.exchange_rates import select_rates
from keeper.postgres.history import ProductUnknown
from keeper.postgres.offers import OffersSeen, select_offers
from keeper.postgres.opportunities import Generation, select_of_products, select_totals

router = APIRouter(tags=["arbitrage"])

_LARGEST_PAGE = 200
_ASIN = r"[A-Z0-9]{10}"


class _AsinConvertor(Convertor[str]):
    """`{asin:asin}`: an ASIN, which is no other word of a path, such as `search`."""

    regex = _ASIN

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("asin", _AsinConvertor())


class ProductShort(Answer):
    """A product over all stores, in short."""

    asin: str
    title: str | None
    brand: str | None
    image_url: str | None
    category: str | None = Field(description="Of the store's own tree")
    current_prices: dict[str, int] = Field(description="By store, smallest units of its currency", examples=[{"DE": 4999, "IT": 5499}])
    sales_rank: int | None
    rating: float | None = Field(description="Stars, 0 to 5")
    review_count: int | None
    first_seen_at: datetime
    last_updated_at: datetime
    best_opportunity: Opportunity | None


class ProductShorts(Answer):
    """A page of products, by ASIN."""

    products: list[ProductShort]
    next: str | None = Field(description="Path and query of the next page; null on the last one")
    seller: Seller = Field(description="Whose profit the opportunities tell")


class SellerShown(Answer):
    """Who sells it: the id, which is all that Keeper knows of a seller."""

    seller_id: str = Field(examples=["A3P5ROKL5A1OLE"])
    price: int | None = Field(description="With shipping, smallest units; null: had the buy box, and offers it no more")
    is_amazon: bool | None
    is_fba: bool | None = Field(description="Amazon stores and sends it")
    buy_box_pct: float | None = Field(description="Share of the year in which it had the buy box")


class Market(Answer):
    """A product in one store."""

    title: str | None
    price: int | None = Field(description="In the smallest units of the currency; null: no offer")
    currency: str
    price_type: str | None = Field(description="Which price it is: the kind that is compared, or another where there is no such one")
    checked_at: datetime = Field(description="When the price was last looked at")
    sales_rank: int | None
    sales_rank_drops_30: int | None = Field(description="Times the rank fell within 30 days, which many read as sales")
    rating: float | None = Field(description="Stars, 0 to 5")
    review_count: int | None
    monthly_sold: int | None
    offer_count: int | None = Field(description="Sellers of new goods")
    buy_box_is_amazon: bool | None
    buy_box_is_fba: bool | None
    is_hazardous: bool | None
    is_heat_sensitive: bool | None
    return_rate: str | None = Field(description="`low` or `high`, as Keepa tells it")
    coupon_minor: int | None
    coupon_pct: int | None
    lightning_ends_at: datetime | None
    fba_fee_minor: int | None = Field(description="Amazon's fee for storing and sending one piece")
    package_weight_g: int | None
    lowest_year_minor: int | None = Field(description="The least this price was within a year")
    sellers_checked_at: datetime | None = Field(description="When sellers were last asked for; null: never, they cost more than a price")
    sellers: list[SellerShown] = Field(description="Of new goods, the cheapest first")
    link: str


class ProductPage(Answer):
    """A product in all its stores."""

    asin: str
    title: str | None
    brand: str | None
    category: str | None
    image_url: str | None
    markets: dict[str, Market] = Field(description="By store")
    best_opportunity: Opportunity | None
    opportunities: list[Opportunity] = Field(description="All that are there, the doubtful too")
    seller: Seller = Field(description="Whose profit the opportunities tell")


class OpportunityCounts(Answer):
    """How many there are now."""

    open: int
    profitable: int = Field(description="Surely the same article, and a profit above 0")
    doubtful: int = Field(description="Both listings may not be the same article")
    unknown: int = Field(description="A part of the profit is not known")


class LaneTotal(Answer):
    """One lane."""

    source_market: Marketplace
    target_market: Marketplace
    count: int
    median_margin_percentage: float


class Rate(Answer):
    """An exchange rate that is used."""

    currency: str
    per_euro: float | None = Field(description="Null: none is known")
    quoted_on: date | None
    age_days: int | None
    is_stale: bool


class Stats(Answer):
    """What there is in all; profits are those of the default seller."""

    products: int
    markets: int
    opportunities: OpportunityCounts
    best_margin_percentage: float | None
    best_profit_minor: int | None = Field(description="Euro cents")
    by_pair: list[LaneTotal] = Field(description="Without the doubtful; the largest lane first")
    comparison: int | None = Field(description="Number of the comparison this is of; null before the first")
    compared_at: datetime | None
    rates: list[Rate]


@router.get("/products", responses=problems(), response_model=ProductShorts)
def list_products(
    caller: Reader,
    live: House,
    request: Request,
    limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE, description="Products on a page")] = 50,
    cursor: Annotated[str | None, LEFT_OUT, Query(max_length=100, description="From `next` of the page before")] = None,
) -> Response:
    """All products by ASIN, each with its price in every store and its best opportunity; `products/search` finds some by words."""
    if cursor is not None and not (len(cursor) == 10 and cursor.isascii() and cursor.isalnum() and cursor.upper() == cursor):
        raise CursorInvalid("cursor: not one that Keeper gave")

    def compose(connection: Connection, generation: Generation) -> ProductShorts:
        own = own_of(live, connection, caller, generation)
        rows = select_products(connection, after=cursor or "", limit=limit, price_type=PriceType(live.settings.arbitrage.price_type))
        found = defaultdict(list)
        for one in _seen(select_of_products(connection, [row.asin for row in rows]), own):
            found[one.opportunity.asin].append(one)
        return ProductShorts(
            products=[_short(row, find_best(found[row.asin])) for row in rows],
            next=following(request, rows[-1].asin) if len(rows) == limit else None,
            seller=Seller.DEFAULT if own is None else Seller.OWN,
        )

    return answer_of_comparison(request, live, caller, compose)


@router.get("/products/{asin:asin}", responses=problems(404), response_model=ProductPage)
def get_product(asin: Asin, caller: Reader, live: House, request: Request) -> Response:
    """One product: its price and standing in every store, and what can be earned with it."""

    def compose(connection: Connection, generation: Generation) -> ProductPage:
        own = own_of(live, connection, caller, generation)
        now = installation.select_now(connection)
        rows = select_markets(connection, asin, price_type=PriceType(live.settings.arbitrage.price_type), now=now)
        if not rows:
            raise ProductUnknown(f"{asin} is not known in any store")
        found = sorted(_seen(select_of_products(connection, [asin]), own), key=lambda one: -one.opportunity.margin_minor)
        best = find_best(found)
        sellers = {one.marketplace: one for one in select_offers(connection, asin)}
        return ProductPage(
            asin=asin,
            title=next((row.title for row in rows if row.title), None),
            brand=next((row.brand for row in rows if row.brand), None),
            category=next((row.category_path[-1] for row in rows if row.category_path), None),
            image_url=next((row.image_url for row in rows if row.image_url), None),
            markets={row.marketplace: _market(asin, row, sellers.get(row.marketplace)) for row in rows},
            best_opportunity=None if best is None else shown(best),
            opportunities=[shown(one) for one in found],
            seller=Seller.DEFAULT if own is None else Seller.OWN,
        )

    return answer_of_comparison(request, live, caller, compose)


@router.get("/stats", responses=problems(), response_model=Stats)
def get_totals(caller: Reader, live: House, request: Request) -> Response:
    """How many products, stores and opportunities there are, the best of them, and how old the exchange rates are."""
    arbitrage = live.settings.arbitrage

    def compose(connection: Connection, generation: Generation) -> Stats:
        totals = select_totals(connection)
        on = installation.select_now(connection).date()
        known = select_rates(connection, on=on)
        rates = []
        for currency in sorted({Marketplace(store.upper()).currency for store in arbitrage.marketplaces} - {EURO}):
            rate = known.find_rate(currency, on)
            rates.append(
                Rate(currency=currency, per_euro=None, quoted_on=None, age_days=None, is_stale=True)
                if rate is None
                else Rate(
                    currency=currency,
                    per_euro=float(rate.per_euro),
                    quoted_on=rate.on,
                    age_days=rate.age_days(on),
                    is_stale=rate.is_stale(on, arbitrage.stale_rate_days),
                )
            )
        return Stats(
            products=totals.products,
            markets=totals.markets,
            opportunities=OpportunityCounts(
                open=totals.open, profitable=totals.profitable, doubtful=totals.doubtful, unknown=totals.unknown
            ),
            best_margin_percentage=None if totals.best_margin_pct is None else float(totals.best_margin_pct),
            best_profit_minor=totals.best_profit_minor,
            by_pair=[
                LaneTotal(
                    source_market=Marketplace(one.source_market),
                    target_market=Marketplace(one.target_market),
                    count=one.opportunities,
                    median_margin_percentage=float(one.median_margin_pct),
                )
                for one in totals.by_pair
            ],
            comparison=generation.comparison_id,
            compared_at=generation.compared_at,
            rates=rates,
        )

    return answer_of_comparison(request, live, caller, compose, is_everybodys=True)


def _seen(found: list[FoundOpportunity], own: Own | None) -> list[FoundOpportunity]:
    return found if own is None else [recompute(one, own.reckoning) for one in found]


def _short(row: ProductRow, best: FoundOpportunity | None) -> ProductShort:
    return ProductShort(
        asin=row.asin,
        title=row.title,
        brand=row.brand,
        image_url=row.image_url,
        category=row.category,
        current_prices=dict(row.current_prices),
        sales_rank=row.sales_rank,
        rating=_stars(row.rating_tenths),
        review_count=row.review_count,
        first_seen_at=row.first_seen_at,
        last_updated_at=row.changed_at,
        best_opportunity=None if best is None else shown(best),
    )


def _market(asin: str, row: MarketRow, sellers: OffersSeen | None) -> Market:
    store = Marketplace(row.marketplace)
    return Market(
        title=row.title,
        price=row.amount_minor,
        currency=store.currency,
        price_type=row.price_type,
        checked_at=row.price_checked_at or row.checked_at,
        sales_rank=row.sales_rank,
        sales_rank_drops_30=row.sales_rank_drops_30,
        rating=_stars(row.rating_tenths),
        review_count=row.review_count,
        monthly_sold=row.monthly_sold,
        offer_count=row.offer_count,
        buy_box_is_amazon=row.buy_box_is_amazon,
        buy_box_is_fba=row.buy_box_is_fba,
        is_hazardous=row.is_hazardous,
        is_heat_sensitive=row.is_heat_sensitive,
        return_rate=row.return_rate,
        coupon_minor=row.coupon_minor,
        coupon_pct=row.coupon_pct,
        lightning_ends_at=row.lightning_ends_at,
        fba_fee_minor=row.fba_pick_pack_minor,
        package_weight_g=row.package_weight_g,
        lowest_year_minor=row.lowest_year_minor,
        sellers_checked_at=None if sellers is None else sellers.checked_at,
        sellers=[] if sellers is None else [_seller(one) for one in sellers.offers],
        link=f"https://{store.host}/dp/{asin}",
    )


def _seller(one: SellerOffer) -> SellerShown:
    return SellerShown(
        seller_id=one.seller_id,
        price=one.price_minor,
        is_amazon=one.is_amazon,
        is_fba=one.is_fba,
        buy_box_pct=one.buy_box_pct,
    )


def _stars(tenths: int | None) -> float | None:
    return None if tenths is None else tenths / 10
