"""Who sells a product: an id, a price and a share of the buy box; Keeper knows no more of a seller."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SellerOffer:
    """A seller of new goods of one product in one store.

    Attributes:
        seller_id: Amazon's own.
        price_minor: with shipping, the seller's lowest; None for one who had the buy box and offers it no more.
        is_amazon: Amazon itself; None where it is not said.
        is_fba: Amazon stores and sends it; None where it is not said.
        buy_box_pct: share of the time in which it had the buy box, two decimals; None where it is not known.
    """

    seller_id: str
    price_minor: int | None = None
    is_amazon: bool | None = None
    is_fba: bool | None = None
    buy_box_pct: float | None = None
