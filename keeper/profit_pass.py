"""The profit engine over columns: what `keeper.domain.arbitrage` says of one trade, for all pairs of all products at once.

Integers of 64 bits and the same rounding, so both agree to the minor unit (a property test holds them together). Two steps: the gross gap
of every pair is one comparison a pair, and only the few pairs that pass it are reckoned part by part. What a trade is subject to is looked
up once for each category and pair by `find_terms`; of a product come its prices, FBA fees, weights and the referral share Keepa states.

Arrays are stores x products, in the order of `stores`; what is not known is `NONE`.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import permutations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from keeper.domain.arbitrage import MOST_PRICE_MINOR, PartName
from keeper.domain.errors import KeeperError
from keeper.domain.exchange import EURO, Exchange, ExchangeRates
from keeper.domain.fees import ReferralFee, TierKind
from keeper.domain.marketplace import Marketplace
from keeper.domain.rounding import PERCENT_PARTS
from keeper.domain.seller import SellerProfile
from keeper.domain.trade_terms import STALE_AFTER_DAYS, Tables, Term, Terms, find_terms

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NONE: Final = -1
# The bit of each part in `Profits.unknown`.
BITS: Final = {name: 1 << place for place, name in enumerate(PartName)}

_MOST = 2**63 - 1
_NO_END = 2 * MOST_PRICE_MINOR
_STATED_PCT = Decimal(0)


class PassImpossible(KeeperError):
    """Figures so large or so fine that integers of 64 bits do not hold them."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Of products; each array is stores x products.

    Attributes:
        prices: gross, in each store's own currency's minor units.
        categories: places in the pass's categories, by the store that sells.
        stated: the referral share Keepa states, in hundredths of a percent.
        fba: Amazon's fee, minor units of the store.
        weights: grams; that of the store that sells counts, where it says none that of the other.
    """

    prices: Ints
    categories: Ints
    stated: Ints
    fba: Ints
    weights: Ints


@dataclass(frozen=True, slots=True)
class Candidates:
    """Trades whose gross gap is wide enough: one place in each array for each.

    Attributes:
        products: which product, as its place in the columns.
        pairs: which pair, as its place in the pass's pairs.
        purchase, sale: gross, in the result's minor units.
    """

    products: Ints
    pairs: Ints
    purchase: Ints
    sale: Ints


@dataclass(frozen=True, slots=True)
class Profits:
    """What `Profit` says, as columns over the candidates. A figure that is not known is 0 and masked.

    Attributes:
        margin: gross gap, minor units.
        margin_pct: hundredths of a percent of the purchase price.
        profit, invested, roi_pct, margin_of_sale_pct: percents in hundredths.
        has_invested, has_roi, has_margin_of_sale: where these three are known; the profit is where `unknown` is 0.
        unknown: the parts that are not known, as a sum of `BITS`.
        is_stale: an exchange rate used is too old.
    """

    margin: Ints
    margin_pct: Ints
    profit: Ints
    invested: Ints
    has_invested: Bools
    roi_pct: Ints
    has_roi: Bools
    margin_of_sale_pct: Ints
    has_margin_of_sale: Bools
    unknown: Ints
    is_stale: Bools


class ProfitPass:
    """Ready for any number of products.

    Attributes:
        stores: in the order of the arrays.
        categories: None, for a product whose category is not known, is the first.
        pairs: every ordered pair, as places in `stores`.
    """

    def __init__(
        self,
        stores: Sequence[Marketplace],
        categories: Sequence[str],
        *,
        seller: SellerProfile,
        tables: Tables,
        rates: ExchangeRates,
        on: date,
        currency: str = EURO,
        stale_after_days: int = STALE_AFTER_DAYS,
    ) -> None:
        self.stores = tuple(stores)
        self.categories: tuple[str | None, ...] = (None, *categories)
        self.pairs = tuple(permutations(range(len(self.stores)), 2))
        self.on = on

        def look(category: str | None, source: int, target: int, weight_g: int | None = None, **options: Any) -> Terms:
            return find_terms(
                self.stores[source],
                self.stores[target],
                seller=seller,
                tables=tables,
                rates=rates,
                on=on,
                category=category,
                fba_minor=0,
                weight_g=weight_g,
                currency=currency,
                stale_after_days=stale_after_days,
                **options,
            )

        # Indexed by category * pairs + pair.
        self._terms = [look(category, *pair) for category in self.categories for pair in self.pairs]
        # A product with a category that has no schedule, or with none, pays the share Keepa states.
        self._stated_terms = [look(None, *pair, stated_referral_pct=_STATED_PCT) for pair in self.pairs]
        # A piece's shipping is the same for all weights up to the next edge of a band.
        self._weight_edges = sorted({band.up_to_g for band in seller.inbound if band.up_to_g is not None})
        heaviest = self._weight_edges[-1] + 1 if self._weight_edges else 1
        self._inbound = [look(None, *pair, weight).inbound for pair in self.pairs for weight in (None, *self._weight_edges, heaviest)]
        self._exchanges = [rates.find_exchange(store.currency, currency, on) for store in self.stores]
        self._most_worth = max((_worth(exchange) for exchange in self._exchanges if exchange is not None), default=0)
        self._fill()

    def _fill(self) -> None:
        self._output_vat = _rates(self._terms, lambda terms: terms.output_vat)
        self._closing = _rates(self._terms, lambda terms: terms.closing)
        self._digital_on_selling = _rates(self._terms, lambda terms: terms.digital_on_selling)
        self._digital_on_fba = _rates(self._terms, lambda terms: terms.digital_on_fba)
        self._storage = _rates(self._terms, lambda terms: terms.storage)
        self._vat_on_fees = _rates(self._terms, lambda terms: terms.vat_on_fees)
        self._return_allowance = _rates(self._terms, lambda terms: terms.return_allowance)
        self._preparation = _rates(self._terms, lambda terms: terms.preparation)
        self._purchase_vat = _rates(self._terms, lambda terms: terms.purchase_vat)
        self._customs = _rates(self._terms, lambda terms: terms.customs)
        self._import_vat = _rates(self._terms, lambda terms: terms.import_vat)
        self._clearance = _rates(self._terms, lambda terms: terms.clearance)
        self._is_border = np.array([terms.is_border for terms in self._terms], np.bool_)
        self._is_stale = np.array([bool(terms.stale) for terms in self._terms], np.bool_)
        self._inbound_minor = np.array([_value(term) for term in self._inbound], np.int64)
        self._numerators = np.array([exchange.numerator if exchange else 1 for exchange in self._exchanges], np.int64)
        self._denominators = np.array([exchange.denominator if exchange else 1 for exchange in self._exchanges], np.int64)
        self._schedules = _Schedules([terms.referral for terms in self._terms])
        # The least fee of a stated share, by pair.
        self._stated_least = np.array(
            [
                NONE if one.referral is None or one.referral.minimum_minor is None else one.referral.minimum_minor
                for one in self._stated_terms
            ],
            np.int64,
        )
        self._sources = np.array([source for source, _ in self.pairs], np.int64)
        self._targets = np.array([target for _, target in self.pairs], np.int64)

    def fingerprints(self) -> dict[str, list[str]]:
        """What each category and pair is reckoned with, as a short text by category, in the order of the pairs.

        Same figures, same text: a day that passes or a source that is worded anew changes none. The category that is not known is "".
        """
        found: dict[str, list[str]] = {}
        bands = len(self._weight_edges) + 2
        for place, terms in enumerate(self._terms):
            category, pair = divmod(place, len(self.pairs))
            inbound = [term.value for term in self._inbound[pair * bands : (pair + 1) * bands]]
            stated = self._stated_least[pair]
            said = repr((_figures(terms), self._weight_edges, inbound, int(stated)))
            found.setdefault(self.categories[category] or "", []).append(hashlib.sha256(said.encode()).hexdigest()[:12])
        return found

    def find_candidates(self, prices: Ints, least_margin_pct: Decimal | None, pairs: Sequence[int] | None = None) -> Candidates:
        """All trades whose gross gap is more than so many percent of the purchase price, exactly.

        Args:
            prices: stores x products; what is no price (`NONE`, 0, beyond 10 million) has no trade.
            least_margin_pct: None for every trade whose gap is known.
            pairs: only these; None for all.

        Raises:
            PassImpossible: the percentage is too fine or too large.
        """
        wanted = range(len(self.pairs)) if pairs is None else pairs
        is_known = (prices > 0) & (prices <= MOST_PRICE_MINOR)
        worth = np.zeros_like(prices)
        for store, exchange in enumerate(self._exchanges):
            if exchange is None:
                is_known[store] = False
            else:
                worth[store] = _exchange(np.where(is_known[store], prices[store], 0), exchange.numerator, exchange.denominator)
        times, at_least = 1, 0
        if least_margin_pct is not None:
            above, below = least_margin_pct.as_integer_ratio()
            times, at_least = 100 * below, 100 * below + above
        if self._most_worth * max(times, abs(at_least)) > _MOST:
            raise PassImpossible(
                f"a least margin of {least_margin_pct} % is too fine or too large to compare all prices with; write fewer digits"
            )
        # sale - purchase > pct of purchase, with both sides in whole numbers; what is not known is never above.
        sales = np.where(is_known, worth * times, NONE)
        purchases = np.where(is_known, worth * at_least, _MOST)
        found = [np.flatnonzero(sales[self.pairs[pair][1]] > purchases[self.pairs[pair][0]]) for pair in wanted]
        products = np.concatenate(found) if found else np.empty(0, np.int64)
        of_pair = np.repeat(np.array(wanted, np.int64), [len(one) for one in found])
        return Candidates(products, of_pair, worth[self._sources[of_pair], products], worth[self._targets[of_pair], products])

    def reckon(self, candidates: Candidates, columns: Columns) -> Profits:
        """The true profit of each, part by part as `compute_profit` does.

        Args:
            candidates: of the same prices.
            columns: of the same products.
        """
        products, pairs = candidates.products, candidates.pairs
        sources, targets = self._sources[pairs], self._targets[pairs]
        categories = columns.categories[targets, products]
        place = categories * len(self.pairs) + pairs
        price, price_of_purchase = columns.prices[targets, products], columns.prices[sources, products]
        purchase, sale = candidates.purchase, candidates.sale
        sheet = _Sheet(len(products))

        def from_store(amount: Ints) -> Ints:
            return self._from(targets, amount)

        # The sale and its VAT.
        vat = self._output_vat[place]
        net = from_store(_net(price, vat))
        sheet.write(PartName.OUTPUT_VAT, np.where(vat == 0, 0, net - sale), is_unknown=vat == NONE)
        sheet.total += sale
        # What Amazon takes.
        referral = self._find_referral(place, pairs, price, columns.stated[targets, products])
        closing = self._closing[place]
        rate = self._digital_on_selling[place]
        no_selling = (referral == NONE) | (closing == NONE)
        fba = columns.fba[targets, products]
        fba_rate = self._digital_on_fba[place]
        storage = self._storage[place]
        before = sheet.total.copy()
        sheet.cost(PartName.REFERRAL_FEE, from_store(referral), is_unknown=referral == NONE)
        sheet.cost(PartName.CLOSING_FEE, from_store(closing), is_unknown=closing == NONE)
        sheet.cost(PartName.DIGITAL_ON_SELLING, from_store(_share(referral + closing, rate)), is_unknown=_no_share(no_selling, rate))
        sheet.cost(PartName.FBA_FEE, from_store(fba), is_unknown=fba == NONE)
        sheet.cost(PartName.DIGITAL_ON_FBA, from_store(_share(fba, fba_rate)), is_unknown=_no_share(fba == NONE, fba_rate))
        sheet.cost(PartName.STORAGE, storage, is_unknown=storage == NONE)
        fees = before - sheet.total
        no_fees = sheet.lacks(
            PartName.REFERRAL_FEE,
            PartName.CLOSING_FEE,
            PartName.DIGITAL_ON_SELLING,
            PartName.FBA_FEE,
            PartName.DIGITAL_ON_FBA,
            PartName.STORAGE,
        )
        # What the trade costs besides.
        rate = self._vat_on_fees[place]
        sheet.cost(PartName.VAT_ON_FEES, _share(fees, rate), is_unknown=_no_share(no_fees, rate))
        rate = self._return_allowance[place]
        sheet.cost(PartName.RETURN_ALLOWANCE, from_store(_share(price, rate)), is_unknown=rate == NONE)
        preparation = self._preparation[place]
        sheet.cost(PartName.PREPARATION, preparation, is_unknown=preparation == NONE)
        weight = columns.weights[targets, products]
        inbound = self._find_inbound(pairs, np.where(weight == NONE, columns.weights[sources, products], weight))
        sheet.cost(PartName.INBOUND, inbound, is_unknown=inbound == NONE)
        # The purchase and the way over the border.
        vat = self._purchase_vat[place]
        back = np.where(vat == 0, 0, purchase - self._from(sources, _net(price_of_purchase, vat)))
        sheet.total -= purchase
        sheet.write(PartName.PURCHASE_VAT, back, is_unknown=vat == NONE)
        paid = purchase - back
        no_paid = vat == NONE
        invested = paid + np.maximum(preparation, 0) + np.maximum(inbound, 0)
        is_border = self._is_border[place]
        if is_border.any():
            rate = self._customs[place]
            duty = np.where(is_border, _share(paid, rate), 0)
            no_duty = is_border & _no_share(no_paid, rate)
            sheet.cost(PartName.CUSTOMS, duty, is_unknown=no_duty)
            rate = self._import_vat[place]
            tax = np.where(is_border, _share(paid + duty + np.maximum(inbound, 0), rate), 0)
            sheet.cost(PartName.IMPORT_VAT, tax, is_unknown=is_border & _no_share(no_paid | no_duty | (inbound == NONE), rate))
            clearance = np.where(is_border, self._clearance[place], 0)
            sheet.cost(PartName.CLEARANCE, clearance, is_unknown=clearance == NONE)
            invested += duty + tax + np.maximum(clearance, 0)
        has_invested = ~sheet.lacks(
            PartName.PREPARATION, PartName.INBOUND, PartName.PURCHASE_VAT, PartName.CUSTOMS, PartName.IMPORT_VAT, PartName.CLEARANCE
        )
        is_known = sheet.unknown == 0
        profit = np.where(is_known, sheet.total, 0)
        invested = np.where(has_invested, invested, 0)
        has_roi = is_known & (invested > 0)
        has_margin = is_known & (sale > 0)
        margin = sale - purchase
        return Profits(
            margin=margin,
            margin_pct=_pct(margin, purchase, purchase > 0),
            profit=profit,
            invested=invested,
            has_invested=has_invested,
            roi_pct=_pct(profit, invested, has_roi),
            has_roi=has_roi,
            margin_of_sale_pct=_pct(profit, sale, has_margin),
            has_margin_of_sale=has_margin,
            unknown=sheet.unknown,
            is_stale=self._is_stale[place],
        )

    def _from(self, stores: Ints, amount: Ints) -> Ints:
        """From the stores' currencies; where the amount is not known, whatever it gives is masked."""
        return _exchange(amount, self._numerators[stores], self._denominators[stores])

    def _find_referral(self, place: Ints, pairs: Ints, price: Ints, stated: Ints) -> Ints:
        fee = self._schedules.compute(place, price)
        is_stated = (stated != NONE) & ~self._schedules.is_there[place]
        if is_stated.any():
            least = self._stated_least[pairs]
            flat = np.where(least == NONE, NONE, np.maximum(_half_up(price * stated, PERCENT_PARTS), least))
            fee = np.where(is_stated, flat, fee)
        return fee

    def _find_inbound(self, pairs: Ints, weights: Ints) -> Ints:
        bands = len(self._weight_edges) + 2
        band = np.where(weights == NONE, 0, 1 + np.searchsorted(np.array(self._weight_edges, np.int64), weights, side="left"))
        found: Ints = self._inbound_minor[pairs * bands + band]
        return found


class _Sheet:
    """The parts of many trades: their sum, and which are not known."""

    def __init__(self, number: int) -> None:
        self.total = np.zeros(number, np.int64)
        self.unknown = np.zeros(number, np.int64)

    def write(self, name: PartName, amount: Ints, *, is_unknown: Bools) -> None:
        """What adds to the profit."""
        self.total += np.where(is_unknown, 0, amount)
        self.unknown |= np.where(is_unknown, BITS[name], 0)

    def cost(self, name: PartName, amount: Ints, *, is_unknown: Bools) -> None:
        """What it costs."""
        self.total -= np.where(is_unknown, 0, amount)
        self.unknown |= np.where(is_unknown, BITS[name], 0)

    def lacks(self, *names: PartName) -> Bools:
        """Where one of these is not known."""
        found: Bools = (self.unknown & sum(BITS[name] for name in names)) != 0
        return found


class _Schedules:
    """Referral fees of many schedules: tiers side by side, as many as the longest has.

    Attributes:
        is_there: where there is a schedule.
    """

    def __init__(self, schedules: Sequence[ReferralFee | None]) -> None:
        tiers = max((len(one.tiers) for one in schedules if one is not None), default=1)
        shape = (len(schedules), tiers)
        self.is_there = np.array([one is not None for one in schedules], np.bool_)
        self._ends = np.full(shape, _NO_END, np.int64)
        self._rates = np.full(shape, NONE, np.int64)
        self._least = np.full(len(schedules), NONE, np.int64)
        self._is_whole = np.array([one is not None and one.kind is TierKind.WHOLE for one in schedules], np.bool_)
        for place, one in enumerate(schedules):
            if one is None:
                continue
            for number, tier in enumerate(one.tiers):
                self._ends[place, number] = _NO_END if tier.up_to_minor is None else tier.up_to_minor
                self._rates[place, number] = NONE if tier.rate_pct is None else int(tier.rate_pct * 100)
            self._least[place] = NONE if one.minimum_minor is None else one.minimum_minor

    def compute(self, place: Ints, price: Ints) -> Ints:
        """As `ReferralFee.compute_minor` does; `NONE` where a rate it needs or the minimum is not known."""
        shares = np.zeros(len(place), np.int64)
        least = self._least[place]
        is_whole = self._is_whole[place]
        is_unknown = least == NONE
        is_open = np.ones(len(place), np.bool_)
        begin = np.zeros(len(place), np.int64)
        for number in range(self._ends.shape[1]):
            end = np.minimum(price, self._ends[place, number])
            rate = self._rates[place, number]
            is_last = end == price
            of = np.where(is_whole, price, end - begin)
            counts = is_open & (is_last | ~is_whole)
            is_unknown |= counts & (rate == NONE)
            shares += np.where(counts, of * rate, 0)
            is_open &= ~is_last
            begin = end
            if not is_open.any():
                break
        fee: Ints = np.where(is_unknown, NONE, np.maximum(_half_up(shares, PERCENT_PARTS), least))
        return fee


def _rates(terms: Sequence[Terms], pick: Callable[[Terms], Term]) -> Ints:
    return np.array([_value(pick(one)) for one in terms], np.int64)


def _value(term: Term) -> int:
    return NONE if term.value is None else term.value


def _figures(terms: Terms) -> tuple[object, ...]:
    referral = terms.referral
    values = (
        terms.output_vat,
        terms.closing,
        terms.digital_on_selling,
        terms.digital_on_fba,
        terms.storage,
        terms.vat_on_fees,
        terms.return_allowance,
        terms.preparation,
        terms.purchase_vat,
        *((terms.customs, terms.import_vat, terms.clearance) if terms.is_border else ()),
    )
    ratios = [one and (one.numerator, one.denominator) for one in (terms.sale_exchange, terms.purchase_exchange)]
    schedule = referral and (
        referral.kind.value,
        [(tier.up_to_minor, str(tier.rate_pct)) for tier in referral.tiers],
        referral.minimum_minor,
    )
    return (terms.currency, [one.value for one in values], ratios, schedule, bool(terms.stale))


def _worth(exchange: Exchange) -> int:
    """The most a price can be worth; all that is reckoned of it must fit too.

    Raises:
        PassImpossible: it does not.
    """
    worth = exchange.convert_minor(MOST_PRICE_MINOR) + 1
    # Twice a share of everything at most, as rounding does.
    if 2 * MOST_PRICE_MINOR * exchange.numerator + exchange.denominator > _MOST or 8 * worth * PERCENT_PARTS > _MOST:
        raise PassImpossible(
            f"an exchange of {exchange.numerator} for {exchange.denominator} is too fine or too large to reckon all prices with"
        )
    return worth


def _half_up(numerator: Ints, denominator: Ints | int) -> Ints:
    """`divide_half_up`, for any sign."""
    quotient = (2 * np.abs(numerator) + denominator) // (2 * denominator)
    found: Ints = np.where(numerator < 0, -quotient, quotient)
    return found


def _exchange(amount: Ints, numerator: Ints | int, denominator: Ints | int) -> Ints:
    if np.all(np.equal(numerator, denominator)):
        return amount
    return _half_up(amount * numerator, denominator)


def _net(gross: Ints, rate: Ints) -> Ints:
    return _half_up(gross * PERCENT_PARTS, PERCENT_PARTS + np.maximum(rate, 0))


def _share(amount: Ints, rate: Ints) -> Ints:
    return _half_up(amount * np.maximum(rate, 0), PERCENT_PARTS)


def _no_share(is_unknown: Bools, rate: Ints) -> Bools:
    """A rate of 0 of something unknown is 0."""
    found: Bools = (rate == NONE) | (is_unknown & (rate != 0))
    return found


def _pct(part: Ints, whole: Ints, is_known: Bools) -> Ints:
    return np.where(is_known, _half_up(part * PERCENT_PARTS, np.where(is_known, whole, 1)), 0)
