"""Who sells: what a seller's own situation adds to the profit of a trade."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.vat import find_vat_area
from keeper.domain.wording import WordsUnclear, read_marketplace, shown

MOST_COST_MINOR: Final = 1_000_000_00
MOST_ROI_PCT: Final = Decimal(10_000)

_LONGEST_NUMBER = 20
_BAND_FIELDS = ("source", "target", "up_to_g", "cost_minor")
_FIELDS = (
    "home",
    "registered",
    "reclaims_purchase_vat",
    "currency",
    "preparation_minor",
    "storage_minor",
    "return_allowance_pct",
    "inbound",
    "wanted_roi_pct",
)


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
    """A seller's situation; costs are for one piece: without VAT from a registered seller, with VAT from another, but for storage.

    Attributes:
        home: country in two letters (`UK`, not `GB`).
        registered: countries in which the seller is registered for VAT; none for a small business.
        reclaims_purchase_vat: the VAT of a purchase comes back, by reclaim or because a supply between registered businesses has none.
        currency: of the costs below.
        preparation_minor: None while it is not known; that makes each profit unknown.
        storage_minor: like it, but without VAT from every seller: Amazon charges it, so it is one of the fees to which a seller who is
            registered nowhere has the home country's VAT added.
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


def write_seller(seller: SellerProfile) -> dict[str, Any]:
    """As plain values for JSON: amounts in minor units, percents as text; `read_seller` makes the same profile of them."""
    return {
        "home": seller.home,
        "registered": sorted(seller.registered),
        "reclaims_purchase_vat": seller.reclaims_purchase_vat,
        "currency": seller.currency,
        "preparation_minor": seller.preparation_minor,
        "storage_minor": seller.storage_minor,
        "return_allowance_pct": None if seller.return_allowance_pct is None else str(seller.return_allowance_pct),
        "inbound": [
            {"source": band.source, "target": band.target, "up_to_g": band.up_to_g, "cost_minor": band.cost_minor}
            for band in seller.inbound
        ],
        "wanted_roi_pct": None if seller.wanted_roi_pct is None else str(seller.wanted_roi_pct),
    }


def read_seller(said: Mapping[str, Any]) -> SellerProfile:
    """A profile from JSON, TOML or a row: the fields of `SellerProfile` by name; `home` must be there, null is not known.

    Raises:
        SellerProfileInvalid: names the field and what it may be.
    """
    _check_known("", said, _FIELDS)
    registered = said.get("registered", [])
    if not isinstance(registered, list) or not all(isinstance(one, str) for one in registered):
        raise SellerProfileInvalid("registered", 'must be a list of countries like ["DE", "IT"]')
    bands = said.get("inbound", [])
    if not isinstance(bands, list) or not all(isinstance(one, Mapping) for one in bands):
        raise SellerProfileInvalid("inbound", f"must be a list of bands with {', '.join(_BAND_FIELDS)}")
    return SellerProfile(
        home=_read_text("home", said.get("home")),
        registered=frozenset(registered),
        reclaims_purchase_vat=_read_yes(said.get("reclaims_purchase_vat", False)),
        currency=_read_text("currency", said.get("currency", "EUR")),
        preparation_minor=_read_whole("preparation_minor", said.get("preparation_minor")),
        storage_minor=_read_whole("storage_minor", said.get("storage_minor")),
        return_allowance_pct=_read_pct("return_allowance_pct", said.get("return_allowance_pct")),
        inbound=tuple(_read_band(band) for band in bands),
        wanted_roi_pct=_read_pct("wanted_roi_pct", said.get("wanted_roi_pct")),
    )


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


def _read_band(said: Mapping[str, Any]) -> InboundBand:
    _check_known("inbound", said, _BAND_FIELDS)
    cost_minor = _read_whole("inbound", said.get("cost_minor"))
    if cost_minor is None:
        raise SellerProfileInvalid("inbound", "each band must say cost_minor")
    try:
        source, target = (None if word is None else read_marketplace(str(word)) for word in (said.get("source"), said.get("target")))
    except WordsUnclear as error:
        raise SellerProfileInvalid("inbound", str(error)) from error
    return InboundBand(source, target, _read_whole("inbound", said.get("up_to_g")), cost_minor)


def _check_known(field: str, said: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(str(key) for key in said if key not in known):
        raise SellerProfileInvalid(field or unknown[0], f"{shown(unknown[0])} is unknown; it may say {', '.join(known)}")


def _read_text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise SellerProfileInvalid(field, f"{shown(value)} must be a text")
    return value


def _read_yes(value: object) -> bool:
    if not isinstance(value, bool):
        raise SellerProfileInvalid("reclaims_purchase_vat", f"{shown(value)} must be true or false")
    return value


def _read_whole(field: str, value: object) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise SellerProfileInvalid(field, f"{shown(value)} must be a whole number, in the currency's smallest unit or in grams")
    return value


def _read_pct(field: str, value: object) -> Decimal | None:
    if value is None:
        return None
    try:
        # A float of JSON or TOML is meant as it was written: 2.5, not its binary neighbour.
        if isinstance(value, int | float | str) and not isinstance(value, bool) and len(str(value)) <= _LONGEST_NUMBER:
            return Decimal(str(value))
    except InvalidOperation:
        pass
    raise SellerProfileInvalid(field, f"{shown(value)} must be a number like 2.5")
