"""A price alert: the facts a person is told when a price has fallen to a target."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType


class AlertUnreadable(KeeperError):
    """A stored alert that this version of Keeper cannot read."""


@dataclass(frozen=True, slots=True)
class PriceAlert:
    """One crossing of one watch's target, complete enough to be told without another look at the database.

    Attributes:
        alert_id: stable over repeats of the same alert; the id of every message about it derives from it.
        price: the price that crossed the target.
        previous_price: the price before it, None when none is known (the first check).
        lowest_in_year: the lowest price of the last 365 days, None without history.
        image_url: absolute, None when Keepa has no picture.
        observed_at: when the price changed, by Keepa; aware.
    """

    alert_id: str
    asin: str
    marketplace: Marketplace
    price_type: PriceType
    title: str
    price: Money
    previous_price: Money | None
    target: Money
    lowest_in_year: Money | None
    image_url: str | None
    observed_at: datetime

    def __post_init__(self) -> None:
        if self.observed_at.tzinfo is None:
            raise ValueError("observed_at without a time zone has no place here")

    @property
    def drop_pct(self) -> Decimal | None:
        """Fall in percent of the previous price, two decimals half up; negative for a rise, None without a previous price."""
        if self.previous_price is None or self.previous_price.amount_minor == 0:
            return None
        before = Decimal(self.previous_price.amount_minor)
        return ((before - self.price.amount_minor) * 100 / before).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)

    @property
    def link(self) -> str:
        """The product's page in the store."""
        return f"https://{self.marketplace.host}/dp/{self.asin}"


def encode_alert(alert: PriceAlert) -> dict[str, Any]:
    """The alert as JSON values, for the payload of an event. Amounts in minor units, time in UTC with `Z`."""
    return {
        "alert_id": alert.alert_id,
        "asin": alert.asin,
        "marketplace": alert.marketplace.value,
        "price_type": alert.price_type.value,
        "title": alert.title,
        "price": _encode_money(alert.price),
        "previous_price": _encode_optional(alert.previous_price),
        "target": _encode_money(alert.target),
        "lowest_in_year": _encode_optional(alert.lowest_in_year),
        "image_url": alert.image_url,
        "observed_at": alert.observed_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }


def decode_alert(payload: Mapping[str, Any]) -> PriceAlert:
    """The inverse of `encode_alert`; unknown keys are ignored.

    Raises:
        AlertUnreadable: a key is missing or holds something else than `encode_alert` writes.
    """
    try:
        return PriceAlert(
            alert_id=str(payload["alert_id"]),
            asin=str(payload["asin"]),
            marketplace=Marketplace(payload["marketplace"]),
            price_type=PriceType(payload["price_type"]),
            title=str(payload["title"]),
            price=_decode_money(payload["price"]),
            previous_price=_decode_optional(payload["previous_price"]),
            target=_decode_money(payload["target"]),
            lowest_in_year=_decode_optional(payload["lowest_in_year"]),
            image_url=None if payload["image_url"] is None else str(payload["image_url"]),
            observed_at=_decode_time(payload["observed_at"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AlertUnreadable(f"a stored alert cannot be read ({error!r}); it was written by another version of Keeper") from error


def _encode_money(money: Money) -> dict[str, Any]:
    return {"amount_minor": money.amount_minor, "currency": money.currency}


def _encode_optional(money: Money | None) -> dict[str, Any] | None:
    return None if money is None else _encode_money(money)


def _decode_money(value: Mapping[str, Any]) -> Money:
    amount_minor = value["amount_minor"]
    if type(amount_minor) is not int:
        raise TypeError(f"{amount_minor!r} is not a whole number of minor units")
    return Money(amount_minor, str(value["currency"]))


def _decode_optional(value: Mapping[str, Any] | None) -> Money | None:
    return None if value is None else _decode_money(value)


def _decode_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return time.astimezone(UTC)
