"""Exchange rates: what the ECB's file says, what is refused, how amounts are converted."""

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.exchange import LARGEST_CHARACTERS, ExchangeRate, ExchangeRates, ExchangeRatesUnreadable, parse_ecb_daily
from tests.unit.domain.seed_tables import RATES

DAY = date(2026, 5, 8)
# The head and some of the lines of the file of 2026-05-08, as the ECB wrote them.
DAILY = """<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">
\t<gesmes:subject>Reference rates</gesmes:subject>
\t<gesmes:Sender>
\t\t<gesmes:name>European Central Bank</gesmes:name>
\t</gesmes:Sender>
\t<Cube>
\t\t<Cube time='2026-05-08'>
\t\t\t<Cube currency='USD' rate='1.1761'/>
\t\t\t<Cube currency='JPY' rate='184.37'/>
\t\t\t<Cube currency='GBP' rate='0.86410'/>
\t\t</Cube>
\t</Cube>
</gesmes:Envelope>
"""


def rate(currency: str, per_euro: str, on: date = DAY, source: str = "test") -> ExchangeRate:
    return ExchangeRate(currency, Decimal(per_euro), on, source)


def test_the_ecbs_daily_file_is_read() -> None:
    assert [(one.currency, one.per_euro, one.on) for one in parse_ecb_daily(DAILY)] == [
        ("USD", Decimal("1.1761"), DAY),
        ("JPY", Decimal("184.37"), DAY),
        ("GBP", Decimal("0.86410"), DAY),
    ]


def test_the_seeds_rate_is_the_ecbs_of_its_day() -> None:
    (ours,) = (one for one in RATES.rates if one.on == DAY)
    assert (ours.currency, ours.per_euro) == ("GBP", Decimal("0.86410"))
    assert "European Central Bank" in ours.source


def test_several_days_of_one_file_are_read() -> None:
    second = "<Cube time='2026-05-07'><Cube currency='GBP' rate='0.86000'/></Cube>"
    rates = ExchangeRates(parse_ecb_daily(DAILY.replace("\t<Cube>\n", "\t<Cube>\n" + second)))
    assert rates.find_rate("GBP", date(2026, 5, 7)) == rate("GBP", "0.86000", date(2026, 5, 7), rates.rates[0].source)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "no XML", id="empty"),
        pytest.param("<html>", "no XML", id="broken"),
        pytest.param("<html/>", "holds no rates", id="another document"),
        pytest.param("\ud800", "no XML", id="no text"),
        pytest.param(DAILY.replace("?>", "?><!DOCTYPE x>"), "document type", id="document type"),
        pytest.param(DAILY.replace("?>", '?><!doctype x [<!ENTITY a "b">]>'), "document type", id="entity"),
        pytest.param(DAILY + " " * LARGEST_CHARACTERS, "larger than", id="too large"),
        pytest.param(DAILY.replace("2026-05-08", "8 May"), "time '8 May' is no day", id="day"),
        pytest.param(DAILY.replace("0.86410", "N/A"), "rate 'N/A' of GBP on 2026-05-08 is no number", id="rate"),
        pytest.param(DAILY.replace("0.86410", "0.0"), "rate '0.0' of GBP", id="rate of 0"),
        pytest.param(DAILY.replace("0.86410", "-1"), "rate '-1' of GBP", id="below 0"),
        pytest.param(DAILY.replace("0.86410", "1e9"), "rate '1e9' of GBP", id="exponent"),
        pytest.param(DAILY.replace("'GBP'", "'gbp'"), "currency 'gbp'", id="currency"),
        pytest.param(DAILY.replace("'GBP'", "'EUR'"), "currency 'EUR'", id="the euro itself"),
        pytest.param(DAILY.replace("currency='GBP'", ""), "currency ''", id="no currency"),
        pytest.param(DAILY.replace("'JPY'", "'GBP'"), "two rates for one currency", id="twice"),
    ],
)
def test_another_file_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(ExchangeRatesUnreadable, match=said):
        parse_ecb_daily(text)


@pytest.mark.parametrize(
    ("amount_minor", "source", "target", "expected"),
    [
        pytest.param(8641, "GBP", "EUR", 10000, id="pounds to euros"),
        pytest.param(10000, "EUR", "GBP", 8641, id="euros to pounds"),
        pytest.param(4799, "EUR", "EUR", 4799, id="the same currency"),
        pytest.param(11761, "USD", "GBP", 8641, id="through the euro, rounded once"),
        pytest.param(10000, "EUR", "JPY", 18437, id="to a currency without cents"),
        pytest.param(18437, "JPY", "EUR", 10000, id="from a currency without cents"),
        pytest.param(-8641, "GBP", "EUR", -10000, id="a cost"),
    ],
)
def test_amounts_are_converted_between_minor_units(amount_minor: int, source: str, target: str, expected: int) -> None:
    exchange = ExchangeRates(parse_ecb_daily(DAILY)).find_exchange(source, target, DAY)
    assert exchange is not None
    assert exchange.convert_minor(amount_minor) == expected


@pytest.mark.parametrize(("amount_minor", "expected"), [(1, 1), (3, 2), (5, 3), (-1, -1), (-3, -2), (2, 1)])
def test_a_half_goes_up(amount_minor: int, expected: int) -> None:
    exchange = ExchangeRates((rate("GBP", "2"),)).find_exchange("GBP", "EUR", DAY)
    assert exchange is not None
    assert exchange.convert_minor(amount_minor) == expected


@given(amount_minor=st.integers(-10_000_000, 10_000_000), per_euro=st.decimals("0.5", "1.5", places=5))
def test_there_and_back_loses_no_more_than_the_rounding(amount_minor: int, per_euro: Decimal) -> None:
    rates = ExchangeRates((rate("GBP", str(per_euro)),))
    there, back = rates.find_exchange("EUR", "GBP", DAY), rates.find_exchange("GBP", "EUR", DAY)
    assert there is not None
    assert back is not None
    assert abs(back.convert_minor(there.convert_minor(amount_minor)) - amount_minor) <= 2


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        pytest.param(DAY, "0.8", id="of the day itself"),
        pytest.param(DAY + timedelta(days=2), "0.8", id="of the last day before"),
        pytest.param(DAY - timedelta(days=1), "0.9", id="not of a later day"),
        pytest.param(DAY - timedelta(days=11), None, id="of none"),
    ],
)
def test_the_last_rate_by_a_day_is_used(on: date, expected: str | None) -> None:
    found = ExchangeRates((rate("GBP", "0.8"), rate("GBP", "0.9", DAY - timedelta(days=10)))).find_rate("GBP", on)
    assert (found and str(found.per_euro)) == expected


def test_of_two_sources_for_a_day_the_later_counts() -> None:
    found = ExchangeRates((rate("GBP", "0.8"), rate("GBP", "0.9", source="operator"))).find_rate("GBP", DAY)
    assert found == rate("GBP", "0.9", source="operator")


def test_no_rate_is_no_exchange_and_not_one_to_one() -> None:
    assert ExchangeRates().find_exchange("GBP", "EUR", DAY) is None


@pytest.mark.parametrize(("days", "is_stale"), [(0, False), (7, False), (8, True)])
def test_a_rate_older_than_the_days_is_stale(days: int, is_stale: bool) -> None:
    assert rate("GBP", "0.8").is_stale(DAY + timedelta(days=days), 7) is is_stale
