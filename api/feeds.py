"""What a filter finds, for feed readers and spreadsheets, which send no headers: the key is in the path, and opens nothing else."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from api.access import Caller, Feeder
from api.conditional import answer
from api.deals import link_of
from api.live import House, Live
from api.problems import problems
from api.schemas import RowId
from keeper.domain.deal_feed import FeedEntry, write_atom, write_csv
from keeper.filters import read_feed
from keeper.postgres import installation
from keeper.postgres.deal_filters import FilterRow, FoundDeal

router = APIRouter(tags=["deals"])

_FEED = "/feeds/{token}/deals/{filter_id:row}"
_CACHE = "private, max-age=300"

FilterId = Annotated[RowId, Path(description="One of your filters")]


@router.get(f"{_FEED}.atom", responses=problems(404) | {200: {"content": {"application/atom+xml": {}}}}, response_class=Response)
def get_atom(filter_id: FilterId, caller: Feeder, live: House, request: Request) -> Response:
    """The last 100 deals of 30 days that one of your filters matched, newest first, as Atom."""
    row, deals = _read(live, caller, filter_id)
    body = write_atom(row.filter_id, row.name, row.created_at, [_entry(deal) for deal in deals])
    return _kept(answer(request, body, media_type="application/atom+xml; charset=utf-8"))


@router.get(f"{_FEED}.csv", responses=problems(404) | {200: {"content": {"text/csv": {}}}}, response_class=Response)
def get_csv(filter_id: FilterId, caller: Feeder, live: House, request: Request) -> Response:
    """The same as a table."""
    _, deals = _read(live, caller, filter_id)
    return _kept(answer(request, write_csv(_entry(deal) for deal in deals), media_type="text/csv; charset=utf-8"))


def _read(live: Live, caller: Caller, filter_id: int) -> tuple[FilterRow, list[FoundDeal]]:
    with live.begin() as connection:
        return read_feed(connection, caller.user_id, filter_id, now=installation.select_now(connection))


def _kept(response: Response) -> Response:
    """For five minutes by the reader alone: the address is as secret as the key in it."""
    response.headers["Cache-Control"] = _CACHE
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _entry(deal: FoundDeal) -> FeedEntry:
    return FeedEntry(
        deal_id=deal.deal_id,
        asin=deal.asin,
        marketplace=deal.marketplace,
        title=deal.title,
        brand=deal.brand,
        category=deal.category,
        link=link_of(deal),
        price_type=deal.price_type,
        currency=deal.currency,
        amount_minor=deal.amount_minor,
        list_price_minor=deal.list_price_minor,
        discount_pct=deal.discount_pct,
        median_90_minor=deal.median_90_minor,
        below_median_pct=deal.below_median_pct,
        lowest_year_minor=deal.lowest_year_minor,
        is_year_low=deal.is_year_low,
        is_all_time_low=deal.is_all_time_low,
        score=deal.deal_score,
        rating=None if deal.rating_tenths is None else deal.rating_tenths / 10,
        review_count=deal.review_count,
        sales_rank=deal.sales_rank,
        changed_at=deal.changed_at,
        announced_at=deal.announced_at or deal.first_seen_at,
        ended_at=deal.ended_at,
    )
