"""A price gap between two stores, as it is kept and shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType

# Why one was closed by nothing but time: it may be there again when both prices are looked at and are what they were.
PRICE_TOO_OLD: Final = "price too old"


@dataclass(frozen=True, slots=True)
class Opportunity:
    """Buy in one store, sell in another.

    Attributes:
        id: None before it is stored.
        price_type: what both prices are of: the price basis.
        source_minor, target_minor: gross, each in its own store's currency.
        source_checked_at, target_checked_at: when each was last seen; the older one is the age of the whole.
        margin_minor: the gross gap in euro cents, after exchange; margin_pct is of the purchase price.
        profit_minor: the true profit in euro cents; None where a part is unknown, then `unknown_parts` names it.
        invested_minor: what is paid before the sale, euro cents; with it ROI and profit are comparable.
        profit_margin_pct: of the gross sale price.
        is_stale: an exchange rate or a price used is too old.
        reckoned_on: the day whose tables were used.
        category: our own fee category; None where it is not known.
        doubts: why both listings may not be the same article; empty where nothing speaks against it.
        flags: what a reseller should know before buying, as words of `opportunity_score`.
        score: 0 to 100; its parts by name sum to it.
        best_margin_minor, best_profit_minor: the best since `first_seen_at`, seen at `best_at`.
        closed_why: None while it is open.
        announced_at: when it was told; None where it was not.
    """

    asin: str
    source_market: Marketplace
    target_market: Marketplace
    price_type: PriceType
    source_minor: int
    target_minor: int
    source_checked_at: datetime
    target_checked_at: datetime
    margin_minor: int
    margin_pct: Decimal
    profit_minor: int | None
    invested_minor: int | None
    roi_pct: Decimal | None
    profit_margin_pct: Decimal | None
    unknown_parts: tuple[str, ...]
    is_stale: bool
    reckoned_on: date
    category: str | None
    doubts: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    score: int = 0
    score_parts: Mapping[str, int] = field(default_factory=dict)
    first_seen_at: datetime | None = None
    last_seen_at: datetime | None = None
    best_margin_minor: int | None = None
    best_profit_minor: int | None = None
    best_at: datetime | None = None
    closed_at: datetime | None = None
    closed_why: str | None = None
    announced_at: datetime | None = None
    id: int | None = None
    revision: int = 1

    @property
    def is_active(self) -> bool:
        """Whether the gap was still there when it was last looked at."""
        return self.closed_at is None


@dataclass(frozen=True, slots=True)
class FoundOpportunity:
    """An opportunity with what is known of its product.

    Attributes:
        title, brand, image_url: of the listing it is sold by, else of the one it is bought by.
        fba_minor: Amazon's fee where it is sold, in that store's currency; with the two below what its profit is reckoned with.
        weight_g: with the package, of the listing it is sold by.
        stated_referral_pct: what Keepa says Amazon takes of it there.
    """

    opportunity: Opportunity
    title: str | None = None
    brand: str | None = None
    image_url: str | None = None
    fba_minor: int | None = None
    weight_g: int | None = None
    stated_referral_pct: float | None = None

    @property
    def source_link(self) -> str:
        """The product's page where it is bought."""
        return f"https://{self.opportunity.source_market.host}/dp/{self.opportunity.asin}"

    @property
    def target_link(self) -> str:
        """The product's page where it is sold."""
        return f"https://{self.opportunity.target_market.host}/dp/{self.opportunity.asin}"
