"""Buy here, sell there: what is left of a trade, part by part, and what may be paid at most.

The formula, with P the gross sale price, C the gross purchase price, v_s and v_b the VAT of sale and purchase, d the digital services fee:

    R      = max(referral fee(P), its minimum) + closing fee
    fees   = R (1 + d_sell) + FBA (1 + d_fba) + storage
    profit = P / (1 + v_s) - fees - preparation - inbound - return allowance - C_net
    C_net  = C / (1 + v_b) where purchase VAT comes back, else C
    ROI    = profit / (C_net + preparation + inbound), margin = profit / P

- A seller who is registered nowhere keeps the VAT in P, pays gross costs and the home country's VAT on Amazon's fees, storage among them:
  that one cost is without VAT from every seller, as Amazon names it. Only where the store is not in the home country's VAT area is output
  VAT taken all the same: there Amazon owes it for the seller and keeps it back.
- Over a customs border: duty on C_net, import VAT of the target country on C_net, duty and inbound (nothing where it is reclaimed) and
  clearance; all count to what is invested.
- A sale to another country is taxed there (one-stop shop); the 10,000 EUR a year below which home VAT may be used is not modelled.

Rounding, everywhere: a part is an amount that somebody pays, so each is rounded to a whole minor unit of the currency it is paid in, half
up, then converted and rounded half up again. Nothing else is rounded: profit is the sum of the parts, and a wish (ROI, margin, profit)
is compared exactly. Percents that are shown have two decimals, half up.

Profit never rises with C. Between two tier edges it rises with P but for the parts' rounding: a minor unit more on the price may cost a few
(seen: two; always fewer than the five parts of P that are rounded, or twice that with an exchange), which is made up for within thirty.
Just above the edge of a `whole` tier the fee jumps and profit falls.

Unknown is never 0: a part that is unknown makes profit, ROI and margin unknown and is named; a rate of 0 of something unknown is 0.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from itertools import permutations
from typing import Final

from keeper.domain.dated_rows import TableRow
from keeper.domain.errors import KeeperError
from keeper.domain.exchange import EURO, Exchange, ExchangeRates
from keeper.domain.marketplace import Marketplace
from keeper.domain.rounding import PERCENT_PARTS, compute_pct, take_net, take_share
from keeper.domain.seller import SellerProfile
from keeper.domain.trade_terms import STALE_AFTER_DAYS, Tables, Term, Terms, find_terms

MOST_PRICE_MINOR: Final = 1_000_000_000
MOST_WISH_PCT: Final = 1_000_000


class PriceImpossible(KeeperError):
    """A price or a wish no trade can have."""


class PartName(StrEnum):
    """The parts of a profit, in the order they are told."""

    SALE = "sale"
    OUTPUT_VAT = "output VAT"
    REFERRAL_FEE = "referral fee"
    CLOSING_FEE = "closing fee"
    DIGITAL_ON_SELLING = "digital services fee on selling"
    FBA_FEE = "FBA fee"
    DIGITAL_ON_FBA = "digital services fee on FBA"
    STORAGE = "storage"
    VAT_ON_FEES = "VAT on fees"
    RETURN_ALLOWANCE = "return allowance"
    PREPARATION = "preparation"
    INBOUND = "inbound shipping"
    PURCHASE = "purchase"
    PURCHASE_VAT = "purchase VAT reclaimed"
    CUSTOMS = "customs duty"
    IMPORT_VAT = "import VAT"
    CLEARANCE = "customs clearance"


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the reckoning.

    Attributes:
        amount_minor: what it adds to the profit, below 0 for what it costs; None where it is unknown.
        rows: what it stands on.
        why_unknown: in plain words; empty where it is known.
    """

    name: PartName
    amount_minor: int | None
    rows: tuple[TableRow, ...] = ()
    why_unknown: str = ""


@dataclass(frozen=True, slots=True)
class Profit:
    """What a trade leaves; all amounts in `currency`, None where a part they need is unknown.

    Attributes:
        margin_minor: the gross gap between both prices, after exchange.
        margin_percentage: of the purchase price, two decimals.
        naive_profit_minor: what the gap leaves after Amazon's selling fees alone, as simple calculators say; to compare, not to trust.
        naive_roi_pct: of the purchase price, two decimals.
        profit_minor: the sum of the parts.
        invested_minor: what is paid before the sale.
        roi_pct: profit of what is invested, two decimals; None also where nothing is invested.
        profit_margin_pct: profit of the gross sale price, two decimals.
        explain: the parts, in order; they sum to the profit.
        is_stale: an exchange rate used is too old.
    """

    source: Marketplace
    target: Marketplace
    currency: str
    purchase_minor: int | None
    sale_minor: int | None
    margin_minor: int | None
    margin_percentage: Decimal | None
    naive_profit_minor: int | None
    naive_roi_pct: Decimal | None
    profit_minor: int | None
    invested_minor: int | None
    roi_pct: Decimal | None
    profit_margin_pct: Decimal | None
    explain: tuple[Part, ...]
    is_stale: bool

    @property
    def unknown(self) -> tuple[Part, ...]:
        """The parts that are not known; each says why."""
        return tuple(part for part in self.explain if part.amount_minor is None)

    def has_margin_above(self, pct: Decimal) -> bool | None:
        """Whether the gross gap is more than so many percent of the purchase price, exactly; None where it is unknown."""
        if self.margin_minor is None or self.purchase_minor is None:
            return None
        return self.margin_minor * 100 > pct * self.purchase_minor


@dataclass(frozen=True, slots=True)
class HighestPurchase:
    """The answer to what may be paid.

    Attributes:
        purchase_minor: gross, in the source store's currency: at this price the wish holds, a minor unit more and it does not (but
            10 million is the highest price there is); None where no price fulfils it or a part is unknown.
        unknown: the parts that are not known.
    """

    purchase_minor: int | None
    unknown: tuple[Part, ...] = ()


def compute_profit(terms: Terms, purchase_minor: int | None, sale_minor: int | None) -> Profit:
    """Reckon a trade part by part.

    Args:
        terms: what it is subject to.
        purchase_minor: gross, in the source store's currency; None where it is not known.
        sale_minor: gross, in the target store's currency; None where it is not known.

    Raises:
        PriceImpossible: a price is not above 0, or beyond 10 million.
    """
    for price in (purchase_minor, sale_minor):
        if price is not None and not 0 < price <= MOST_PRICE_MINOR:
            raise PriceImpossible(f"{price} is no price: it must be above 0 and at most {MOST_PRICE_MINOR} in the smallest unit")
    sheet = _Sheet(terms)
    sale = sheet.sell(sale_minor)
    fees = sheet.take_fees(sale_minor)
    sheet.take_own_costs(sale_minor, fees)
    purchase, invested = sheet.buy(purchase_minor)
    parts = tuple(sheet.parts)
    profit = _sum(part.amount_minor for part in parts)
    selling = _sum(part.amount_minor for part in parts if part.name in (PartName.REFERRAL_FEE, PartName.CLOSING_FEE))
    naive = _sum((sale, selling, _negated(purchase)))
    margin = _sum((sale, _negated(purchase)))
    return Profit(
        source=terms.source,
        target=terms.target,
        currency=terms.currency,
        purchase_minor=purchase,
        sale_minor=sale,
        margin_minor=margin,
        margin_percentage=_pct(margin, purchase),
        naive_profit_minor=naive,
        naive_roi_pct=_pct(naive, purchase),
        profit_minor=profit,
        invested_minor=invested,
        roi_pct=_pct(profit, invested),
        profit_margin_pct=_pct(profit, sale),
        explain=parts,
        is_stale=bool(terms.stale),
    )


def find_highest_purchase_for_profit(terms: Terms, sale_minor: int, profit_minor: int) -> HighestPurchase:
    """The most that may be paid for a profit of at least so much, in the result's currency."""
    return _find_highest(terms, sale_minor, lambda profit: _known(profit.profit_minor) >= profit_minor)


def find_break_even_purchase(terms: Terms, sale_minor: int) -> HighestPurchase:
    """The most that may be paid without a loss."""
    return find_highest_purchase_for_profit(terms, sale_minor, 0)


def find_highest_purchase_for_roi(terms: Terms, sale_minor: int, roi_pct: Decimal) -> HighestPurchase:
    """The most that may be paid for an ROI of at least so many percent.

    Raises:
        PriceImpossible: a wish below 0 (a loss on more money is a smaller one in percent, so there is no highest price), or one
            that is no percentage in hundredths.
    """
    wanted = _hundredths(roi_pct)
    if wanted < 0:
        raise PriceImpossible(f"a wanted ROI of {roi_pct} % is none; it must be 0 or more")
    return _find_highest(
        terms, sale_minor, lambda profit: _known(profit.profit_minor) * PERCENT_PARTS >= wanted * _known(profit.invested_minor)
    )


def find_highest_purchase_for_margin(terms: Terms, sale_minor: int, margin_pct: Decimal) -> HighestPurchase:
    """The most that may be paid for a profit of at least so many percent of the gross sale price.

    Raises:
        PriceImpossible: a wish that is no percentage in hundredths.
    """
    wanted = _hundredths(margin_pct)
    return _find_highest(
        terms, sale_minor, lambda profit: _known(profit.profit_minor) * PERCENT_PARTS >= wanted * _known(profit.sale_minor)
    )


def compare_pairs(
    prices: Mapping[Marketplace, int | None],
    *,
    seller: SellerProfile,
    tables: Tables,
    rates: ExchangeRates,
    on: date,
    category: str | None,
    fba_minor: Mapping[Marketplace, int | None],
    weight_g: int | None = None,
    currency: str = EURO,
    stale_after_days: int = STALE_AFTER_DAYS,
) -> tuple[Profit, ...]:
    """One product's profit from each store to each other that has a price, in the order of `prices`.

    Plain and slow: what a vectorised pass must agree with, to the minor unit.

    Args:
        prices: gross, in each store's own currency; None where there is none.
        seller: as the arguments below: see `find_terms`.
        tables: see there.
        rates: see there.
        on: see there.
        category: see there.
        fba_minor: of each store, in its currency; one that is missing is not known.
        weight_g: see there.
        currency: see there.
        stale_after_days: see there.
    """
    priced = {store: price for store, price in prices.items() if price is not None}
    found = []
    for source, target in permutations(priced, 2):
        terms = find_terms(
            source,
            target,
            seller=seller,
            tables=tables,
            rates=rates,
            on=on,
            category=category,
            fba_minor=fba_minor.get(target),
            weight_g=weight_g,
            currency=currency,
            stale_after_days=stale_after_days,
        )
        found.append(compute_profit(terms, priced[source], priced[target]))
    return tuple(found)


class _Sheet:
    """The parts of one trade, written down one after the other."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.parts: list[Part] = []

    def sell(self, sale_minor: int | None) -> int | None:
        """The sale and its VAT; gives the gross price in the result's currency."""
        vat = self.terms.output_vat
        net_minor = _net(sale_minor, vat)
        sale = self._from_store(sale_minor)
        tax = 0 if vat.value == 0 else _sum((self._from_store(net_minor), _negated(sale)))
        self._write(PartName.SALE, sale, self._store_rows(), self._why_no_sale(sale_minor))
        self._write(PartName.OUTPUT_VAT, tax, vat.rows + self._store_rows(), vat.why_unknown or self._why_no_sale(sale_minor))
        return sale

    def take_fees(self, sale_minor: int | None) -> int | None:
        """What Amazon takes; gives the sum."""
        terms = self.terms
        schedule = terms.referral
        referral_minor = schedule.compute_minor(sale_minor) if schedule is not None and sale_minor is not None else None
        referral_rows = (schedule.row,) if schedule is not None else ()
        no_referral = terms.why_no_referral or (
            self._why_no_sale(sale_minor) if sale_minor is None else f"the referral fee of {terms.target} for this price is not known"
        )
        selling_minor = _sum((referral_minor, terms.closing.value))
        before = len(self.parts)
        self._charge(PartName.REFERRAL_FEE, Term(referral_minor, referral_rows, no_referral))
        self._charge(PartName.CLOSING_FEE, terms.closing)
        self._charge_share(PartName.DIGITAL_ON_SELLING, selling_minor, terms.digital_on_selling, "the fees it is taken of are not known")
        self._charge(PartName.FBA_FEE, terms.fba)
        self._charge_share(PartName.DIGITAL_ON_FBA, terms.fba.value, terms.digital_on_fba, terms.fba.why_unknown)
        self._cost(PartName.STORAGE, terms.storage)
        return _negated(_sum(part.amount_minor for part in self.parts[before:]))

    def take_own_costs(self, sale_minor: int | None, fees: int | None) -> None:
        """What the trade costs besides."""
        terms = self.terms
        vat = terms.vat_on_fees
        self._write(PartName.VAT_ON_FEES, _negated(_share(fees, vat)), vat.rows, vat.why_unknown or "the fees it is taken of are not known")
        self._charge_share(PartName.RETURN_ALLOWANCE, sale_minor, terms.return_allowance, self._why_no_sale(sale_minor))
        self._cost(PartName.PREPARATION, terms.preparation)
        self._cost(PartName.INBOUND, terms.inbound)

    def buy(self, purchase_minor: int | None) -> tuple[int | None, int | None]:
        """The purchase and the way over the border; gives the gross price and all that is invested, in the result's currency."""
        terms = self.terms
        exchange, vat = terms.purchase_exchange, terms.purchase_vat
        no_price = f"the purchase price of {terms.source} is not known"
        no_rate = f"there is no exchange rate from {terms.source.currency} to {terms.currency} on {terms.on}"
        why = no_price if purchase_minor is None else no_rate
        purchase = _exchanged(purchase_minor, exchange)
        back = 0 if vat.value == 0 else _sum((purchase, _negated(_exchanged(_net(purchase_minor, vat), exchange))))
        net = _sum((purchase, _negated(back)))
        rows = _rate_rows(exchange)
        self._write(PartName.PURCHASE, _negated(purchase), rows, why)
        self._write(PartName.PURCHASE_VAT, back, vat.rows + rows, vat.why_unknown or why)
        invested = _sum((net, terms.preparation.value, terms.inbound.value))
        if terms.is_border:
            duty = _share(net, terms.customs)
            import_vat = _share(_sum((net, duty, terms.inbound.value)), terms.import_vat)
            no_base = "what it is taken of is not known"
            self._write(PartName.CUSTOMS, _negated(duty), terms.customs.rows, terms.customs.why_unknown or no_base)
            self._write(PartName.IMPORT_VAT, _negated(import_vat), terms.import_vat.rows, terms.import_vat.why_unknown or no_base)
            self._cost(PartName.CLEARANCE, terms.clearance)
            invested = _sum((invested, duty, import_vat, terms.clearance.value))
        return purchase, invested

    def _charge(self, name: PartName, term: Term) -> None:
        """A cost in the store's currency."""
        amount = 0 if term.value == 0 else self._from_store(term.value)
        self._write(
            name, _negated(amount), term.rows + self._store_rows(), self._no_store_rate() if term.value is not None else term.why_unknown
        )

    def _charge_share(self, name: PartName, of_minor: int | None, rate: Term, why_no_base: str) -> None:
        why = rate.why_unknown or (why_no_base if of_minor is None else "")
        self._charge(name, Term(_share(of_minor, rate), rate.rows, why))

    def _cost(self, name: PartName, term: Term) -> None:
        """A cost in the result's currency."""
        self._write(name, _negated(term.value), term.rows, term.why_unknown)

    def _write(self, name: PartName, amount_minor: int | None, rows: tuple[TableRow, ...], why_unknown: str) -> None:
        self.parts.append(Part(name, amount_minor, rows, why_unknown if amount_minor is None else ""))

    def _from_store(self, amount_minor: int | None) -> int | None:
        return _exchanged(amount_minor, self.terms.sale_exchange)

    def _store_rows(self) -> tuple[TableRow, ...]:
        return _rate_rows(self.terms.sale_exchange)

    def _no_store_rate(self) -> str:
        return f"there is no exchange rate from {self.terms.target.currency} to {self.terms.currency} on {self.terms.on}"

    def _why_no_sale(self, sale_minor: int | None) -> str:
        return f"the sale price of {self.terms.target} is not known" if sale_minor is None else self._no_store_rate()


def _find_highest(terms: Terms, sale_minor: int, holds: Callable[[Profit], bool]) -> HighestPurchase:
    """By halving: profit never rises with the purchase price, so a wish that fails at one fails at all higher ones."""
    lowest = compute_profit(terms, 1, sale_minor)
    if lowest.unknown:
        return HighestPurchase(None, lowest.unknown)
    if not holds(lowest):
        return HighestPurchase(None)
    good, bad = 1, 2
    while bad <= MOST_PRICE_MINOR and holds(compute_profit(terms, bad, sale_minor)):
        good, bad = bad, 2 * bad
    bad = min(bad, MOST_PRICE_MINOR + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        if holds(compute_profit(terms, middle, sale_minor)):
            good = middle
        else:
            bad = middle
    return HighestPurchase(good)


def _sum(amounts: Iterable[int | None]) -> int | None:
    total = 0
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return total


def _negated(amount: int | None) -> int | None:
    return None if amount is None else -amount


def _exchanged(amount_minor: int | None, exchange: Exchange | None) -> int | None:
    return None if amount_minor is None or exchange is None else exchange.convert_minor(amount_minor)


def _rate_rows(exchange: Exchange | None) -> tuple[TableRow, ...]:
    return tuple(rate.row for rate in exchange.rates) if exchange is not None else ()


def _share(amount_minor: int | None, rate: Term) -> int | None:
    if rate.value == 0:
        return 0
    return None if amount_minor is None or rate.value is None else take_share(amount_minor, rate.value)


def _net(gross_minor: int | None, rate: Term) -> int | None:
    return None if gross_minor is None or rate.value is None else take_net(gross_minor, rate.value)


def _pct(part: int | None, whole: int | None) -> Decimal | None:
    return None if part is None or whole is None else compute_pct(part, whole)


def _known(amount: int | None) -> int:
    if amount is None:
        raise AssertionError("asked for an unknown amount")
    return amount


def _hundredths(pct: Decimal) -> int:
    if not pct.is_finite() or abs(pct) > MOST_WISH_PCT or pct != round(pct, 2):
        raise PriceImpossible(f"{pct} % is no wish: it must be within {MOST_WISH_PCT} and not finer than hundredths")
    return int(pct * 100)
