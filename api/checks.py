"""A price now: asked of Keepa at the caller's own priority, or the stored one where that is young enough."""

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, status
from fastapi.responses import Response
from pydantic import Field, StrictBool

from api.access import Writer
from api.live import House, Live, PlacesTaken
from api.once import OnceOnly
from api.problems import problems
from api.runs import Runs
from api.schemas import NO_TEXT, Answer, Body, in_whole_units
from keeper.audit import Action, noting
from keeper.check import UNDER_WAY, NotChecked, check_products
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.postgres import installation, prices, watches
from keeper.postgres.prices import CurrentPrice
from keeper.trace import note

router = APIRouter(tags=["prices"])

_CHECK_DEPLOYMENT = "price-watch/tick"
# A run costs seconds of CPU: within a slot the same user is given the same one.
_SLOT_SECONDS = 300


class CheckRequest(Body):
    """Which price."""

    asin: Annotated[str, Field(pattern=r"^[A-Z0-9]{10}$", examples=["B00OCMRV40"])]
    marketplace: Marketplace = Marketplace.DE
    buybox: StrictBool = Field(False, description="Also the buy box, for two tokens more")
    max_age_seconds: Annotated[int, Field(ge=0, le=2_592_000), NO_TEXT] = Field(
        0, description="A stored price that was checked not longer ago than this is answered, and no token spent"
    )


class PriceNow(Answer):
    """One price of a product."""

    price_type: str = Field(examples=["NEW"])
    price: float | None = Field(description="In whole units; null: no offer", examples=[49.9])
    price_minor: int | None = Field(examples=[4990])
    currency: str = Field(examples=["EUR"])
    observed_at: datetime = Field(description="Since when it is this, by Keepa")
    age_seconds: float = Field(description="How long ago it was checked")


class CheckedPrice(Answer):
    """A product's prices."""

    asin: str
    marketplace: Marketplace
    is_stored: bool = Field(description="Keepa was not asked: the stored price is young enough")
    checked_at: datetime
    age_seconds: float
    tokens: int = Field(description="What it cost")
    source: str = Field(description="Which Keepa: `keepa` or `simulator`")
    prices: list[PriceNow]


class StartedCheck(Answer):
    """A run that will check everything of yours."""

    run_id: UUID
    name: str
    url: str = Field(description="Its page in Prefect's UI")
    watches: int = Field(description="Watches that became due by it")


@router.post("/price/check", responses=problems(409, 502, body=True), response_model=CheckedPrice)
def check_price(body: CheckRequest, _: Writer, live: House, once: OnceOnly) -> CheckedPrice | Response:
    """Check one product now, first in the queue for tokens.

    503 with Retry-After where the budget is empty, or where as many checks are under way as there are places for.
    """
    note(asin=body.asin)
    return once.act(lambda: _check(live, body), status=status.HTTP_200_OK, known=lambda: _what_is_known(live, body))


def _check(live: Live, body: CheckRequest) -> CheckedPrice:
    stored, now = _stored(live, body)
    if _is_young(stored, body, now):
        return _shown(live, body, stored, now, tokens=0, is_stored=True)
    with live.place(live.checks):
        done = check_products(
            live.resources.engine,
            live.resources.keepa,
            [body.asin],
            body.marketplace,
            buybox=body.buybox,
            settings=live.resources.token_settings,
            max_wait_seconds=live.settings.api.longest_check_wait_seconds,
        )
    if UNDER_WAY in done.failures.values():
        raise PlacesTaken(f"{body.asin} in {body.marketplace} is being checked just now")
    if done.failures:
        raise NotChecked(f"{body.asin} in {body.marketplace}: {'; '.join(done.failures.values())}")
    live.relay_soon()
    stored, now = _stored(live, body)
    return _shown(live, body, stored, now, tokens=done.tokens, is_stored=False)


def _stored(live: Live, body: CheckRequest) -> tuple[list[CurrentPrice], datetime]:
    with live.begin() as connection:
        return prices.select_current(connection, body.asin, body.marketplace), installation.select_now(connection)


def _is_young(stored: list[CurrentPrice], body: CheckRequest, now: datetime) -> bool:
    """Of the whole product, and of its buy box where that is wanted: what was seen by the way makes only its own price younger."""
    seen_at = [one.checked_at for one in stored if one.price_type == PriceType.BUY_BOX_SHIPPING] if body.buybox else []
    if not stored or not body.max_age_seconds or (body.buybox and not seen_at):
        return False
    return now - min([_checked_at(stored), *seen_at]) <= timedelta(seconds=body.max_age_seconds)


def _checked_at(stored: list[CurrentPrice]) -> datetime:
    return stored[0].product_checked_at


def _shown(live: Live, body: CheckRequest, stored: list[CurrentPrice], now: datetime, *, tokens: int, is_stored: bool) -> CheckedPrice:
    checked_at = _checked_at(stored) if stored else now
    return CheckedPrice(
        asin=body.asin,
        marketplace=body.marketplace,
        is_stored=is_stored,
        checked_at=checked_at,
        age_seconds=_age_seconds(checked_at, now),
        tokens=tokens,
        source=live.resources.source,
        prices=[
            PriceNow(
                price_type=one.price_type,
                price=in_whole_units(one.amount_minor, one.currency),
                price_minor=one.amount_minor,
                currency=one.currency,
                observed_at=one.observed_at,
                age_seconds=_age_seconds(one.checked_at, now),
            )
            for one in stored
        ],
    )


def _age_seconds(at: datetime, now: datetime) -> float:
    return max(0.0, round((now - at).total_seconds(), 3))


def _what_is_known(live: Live, body: CheckRequest) -> str:
    """For somebody whose check was cut short."""
    stored, now = _stored(live, body)
    known = [one for one in stored if one.amount_minor is not None]
    if not known:
        return f"no price of {body.asin} in {body.marketplace} is stored"
    told = ", ".join(f"{one.price_type} {Money(one.amount_minor or 0, one.currency)}" for one in known[:5])
    return f"stored is, {_age_seconds(_checked_at(stored), now):.0f} s old: {told}"


@router.post("/price/check-all", status_code=status.HTTP_202_ACCEPTED, responses=problems(409), response_model=StartedCheck)
def check_all(caller: Writer, live: House, once: OnceOnly) -> StartedCheck | Response:
    """Make all your active watches due, and start a run that checks what is due as far as the tokens go."""

    def effect() -> StartedCheck:
        runs = Runs(live.settings)
        deployment_id = runs.find_deployment(_CHECK_DEPLOYMENT)
        with live.begin() as connection:
            due = watches.make_due(connection, caller.user_id, now=installation.select_now(connection))
        slot = round(live.now().timestamp()) // _SLOT_SECONDS
        run = runs.start(deployment_id, {"go_on_seconds": 0}, idempotency_key=once.key or f"check-all {caller.user_id} {slot}")
        return StartedCheck(run_id=run.run_id, name=run.name, url=run.url, watches=due)

    def placed() -> StartedCheck:
        with live.place(live.waits), noting(live.resources.engine, caller.actor, Action.RUN_START, _CHECK_DEPLOYMENT):
            return effect()

    # Prefect knows the key, too.
    known = "the watches may be due; the next scheduled run checks them"
    return once.act(placed, status=status.HTTP_202_ACCEPTED, known=lambda: known, may_repeat=True)
