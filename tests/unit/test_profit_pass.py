"""The pass over columns says of every trade what `compute_profit` says, to the minor unit."""

from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keeper.domain.arbitrage import MOST_PRICE_MINOR, Profit, compute_profit
from keeper.domain.borders import parse_borders
from keeper.domain.exchange import ExchangeRate, ExchangeRates
from keeper.domain.marketplace import Marketplace
from keeper.domain.seller import InboundBand, SellerProfile
from keeper.domain.trade_terms import Tables, find_terms
from keeper.profit_pass import BITS, NONE, Columns, PassImpossible, ProfitPass, Profits
from tests.unit.domain.seed_tables import BORDERS, FEES, RATES, VAT

STORES = (Marketplace.DE, Marketplace.IT, Marketplace.ES, Marketplace.FR, Marketplace.UK)
DE, IT, ES, FR, UK = STORES
CATEGORIES = ("default", "electronics", "computer_accessories", "clothing", "home_products", "furniture", "media", "grocery", "nowhere")
BORDER_COLUMNS = "from_area,to_area,category,customs_pct,clearance,clearance_currency,export_vat_refunded,valid_from,source\n"
ROWS = "EU,UK,default,{duty},{cost},GBP,{back},2021-01-01,broker\nUK,EU,default,{duty},{cost},EUR,{back},2021-01-01,broker\n"
DAYS = (date(2026, 5, 11), date(2026, 7, 1), date(2025, 12, 14), date(2020, 8, 1))
SELLER = SellerProfile("DE", frozenset({"DE"}), True, "EUR", 50, 0, Decimal(0), (InboundBand(None, None, None, 100),))
GOLDEN = {DE: 6000, IT: 9999}


@dataclass(frozen=True)
class World:
    """What a pass is made with."""

    seller: SellerProfile
    tables: Tables
    rates: ExchangeRates
    on: date

    def make(self) -> ProfitPass:
        return ProfitPass(STORES, CATEGORIES, seller=self.seller, tables=self.tables, rates=self.rates, on=self.on)


@dataclass(frozen=True)
class Listing:
    """One product in one store; None where there is nothing."""

    price: int | None
    category: str | None
    stated: int | None
    fba: int | None
    weight: int | None


PLAIN = World(SELLER, Tables(VAT, FEES, BORDERS), RATES, DAYS[0])


def maybe(values: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.one_of(st.none(), values)


def with_reclaim(seller: SellerProfile, reclaims: bool) -> SellerProfile:
    return replace(seller, reclaims_purchase_vat=reclaims and seller.is_registered)


LANES = st.builds(
    InboundBand,
    st.sampled_from([None, DE, UK]),
    st.sampled_from([None, IT, UK]),
    st.sampled_from([None, 200, 500, 2000]),
    st.integers(0, 2000),
)
SELLERS = st.builds(
    with_reclaim,
    st.builds(
        SellerProfile,
        home=st.sampled_from(["DE", "IT", "FR", "UK", "AT"]),
        registered=st.sampled_from([frozenset(), frozenset({"DE"}), frozenset({"DE", "UK"}), frozenset({"UK"})]),
        currency=st.sampled_from(["EUR", "EUR", "GBP"]),
        preparation_minor=maybe(st.integers(0, 500)),
        storage_minor=maybe(st.integers(0, 200)),
        return_allowance_pct=st.one_of(st.none(), st.decimals(0, 10, places=2)),
        inbound=st.lists(LANES, max_size=4, unique_by=lambda band: (band.source, band.target, band.up_to_g)).map(tuple),
    ),
    st.booleans(),
)
BORDER_TABLES = st.builds(
    lambda duty, cost, back: parse_borders("mine", BORDER_COLUMNS + ROWS.format(duty=duty, cost=cost, back=back)),
    st.sampled_from(["0", "5", "unknown"]),
    st.sampled_from(["0.00", "2.00", "unknown"]),
    st.sampled_from(["yes", "no", "unknown"]),
)
GBP = st.builds(lambda rate: ExchangeRates((ExchangeRate("GBP", rate, date(2020, 1, 1), "the test"),)), st.decimals("0.5", "1.5", places=8))
WORLDS = st.builds(
    World,
    SELLERS,
    st.builds(lambda borders: Tables(VAT, FEES, borders), st.one_of(st.just(BORDERS), BORDER_TABLES)),
    st.one_of(GBP, st.just(RATES), st.just(ExchangeRates())),
    st.sampled_from(DAYS),
)
# Prices around tier edges and halves, and the largest.
PRICES = st.one_of(st.integers(1, 40_000), st.sampled_from([1, 1000, 1001, 1500, 1501, 2000, 2001, 10_000, 10_001, MOST_PRICE_MINOR]))
LISTINGS = st.builds(
    Listing,
    maybe(PRICES),
    st.sampled_from([None, *CATEGORIES]),
    maybe(st.integers(0, 10_000)),
    maybe(st.integers(0, 2000)),
    maybe(st.integers(0, 3000)),
)
PRODUCTS = st.lists(st.tuples(LISTINGS, LISTINGS, LISTINGS, LISTINGS, LISTINGS), min_size=1, max_size=4)


def columns_of(products: list[tuple[Listing, ...]]) -> Columns:
    def column(pick: Any) -> Any:
        values = [[pick(listing) for listing in product] for product in products]
        return np.array([[NONE if value is None else value for value in row] for row in values], np.int64).T.copy()

    return Columns(
        column(lambda one: one.price),
        column(lambda one: 0 if one.category is None else 1 + CATEGORIES.index(one.category)),
        column(lambda one: one.stated),
        column(lambda one: one.fba),
        column(lambda one: one.weight),
    )


def said(found: Profits, place: int) -> tuple[object, ...]:
    """What the pass says of one trade, in the words of `Profit`."""
    is_known = not found.unknown[place]

    def pct(value: Any, is_there: Any) -> Decimal | None:
        return Decimal(int(value)).scaleb(-2) if is_there else None

    return (
        int(found.margin[place]),
        pct(found.margin_pct[place], True),
        int(found.profit[place]) if is_known else None,
        int(found.invested[place]) if found.has_invested[place] else None,
        pct(found.roi_pct[place], found.has_roi[place]),
        pct(found.margin_of_sale_pct[place], found.has_margin_of_sale[place]),
        {name for name, bit in BITS.items() if found.unknown[place] & bit},
        bool(found.is_stale[place]),
    )


def wanted(profit: Profit) -> tuple[object, ...]:
    return (
        profit.margin_minor,
        profit.margin_percentage if profit.purchase_minor else Decimal(0),
        profit.profit_minor,
        profit.invested_minor,
        profit.roi_pct,
        profit.profit_margin_pct,
        {part.name for part in profit.unknown},
        profit.is_stale,
    )


def reference(world: World, product: tuple[Listing, ...], source: int, target: int) -> Profit:
    sold = product[target]
    terms = find_terms(
        STORES[source],
        STORES[target],
        seller=world.seller,
        tables=world.tables,
        rates=world.rates,
        on=world.on,
        category=sold.category,
        fba_minor=sold.fba,
        weight_g=product[source].weight if sold.weight is None else sold.weight,
        stated_referral_pct=None if sold.stated is None else Decimal(sold.stated).scaleb(-2),
    )
    return compute_profit(terms, product[source].price, sold.price)


@settings(max_examples=120, deadline=None)
@given(world=WORLDS, products=PRODUCTS, least=st.one_of(st.none(), st.decimals(-50, 200, places=2)))
def test_the_pass_is_the_domain_to_the_minor_unit(world: World, products: list[tuple[Listing, ...]], least: Decimal | None) -> None:
    ready, columns = world.make(), columns_of(products)
    candidates = ready.find_candidates(columns.prices, least)
    found = ready.reckon(candidates, columns)
    trades = {
        (int(product), *ready.pairs[int(pair)]): said(found, place)
        for place, (product, pair) in enumerate(zip(candidates.products, candidates.pairs, strict=True))
    }
    expected = {}
    for number, product in enumerate(products):
        for source, target in permutations(range(len(STORES)), 2):
            profit = reference(world, product, source, target)
            is_wide = profit.margin_minor is not None if least is None else profit.has_margin_above(least)
            if is_wide:
                expected[number, source, target] = wanted(profit)
    assert trades == expected


def golden(price: int = 9999) -> Columns:
    nothing = Listing(None, None, None, None, None)
    return columns_of([(Listing(6000, "default", None, 420, None), Listing(price, "default", None, 420, None), nothing, nothing, nothing)])


def test_the_golden_case_is_exact() -> None:
    ready, columns = PLAIN.make(), golden()
    candidates = ready.find_candidates(columns.prices, Decimal(10))
    found = ready.reckon(candidates, columns)
    assert [ready.pairs[pair] for pair in candidates.pairs] == [(0, 1)]
    assert (found.profit.tolist(), found.roi_pct.tolist(), found.margin.tolist()) == ([1054], [2030], [3999])


@pytest.mark.parametrize(("price", "is_above"), [(6600, False), (6601, True)])
def test_the_least_margin_is_compared_exactly(price: int, is_above: bool) -> None:
    candidates = PLAIN.make().find_candidates(golden(price).prices, Decimal(10))
    assert bool(len(candidates.products)) is is_above


def test_only_the_pairs_asked_for_are_looked_at() -> None:
    ready, columns = PLAIN.make(), golden()
    assert len(ready.find_candidates(columns.prices, None).pairs) == 2
    back = ready.pairs.index((1, 0))
    assert ready.find_candidates(columns.prices, None, [back]).pairs.tolist() == [back]


def test_a_price_beyond_all_prices_is_in_no_pair() -> None:
    assert len(PLAIN.make().find_candidates(golden(MOST_PRICE_MINOR + 1).prices, None).products) == 0


def test_a_rate_that_64_bits_do_not_hold_is_refused() -> None:
    world = replace(PLAIN, rates=ExchangeRates((ExchangeRate("GBP", Decimal("0.00000001"), DAYS[3], "the test"),)))
    with pytest.raises(PassImpossible, match="too fine or too large"):
        world.make()


def test_the_fingerprint_names_the_pairs_a_rate_touches() -> None:
    other = replace(PLAIN, rates=ExchangeRates((ExchangeRate("GBP", Decimal("0.9"), DAYS[0], "the test"),)))
    before, after = PLAIN.make(), other.make()
    changed = {
        before.pairs[place]
        for category, marks in before.fingerprints().items()
        for place, mark in enumerate(marks)
        if after.fingerprints()[category][place] != mark
    }
    assert changed == {pair for pair in before.pairs if STORES.index(UK) in pair}


def test_a_day_that_passes_changes_no_fingerprint() -> None:
    assert replace(PLAIN, on=date(2026, 5, 12)).make().fingerprints() == PLAIN.make().fingerprints()


def test_a_rate_that_comes_of_age_changes_the_fingerprints_of_its_pairs() -> None:
    assert replace(PLAIN, on=date(2026, 6, 1)).make().fingerprints() != PLAIN.make().fingerprints()
