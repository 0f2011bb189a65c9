"""What you watch."""

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, status
from fastapi.responses import Response
from pydantic import Discriminator, Field, StrictBool, StrictFloat, Tag
from sqlalchemy import Connection

from api.access import Reader, Writer
from api.live import House
from api.once import OnceOnly
from api.paging import DEFAULT_PAGE, LARGEST_PAGE, CursorText, Limit, decode_cursor, next_page
from api.problems import problems
from api.schemas import LARGEST_ID, NO_TEXT, Amount, Answer, Body, RowId, WatchableType, in_whole_units, write_json
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.domain.watch import (
    DEFAULT_HYSTERESIS_PCT,
    DEFAULT_INTERVAL,
    LONGEST_INTERVAL,
    SHORTEST_INTERVAL,
    Watch,
    WatchChange,
    WatchState,
)
from keeper.postgres import installation, watches
from keeper.postgres.watches import WatchRow

router = APIRouter(tags=["watches"])

# A number, so that `/watches/import` and its like are not taken for one.
_ONE = "/watches/{watch_id:row}"

_HOSTS = {marketplace.value: marketplace.host for marketplace in Marketplace}

Interval = Annotated[
    int,
    Field(ge=SHORTEST_INTERVAL.total_seconds(), le=LONGEST_INTERVAL.total_seconds(), description="How often to check, seconds"),
    NO_TEXT,
]
Hysteresis = Annotated[
    StrictFloat, Field(ge=0, le=100, description="How far above the target the price must have been before a second alert, percent")
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


NewWatches = Annotated[list[NewWatch], Field(min_length=1, max_length=LARGEST_PAGE)]
OneOrMany = Annotated[
    Annotated[NewWatch, Tag("(one)")] | Annotated[NewWatches, Tag("(many)")],
    Discriminator(lambda body: "(many)" if isinstance(body, list) else "(one)"),
]
WatchId = Annotated[int, Field(ge=1, le=LARGEST_ID), NO_TEXT]
WatchIds = Annotated[list[WatchId], Field(min_length=1, max_length=LARGEST_PAGE)]


class WatchPatch(Body):
    """What shall be different; what is left out stays as it is."""

    target: Amount | None = Field(None, description="Another target arms the watch again; null: record only")
    interval_seconds: Interval | None = None
    hysteresis_pct: Hysteresis | None = None
    is_paused: StrictBool | None = Field(None, description="True: kept, and not checked; false: checked again, from now on")

    def change(self, currency: str) -> WatchChange:
        """The same for a watch in this currency.

        Raises:
            WatchInvalid, AmountInvalid: see there.
        """
        return WatchChange(
            target=None if self.target is None else Money.parse(str(self.target), currency),
            clears_target="target" in self.model_fields_set and self.target is None,
            interval=None if self.interval_seconds is None else timedelta(seconds=self.interval_seconds),
            hysteresis_pct=self.hysteresis_pct,
            is_paused=self.is_paused,
        )


class WatchesPatch(WatchPatch):
    """The same for many: all of them, or none. A target is in each watch's own currency."""

    ids: WatchIds


class AddedWatches(Answer):
    """Many watches just added."""

    ids: list[int] = Field(description="Of those that are new, in the order they came in")
    already_watched: int = Field(description="How many you had already; these are left as they are")


class ChangedWatches(Answer):
    """How many were changed."""

    changed: int


class WatchAnswer(Answer):
    """A watch as it stands, with the current price."""

    id: int
    asin: str
    marketplace: Marketplace
    price_type: PriceType
    title: str | None
    image_url: str | None
    link: str = Field(description="The product's page at Amazon")
    target: float | None
    target_minor: int | None
    currency: str
    interval_seconds: int
    hysteresis_pct: float
    is_paused: bool
    is_armed: bool = Field(description="The next price at or below the target is told")
    price: float | None = Field(description="In whole units; null: not seen yet, or no offer")
    price_minor: int | None
    observed_at: datetime | None = Field(description="Since when the price is this, by Keepa; null: not seen yet")
    last_checked_at: datetime | None
    next_check_at: datetime | None = Field(description="null: it is paused")
    last_failure: str | None = Field(description="Why the last check of the product brought nothing")
    created_at: datetime


class Watches(Answer):
    """One page."""

    watches: list[WatchAnswer]
    next: str | None


def shown(row: WatchRow) -> WatchAnswer:
    """As the API shows it."""
    return WatchAnswer.model_validate(_fields(row))


def _fields(row: WatchRow) -> dict[str, object]:
    return {
        "id": row.watch_id,
        "asin": row.asin,
        "marketplace": row.marketplace,
        "price_type": row.price_type,
        "title": row.title,
        "image_url": row.image_url,
        "link": f"https://{_HOSTS[row.marketplace]}/dp/{row.asin}",
        "target": in_whole_units(row.target_minor, row.currency),
        "target_minor": row.target_minor,
        "currency": row.currency,
        "interval_seconds": row.interval_seconds,
        "hysteresis_pct": row.hysteresis_pct,
        "is_paused": row.is_paused,
        "is_armed": row.is_armed,
        "price": in_whole_units(row.amount_minor, row.currency),
        "price_minor": row.amount_minor,
        "observed_at": row.observed_at,
        "last_checked_at": row.last_checked_at,
        "next_check_at": row.next_check_at,
        "last_failure": row.last_failure,
        "created_at": row.created_at,
    }


@router.get("/watches", responses=problems(), response_model=Watches)
def list_watches(
    caller: Reader,
    live: House,
    request: Request,
    marketplace: Annotated[Marketplace | None, Query(description="Of this store only")] = None,
    asin: Annotated[str | None, Query(pattern=r"^[A-Z0-9]{10}$", description="Of this product only")] = None,
    price_type: Annotated[WatchableType | None, Query(description="Of this price only")] = None,
    state: Annotated[WatchState, Query(description="Active ones, paused ones, or all")] = WatchState.ACTIVE,
    limit: Limit = DEFAULT_PAGE,
    cursor: CursorText = None,
) -> Response:
    """Your watches with their current prices."""
    with live.begin() as connection:
        found = watches.select_watches(
            connection,
            user_id=caller.user_id,
            marketplace=marketplace,
            asin=asin,
            price_type=price_type,
            state=state,
            after_id=decode_cursor(cursor) or 0,
            limit=limit,
        )
    following = next_page(request, found[-1].watch_id if found else None, is_full=len(found) == limit)
    return Response(write_json({"watches": [_fields(row) for row in found], "next": following}), media_type="application/json")


@router.post("/watches", status_code=status.HTTP_201_CREATED, responses=problems(409, body=True), response_model=WatchAnswer | AddedWatches)
def add_watches(body: OneOrMany, caller: Writer, once: OnceOnly) -> WatchAnswer | AddedWatches | Response:
    """Watch a price, or up to 1,000 of them. The first check is due at once.

    One that you have already is 409; among many it is counted and left as it is.
    """

    def add_one(connection: Connection, new: NewWatch) -> WatchAnswer:
        return shown(watches.insert_watch(connection, caller.user_id, new.watch(), now=installation.select_now(connection)))

    def add_many(connection: Connection, several: list[NewWatch]) -> AddedWatches:
        wanted = [new.watch() for new in several]
        ids = watches.insert_watches(connection, caller.user_id, wanted, now=installation.select_now(connection))
        return AddedWatches(ids=ids, already_watched=len(wanted) - len(ids))

    def effect(connection: Connection) -> WatchAnswer | AddedWatches:
        return add_many(connection, body) if isinstance(body, list) else add_one(connection, body)

    return once.change(effect, status=status.HTTP_201_CREATED)


@router.patch("/watches", responses=problems(404, 409, body=True))
def change_watches(body: WatchesPatch, caller: Writer, live: House) -> ChangedWatches:
    """Change, pause or resume many of your watches at once: all of them, or none where one is not yours."""
    with live.begin() as connection:
        currencies = watches.select_currencies(connection, caller.user_id, body.ids)
        # Of those that are not the caller's the statement says so itself.
        changes = {watch_id: body.change(currencies.get(watch_id, "EUR")) for watch_id in body.ids}
        watches.update_each_watch(connection, caller.user_id, changes, now=installation.select_now(connection))
    return ChangedWatches(changed=len(changes))


@router.delete("/watches", status_code=status.HTTP_204_NO_CONTENT, responses=problems(404))
def remove_watches(
    caller: Writer,
    live: House,
    id: Annotated[
        list[Annotated[int, Field(ge=1, le=LARGEST_ID)]],
        Query(min_length=1, max_length=LARGEST_PAGE, description="Which; all of them are removed, or none where one is not yours"),
    ],
) -> None:
    """Stop watching many at once. What was recorded stays."""
    with live.begin() as connection:
        watches.remove_watches(connection, caller.user_id, id, now=installation.select_now(connection))


@router.get(_ONE, responses=problems(404))
def get_watch(watch_id: RowId, caller: Reader, live: House) -> WatchAnswer:
    """One of your watches, active or paused."""
    with live.begin() as connection:
        return shown(watches.find_watch(connection, caller.user_id, watch_id))


@router.patch(_ONE, responses=problems(404, 409, body=True))
def change_watch(watch_id: RowId, body: WatchPatch, caller: Writer, live: House) -> WatchAnswer:
    """Change, pause or resume one of your watches."""
    with live.begin() as connection:
        standing = watches.find_watch(connection, caller.user_id, watch_id)
        change = body.change(standing.currency)
        watches.update_watches(connection, caller.user_id, [watch_id], change, now=installation.select_now(connection))
        return shown(watches.find_watch(connection, caller.user_id, watch_id))


@router.delete(_ONE, status_code=status.HTTP_204_NO_CONTENT, responses=problems(404))
def remove_watch(watch_id: RowId, caller: Writer, live: House) -> None:
    """Stop watching. What was recorded stays."""
    with live.begin() as connection:
        watches.remove_watches(connection, caller.user_id, [watch_id], now=installation.select_now(connection))
