"""VAT and Amazon's fees: what the tables of `seeds/` say for a day, a store and a price."""

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.fees import ReferralFee, ReferralTier, TierKind, flat_referral, parse_referral_fees, stated_pct
from keeper.domain.marketplace import Marketplace
from keeper.domain.vat import find_vat_area
from tests.unit.domain.seed_tables import FEES, VAT

DAY = date(2026, 11, 1)
EURO_STORES = (Marketplace.DE, Marketplace.ES, Marketplace.FR, Marketplace.IT)


def schedule(kind: TierKind, *tiers: tuple[int | None, str | None], minimum_minor: int | None = 30) -> ReferralFee:
    read = tuple(ReferralTier(end, Decimal(rate) if rate is not None else None) for end, rate in tiers)
    return ReferralFee(Marketplace.DE, "mine", kind, read, minimum_minor, DAY, "test")


@pytest.mark.parametrize(
    ("country", "pct", "on"),
    [
        pytest.param("DE", 19, DAY, id="DE"),
        pytest.param("IT", 22, DAY, id="IT"),
        pytest.param("ES", 21, DAY, id="ES"),
        pytest.param("FR", 20, DAY, id="FR"),
        pytest.param("UK", 20, DAY, id="UK"),
        pytest.param("DE", 19, date(2020, 6, 30), id="DE, the day before it fell"),
        pytest.param("DE", 16, date(2020, 7, 1), id="DE, the first day of the lower rate"),
        pytest.param("DE", 16, date(2020, 12, 31), id="DE, the last day of it"),
        pytest.param("DE", 19, date(2021, 1, 1), id="DE, the day after"),
    ],
)
def test_standard_vat_is_that_of_the_day(country: str, pct: int, on: date) -> None:
    rate = VAT.find_rate(country, "electronics", on)
    assert rate is not None
    assert rate.rate_pct == pct


def test_vat_before_the_first_row_is_unknown() -> None:
    assert VAT.find_rate("ES", "default", date(2012, 8, 31)) is None


def test_vat_of_a_category_with_reduced_rates_is_unknown_and_not_the_standard_rate() -> None:
    rate = VAT.find_rate("DE", "grocery", DAY)
    assert rate is not None
    assert rate.rate_pct is None


@pytest.mark.parametrize(("country", "area"), [("DE", "EU"), ("IT", "EU"), ("UK", "UK"), ("CH", "CH")])
def test_the_united_kingdom_is_outside_the_eus_area(country: str, area: str) -> None:
    assert find_vat_area(country) == area


@pytest.mark.parametrize("store", EURO_STORES)
@pytest.mark.parametrize(
    ("category", "price_minor", "fee_minor", "on"),
    [
        pytest.param("default", 9999, 1500, DAY, id="default"),
        pytest.param("toys", 9999, 1500, DAY, id="a category without a row of its own"),
        pytest.param("default", 199, 30, DAY, id="the minimum"),
        pytest.param("default", 203, 30, DAY, id="the minimum and the rate agree"),
        pytest.param("default", 204, 31, DAY, id="just above the minimum"),
        pytest.param("electronics", 9999, 700, DAY, id="electronics"),
        pytest.param("computers", 9999, 700, DAY, id="computers"),
        pytest.param("clothing", 1500, 75, DAY, id="clothing at 15"),
        pytest.param("clothing", 1501, 150, DAY, id="clothing above 15"),
        pytest.param("clothing", 2000, 200, DAY, id="clothing at 20"),
        pytest.param("clothing", 2001, 300, DAY, id="clothing above 20"),
        pytest.param("clothing", 1500, 120, date(2025, 12, 14), id="clothing before the change"),
        pytest.param("clothing", 1501, 225, date(2025, 12, 14), id="clothing above 15 before the change"),
        pytest.param("home_products", 2000, 160, DAY, id="home at 20"),
        pytest.param("home_products", 2001, 300, DAY, id="home above 20"),
        pytest.param("home_products", 2000, 300, date(2026, 1, 31), id="home before the change"),
        pytest.param("grocery", 1000, 50, DAY, id="grocery at 10"),
        pytest.param("grocery", 1001, 150, DAY, id="grocery above 10"),
        pytest.param("vitamins", 1000, 50, DAY, id="vitamins at 10"),
        pytest.param("pet", 1000, 50, DAY, id="pet at 10"),
        pytest.param("pet", 1000, 150, date(2026, 1, 31), id="pet before the change"),
        pytest.param("computer_accessories", 10000, 1500, DAY, id="accessories at 100"),
        pytest.param("computer_accessories", 17500, 2100, DAY, id="accessories above 100: of the portion"),
    ],
)
def test_referral_fees_of_the_euro_stores(store: Marketplace, category: str, price_minor: int, fee_minor: int, on: date) -> None:
    fee = FEES.find_referral(store, category, on)
    assert fee is not None
    assert fee.compute_minor(price_minor) == fee_minor


@pytest.mark.parametrize(
    ("category", "price_minor", "fee_minor"),
    [
        pytest.param("default", 100, 25, id="the minimum in pence"),
        pytest.param("clothing", 1500, 75, id="clothing at 15 pounds"),
        pytest.param("clothing", 1501, 150, id="clothing above 15 pounds"),
        pytest.param("jewellery", 1501, None, id="limits in pounds that are not known"),
    ],
)
def test_referral_fees_of_the_uk_are_in_pence(category: str, price_minor: int, fee_minor: int | None) -> None:
    fee = FEES.find_referral(Marketplace.UK, category, DAY)
    assert fee is not None
    assert fee.compute_minor(price_minor) == fee_minor


def test_before_the_digital_fee_was_told_apart_nothing_is_known() -> None:
    on = date(2024, 9, 30)
    assert FEES.find_referral(Marketplace.DE, "default", on) is None
    assert FEES.find_digital("DE", Marketplace.IT, on) is None
    assert FEES.find_closing(Marketplace.DE, "default", on) is None


def test_a_category_with_rows_of_its_own_is_unknown_before_the_first_and_not_the_default() -> None:
    assert FEES.find_referral(Marketplace.DE, "clothing", date(2025, 12, 1)) is None
    assert FEES.find_referral(Marketplace.DE, "toys", date(2025, 12, 1)) is not None


@pytest.mark.parametrize(
    ("seller", "store", "selling", "fba"),
    [
        ("UK", "DE", 2, 2),
        ("UK", "UK", 2, 2),
        ("UK", "IT", 2, 2),
        ("FR", "DE", 3, 3),
        ("FR", "UK", 3, 3),
        ("IT", "DE", 3, 3),
        ("ES", "FR", 3, 3),
        ("DE", "UK", 2, 2),
        ("DE", "FR", 2, 2),
        ("DE", "IT", 2, 0),
        ("DE", "ES", 2, 0),
        ("DE", "DE", 0, 0),
        ("CN", "ES", 2, 0),
    ],
)
def test_digital_services_fee_follows_the_seller_and_the_store(seller: str, store: str, selling: int, fba: int) -> None:
    fee = FEES.find_digital(seller, Marketplace(store), DAY)
    assert fee is not None
    assert (fee.selling_pct, fee.fba_pct) == (Decimal(selling), Decimal(fba))


@pytest.mark.parametrize(("on", "pct"), [(date(2025, 8, 14), 3), (date(2025, 8, 15), 0)])
def test_canadas_own_digital_fee_ended(on: date, pct: int) -> None:
    fee = FEES.find_digital("CA", Marketplace.DE, on)
    assert fee is not None
    assert fee.selling_pct == pct


@pytest.mark.parametrize(("category", "amount_minor"), [("default", 0), ("media", None)])
def test_a_closing_fee_is_known_to_be_none_but_for_media(category: str, amount_minor: int | None) -> None:
    fee = FEES.find_closing(Marketplace.UK, category, DAY)
    assert fee is not None
    assert fee.amount_minor == amount_minor


@pytest.mark.parametrize(
    ("fee", "price_minor", "fee_minor"),
    [
        pytest.param(schedule(TierKind.WHOLE, (1000, "5"), (None, "15")), 1000, 50, id="whole: at its end"),
        pytest.param(schedule(TierKind.WHOLE, (1000, "5"), (None, "15")), 1001, 150, id="whole: jumps above it"),
        pytest.param(schedule(TierKind.PORTION, (1000, "5"), (None, "15")), 1001, 50, id="portion: does not jump"),
        pytest.param(schedule(TierKind.PORTION, (1000, "5"), (2000, "10"), (None, "1")), 2500, 155, id="portion: three tiers"),
        pytest.param(schedule(TierKind.WHOLE, (None, "10"), minimum_minor=0), 5, 1, id="a half goes up"),
        pytest.param(schedule(TierKind.WHOLE, (1000, None), (None, "15")), 1001, 150, id="whole: an unknown tier below"),
        pytest.param(schedule(TierKind.WHOLE, (1000, "5"), (None, None)), 1001, None, id="whole: an unknown tier"),
        pytest.param(schedule(TierKind.PORTION, (1000, None), (None, "15")), 1001, None, id="portion: an unknown tier below"),
        pytest.param(schedule(TierKind.PORTION, (1000, "5"), (None, None)), 1000, 50, id="portion: an unknown tier above"),
        pytest.param(schedule(TierKind.WHOLE, (None, "15"), minimum_minor=None), 1000, None, id="an unknown minimum"),
        pytest.param(flat_referral(Marketplace.DE, Decimal("7.21"), 30, DAY, "Keepa"), 9999, 721, id="a stated rate"),
    ],
)
def test_a_schedule_takes_of_the_whole_or_of_the_portion(fee: ReferralFee, price_minor: int, fee_minor: int | None) -> None:
    assert fee.compute_minor(price_minor) == fee_minor


@given(price_minor=st.integers(1, 5_000_000), step=st.integers(1, 100_000), rates=st.lists(st.integers(0, 4500), min_size=3, max_size=3))
def test_a_fee_of_portions_never_falls_when_the_price_rises(price_minor: int, step: int, rates: list[int]) -> None:
    tiers = tuple(ReferralTier(end, Decimal(rate) / 100) for end, rate in zip((10_000, 50_000, None), rates, strict=True))
    fee = ReferralFee(Marketplace.DE, "mine", TierKind.PORTION, tiers, 30, DAY, "test")
    below, above = fee.compute_minor(price_minor), fee.compute_minor(price_minor + step)
    assert below is not None
    assert above is not None
    assert below <= above


def test_lines_of_one_schedule_may_name_several_stores() -> None:
    head = "marketplaces,category,kind,up_to,rate_pct,minimum,valid_from,source\n"
    fees = parse_referral_fees("mine", head + "DE IT,pet,whole,10,5,0.30,2026-02-01,a\nDE IT,pet,whole,,15,0.30,2026-02-01,b\n")
    assert [(fee.marketplace, fee.edges_minor, fee.source) for fee in fees] == [
        (Marketplace.DE, (1000,), "a; b"),
        (Marketplace.IT, (1000,), "a; b"),
    ]


def test_every_row_says_where_it_is_from() -> None:
    rows = [*(one.row for one in FEES.referral), *(one.row for one in FEES.closing), *(one.row for one in FEES.digital)]
    assert all(row.source and row.valid_from for row in (*rows, *(rate.row for rate in VAT.rates)))


@pytest.mark.parametrize(("pct", "meant"), [(7.21, "7.21"), (15.0, "15.00"), (8.24, "8.24"), (None, None)])
def test_a_stated_share_is_read_as_it_was_meant(pct: float | None, meant: str | None) -> None:
    assert stated_pct(pct) == (None if meant is None else Decimal(meant))
