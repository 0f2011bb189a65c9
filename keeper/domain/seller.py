"""Who sells: what a seller's own situation adds to the profit of a trade."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.vat import find_vat_area
from keeper.domain.wording import shown

MOST_COST_MINOR: Final = 1_000_000_00
MOST_ROI_PCT: Final = Decimal(10_000)


class SellerProfileInvalid(KeeperError):
    """A seller's profile that contradicts itself or holds what cannot be.

    Attributes:
        field: which of its fields.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


@dataclass(frozen=True, slots=True)
class InboundBand:
    """What it costs to send one piece from where it was bought to the store that sells it.

    Attributes:
        source: None for any store.
        target: None for any store.
        up_to_g: the heaviest piece it is for, itself included; None for all heavier ones.
        cost_minor: in the profile's currency.
    """

    source: Marketplace | None
    target: Marketplace | None
    up_to_g: int | None
    cost_minor: int


@dataclass(frozen=True, slots=True)
class SellerProfile:
    """A seller's situation; costs are for one piece: without VAT from a registered seller, with VAT from another.

    Attributes:
        home: country in two letters (`UK`, not `GB`).
        registered: countries in which the seller is registered for VAT; none for a small business.
        reclaims_purchase_vat: the VAT of a purchase comes back, by reclaim or because a supply between registered businesses has none.
        currency: of the costs below.
        preparation_minor: None while it is not known; that makes each profit unknown.
        storage_minor: like it.
        return_allowance_pct: of the gross sale price, set aside for returns; None while it is not known.
        inbound: a lane's own bands go before those of any store.
        wanted_roi_pct: None for no wish.
    """

    home: str
    registered: frozenset[str] = frozenset()
    reclaims_purchase_vat: bool = False
    currency: str = "EUR"
    preparation_minor: int | None = None
    storage_minor: int | None = None
    return_allowance_pct: Decimal | None = None
    inbound: tuple[InboundBand, ...] = ()
    wanted_roi_pct: Decimal | None = None

    def __post_init__(self) -> None:
        _check_country("home", self.home)
        for country in sorted(self.registered):
            _check_country("registered", country)
        if self.reclaims_purchase_vat and not self.registered:
            raise SellerProfileInvalid("reclaims_purchase_vat", "only a seller who is registered for VAT somewhere gets purchase VAT back")
        if not (len(self.currency) == 3 and self.currency.isascii() and self.currency.isupper()):
            raise SellerProfileInvalid("currency", f"{shown(self.currency)} is no currency; write three capital letters like EUR")
        for name in ("preparation_minor", "storage_minor"):
            _check_cost(name, getattr(self, name))
        _check_pct("return_allowance_pct", self.return_allowance_pct, Decimal(100))
        _check_pct("wanted_roi_pct", self.wanted_roi_pct, MOST_ROI_PCT)
        seen: set[tuple[Marketplace | None, Marketplace | None, int | None]] = set()
        for band in self.inbound:
            _check_cost("inbound", band.cost_minor)
            if band.up_to_g is not None and band.up_to_g <= 0:
                raise SellerProfileInvalid("inbound", f"a weight of {band.up_to_g} g is none; write grams above 0, or none for all heavier")
            key = (band.source, band.target, band.up_to_g)
            if key in seen:
                weight = "any weight" if band.up_to_g is None else f"up to {band.up_to_g} g"
                raise SellerProfileInvalid("inbound", f"{name_lane(band.source, band.target)} has two prices for {weight}; keep one")
            seen.add(key)

    @property
    def is_registered(self) -> bool:
        """Whether registered for VAT anywhere."""
        return bool(self.registered)

    def is_registered_in_area(self, country: str) -> bool:
        """Whether registered in the country, or in another of the same VAT area."""
        return any(find_vat_area(one) == find_vat_area(country) for one in self.registered)

    def find_inbound(self, source: Marketplace, target: Marketplace, weight_g: int | None) -> InboundBand | None:
        """The band for a piece: of its lane, else of one end, else of any; None where none is for its weight or the weight is not known.

        Where the weight is not known, only a lane with one price for all weights is.
        """
        for lane in ((source, target), (None, target), (source, None), (None, None)):
            bands = [band for band in self.inbound if (band.source, band.target) == lane]
            if not bands:
                continue
            if weight_g is None:
                return bands[0] if len(bands) == 1 and bands[0].up_to_g is None else None
            fitting = [band for band in bands if band.up_to_g is None or weight_g <= band.up_to_g]
            return min(fitting, key=lambda band: (band.up_to_g is None, band.up_to_g or 0)) if fitting else None
        return None


def name_lane(source: Marketplace | None, target: Marketplace | None) -> str:
    """A lane for people."""
    return f"{source or 'any store'} to {target or 'any store'}"


def _check_country(name: str, country: str) -> None:
    if not (len(country) == 2 and country.isascii() and country.isalpha() and country.isupper()) or country == "GB":
        raise SellerProfileInvalid(
            name, f"{shown(country)} is no country; write two capital letters like DE, and UK for the United Kingdom"
        )


def _check_cost(name: str, cost_minor: int | None) -> None:
    if cost_minor is not None and not 0 <= cost_minor <= MOST_COST_MINOR:
        raise SellerProfileInvalid(name, f"{cost_minor} must be 0 or more and at most {MOST_COST_MINOR} (a million)")


def _check_pct(name: str, pct: Decimal | None, most: Decimal) -> None:
    if pct is None:
        return
    if not pct.is_finite() or not 0 <= pct <= most:
        raise SellerProfileInvalid(name, f"{pct} must be a percentage from 0 to {most}")
    if pct != round(pct, 2):
        raise SellerProfileInvalid(name, f"{pct} is finer than hundredths of a percent")
