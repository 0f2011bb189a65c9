"""Opportunities: buy in one store, sell in another; what is left, and why."""

import re
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field, StringConstraints, WithJsonSchema
from sqlalchemy import Connection

from api.access import Caller, Reader
from api.comparison import answer_of_comparison
from api.conditional import answer
from api.live import House, Live
from api.paging import CursorInvalid, CursorText, Limit, following, pack_cursor, unpack_cursor
from api.problems import problems
from api.query import LEFT_OUT
from api.schemas import Answer, RowId
from keeper.domain.arbitrage import Part
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity import FoundOpportunity
from keeper.domain.opportunity_query import OpportunityQuery, OpportunitySort, Place
from keeper.domain.price_type import PriceType
from keeper.opportunities import Own, explain, list_opportunities
from keeper.postgres import installation
from keeper.postgres.opportunities import Generation, select_generation

router = APIRouter(tags=["arbitrage"])

_CURSOR = re.compile(r"(margin|profit|roi|score|newest|over):(-?\d{1,12}(?:\.\d{1,6})?):(\d{1,18})")
_OVER = "over"
_MOST_CHOICES = 40

LARGEST_PCT = 1_000_000
PERCENT_SCHEMA = {"type": "number", "minimum": -LARGEST_PCT, "maximum": LARGEST_PCT, "multipleOf": 0.01, "examples": [15]}
Percent = Annotated[Decimal, Field(ge=-LARGEST_PCT, le=LARGEST_PCT, decimal_places=2), WithJsonSchema(PERCENT_SCHEMA)]
LeastPercent = Annotated[Percent | None, LEFT_OUT, Query(description="Percent, with two decimals at most")]
Stores = Annotated[list[Marketplace], Query(max_length=len(Marketplace), description="Any of these stores; may be repeated")]
FeeCategory = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Seller(StrEnum):
    """Whose profit is told."""

    DEFAULT = "default"
    OWN = "own"


AskedSeller = Annotated[
    Seller,
    Query(description="Whose profit: `own` is yours where you have a seller's profile, else the operator's default seller's"),
]


class Opportunity(Answer):
    """Buy here, sell there. Prices are in the smallest units of each store's currency; margin, profit and investment are euro cents."""

    id: int
    asin: str = Field(examples=["B00OCMRV40"])
    title: str | None
    brand: str | None
    image_url: str | None
    category: str | None = Field(description="Keeper's own fee category; null where it is not known")
    source_market: Marketplace = Field(description="Where it is bought")
    target_market: Marketplace = Field(description="Where it is sold")
    source_price: int = Field(description="What it costs there", examples=[6000])
    target_price: int = Field(description="What it is sold for", examples=[9999])
    source_currency: str
    target_currency: str
    currency: str = Field("EUR", description="Of margin, profit and what is invested")
    price_type: PriceType = Field(description="Which price both are")
    source_checked_at: datetime
    target_checked_at: datetime
    margin: int = Field(description="The gross gap, after exchange", examples=[3999])
    margin_percentage: float = Field(description="The same of the purchase price", examples=[66.65])
    profit_minor: int | None = Field(description="What is left after fees, VAT and shipping; null where a part is unknown", examples=[1054])
    invested_minor: int | None = Field(description="What is paid before the sale", examples=[5192])
    roi_pct: float | None = Field(description="Profit of what is invested", examples=[20.3])
    profit_margin_pct: float | None = Field(description="Profit of the gross sale price", examples=[10.54])
    unknown: list[str] = Field(description="The parts that are not known")
    is_stale: bool = Field(description="An exchange rate or a price is too old to be sure")
    doubts: list[str] = Field(description="Why both listings may not be the same article; empty: nothing speaks against it")
    flags: list[str] = Field(description="What to know before buying")
    score: int = Field(description="0 to 100")
    score_parts: dict[str, int] = Field(description="What the score is the sum of")
    is_active: bool = Field(description="Whether the gap is still there")
    first_seen_at: datetime | None
    last_seen_at: datetime | None
    best_margin: int | None = Field(description="The widest gap since it was first seen")
    best_profit_minor: int | None = Field(description="The best profit since then, of the default seller; null for a seller of your own")
    best_at: datetime | None
    closed_at: datetime | None
    closed_why: str | None = Field(examples=["gap closed"])
    source_link: str
    target_link: str


class OpportunityList(Answer):
    """A page of opportunities."""

    opportunities: list[Opportunity]
    total: int | None = Field(description="All there are, 1,000 meaning so many or more; null on later pages")
    next: str | None = Field(description="Path and query of the next page; null on the last one")
    seller: Seller = Field(description="Whose profit this is")
    considered: int | None = Field(
        description="For a seller of your own: how many of the widest gross gaps were reckoned, 2,000 at most; null for the default seller"
    )
    comparison: int | None = Field(description="Number of the comparison this is of; null before the first")
    compared_at: datetime | None


class RowShown(Answer):
    """A row of a table."""

    table: str = Field(examples=["referral fee"])
    key: str = Field(examples=["IT default"])
    valid_from: date | None = Field(description="Null for what is not dated, like a seller's own costs")
    source: str


class PartShown(Answer):
    """One line of the reckoning."""

    name: str = Field(examples=["referral fee"])
    amount_minor: int | None = Field(description="Euro cents it adds to the profit, below 0 for a cost; null where it is unknown")
    why_unknown: str | None
    rows: list[RowShown] = Field(description="What it stands on")


class HighestPurchases(Answer):
    """The most that may be paid, in the smallest units of the source store's currency; null where no price will do or a part is unknown."""

    break_even: int | None = Field(description="Without a loss")
    wanted_roi: int | None = Field(description="For the return the seller wants")
    wanted_roi_pct: float | None = Field(description="What that is; null where the seller wants none")


class Explanation(Answer):
    """A trade part by part; the parts sum to the profit."""

    opportunity: Opportunity
    parts: list[PartShown]
    profit_minor: int | None = Field(description="Their sum; null where one is unknown")
    naive_profit_minor: int | None = Field(description="What simple calculators would say, which know Amazon's selling fees only")
    naive_roi_pct: float | None
    highest_purchase: HighestPurchases
    seller: Seller
    on: date = Field(description="The day whose tables were used")


def shown(found: FoundOpportunity) -> Opportunity:
    """As the API shows it."""
    one = found.opportunity
    assert one.id is not None  # noqa: S101  it is stored
    return Opportunity(
        id=one.id,
        asin=one.asin,
        title=found.title,
        brand=found.brand,
        image_url=found.image_url,
        category=one.category,
        source_market=one.source_market,
        target_market=one.target_market,
        source_price=one.source_minor,
        target_price=one.target_minor,
        source_currency=one.source_market.currency,
        target_currency=one.target_market.currency,
        currency="EUR",
        price_type=one.price_type,
        source_checked_at=one.source_checked_at,
        target_checked_at=one.target_checked_at,
        margin=one.margin_minor,
        margin_percentage=float(one.margin_pct),
        profit_minor=one.profit_minor,
        invested_minor=one.invested_minor,
        roi_pct=_number(one.roi_pct),
        profit_margin_pct=_number(one.profit_margin_pct),
        unknown=list(one.unknown_parts),
        is_stale=one.is_stale,
        doubts=list(one.doubts),
        flags=list(one.flags),
        score=one.score,
        score_parts=dict(one.score_parts),
        is_active=one.is_active,
        first_seen_at=one.first_seen_at,
        last_seen_at=one.last_seen_at,
        best_margin=one.best_margin_minor,
        best_profit_minor=one.best_profit_minor,
        best_at=one.best_at,
        closed_at=one.closed_at,
        closed_why=one.closed_why,
        source_link=found.source_link,
        target_link=found.target_link,
    )


def own_of(live: Live, connection: Connection, caller: Caller, generation: Generation) -> Own | None:
    """The caller's own seller; None where they have no profile."""
    if generation.profile is None:
        return None
    on = installation.select_now(connection).date()
    reckoning = live.resources.reckoning(connection, on=on, profile=generation.profile)
    return Own(reckoning, (caller.user_id, generation.profile_revision, generation.comparison_id, on))


@router.get("/opportunities", responses=problems(), response_model=OpportunityList)
def list_all_opportunities(
    caller: Reader,
    live: House,
    request: Request,
    min_margin: LeastPercent = None,
    min_roi: LeastPercent = None,
    min_profit: Annotated[int | None, LEFT_OUT, Query(ge=-(10**9), le=10**9, description="Euro cents", examples=[500])] = None,
    source: Stores = [],  # noqa: B006  FastAPI copies it
    target: Stores = [],  # noqa: B006
    category: Annotated[list[FeeCategory], Query(max_length=_MOST_CHOICES, description="Keeper's own fee categories")] = [],  # noqa: B006
    include_doubtful: Annotated[bool, Query(description="Those too whose listings may not be the same article")] = False,
    is_active: Annotated[bool, Query(description="False: those that are over, in the order they ended")] = True,
    sort: Annotated[OpportunitySort | None, LEFT_OUT, Query(description="The best first; margin unless you say otherwise")] = None,
    seller: AskedSeller = Seller.OWN,
    limit: Limit = 100,
    cursor: CursorText = None,
) -> Response:
    """What can be bought in one store and sold in another. The same for a minute, unless a new comparison is through."""
    order = sort or (OpportunitySort.MARGIN if is_active else OpportunitySort.NEWEST)
    query = OpportunityQuery(
        least_margin_pct=min_margin,
        least_roi_pct=min_roi,
        least_profit_minor=min_profit,
        sources=tuple(source),
        targets=tuple(target),
        categories=tuple(category),
        includes_doubtful=include_doubtful,
        is_active=is_active,
        sort=order,
        limit=limit,
        after=_place(cursor, order if is_active else None),
    )

    def compose(connection: Connection, generation: Generation) -> OpportunityList:
        own = own_of(live, connection, caller, generation) if seller is Seller.OWN else None
        page = list_opportunities(connection, query, own=own, kept=live.own_profits)
        return OpportunityList(
            opportunities=[shown(one) for one in page.found],
            total=page.total,
            next=following(request, _cursor(page.next, order if is_active else None)) if page.next else None,
            seller=Seller.DEFAULT if own is None else Seller.OWN,
            considered=page.considered,
            comparison=generation.comparison_id,
            compared_at=generation.compared_at,
        )

    return answer_of_comparison(request, live, caller, compose)


@router.get("/opportunities/{opportunity_id:row}/explain", responses=problems(404), response_model=Explanation)
def explain_opportunity(
    opportunity_id: RowId,
    caller: Reader,
    live: House,
    request: Request,
    on: Annotated[
        date | None, LEFT_OUT, Query(description="With the tables and exchange rates of this day; today's unless you say otherwise")
    ] = None,
    seller: AskedSeller = Seller.OWN,
) -> Response:
    """Each part of the profit, the rows of the tables it stands on, and the most that may be paid."""
    with live.begin() as connection:
        generation = select_generation(connection, caller.user_id if seller is Seller.OWN else None)
        day = on or installation.select_now(connection).date()
        reckoning = live.resources.reckoning(connection, on=day, profile=generation.profile)
        told = explain(connection, opportunity_id, reckoning)
    profit, wanted = told.profit, told.wanted_roi
    return answer(
        request,
        Explanation(
            opportunity=shown(told.found),
            parts=[_part(part) for part in profit.explain],
            profit_minor=profit.profit_minor,
            naive_profit_minor=profit.naive_profit_minor,
            naive_roi_pct=_number(profit.naive_roi_pct),
            highest_purchase=HighestPurchases(
                break_even=told.break_even.purchase_minor,
                wanted_roi=wanted.purchase_minor if wanted is not None else None,
                wanted_roi_pct=_number(reckoning.seller.wanted_roi_pct),
            ),
            seller=Seller.DEFAULT if generation.profile is None else Seller.OWN,
            on=day,
        ),
    )


def _part(part: Part) -> PartShown:
    rows = [RowShown(table=row.table, key=row.key, valid_from=row.valid_from, source=row.source) for row in part.rows]
    return PartShown(name=part.name.value, amount_minor=part.amount_minor, why_unknown=part.why_unknown or None, rows=rows)


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _cursor(place: Place, order: OpportunitySort | None) -> str:
    """Opaque text for where a page of this order ended; None for those that are over."""
    return pack_cursor(f"{order.value if order else _OVER}:{place.value}:{place.opportunity_id}")


def _place(cursor: str | None, order: OpportunitySort | None) -> Place | None:
    """The reverse; None without one.

    Raises:
        CursorInvalid: not one of this order.
    """
    if cursor is None:
        return None
    found = unpack_cursor(cursor, _CURSOR)
    if found[1] != (order.value if order else _OVER):
        raise CursorInvalid("cursor: not one that Keeper gave for this order")
    return Place(Decimal(found[2]), int(found[3]))
