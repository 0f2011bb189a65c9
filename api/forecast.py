"""Where a price may go, as far as its own history bears it out."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from api import conditional
from api.access import Reader
from api.live import House
from api.prices import Limit
from api.problems import problems
from api.query import LEFT_OUT
from api.schemas import Answer, Asin, KindOfPrice, Store, in_whole_units
from keeper.domain.forecast import Backtest, HorizonForecast
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import minor_digits
from keeper.domain.price_type import PriceType
from keeper.forecast import forecast

router = APIRouter(tags=["prices"])


class BacktestShown(Answer):
    """How the forecast did on history that was held back, against the plainest one."""

    days: int = Field(description="From how many days it was tried")
    loss: float = Field(description="Its own: mean absolute error in minor units, or Brier score")
    baseline_loss: float = Field(description="Of saying that the last price stays, or of the share of the past")
    is_better: bool = Field(description="By 5 % at least, and by more than chance")


class HorizonShown(Answer):
    """What is to be expected in so many days. What is null is not better known than the last price is."""

    days: int = Field(examples=[7])
    price: float | None = Field(description="In whole units", examples=[49.9])
    price_minor: int | None = Field(examples=[4990])
    low_minor: int | None = Field(description="Four times in five it is between this and `high_minor`")
    high_minor: int | None
    why_no_price: str | None = Field(examples=["on its own history it was not surely better than to say that the last price stays"])
    price_backtest: BacktestShown | None
    chance_pct: float | None = Field(description="Of being at or below the target at any time until then", examples=[62.5])
    base_rate_pct: float | None = Field(description="Share of the days of the past after which it fell by as much; no forecast")
    why_no_chance: str | None
    chance_backtest: BacktestShown | None


class Forecast(Answer):
    """A price in some days, by its own past moves."""

    asin: str = Field(examples=["B00OCMRV40"])
    marketplace: Marketplace
    price_type: PriceType
    title: str | None
    currency: str = Field(examples=["EUR"])
    price: float | None = Field(description="The current one; null: no offer", examples=[59.9])
    price_minor: int | None = Field(examples=[5990])
    target_minor: int | None = Field(description="What was asked for")
    since: datetime | None = Field(
        description="When the price was last known: the days are counted from then. Null: there is no such price"
    )
    horizons: list[HorizonShown]


@router.get("/prices/{asin}/forecast", response_model=Forecast, responses=problems(404))
def get_forecast(
    asin: Asin,
    _: Reader,
    live: House,
    request: Request,
    marketplace: Store = Marketplace.DE,
    price_type: KindOfPrice = PriceType.NEW,
    target: Annotated[
        Annotated[Limit | None, LEFT_OUT], Query(description="The chance of this price or less is told, too. In whole units")
    ] = None,
) -> Response:
    """The price in 7 and 30 days, given only where that was better on this product's own past than to say that the price stays."""
    target_minor = None if target is None else int(target.scaleb(minor_digits(marketplace.currency)))
    with live.begin() as connection:
        found = forecast(connection, asin, marketplace, price_type, target_minor=target_minor)
    known = found.known
    return conditional.answer(
        request,
        Forecast(
            asin=asin,
            marketplace=marketplace,
            price_type=price_type,
            title=known.title,
            currency=marketplace.currency,
            price=in_whole_units(known.amount_minor, marketplace.currency),
            price_minor=known.amount_minor,
            target_minor=target_minor,
            since=known.end_at,
            horizons=[_horizon(one, marketplace.currency) for one in found.horizons],
        ),
    )


def _horizon(one: HorizonForecast, currency: str) -> HorizonShown:
    return HorizonShown(
        days=one.days,
        price=in_whole_units(one.price_minor, currency),
        price_minor=one.price_minor,
        low_minor=one.low_minor,
        high_minor=one.high_minor,
        why_no_price=one.why_no_price or None,
        price_backtest=_backtest(one.price_backtest),
        chance_pct=_percent(one.chance),
        base_rate_pct=_percent(one.base_rate),
        why_no_chance=one.why_no_chance or None,
        chance_backtest=_backtest(one.chance_backtest),
    )


def _backtest(tried: Backtest | None) -> BacktestShown | None:
    if tried is None:
        return None
    return BacktestShown(days=tried.days, loss=round(tried.loss, 4), baseline_loss=round(tried.baseline_loss, 4), is_better=tried.is_better)


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)
