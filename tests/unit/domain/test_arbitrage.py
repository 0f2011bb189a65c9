"""Profit of a trade: the golden case to the cent, what is unknown, and what holds for all prices."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keeper.domain.arbitrage import (
    MOST_PRICE_MINOR,
    PartName,
    PriceImpossible,
    Profit,
    compare_pairs,
    compute_profit,
    find_break_even_purchase,
    find_highest_purchase_for_margin,
    find_highest_purchase_for_profit,
    find_highest_purchase_for_roi,
)
from keeper.domain.borders import parse_borders
from keeper.domain.exchange import ExchangeRates
from keeper.domain.fees import flat_referral
from keeper.domain.marketplace import Marketplace
from keeper.domain.seller import InboundBand, SellerProfile
from keeper.domain.trade_terms import Tables, Term, Terms, find_terms
from tests.unit.domain.seed_tables import BORDERS, FEES, RATES, VAT

DE, ES, FR, IT, UK = Marketplace.DE, Marketplace.ES, Marketplace.FR, Marketplace.IT, Marketplace.UK
DAY = date(2026, 5, 11)
SHIPPING = (InboundBand(None, None, None, 100),)
REGISTERED = SellerProfile("DE", frozenset({"DE"}), True, "EUR", 50, 0, Decimal(0), SHIPPING)
NOT_RECLAIMING = replace(REGISTERED, reclaims_purchase_vat=False)
SMALL = replace(NOT_RECLAIMING, registered=frozenset())
TABLES = Tables(VAT, FEES, BORDERS)
BORDER_COLUMNS = "from_area,to_area,category,customs_pct,clearance,clearance_currency,export_vat_refunded,valid_from,source\n"
KNOWN_BORDERS = replace(
    TABLES,
    borders=parse_borders(
        "mine", BORDER_COLUMNS + "EU,UK,default,5,2.00,GBP,no,2021-01-01,broker\nUK,EU,default,5,2.00,EUR,yes,2021-01-01,broker\n"
    ),
)


def terms(seller: SellerProfile = REGISTERED, source: Marketplace = DE, target: Marketplace = IT, **options: Any) -> Terms:
    defaults: dict[str, Any] = {"tables": TABLES, "rates": RATES, "on": DAY, "category": "default", "fba_minor": 420}
    return find_terms(source, target, seller=seller, **(defaults | options))


def part(profit: Profit, name: PartName) -> int | None:
    return next(one.amount_minor for one in profit.explain if one.name is name)


@pytest.mark.parametrize(
    ("seller", "profit_minor", "roi_pct"),
    [
        pytest.param(REGISTERED, 1054, "20.30", id="purchase VAT reclaimed"),
        pytest.param(NOT_RECLAIMING, 96, "1.56", id="not reclaimed"),
    ],
)
def test_the_golden_case_is_exact(seller: SellerProfile, profit_minor: int, roi_pct: str) -> None:
    profit = compute_profit(terms(seller), 6000, 9999)
    assert (profit.profit_minor, profit.roi_pct) == (profit_minor, Decimal(roi_pct))
    assert (profit.naive_profit_minor, profit.naive_roi_pct) == (2499, Decimal("41.65"))


def test_the_golden_case_part_by_part() -> None:
    profit = compute_profit(terms(), 6000, 9999)
    assert [(one.name, one.amount_minor) for one in profit.explain] == [
        (PartName.SALE, 9999),
        (PartName.OUTPUT_VAT, -1803),
        (PartName.REFERRAL_FEE, -1500),
        (PartName.CLOSING_FEE, 0),
        (PartName.DIGITAL_ON_SELLING, -30),
        (PartName.FBA_FEE, -420),
        (PartName.DIGITAL_ON_FBA, 0),
        (PartName.STORAGE, 0),
        (PartName.VAT_ON_FEES, 0),
        (PartName.RETURN_ALLOWANCE, 0),
        (PartName.PREPARATION, -50),
        (PartName.INBOUND, -100),
        (PartName.PURCHASE, -6000),
        (PartName.PURCHASE_VAT, 958),
    ]
    assert (profit.invested_minor, profit.profit_margin_pct) == (5192, Decimal("10.54"))


def test_each_part_of_a_table_names_its_row() -> None:
    profit = compute_profit(terms(), 6000, 9999)
    named = {one.name: [(row.table, row.key, row.valid_from) for row in one.rows] for one in profit.explain}
    assert named[PartName.OUTPUT_VAT] == [("VAT", "IT default", date(2013, 10, 1))]
    assert named[PartName.PURCHASE_VAT] == [("VAT", "DE default", date(2021, 1, 1))]
    assert named[PartName.REFERRAL_FEE] == [("referral fee", "IT default", date(2024, 10, 1))]
    assert named[PartName.DIGITAL_ON_SELLING] == [("digital services fee", "other sellers, store IT", date(2024, 10, 1))]
    assert all(row.source for one in profit.explain for row in one.rows)


def test_the_gross_margin_keeps_its_old_meaning() -> None:
    profit = compute_profit(terms(), 4799, 5499)
    assert (profit.margin_minor, profit.margin_percentage) == (700, Decimal("14.59"))


@pytest.mark.parametrize(("sale_minor", "is_above"), [(5278, False), (5279, True)])
def test_a_margin_is_held_against_a_threshold_exactly(sale_minor: int, is_above: bool) -> None:
    assert compute_profit(terms(), 4799, sale_minor).has_margin_above(Decimal(10)) is is_above


def test_a_margin_of_exactly_the_threshold_is_not_above_it() -> None:
    assert compute_profit(terms(), 1000, 1100).has_margin_above(Decimal(10)) is False


def test_a_small_business_keeps_output_vat_and_pays_vat_on_fees() -> None:
    profit = compute_profit(terms(SMALL), 6000, 9999)
    assert part(profit, PartName.OUTPUT_VAT) == 0
    # 19 % of 15.00 + 0.30 + 4.20
    assert part(profit, PartName.VAT_ON_FEES) == -371
    assert part(profit, PartName.PURCHASE_VAT) == 0
    assert profit.profit_minor == 9999 - 1500 - 30 - 420 - 371 - 150 - 6000


def test_a_small_business_outside_the_stores_vat_area_pays_output_vat() -> None:
    profit = compute_profit(terms(replace(SMALL, home="UK")), 6000, 9999)
    assert part(profit, PartName.OUTPUT_VAT) == -1803


def test_a_country_whose_vat_is_not_in_the_table_makes_vat_on_fees_unknown() -> None:
    profit = compute_profit(terms(replace(SMALL, home="AT")), 6000, 9999)
    assert [one.name for one in profit.unknown] == [PartName.VAT_ON_FEES]


def test_the_return_allowance_is_taken_of_the_gross_price() -> None:
    profit = compute_profit(terms(replace(REGISTERED, return_allowance_pct=Decimal("2.5"))), 6000, 9999)
    assert part(profit, PartName.RETURN_ALLOWANCE) == -250
    assert profit.profit_minor == 1054 - 250


def test_the_digital_services_fee_is_taken_of_the_closing_fee_too() -> None:
    profit = compute_profit(replace(terms(), closing=Term(101)), 6000, 9999)
    # 2 % of 15.00 + 1.01
    assert (part(profit, PartName.CLOSING_FEE), part(profit, PartName.DIGITAL_ON_SELLING)) == (-101, -32)
    assert (profit.profit_minor, profit.naive_profit_minor) == (1054 - 101 - 2, 2499 - 101)


def test_a_stated_rate_is_used_instead_of_the_table() -> None:
    stated = flat_referral(IT, Decimal("7.21"), 30, DAY, "Keepa")
    profit = compute_profit(terms(category="default", referral=stated), 6000, 9999)
    assert part(profit, PartName.REFERRAL_FEE) == -721


def test_the_share_keepa_states_is_used_where_the_category_is_not_known() -> None:
    trade = terms(category=None, stated_referral_pct=Decimal("7.21"))
    assert part(compute_profit(trade, 6000, 9999), PartName.REFERRAL_FEE) == -721
    # The store's least fee holds for it too.
    assert part(compute_profit(trade, 100, 200), PartName.REFERRAL_FEE) == -30


def test_the_tables_schedule_goes_before_the_share_keepa_states() -> None:
    profit = compute_profit(terms(category="electronics", stated_referral_pct=Decimal(15)), 6000, 9999)
    assert part(profit, PartName.REFERRAL_FEE) == -700


def test_a_stated_share_without_a_known_least_fee_is_unknown() -> None:
    profit = compute_profit(terms(category=None, stated_referral_pct=Decimal(15), on=date(2020, 8, 1)), 6000, 9999)
    assert PartName.REFERRAL_FEE in {one.name for one in profit.unknown}


@pytest.mark.parametrize(
    ("options", "unknown"),
    [
        pytest.param({"fba_minor": None}, [PartName.FBA_FEE], id="FBA fee; its surcharge of 0 % is known all the same"),
        pytest.param({"fba_minor": None, "target": FR}, [PartName.FBA_FEE, PartName.DIGITAL_ON_FBA], id="FBA fee with a surcharge"),
        pytest.param({"seller": replace(REGISTERED, preparation_minor=None)}, [PartName.PREPARATION], id="preparation"),
        pytest.param({"seller": replace(REGISTERED, storage_minor=None)}, [PartName.STORAGE], id="storage"),
        pytest.param({"seller": replace(REGISTERED, return_allowance_pct=None)}, [PartName.RETURN_ALLOWANCE], id="return allowance"),
        pytest.param({"seller": replace(REGISTERED, inbound=())}, [PartName.INBOUND], id="inbound"),
        pytest.param({"category": "media"}, [PartName.OUTPUT_VAT, PartName.REFERRAL_FEE], id="media"),
        pytest.param({"category": "grocery"}, [PartName.OUTPUT_VAT, PartName.PURCHASE_VAT], id="reduced rates"),
        pytest.param(
            {"category": None},
            [PartName.OUTPUT_VAT, PartName.REFERRAL_FEE, PartName.CLOSING_FEE, PartName.PURCHASE_VAT],
            id="category",
        ),
        pytest.param(
            {"on": date(2020, 8, 1)}, [PartName.REFERRAL_FEE, PartName.CLOSING_FEE, PartName.DIGITAL_ON_FBA], id="a day before the fees"
        ),
        pytest.param(
            {"target": UK, "seller": REGISTERED},
            [PartName.CUSTOMS, PartName.IMPORT_VAT, PartName.CLEARANCE],
            id="customs of the EU to UK lane",
        ),
        pytest.param(
            {"source": UK}, [PartName.PURCHASE_VAT, PartName.CUSTOMS, PartName.CLEARANCE], id="customs and export VAT of the UK to EU lane"
        ),
        pytest.param({"source": UK, "rates": ExchangeRates(), "tables": KNOWN_BORDERS}, [PartName.PURCHASE], id="exchange rate"),
    ],
)
def test_what_is_unknown_is_named_and_makes_the_profit_unknown(options: dict[str, Any], unknown: Sequence[PartName]) -> None:
    profit = compute_profit(terms(**options), 6000, 9999)
    names = [one.name for one in profit.unknown]
    assert set(unknown) <= set(names)
    assert all(one.why_unknown for one in profit.unknown)
    assert (profit.profit_minor, profit.roi_pct, profit.profit_margin_pct) == (None, None, None)


def test_an_unknown_purchase_vat_of_the_seller_makes_the_highest_price_unknown() -> None:
    highest = find_break_even_purchase(terms(source=UK), 9999)
    assert highest.purchase_minor is None
    assert PartName.CUSTOMS in {one.name for one in highest.unknown}


@pytest.mark.parametrize(
    ("purchase_minor", "sale_minor", "name"), [(None, 9999, PartName.PURCHASE), (6000, None, PartName.SALE)], ids=["purchase", "sale"]
)
def test_a_price_that_is_not_known_is_named(purchase_minor: int | None, sale_minor: int | None, name: PartName) -> None:
    profit = compute_profit(terms(), purchase_minor, sale_minor)
    assert name in {one.name for one in profit.unknown}
    assert (profit.profit_minor, profit.margin_minor) == (None, None)


@pytest.mark.parametrize("price", [0, -1, MOST_PRICE_MINOR + 1])
def test_a_price_that_cannot_be_is_refused(price: int) -> None:
    with pytest.raises(PriceImpossible, match="above 0"):
        compute_profit(terms(), price, 9999)


def test_goods_over_the_border_pay_duty_import_vat_and_clearance() -> None:
    profit = compute_profit(terms(target=UK, tables=KNOWN_BORDERS), 11900, 17282)
    # 100.00 net; 5 % duty; 20 % of 100.00 + 5.00 + 1.00 shipping; 2.00 GBP at 0.86410
    assert (part(profit, PartName.CUSTOMS), part(profit, PartName.IMPORT_VAT), part(profit, PartName.CLEARANCE)) == (-500, -2120, -231)
    assert part(profit, PartName.SALE) == 20000
    assert profit.invested_minor == 10000 + 150 + 500 + 2120 + 231
    assert profit.profit_minor == sum(one.amount_minor or 0 for one in profit.explain)


def test_a_seller_registered_behind_the_border_reclaims_import_vat() -> None:
    seller = replace(REGISTERED, registered=frozenset({"DE", "UK"}))
    profit = compute_profit(terms(seller, target=UK, tables=KNOWN_BORDERS), 11900, 17282)
    assert part(profit, PartName.IMPORT_VAT) == 0


@pytest.mark.parametrize(
    ("seller", "more"), [pytest.param(REGISTERED, 0, id="registered"), pytest.param(SMALL, 190, id="registered nowhere, 19 % at home")]
)
def test_storage_is_without_vat_from_every_seller_and_taxed_once_as_a_fee(seller: SellerProfile, more: int) -> None:
    without, stored = (compute_profit(terms(replace(seller, storage_minor=minor)), 6000, 9999) for minor in (0, 1000))
    assert part(stored, PartName.STORAGE) == -1000
    assert (without.profit_minor or 0) - (stored.profit_minor or 0) == 1000 + more


def test_vat_refunded_on_export_is_not_paid() -> None:
    profit = compute_profit(terms(NOT_RECLAIMING, source=UK, tables=KNOWN_BORDERS), 10369, 19999)
    assert (part(profit, PartName.PURCHASE), part(profit, PartName.PURCHASE_VAT)) == (-12000, 2000)


def test_trade_within_the_eu_has_no_parts_of_a_border() -> None:
    assert not {PartName.CUSTOMS, PartName.IMPORT_VAT, PartName.CLEARANCE} & {
        one.name for one in compute_profit(terms(), 6000, 9999).explain
    }


@pytest.mark.parametrize(
    ("target", "days", "is_stale"),
    [
        pytest.param(UK, 7, False, id="young enough"),
        pytest.param(UK, 8, True, id="too old"),
        pytest.param(IT, 400, False, id="no rate needed"),
    ],
)
def test_an_old_exchange_rate_makes_the_result_stale_and_not_wrong(target: Marketplace, days: int, is_stale: bool) -> None:
    on = RATES.rates[0].on + timedelta(days=days)
    profit = compute_profit(terms(target=target, tables=KNOWN_BORDERS, on=on, stale_after_days=7), 6000, 9999)
    assert profit.is_stale is is_stale
    assert profit.profit_minor is not None


def test_a_result_is_recomputed_with_the_rows_of_another_day() -> None:
    before, after = (compute_profit(terms(category="clothing", on=on), 500, 1500) for on in (date(2025, 12, 14), date(2025, 12, 15)))
    assert (part(before, PartName.REFERRAL_FEE), part(after, PartName.REFERRAL_FEE)) == (-120, -75)


SELLERS = st.builds(
    SellerProfile,
    home=st.sampled_from(["DE", "IT", "FR", "UK"]),
    registered=st.sampled_from([frozenset(), frozenset({"DE"}), frozenset({"DE", "UK"})]),
    preparation_minor=st.integers(0, 500),
    storage_minor=st.integers(0, 200),
    return_allowance_pct=st.decimals(0, 10, places=2),
    inbound=st.builds(lambda cost: (InboundBand(None, None, None, cost),), st.integers(0, 1000)),
).flatmap(
    lambda seller: st.builds(
        lambda reclaims: replace(seller, reclaims_purchase_vat=reclaims), st.booleans() if seller.registered else st.just(False)
    )
)
LANES = st.sampled_from([(a, b) for a in (DE, ES, FR, IT, UK) for b in (DE, ES, FR, IT, UK) if a is not b])
CATEGORIES = st.sampled_from(["default", "electronics", "home_products", "computer_accessories"])
KNOWN_TERMS = st.builds(
    lambda seller, lane, category, fba_minor: terms(seller, *lane, category=category, fba_minor=fba_minor, tables=KNOWN_BORDERS),
    SELLERS,
    LANES,
    CATEGORIES,
    st.integers(0, 2000),
)
PRICES = st.integers(1, 200_000)
light = settings(max_examples=60, deadline=None)


@light
@given(trade=KNOWN_TERMS, purchase_minor=PRICES, sale_minor=PRICES)
def test_the_parts_sum_to_the_profit_exactly(trade: Terms, purchase_minor: int, sale_minor: int) -> None:
    profit = compute_profit(trade, purchase_minor, sale_minor)
    assert profit.unknown == ()
    assert profit.profit_minor == sum(one.amount_minor or 0 for one in profit.explain)


@light
@given(
    purchase_minor=PRICES,
    sale_minor=PRICES,
    lane=st.sampled_from([(a, b) for a in (DE, ES, FR, IT) for b in (DE, ES, FR, IT) if a is not b]),
    is_registered=st.booleans(),
    reclaims=st.booleans(),
    fba_minor=st.integers(0, 2000),
)
def test_the_parts_are_the_formula_but_for_their_rounding(
    purchase_minor: int, sale_minor: int, lane: tuple[Marketplace, Marketplace], is_registered: bool, reclaims: bool, fba_minor: int
) -> None:
    source, target = lane
    seller = replace(REGISTERED, storage_minor=30, return_allowance_pct=Decimal(3)) if is_registered else SMALL
    seller = replace(seller, reclaims_purchase_vat=is_registered and reclaims)
    profit = compute_profit(terms(seller, source, target, fba_minor=fba_minor), purchase_minor, sale_minor)

    vat = {DE: Fraction(19, 100), IT: Fraction(22, 100), ES: Fraction(21, 100), FR: Fraction(20, 100)}
    on_selling, on_fba = {DE: (0, 0), FR: (2, 2), IT: (2, 0), ES: (2, 0)}[target]
    referral = max(Fraction(15, 100) * sale_minor, Fraction(30))
    fees = referral * (1 + Fraction(on_selling, 100)) + fba_minor * (1 + Fraction(on_fba, 100)) + (30 if is_registered else 0)
    net_sale = sale_minor / (1 + vat[target]) if is_registered else Fraction(sale_minor)
    fees *= 1 if is_registered else 1 + vat[DE]
    allowance = Fraction(3, 100) * sale_minor if is_registered else 0
    net_purchase = purchase_minor / (1 + vat[source]) if is_registered and reclaims else Fraction(purchase_minor)
    expected = net_sale - fees - allowance - 50 - 100 - net_purchase
    assert profit.profit_minor is not None
    # Six parts are rounded, and the VAT on fees is taken of three that were.
    assert abs(profit.profit_minor - expected) <= 3 + Fraction(19, 100) * Fraction(3, 2)


@light
@given(trade=KNOWN_TERMS, purchase_minor=PRICES, sale_minor=PRICES, step=st.integers(1, 1000))
def test_profit_falls_when_the_purchase_price_rises(trade: Terms, purchase_minor: int, sale_minor: int, step: int) -> None:
    cheap, dear = (compute_profit(trade, price, sale_minor).profit_minor for price in (purchase_minor, purchase_minor + step))
    assert cheap is not None
    assert dear is not None
    assert cheap >= dear
    # The flattest slope is 1 / 1.22 in the source's currency, so two minor units always show.
    assert step < 2 or cheap > dear


@light
@given(trade=KNOWN_TERMS, sale_minor=PRICES, step=st.integers(1, 1000))
def test_profit_rises_with_the_sale_price_between_two_tier_edges(trade: Terms, sale_minor: int, step: int) -> None:
    assert trade.referral is not None
    assume(trade.referral.kind == "portion" or not any(sale_minor <= edge < sale_minor + step for edge in trade.referral.edges_minor))
    low, high = (compute_profit(trade, 100, price).profit_minor for price in (sale_minor, sale_minor + step))
    assert low is not None
    assert high is not None
    rounded_parts = 5
    roundings = 2 if trade.target is UK else 1
    assert high > low - rounded_parts * roundings
    # The flattest slope is 0.4, so what rounding took is made up for after a few steps.
    assert step < 30 or high > low


def test_profit_falls_just_above_the_edge_of_a_whole_price_tier() -> None:
    at, above = (compute_profit(terms(category="home_products"), 600, price).profit_minor for price in (2000, 2001))
    assert at is not None
    assert above is not None
    assert above < at - 100


@light
@given(trade=KNOWN_TERMS, sale_minor=PRICES, wanted=st.integers(-1000, 5000))
def test_the_highest_price_for_a_profit_is_exact(trade: Terms, sale_minor: int, wanted: int) -> None:
    highest = find_highest_purchase_for_profit(trade, sale_minor, wanted).purchase_minor
    check_edge(trade, sale_minor, highest, lambda profit: (profit.profit_minor or 0) >= wanted)


@light
@given(trade=KNOWN_TERMS, sale_minor=PRICES, wanted=st.decimals(0, 300, places=2))
def test_the_highest_price_for_an_roi_is_exact(trade: Terms, sale_minor: int, wanted: Decimal) -> None:
    highest = find_highest_purchase_for_roi(trade, sale_minor, wanted).purchase_minor
    check_edge(trade, sale_minor, highest, lambda profit: (profit.profit_minor or 0) * 100 >= wanted * (profit.invested_minor or 0))


@light
@given(trade=KNOWN_TERMS, sale_minor=PRICES, wanted=st.decimals(-20, 60, places=2))
def test_the_highest_price_for_a_margin_is_exact(trade: Terms, sale_minor: int, wanted: Decimal) -> None:
    highest = find_highest_purchase_for_margin(trade, sale_minor, wanted).purchase_minor
    check_edge(trade, sale_minor, highest, lambda profit: (profit.profit_minor or 0) * 100 >= wanted * (profit.sale_minor or 0))


def check_edge(trade: Terms, sale_minor: int, highest: int | None, holds: Any) -> None:
    """At the price the wish holds, one minor unit more and it does not."""
    if highest is not None:
        assert holds(compute_profit(trade, highest, sale_minor))
    assert not holds(compute_profit(trade, (highest or 0) + 1, sale_minor))


@pytest.mark.parametrize(
    ("name", "highest"),
    [("ROI of 20 %", 6016), ("margin of 10 %", 6064), ("profit of 10.54", 6000), ("break-even", 7254)],
)
def test_the_golden_cases_highest_prices(name: str, highest: int) -> None:
    found = {
        "ROI of 20 %": find_highest_purchase_for_roi(terms(), 9999, Decimal(20)),
        "margin of 10 %": find_highest_purchase_for_margin(terms(), 9999, Decimal(10)),
        "profit of 10.54": find_highest_purchase_for_profit(terms(), 9999, 1054),
        "break-even": find_break_even_purchase(terms(), 9999),
    }[name]
    assert found.purchase_minor == highest


def test_a_wish_that_no_price_fulfils_has_no_highest_price() -> None:
    assert find_highest_purchase_for_profit(terms(), 9999, 99_999).purchase_minor is None


def test_a_wish_that_every_price_fulfils_gives_the_highest_price_there_is() -> None:
    assert find_highest_purchase_for_profit(terms(), 9999, -2 * MOST_PRICE_MINOR).purchase_minor == MOST_PRICE_MINOR


@pytest.mark.parametrize("wanted", ["-0.01", "20.001", "NaN", "1e40"])
def test_an_roi_that_cannot_be_wished_is_refused(wanted: str) -> None:
    with pytest.raises(PriceImpossible):
        find_highest_purchase_for_roi(terms(), 9999, Decimal(wanted))


UNKNOWN_TERM = Term(None, (), "nobody knows")
TERM_FIELDS = (
    "output_vat",
    "closing",
    "digital_on_selling",
    "fba",
    "digital_on_fba",
    "storage",
    "vat_on_fees",
    "return_allowance",
    "preparation",
    "inbound",
    "purchase_vat",
    "customs",
    "import_vat",
    "clearance",
)


@light
@given(fields=st.sets(st.sampled_from(TERM_FIELDS), min_size=1), purchase_minor=PRICES, sale_minor=PRICES)
def test_any_unknown_term_makes_the_profit_unknown_and_keeps_the_margin(fields: set[str], purchase_minor: int, sale_minor: int) -> None:
    unknown: dict[str, Any] = dict.fromkeys(fields, UNKNOWN_TERM)
    trade = replace(terms(target=UK, tables=KNOWN_BORDERS), **unknown)
    profit = compute_profit(trade, purchase_minor, sale_minor)
    assert profit.profit_minor is None
    assert len(profit.unknown) >= len(fields)
    assert all(one.why_unknown for one in profit.unknown)
    assert profit.margin_minor is not None


def compare(prices: dict[Marketplace, int | None], **options: Any) -> tuple[Profit, ...]:
    fba_minor = dict.fromkeys(Marketplace, 420)
    defaults: dict[str, Any] = {"tables": TABLES, "rates": RATES, "on": DAY, "category": "default", "fba_minor": fba_minor}
    return compare_pairs(prices, seller=REGISTERED, **(defaults | options))


def test_all_ordered_pairs_are_compared() -> None:
    pairs = [(one.source, one.target) for one in compare({DE: 6000, IT: 9999, ES: 7000, FR: 8000, UK: 6500})]
    assert len(pairs) == len(set(pairs)) == 20


def test_a_store_without_a_price_is_in_no_pair() -> None:
    assert [(one.source, one.target) for one in compare({DE: 6000, ES: None, IT: 9999})] == [(DE, IT), (IT, DE)]


def test_a_pair_is_the_trade_by_itself() -> None:
    assert compare({DE: 6000, IT: 9999})[0] == compute_profit(terms(), 6000, 9999)


def test_a_store_without_an_fba_fee_is_unknown_as_a_target_only() -> None:
    there, back = compare({DE: 6000, IT: 9999}, fba_minor={IT: 420})
    assert there.profit_minor == 1054
    assert [one.name for one in back.unknown] == [PartName.FBA_FEE]
