"""What you were told."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field

from api.access import Reader
from api.live import House
from api.paging import DEFAULT_PAGE, CursorText, Limit, decode_cursor, next_page
from api.problems import problems
from api.query import LEFT_OUT
from api.schemas import Answer, in_whole_units
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.postgres import alerts
from keeper.postgres.alerts import AlertRow

router = APIRouter(tags=["alerts"])


class Delivery(Answer):
    """What became of an alert on one channel."""

    channel: str = Field(description="What you call it", examples=["phone"])
    status: str = Field(description="`pending`, `delivered`, or `dead` after the last try", examples=["delivered"])
    tries: int
    delivered_at: datetime | None
    receipt: str | None = Field(description="What the far side said when it took the message")
    last_failure: str | None = Field(description="Why the last try failed; null once it is delivered")


class Alert(Answer):
    """A price that fell to a target of yours."""

    id: int
    watch_id: int
    asin: str = Field(examples=["B00OCMRV40"])
    marketplace: Marketplace
    price_type: PriceType
    title: str | None
    link: str = Field(description="The product's page at Amazon")
    price: float = Field(description="In whole units", examples=[49.9])
    price_minor: int = Field(examples=[4990])
    previous_price: float | None = Field(description="The one before; null: none is known")
    previous_price_minor: int | None
    target: float
    target_minor: int
    lowest_in_year: float | None = Field(description="The lowest of the 365 days before")
    lowest_in_year_minor: int | None
    currency: str = Field(examples=["EUR"])
    observed_at: datetime = Field(description="When the price changed, by Keepa")
    created_at: datetime
    deliveries: list[Delivery] = Field(description="By channel; empty where there was no channel")


class Alerts(Answer):
    """One page."""

    alerts: list[Alert]
    next: str | None


def _shown(rows: Sequence[AlertRow]) -> Alert:
    """One alert, of its rows, one per delivery."""
    row = rows[0]
    return Alert(
        id=row.alert_id,
        watch_id=row.watch_id,
        asin=row.asin,
        marketplace=Marketplace(row.marketplace),
        price_type=PriceType(row.price_type),
        title=row.title,
        link=f"https://{Marketplace(row.marketplace).host}/dp/{row.asin}",
        price=in_whole_units(row.amount_minor, row.currency),
        price_minor=row.amount_minor,
        previous_price=in_whole_units(row.previous_minor, row.currency),
        previous_price_minor=row.previous_minor,
        target=in_whole_units(row.target_minor, row.currency),
        target_minor=row.target_minor,
        lowest_in_year=in_whole_units(row.lowest_in_year_minor, row.currency),
        lowest_in_year_minor=row.lowest_in_year_minor,
        currency=row.currency,
        observed_at=row.observed_at,
        created_at=row.created_at,
        deliveries=[
            Delivery(
                channel=one.channel,
                status=one.status,
                tries=one.tries,
                delivered_at=one.delivered_at,
                receipt=one.receipt,
                last_failure=one.last_failure,
            )
            for one in rows
            if one.channel is not None
        ],
    )


@router.get("/alerts", responses=problems())
def list_alerts(
    caller: Reader,
    live: House,
    request: Request,
    asin: Annotated[
        Annotated[Annotated[str, Field(pattern=r"^[A-Z0-9]{10}$")] | None, LEFT_OUT], Query(description="Only of this product")
    ] = None,
    marketplace: Annotated[Annotated[Marketplace | None, LEFT_OUT], Query(description="Only of this Amazon store")] = None,
    limit: Limit = DEFAULT_PAGE,
    cursor: CursorText = None,
) -> Alerts:
    """Your alerts, newest first, each with what became of it on every channel."""
    with live.begin() as connection:
        found = alerts.select_alerts(
            connection,
            user_id=caller.user_id,
            asin=asin,
            marketplace=marketplace.value if marketplace else None,
            before_id=decode_cursor(cursor),
            limit=limit,
        )
    shown = [_shown(list(rows)) for _, rows in groupby(found, key=lambda row: row.alert_id)]
    return Alerts(alerts=shown, next=next_page(request, shown[-1].id if shown else None, is_full=len(shown) == limit))
