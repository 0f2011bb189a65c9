"""Which products sell best in a store."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from api import conditional
from api.access import Reader
from api.live import House
from api.paging import CursorText, following, pack_cursor, unpack_cursor
from api.problems import problems
from api.query import LEFT_OUT
from api.schemas import Answer, Store
from keeper.domain.marketplace import Marketplace
from keeper.domain.ranking import RankedProduct
from keeper.postgres.rankings import RankingPlace, select_ranking

router = APIRouter(tags=["products"])

_LARGEST_PAGE = 200
_CURSOR = re.compile(r"rank:(\d{1,3}):([A-Z0-9]{10})")


class Ranked(Answer):
    """A product in its place."""

    asin: str = Field(examples=["B00OCMRV40"])
    title: str | None
    brand: str | None
    image_url: str | None
    root_category_id: int | None = Field(description="Keepa's number of the top category")
    category: str | None = Field(description="Of the store's own tree")
    score: int = Field(description="0 to 100", examples=[72])
    score_parts: dict[str, int] = Field(
        description="What the score is the sum of", examples=[{"rank": 34, "drops": 25, "sold": 4, "reviews": 9}]
    )
    sales_rank: int | None
    sales_rank_drops_30: int | None = Field(description="Times the rank fell within 30 days, which many read as sales")
    monthly_sold: int | None
    rating: float | None = Field(description="Stars, 0 to 5")
    review_count: int | None
    link: str


class Ranking(Answer):
    """A page of products, the best sold first."""

    marketplace: Marketplace
    products: list[Ranked]
    next: str | None = Field(description="Path and query of the next page; null on the last one")


@router.get("/products/ranking", responses=problems(), response_model=Ranking)
def rank(
    _: Reader,
    live: House,
    request: Request,
    marketplace: Store = Marketplace.DE,
    category: Annotated[
        int | None, LEFT_OUT, Query(ge=1, le=2**63 - 1, description="Keepa's number of a top category", examples=[340843031])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE, description="Products on a page")] = 50,
    cursor: CursorText = None,
) -> Response:
    """Products by their bestseller score: sales rank, falls of it in 30 days, sold in a month, reviews. Made anew once a day."""
    after = _place(cursor)
    with live.begin() as connection:
        # One more than asked for tells whether there is a next page.
        found = select_ranking(connection, marketplace.value, root_category_id=category, after=after, limit=limit + 1)
    page = found[:limit]
    return conditional.answer(
        request,
        Ranking(
            marketplace=marketplace,
            products=[_shown(one, marketplace) for one in page],
            next=following(request, _cursor(page[-1])) if len(found) > limit else None,
        ),
    )


def _shown(one: RankedProduct, marketplace: Marketplace) -> Ranked:
    facts = one.facts
    return Ranked(
        asin=one.asin,
        title=one.title,
        brand=one.brand,
        image_url=one.image_url,
        root_category_id=one.root_category_id,
        category=one.category,
        score=one.score,
        score_parts={part.value: points for part, points in one.parts.items()},
        sales_rank=facts.sales_rank,
        sales_rank_drops_30=facts.sales_rank_drops_30,
        monthly_sold=facts.monthly_sold,
        rating=None if facts.rating_tenths is None else facts.rating_tenths / 10,
        review_count=facts.review_count,
        link=f"https://{marketplace.host}/dp/{one.asin}",
    )


def _cursor(one: RankedProduct) -> str:
    return pack_cursor(f"rank:{one.score}:{one.asin}")


def _place(cursor: str | None) -> RankingPlace | None:
    """The reverse; None without one.

    Raises:
        CursorInvalid: see there.
    """
    if cursor is None:
        return None
    found = unpack_cursor(cursor, _CURSOR)
    return RankingPlace(int(found[1]), found[2])
