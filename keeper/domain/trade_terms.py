"""What a trade between two stores is subject to on a day: every rate and cost but the two prices, each with what it stands on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from keeper.domain.borders import BorderTable, BorderTerms
from keeper.domain.dated_rows import TableRow
from keeper.domain.exchange import EURO, Exchange, ExchangeRate, ExchangeRates
from keeper.domain.fees import FeeTables, ReferralFee, flat_referral
from keeper.domain.marketplace import Marketplace
from keeper.domain.seller import SellerProfile, name_lane
from keeper.domain.vat import DEFAULT, VatTable, find_vat_area

STALE_AFTER_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Term:
    """A figure of a lane that does not depend on the prices.

    Attributes:
        value: a rate in hundredths of a percent or an amount in minor units; None where it is unknown.
        rows: what it stands on.
        why_unknown: in plain words; empty where it is known.
    """

    value: int | None
    rows: tuple[TableRow, ...] = ()
    why_unknown: str = ""


@dataclass(frozen=True, slots=True)
class Tables:
    """All dated tables a profit is reckoned with."""

    vat: VatTable
    fees: FeeTables
    borders: BorderTable


@dataclass(frozen=True, slots=True)
class Terms:
    """All that a trade's profit depends on besides its two prices: looked up once, used for any prices.

    Amounts Amazon takes are in the target store's currency, a seller's own in `currency`.

    Attributes:
        currency: of the result.
        sale_exchange: from the target store's currency; None where the rate is not known.
        purchase_exchange: from the source store's currency; None where the rate is not known.
        output_vat: rate; 0 where none is owed.
        referral: None where it is not known, `why_no_referral` says why.
        purchase_vat: rate of what comes back; 0 where nothing does.
        is_border: whether goods pass customs; the three terms after it are used only then.
        import_vat: rate; 0 where it is reclaimed.
        stale: the exchange rates used that are too old.
    """

    source: Marketplace
    target: Marketplace
    currency: str
    on: date
    sale_exchange: Exchange | None
    purchase_exchange: Exchange | None
    output_vat: Term
    referral: ReferralFee | None
    why_no_referral: str
    closing: Term
    digital_on_selling: Term
    fba: Term
    digital_on_fba: Term
    storage: Term
    vat_on_fees: Term
    return_allowance: Term
    preparation: Term
    inbound: Term
    purchase_vat: Term
    is_border: bool
    customs: Term
    import_vat: Term
    clearance: Term
    stale: tuple[TableRow, ...] = ()


def find_terms(
    source: Marketplace,
    target: Marketplace,
    *,
    seller: SellerProfile,
    tables: Tables,
    rates: ExchangeRates,
    on: date,
    category: str | None,
    fba_minor: int | None,
    weight_g: int | None = None,
    referral: ReferralFee | None = None,
    stated_referral_pct: Decimal | None = None,
    currency: str = EURO,
    stale_after_days: int = STALE_AFTER_DAYS,
) -> Terms:
    """Look up what a trade between two stores is subject to.

    Args:
        source: where it is bought.
        target: where it is sold.
        seller: whose trade it is.
        tables: VAT, fees and borders.
        rates: exchange rates.
        on: the day whose rows count.
        category: of fees and VAT, `default` for one without rows of its own; None where it is not known, and so are its fees and taxes.
        fba_minor: Amazon's fee for storing and sending one piece, in the target store's currency; None where it is not known.
        weight_g: with the package; None where it is not known.
        referral: a schedule to use instead of the table's.
        stated_referral_pct: what Keepa says Amazon takes of this product: used where the table has no schedule, as for a product whose
            category is not known; the least fee is then that of the store's `default`. Where the table has one, it counts.
        currency: of the result.
        stale_after_days: an older exchange rate makes the result stale.
    """
    look = _Lookup(seller, tables, rates, on, category, currency)
    is_border = find_vat_area(source) != find_vat_area(target)
    border = look.border(source, target) if is_border else None
    schedule = referral or (tables.fees.find_referral(target, category, on) if category is not None else None)
    if schedule is None and stated_referral_pct is not None:
        schedule = look.stated_referral(target, stated_referral_pct)
    digital = tables.fees.find_digital(seller.home, target, on)
    digital_rows = (digital.row,) if digital is not None else ()
    no_digital = f"the digital services fee of {target} for a seller from {seller.home} on {on} is not known"
    exchanges = {one: rates.find_exchange(one, currency, on) for one in (source.currency, target.currency, seller.currency)}
    used: dict[ExchangeRate, None] = dict.fromkeys(rate for one in exchanges.values() if one is not None for rate in one.rates)
    owes_output_vat = seller.is_registered or find_vat_area(seller.home) != find_vat_area(target)
    reclaims_import_vat = seller.reclaims_purchase_vat and seller.is_registered_in_area(target)
    return Terms(
        source=source,
        target=target,
        currency=currency,
        on=on,
        sale_exchange=exchanges[target.currency],
        purchase_exchange=exchanges[source.currency],
        output_vat=look.vat(target) if owes_output_vat else look.no_tax("owes no output VAT"),
        referral=schedule,
        why_no_referral=look.why_no_row(f"referral fee of {target}") if schedule is None else "",
        closing=look.closing(target),
        digital_on_selling=_rate(digital.selling_pct if digital is not None else None, digital_rows, no_digital),
        fba=_amount(fba_minor, (TableRow("FBA fee", str(target), None, "the product's listing"),), "the FBA fee is not known"),
        digital_on_fba=_rate(digital.fba_pct if digital is not None else None, digital_rows, no_digital),
        storage=look.own_cost("storage", seller.storage_minor),
        vat_on_fees=look.no_tax("reclaims VAT on fees") if seller.is_registered else look.vat(seller.home, DEFAULT),
        return_allowance=_rate(seller.return_allowance_pct, (_own_row("return allowance"),), "the seller's return allowance is not known"),
        preparation=look.own_cost("preparation", seller.preparation_minor),
        inbound=look.inbound(source, target, weight_g),
        purchase_vat=look.purchase_vat(source, is_border=is_border, border=border),
        is_border=is_border,
        customs=look.customs(border),
        import_vat=look.no_tax("reclaims import VAT") if reclaims_import_vat else look.vat(target),
        clearance=look.clearance(border),
        stale=tuple(rate.row for rate in used if rate.is_stale(on, stale_after_days)),
    )


@dataclass(frozen=True, slots=True)
class _Lookup:
    """What each term is looked up with."""

    seller: SellerProfile
    tables: Tables
    rates: ExchangeRates
    on: date
    category: str | None
    currency: str

    def vat(self, country: str, category: str | None = None) -> Term:
        """The rate of a country: of the product's category where none is named."""
        wanted = category or self.category
        rate = self.tables.vat.find_rate(country, wanted, self.on) if wanted is not None else None
        if rate is None:
            return Term(None, (), self.why_no_row(f"VAT of {country}", category))
        return _rate(rate.rate_pct, (rate.row,), f"the VAT of {country} for {wanted} is not known")

    def no_tax(self, why: str) -> Term:
        """A rate of 0 that follows from who sells."""
        return Term(0, (_own_row(f"seller of {self.seller.home} {why}"),))

    def stated_referral(self, target: Marketplace, pct: Decimal) -> ReferralFee:
        """One rate for all prices, with the least fee the store takes of most goods."""
        general = self.tables.fees.find_referral(target, DEFAULT, self.on)
        return flat_referral(
            target, pct, general.minimum_minor if general is not None else None, self.on, "the product's listing, by Keepa"
        )

    def closing(self, target: Marketplace) -> Term:
        """The closing fee."""
        fee = self.tables.fees.find_closing(target, self.category, self.on) if self.category is not None else None
        if fee is None:
            return Term(None, (), self.why_no_row(f"closing fee of {target}"))
        return _amount(fee.amount_minor, (fee.row,), f"the closing fee of {target} for {fee.category} is not known")

    def own_cost(self, name: str, cost_minor: int | None) -> Term:
        """A cost of the seller's, in the result's currency."""
        if cost_minor is None:
            return Term(None, (_own_row(name),), f"the seller's cost of {name} is not known")
        return self._exchanged(cost_minor, self.seller.currency, (_own_row(name),))

    def inbound(self, source: Marketplace, target: Marketplace, weight_g: int | None) -> Term:
        """Shipping to the store that sells."""
        band = self.seller.find_inbound(source, target, weight_g)
        if band is None:
            piece = "a piece of unknown weight" if weight_g is None else f"{weight_g} g"
            return Term(None, (), f"the seller's cost of shipping {piece} from {source} to {target} is not known")
        weight = "any weight" if band.up_to_g is None else f"up to {band.up_to_g} g"
        row = _own_row(f"inbound shipping {name_lane(band.source, band.target)}, {weight}")
        return self._exchanged(band.cost_minor, self.seller.currency, (row,))

    def border(self, source: Marketplace, target: Marketplace) -> BorderTerms | None:
        """What holds at the border between two areas."""
        return self.tables.borders.find_terms(find_vat_area(source), find_vat_area(target), self.category, self.on)

    def purchase_vat(self, source: Marketplace, *, is_border: bool, border: BorderTerms | None) -> Term:
        """The rate that comes back."""
        if self.seller.reclaims_purchase_vat and self.seller.is_registered_in_area(source):
            return self.vat(source)
        if not is_border:
            return self.no_tax("reclaims no purchase VAT")
        rows = (border.row,) if border is not None else ()
        if border is None or border.export_vat_refunded is None:
            return Term(None, rows, f"whether the VAT of {source} comes back on export is not known")
        if not border.export_vat_refunded:
            return Term(0, rows)
        vat = self.vat(source)
        return Term(vat.value, rows + vat.rows, vat.why_unknown)

    def customs(self, border: BorderTerms | None) -> Term:
        """The rate of duty."""
        if border is None:
            return Term(None, (), "there is no row of the border table for this lane")
        return _rate(border.customs_pct, (border.row,), "the customs duty is not known")

    def clearance(self, border: BorderTerms | None) -> Term:
        """What passing customs costs, in the result's currency."""
        if border is None:
            return Term(None, (), "there is no row of the border table for this lane")
        if border.clearance_minor is None:
            return Term(None, (border.row,), "the cost of clearance is not known")
        return self._exchanged(border.clearance_minor, border.clearance_currency, (border.row,))

    def why_no_row(self, name: str, category: str | None = None) -> str:
        """Why no row of a table can be named."""
        wanted = category or self.category
        return f"the {name} needs the product's category" if wanted is None else f"there is no {name} for {wanted} on {self.on}"

    def _exchanged(self, amount_minor: int, currency: str, rows: Sequence[TableRow]) -> Term:
        exchange = self.rates.find_exchange(currency, self.currency, self.on)
        if exchange is None:
            return Term(None, tuple(rows), f"there is no exchange rate from {currency} to {self.currency} on {self.on}")
        return Term(exchange.convert_minor(amount_minor), (*rows, *(rate.row for rate in exchange.rates)))


def _rate(pct: Decimal | None, rows: tuple[TableRow, ...], why_unknown: str) -> Term:
    return Term(None, rows, why_unknown) if pct is None else Term(int(pct * 100), rows)


def _amount(minor: int | None, rows: tuple[TableRow, ...], why_unknown: str) -> Term:
    return Term(minor, rows, why_unknown if minor is None else "")


def _own_row(key: str) -> TableRow:
    return TableRow("seller profile", key, None, "the seller")
