"""Tables of rates and fees: each fault is named with its line and column."""

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from keeper.domain.borders import parse_borders
from keeper.domain.dated_rows import LARGEST_CHARACTERS, TableInvalid
from keeper.domain.exchange import parse_exchange_rates
from keeper.domain.fees import parse_closing_fees, parse_digital_services_fees, parse_referral_fees
from keeper.domain.vat import parse_vat

VAT = "country,category,rate_pct,valid_from,source\n"
REFERRAL = "marketplaces,category,kind,up_to,rate_pct,minimum,valid_from,source\n"
CLOSING = "marketplaces,category,amount,valid_from,source\n"
DIGITAL = "seller_country,marketplaces,selling_pct,fba_pct,valid_from,source\n"
BORDERS = "from_area,to_area,category,customs_pct,clearance,clearance_currency,export_vat_refunded,valid_from,source\n"
RATES = "currency,per_euro,valid_from,source\n"


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        pytest.param(parse_vat, "", "is empty; it must begin with the columns country,category", id="nothing"),
        pytest.param(parse_vat, "country,rate\n", "line 1: must begin with the columns country", id="other columns"),
        pytest.param(parse_vat, VAT + "DE,default,19\n", "line 2: has 3 cells, not 5", id="cells missing"),
        pytest.param(parse_vat, VAT + 'DE,default,19,2021-01-01,"law\n', "no CSV", id="quote open"),
        pytest.param(parse_vat, VAT + "GB,default,20,2021-01-01,law\n", "country: 'GB' is no country", id="GB"),
        pytest.param(parse_vat, VAT + "*,default,20,2021-01-01,law\n", "country: '*' is no country", id="all countries"),
        pytest.param(parse_vat, VAT + "DE,Pet food,7,2021-01-01,law\n", "category: 'Pet food' is no category", id="category"),
        pytest.param(parse_vat, VAT + "DE,default,,2021-01-01,law\n", "rate_pct: '' is no number", id="no rate"),
        pytest.param(parse_vat, VAT + "DE,default,-1,2021-01-01,law\n", "rate_pct: '-1' is no number", id="below nothing"),
        pytest.param(parse_vat, VAT + "DE,default,1e1,2021-01-01,law\n", "rate_pct: '1e1' is no number", id="exponent"),
        pytest.param(parse_vat, VAT + "DE,default,NaN,2021-01-01,law\n", "rate_pct: 'NaN' is no number", id="NaN"),
        pytest.param(parse_vat, VAT + "DE,default,101,2021-01-01,law\n", "no percentage from 0 to 100", id="more than all"),
        pytest.param(parse_vat, VAT + "DE,default,5.555,2021-01-01,law\n", "at most two decimals", id="too fine"),
        pytest.param(parse_vat, VAT + "DE,default,19,01.01.2021,law\n", "valid_from: '01.01.2021' is no day", id="day"),
        pytest.param(parse_vat, VAT + "DE,default,19,2021-02-30,law\n", "valid_from: '2021-02-30' is no day", id="30 February"),
        pytest.param(parse_vat, VAT + "DE,default,19,2021-01-01,\n", "source: is empty", id="no source"),
        pytest.param(parse_vat, VAT + 2 * "DE,default,19,2021-01-01,law\n", "line 3: DE default from 2021-01-01 is in", id="twice"),
        pytest.param(parse_vat, VAT + "#" * LARGEST_CHARACTERS, "is larger than", id="too large"),
        pytest.param(
            parse_referral_fees, REFERRAL + "DE,default,half,,15,0.30,2026-01-01,x\n", "kind: must be whole or portion", id="kind"
        ),
        pytest.param(parse_referral_fees, REFERRAL + "DE UK,default,whole,,15,0.30,2026-01-01,x\n", "mixes EUR and GBP", id="currencies"),
        pytest.param(parse_referral_fees, REFERRAL + "DE XX,default,whole,,15,0.30,2026-01-01,x\n", "no marketplace", id="store"),
        pytest.param(parse_referral_fees, REFERRAL + "DE DE,default,whole,,15,0.30,2026-01-01,x\n", "a store twice", id="store twice"),
        pytest.param(parse_referral_fees, REFERRAL + ",default,whole,,15,0.30,2026-01-01,x\n", "marketplaces: is empty", id="no store"),
        pytest.param(parse_referral_fees, REFERRAL + "DE,default,whole,,15,0.305,2026-01-01,x\n", "finer than EUR", id="minimum"),
        pytest.param(
            parse_referral_fees, REFERRAL + "DE,default,whole,10,15,0.30,2026-01-01,x\n", "must be empty in the last", id="no last"
        ),
        pytest.param(
            parse_referral_fees, REFERRAL + "DE,default,whole,0,15,0.30,2026-01-01,x\n", "an amount above 0", id="tier of nothing"
        ),
        pytest.param(
            parse_referral_fees,
            REFERRAL + "DE,a,whole,20,5,0,2026-01-01,x\nDE,a,whole,10,8,0,2026-01-01,x\nDE,a,whole,,15,0,2026-01-01,x\n",
            "up_to: must rise from line to line",
            id="tiers fall",
        ),
        pytest.param(
            parse_referral_fees,
            REFERRAL + "DE,a,whole,10,5,0,2026-01-01,x\nDE,a,portion,,8,0,2026-01-01,x\n",
            "line 3: kind: differs from line 2",
            id="two kinds",
        ),
        pytest.param(
            parse_referral_fees,
            REFERRAL + "DE,a,whole,,5,0,2026-01-01,x\nDE FR,a,whole,,8,0,2026-01-01,x\n",
            "DE a from 2026-01-01 is in the table twice",
            id="schedule twice",
        ),
        pytest.param(parse_closing_fees, CLOSING + "DE,media,free,2026-01-01,x\n", "amount: 'free' is no number", id="closing"),
        pytest.param(parse_digital_services_fees, DIGITAL + "**,DE,2,2,2026-01-01,x\n", "seller_country: '**' is no", id="seller"),
        pytest.param(parse_borders, BORDERS + "EU,EU,default,0,0,EUR,no,2026-01-01,x\n", "no border between EU and itself", id="no border"),
        pytest.param(parse_borders, BORDERS + "EU,UK,default,0,0,EUR,perhaps,2026-01-01,x\n", "must be yes, no or unknown", id="yes or no"),
        pytest.param(parse_exchange_rates, RATES + "EUR,1,2026-01-01,x\n", "and not EUR", id="euro"),
        pytest.param(parse_exchange_rates, RATES + "GBP,0,2026-01-01,x\n", "must be a number above 0", id="rate of 0"),
        pytest.param(parse_exchange_rates, RATES + "GBP,unknown,2026-01-01,x\n", "must be a number above 0", id="rate unknown"),
        pytest.param(parse_exchange_rates, RATES + 2 * "GBP,0.8,2026-01-01,x\n", "is in the table already", id="rate twice"),
    ],
)
def test_a_fault_is_named_with_its_place(parse: Callable[[str, str], Any], text: str, said: str) -> None:
    with pytest.raises(TableInvalid) as caught:
        parse("mine.csv", text)
    assert str(caught.value).startswith("mine.csv")
    assert said in str(caught.value)


def test_columns_may_stand_in_any_order_between_comments_and_empty_lines() -> None:
    table = parse_vat(
        "mine", '\ufeff# mine\n\nsource,rate_pct,category,country,valid_from\n# all\n"law, § 1", 5.5 ,default,FR,2020-02-29\n'
    )
    rate = table.find_rate("FR", "default", date(2024, 1, 1))
    assert rate is not None
    assert (rate.rate_pct, rate.source) == (Decimal("5.5"), "law, § 1")


def test_an_unknown_cell_is_none_and_not_nothing() -> None:
    table = parse_vat("mine", VAT + "DE,grocery,unknown,2021-01-01,law\nDE,default,0,2021-01-01,law\n")
    assert [rate.rate_pct for rate in table.rates] == [None, Decimal(0)]
