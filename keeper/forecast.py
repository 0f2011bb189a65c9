"""The verb that forecasts a price of a product from what is recorded of it."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection

from keeper.domain.forecast import MOST_DAYS, HorizonForecast, forecast_price
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import minute_of
from keeper.domain.price_type import PriceType
from keeper.postgres.history import HistoryRange, find_price_history


@dataclass(frozen=True, slots=True)
class PriceForecast:
    """What is to be expected of a price.

    Attributes:
        known: the year it stands on; its end is the moment the days are counted from.
        horizons: the nearest first.
    """

    known: HistoryRange
    horizons: tuple[HorizonForecast, ...]


def forecast(
    connection: Connection, asin: str, marketplace: Marketplace, price_type: PriceType, *, target_minor: int | None = None
) -> PriceForecast:
    """The price in some days and the chance of a target until then, each only where its own history bears it out.

    Args:
        target_minor: in the store's currency; None where nobody waits for a price.

    Raises:
        ProductUnknown: see there.
    """
    known = find_price_history(connection, asin, marketplace.value, price_type.value, span=timedelta(days=MOST_DAYS + 1))
    # Without such a price the series is empty, and any end will do.
    end_minute = 0 if known.end_at is None else minute_of(known.end_at)
    return PriceForecast(known, forecast_price(known.series, end_minute=end_minute, target_minor=target_minor))
