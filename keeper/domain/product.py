"""A product of one marketplace as Keeper knows it after an answer from Keepa."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import Extreme, PriceSeries
from keeper.domain.price_type import PriceType


class ProductKind(StrEnum):
    """Keepa's productType: whether there can be a price at all."""

    STANDARD = "standard"
    DOWNLOAD = "download"
    EBOOK = "ebook"
    INACCESSIBLE = "inaccessible"
    INVALID = "invalid"
    VARIATION_PARENT = "variation_parent"

    @property
    def has_prices(self) -> bool:
        """False for products Keepa cannot see, does not know, or that only group variations."""
        return self not in _NO_PRICES

    @property
    def failure(self) -> str | None:
        """Why such a product has no prices, for the person who watches it; None where there can be some."""
        return _NO_PRICES.get(self)


_NO_PRICES = {
    ProductKind.INACCESSIBLE: "Keepa cannot see this product",
    ProductKind.INVALID: "Keepa does not know this ASIN",
    ProductKind.VARIATION_PARENT: "this ASIN groups variations; watch one of them",
}


class Availability(StrEnum):
    """Amazon's own offer. None on a product means Keepa did not say."""

    NO_OFFER = "no_offer"
    IN_STOCK = "in_stock"
    PREORDER = "preorder"
    UNKNOWN = "unknown"
    BACKORDER = "backorder"
    DELAYED = "delayed"


class ReturnRate(StrEnum):
    """How often buyers send it back, against others of its category."""

    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class ProductStats:
    """Keepa's own figures. Each mapping holds only the types Keepa has data for.

    Attributes:
        current: the values in force; None means no offer now.
        average: time-weighted means by window in days (30, 90, 180, 365, and 0 for the asked interval).
        lowest, highest: of all time.
        lowest_in_interval, highest_in_interval: of the asked interval.
        out_of_stock_pct: percent of the window without an offer, by window in days (0 for the asked interval).
        sales_rank_drops: by window in days.
        buy_box_seller_id: None where not asked, unknown, or nobody qualified.
    """

    current: Mapping[PriceType, int | None]
    average: Mapping[int, Mapping[PriceType, int]]
    lowest: Mapping[PriceType, Extreme]
    highest: Mapping[PriceType, Extreme]
    lowest_in_interval: Mapping[PriceType, Extreme]
    highest_in_interval: Mapping[PriceType, Extreme]
    out_of_stock_pct: Mapping[int, Mapping[PriceType, int]]
    sales_rank_drops: Mapping[int, int]
    total_offer_count: int | None = None
    buy_box_seller_id: str | None = None
    buy_box_is_amazon: bool | None = None
    buy_box_is_fba: bool | None = None
    buy_box_updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Product:
    """What one answer said of one ASIN in one marketplace.

    Attributes:
        answered_at: Keepa's server time of the answer; nothing in `series` is believed beyond it.
        updated_at: when Keepa last looked at the product (lastUpdate).
        series: change points by type, for the asked days; empty when history was not asked.
        stats: None when not asked, or Keepa has none.
        rating_tenths: stars x 10, 0 to 50.
        category_path: names from the root down.
        eans, upcs: primary first, as strings, leading zeros kept.
        referral_fee_pct: Amazon's share of the selling price in percent.
        package_weight_g, package_*_mm: None where unknown.
        is_hazardous: Keepa names dangerous substances; None where it does not say.
        coupon_minor, coupon_pct: a coupon for one purchase, as an amount or a percentage; None where there is none.
        lightning_ends_at: of the lightning deal that runs at `answered_at`; None without one.
        offer_count: sellers of new goods now.
        sales_rank_drops_30: times the rank fell within 30 days, which many read as sales.
        buy_box_is_amazon, buy_box_is_fba: who has the buy box; None where not asked or nobody has it.
        is_partial: seen by the way (a deal, a foreign event): what is not said here stays as it is known, and nothing counts as checked.
        dropped: what of the answer could not be understood and is left out, each as "field: reason"; empty as a rule.
    """

    asin: str
    marketplace: Marketplace
    kind: ProductKind
    answered_at: datetime
    updated_at: datetime | None = None
    title: str | None = None
    brand: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    color: str | None = None
    size: str | None = None
    binding: str | None = None
    image_urls: tuple[str, ...] = ()
    root_category_id: int | None = None
    category_ids: tuple[int, ...] = ()
    category_path: tuple[str, ...] = ()
    eans: tuple[str, ...] = ()
    upcs: tuple[str, ...] = ()
    parent_asin: str | None = None
    variation_asins: tuple[str, ...] = ()
    sales_rank: int | None = None
    rating_tenths: int | None = None
    review_count: int | None = None
    monthly_sold: int | None = None
    availability: Availability | None = None
    referral_fee_pct: float | None = None
    fba_pick_pack_minor: int | None = None
    package_height_mm: int | None = None
    package_length_mm: int | None = None
    package_width_mm: int | None = None
    package_weight_g: int | None = None
    package_quantity: int | None = None
    unit_count: int | None = None
    listed_at: datetime | None = None
    price_changed_at: datetime | None = None
    tracking_since: datetime | None = None
    is_adult: bool = False
    prime_eligible: bool | None = None
    is_hazardous: bool | None = None
    is_heat_sensitive: bool | None = None
    return_rate: ReturnRate | None = None
    coupon_minor: int | None = None
    coupon_pct: int | None = None
    lightning_ends_at: datetime | None = None
    offer_count: int | None = None
    sales_rank_drops_30: int | None = None
    buy_box_is_amazon: bool | None = None
    buy_box_is_fba: bool | None = None
    series: Mapping[PriceType, PriceSeries] = field(default_factory=dict)
    stats: ProductStats | None = None
    is_partial: bool = False
    dropped: tuple[str, ...] = ()
