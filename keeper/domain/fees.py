"""What Amazon takes of a sale: referral fees, closing fees and the digital services fee, by store, category and day.

All amounts are in the store's currency and without VAT, as Amazon's schedules are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise

from keeper.domain.dated_rows import ANY, Cells, TableInvalid, TableRow, find_own_or_general, read_rows
from keeper.domain.marketplace import Marketplace
from keeper.domain.rounding import PERCENT_PARTS, divide_half_up
from keeper.domain.vat import DEFAULT


class TierKind(StrEnum):
    """What a tier's rate is taken of."""

    WHOLE = "whole"
    PORTION = "portion"


@dataclass(frozen=True, slots=True)
class ReferralTier:
    """One rate of a schedule.

    Attributes:
        up_to_minor: the highest price it is for, itself included; None for all above.
        rate_pct: at most two decimals; None where it is unknown.
    """

    up_to_minor: int | None
    rate_pct: Decimal | None


@dataclass(frozen=True, slots=True)
class ReferralFee:
    """A schedule: what share of the gross price Amazon takes for having brought the buyer.

    Attributes:
        kind: `whole`: the whole price pays the rate of the one tier it is in, so the fee jumps where a tier ends;
            `portion`: each part of the price pays its own tier's rate, so the fee never jumps.
        tiers: by rising price, the last without an end.
        minimum_minor: the least for one sale; None where it is unknown.
    """

    marketplace: Marketplace
    category: str
    kind: TierKind
    tiers: tuple[ReferralTier, ...]
    minimum_minor: int | None
    valid_from: date
    source: str

    @property
    def row(self) -> TableRow:
        """What it stands on."""
        return TableRow("referral fee", f"{self.marketplace} {self.category}", self.valid_from, self.source)

    @property
    def edges_minor(self) -> tuple[int, ...]:
        """Prices above which the next tier begins; between two of them the fee never falls."""
        return tuple(tier.up_to_minor for tier in self.tiers if tier.up_to_minor is not None)

    def compute_minor(self, price_minor: int) -> int | None:
        """The fee for one sale, rounded once; None where a rate it needs or the minimum is unknown."""
        shares = 0
        begin = 0
        for tier in self.tiers:
            end = price_minor if tier.up_to_minor is None else min(price_minor, tier.up_to_minor)
            is_last = end == price_minor
            of = price_minor if self.kind is TierKind.WHOLE else end - begin
            if is_last or self.kind is TierKind.PORTION:
                if tier.rate_pct is None:
                    return None
                shares += of * int(tier.rate_pct * 100)
            if is_last:
                break
            begin = end
        return None if self.minimum_minor is None else max(divide_half_up(shares, PERCENT_PARTS), self.minimum_minor)


@dataclass(frozen=True, slots=True)
class ClosingFee:
    """A fixed amount for one sale, taken of media; None where it is unknown."""

    marketplace: Marketplace
    category: str
    amount_minor: int | None
    valid_from: date
    source: str

    @property
    def row(self) -> TableRow:
        """What it stands on."""
        return TableRow("closing fee", f"{self.marketplace} {self.category}", self.valid_from, self.source)


@dataclass(frozen=True, slots=True)
class DigitalServicesFee:
    """What Amazon adds to its own fees for the digital services taxes, by the seller's country and the store.

    Attributes:
        seller_country: a star for all countries that have no row of their own for the store on that day.
        selling_pct: on referral and closing fee; None where it is unknown.
        fba_pct: on Amazon's fee for storing and sending; None where it is unknown.
    """

    seller_country: str
    marketplace: Marketplace
    selling_pct: Decimal | None
    fba_pct: Decimal | None
    valid_from: date
    source: str

    @property
    def row(self) -> TableRow:
        """What it stands on."""
        seller = "other sellers" if self.seller_country == ANY else f"seller {self.seller_country}"
        return TableRow("digital services fee", f"{seller}, store {self.marketplace}", self.valid_from, self.source)


@dataclass(frozen=True, slots=True)
class FeeTables:
    """All of Amazon's fees, in the files' order."""

    referral: tuple[ReferralFee, ...]
    closing: tuple[ClosingFee, ...]
    digital: tuple[DigitalServicesFee, ...]

    def find_referral(self, marketplace: Marketplace, category: str, on: date) -> ReferralFee | None:
        """The category's own schedule, or the store's `default` where it has none; None where that does not hold on the day."""
        own = [fee for fee in self.referral if (fee.marketplace, fee.category) == (marketplace, category)]
        general = [fee for fee in self.referral if (fee.marketplace, fee.category) == (marketplace, DEFAULT)]
        return find_own_or_general(own, general, on)

    def find_closing(self, marketplace: Marketplace, category: str, on: date) -> ClosingFee | None:
        """The category's own row, or the store's `default` where it has none; None where that does not hold on the day."""
        own = [fee for fee in self.closing if (fee.marketplace, fee.category) == (marketplace, category)]
        general = [fee for fee in self.closing if (fee.marketplace, fee.category) == (marketplace, DEFAULT)]
        return find_own_or_general(own, general, on)

    def find_digital(self, seller_country: str, marketplace: Marketplace, on: date) -> DigitalServicesFee | None:
        """The row for the seller's country, or that for others where it has none; None where that does not hold on the day."""
        own = [fee for fee in self.digital if (fee.marketplace, fee.seller_country) == (marketplace, seller_country)]
        general = [fee for fee in self.digital if (fee.marketplace, fee.seller_country) == (marketplace, ANY)]
        return find_own_or_general(own, general, on)


def flat_referral(marketplace: Marketplace, rate_pct: Decimal, minimum_minor: int | None, valid_from: date, source: str) -> ReferralFee:
    """One rate for all prices, for a product whose rate somebody states (Keepa does) while its category is not known."""
    return ReferralFee(marketplace, "stated", TierKind.WHOLE, (ReferralTier(None, rate_pct),), minimum_minor, valid_from, source)


def stated_pct(pct: float | None) -> Decimal | None:
    """A share as Keepa states it, a float of up to two decimals, as it was meant."""
    return None if pct is None else Decimal(round(pct * 100)).scaleb(-2)


def parse_referral_fees(name: str, text: str) -> tuple[ReferralFee, ...]:
    """Schedules of a CSV file: lines of the same stores, category and day are the tiers of one, the last with an empty `up_to`.

    Raises:
        TableInvalid: names line and column.
    """
    columns = ("marketplaces", "category", "kind", "up_to", "rate_pct", "minimum", "valid_from", "source")
    schedules: dict[tuple[str, str, date], list[Cells]] = {}
    for line in read_rows(name, text, columns):
        key = (line.cells["marketplaces"], line.category("category"), line.day("valid_from"))
        schedules.setdefault(key, []).append(line)
    fees = [fee for lines in schedules.values() for fee in _parse_schedule(lines)]
    _refuse_twice(name, ((fee.marketplace, fee.category, fee.valid_from) for fee in fees))
    return tuple(fees)


def parse_closing_fees(name: str, text: str) -> tuple[ClosingFee, ...]:
    """Rows of a CSV file, one for each store of a line.

    Raises:
        TableInvalid: names line and column.
    """
    fees: list[ClosingFee] = []
    for line in read_rows(name, text, ("marketplaces", "category", "amount", "valid_from", "source")):
        stores = line.marketplaces("marketplaces")
        amount_minor = line.amount_minor("amount", line.currency(stores))
        fees += (
            ClosingFee(store, line.category("category"), amount_minor, line.day("valid_from"), line.text("source")) for store in stores
        )
    _refuse_twice(name, ((fee.marketplace, fee.category, fee.valid_from) for fee in fees))
    return tuple(fees)


def parse_digital_services_fees(name: str, text: str) -> tuple[DigitalServicesFee, ...]:
    """Rows of a CSV file, one for each store of a line.

    Raises:
        TableInvalid: names line and column.
    """
    fees: list[DigitalServicesFee] = []
    for line in read_rows(name, text, ("seller_country", "marketplaces", "selling_pct", "fba_pct", "valid_from", "source")):
        seller = line.country("seller_country", is_any_allowed=True)
        rates = (line.pct("selling_pct"), line.pct("fba_pct"))
        since, source = line.day("valid_from"), line.text("source")
        fees += (DigitalServicesFee(seller, store, *rates, since, source) for store in line.marketplaces("marketplaces"))
    _refuse_twice(name, ((fee.seller_country, fee.marketplace, fee.valid_from) for fee in fees))
    return tuple(fees)


def _parse_schedule(lines: Sequence[Cells]) -> list[ReferralFee]:
    first = lines[0]
    for column in ("kind", "minimum"):
        if (other := next((line for line in lines if line.cells[column] != first.cells[column]), None)) is not None:
            raise other.fault(column, f"differs from line {first.line} of the same schedule")
    stores = first.marketplaces("marketplaces")
    currency = first.currency(stores)
    try:
        kind = TierKind(first.cells["kind"])
    except ValueError:
        raise first.fault("kind", f"must be {' or '.join(TierKind)}") from None
    tiers = tuple(ReferralTier(_read_end(line, currency), line.pct("rate_pct")) for line in lines)
    *ends, last = (tier.up_to_minor for tier in tiers)
    if last is not None:
        raise lines[-1].fault("up_to", "must be empty in the last line of a schedule: the rate for all above")
    if any(end is None or end <= before for before, end in pairwise([0, *ends])):  # type: ignore[operator]
        raise first.fault("up_to", "must rise from line to line, and be empty in the last only")
    minimum_minor = first.amount_minor("minimum", currency)
    since, category = first.day("valid_from"), first.category("category")
    sources = "; ".join(dict.fromkeys(line.text("source") for line in lines))
    return [ReferralFee(store, category, kind, tiers, minimum_minor, since, sources) for store in stores]


def _read_end(line: Cells, currency: str) -> int | None:
    if not line.cells["up_to"]:
        return None
    return line.amount_minor("up_to", currency) or line.refuse("up_to", "must be an amount above 0, or empty for all above")


def _refuse_twice(name: str, keys: Iterable[tuple[str, str, date]]) -> None:
    seen: set[tuple[str, str, date]] = set()
    for key in keys:
        if key in seen:
            raise TableInvalid(name, None, f"{key[0]} {key[1]} from {key[2]} is in the table twice")
        seen.add(key)
