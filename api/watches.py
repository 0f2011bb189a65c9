"""What you watch."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Request, status
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import Connection

from api.access import Reader, Writer
from api.live import House
from api.once import OnceOnly
from api.paging import DEFAULT_PAGE, CursorText, Limit, decode_cursor, next_page
from api.problems import problems
from api.schemas import Amount, Answer, Body, RowId, WatchableType, in_whole_units
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.domain.watch import DEFAULT_HYSTERESIS_PCT, DEFAULT_INTERVAL, LONGEST_INTERVAL, SHORTEST_INTERVAL, Watch
from keeper.postgres import installation, watches
from keeper.postgres.watches import WatchRow

router = APIRouter(tags=["watches"])

Interval = Annotated[
    int, Field(ge=SHORTEST_INTERVAL.total_seconds(), le=LONGEST_INTERVAL.total_seconds(), description="How often to check, seconds")
]
Hysteresis = Annotated[
    float, Field(ge=0, le=100, description="How far above the target the price must have been before a second alert, percent")
]


class NewWatch(Body):
    """A watch to be added."""

    asin: Annotated[str, Field(pattern=r"^[A-Z0-9]{10}$", examples=["B00OCMRV40"])]
    marketplace: Marketplace = Marketplace.DE
    price_type: WatchableType = PriceType.NEW
    target: Amount | None = Field(None, description="Tell me at this price or below, in the store's currency; null: record only")
    interval_seconds: Interval = round(DEFAULT_INTERVAL.total_seconds())
    hysteresis_pct: Hysteresis = DEFAULT_HYSTERESIS_PCT

    def watch(self) -> Watch:
        """What it wants.

        Raises:
            WatchInvalid, AmountInvalid: see there.
        """
        currency = self.marketplace.currency
        return Watch(
            self.asin,
            self.marketplace,
            self.price_type,
            None if self.target is None else Money.parse(str(self.target), currency),
            timedelta(seconds=self.interval_seconds),
            self.hysteresis_pct,
        )


class WatchAnswer(Answer):
    """A watch as it stands, with the current price."""

    id: int
    asin: str
    marketplace: Marketplace
    price_type: PriceType
    title: str | None
    link: str = Field(description="The product's page at Amazon")
    target: float | None
    target_minor: int | None
    currency: str
    interval_seconds: int
    hysteresis_pct: float
    is_armed: bool = Field(description="The next price at or below the target is told")
    price: float | None = Field(description="In whole units; null: not seen yet, or no offer")
    price_minor: int | None
    observed_at: datetime | None = Field(description="Since when the price is this, by Keepa; null: not seen yet")
    last_checked_at: datetime | None
    next_check_at: datetime
    last_failure: str | None


class Watches(Answer):
    """One page."""

    watches: list[WatchAnswer]
    next: str | None


def shown(row: WatchRow) -> WatchAnswer:
    """As the API shows it."""
    return WatchAnswer(
        id=row.watch_id,
        asin=row.asin,
        marketplace=Marketplace(row.marketplace),
        price_type=PriceType(row.price_type),
        title=row.title,
        link=f"https://{Marketplace(row.marketplace).host}/dp/{row.asin}",
        target=in_whole_units(row.target_minor, row.currency),
        target_minor=row.target_minor,
        currency=row.currency,
        interval_seconds=row.interval_seconds,
        hysteresis_pct=row.hysteresis_pct,
        is_armed=row.is_armed,
        price=in_whole_units(row.amount_minor, row.currency),
        price_minor=row.amount_minor,
        observed_at=row.observed_at,
        last_checked_at=row.last_checked_at,
        next_check_at=row.next_check_at,
        last_failure=row.last_failure,
    )


@router.get("/watches", responses=problems())
def list_watches(caller: Reader, live: House, request: Request, limit: Limit = DEFAULT_PAGE, cursor: CursorText = None) -> Watches:
    """Your watches with their current prices."""
    with live.begin() as connection:
        found = watches.select_watches(connection, user_id=caller.user_id, after_id=decode_cursor(cursor) or 0, limit=limit)
    return Watches(
        watches=[shown(row) for row in found],
        next=next_page(request, found[-1].watch_id if found else None, is_full=len(found) == limit),
    )


@router.get("/watches/{watch_id}", responses=problems(404))
def get_watch(watch_id: RowId, caller: Reader, live: House) -> WatchAnswer:
    """One of your watches."""
    with live.begin() as connection:
        return shown(watches.find_watch(connection, caller.user_id, watch_id))


@router.post("/watches", status_code=status.HTTP_201_CREATED, responses=problems(409, body=True), response_model=WatchAnswer)
def add_watch(body: NewWatch, caller: Writer, once: OnceOnly) -> WatchAnswer | Response:
    """Watch a price. The first check is due at once."""

    def effect(connection: Connection) -> WatchAnswer:
        now = installation.select_now(connection)
        watch_id = watches.insert_watch(connection, caller.user_id, body.watch(), now=now)
        return shown(watches.find_watch(connection, caller.user_id, watch_id))

    return once.change(effect, status=status.HTTP_201_CREATED)
