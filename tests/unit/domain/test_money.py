"""Amounts as people write them."""

import pytest

from keeper.domain.money import AmountInvalid, Money


@pytest.mark.parametrize(
    ("text", "currency", "expected"),
    [
        ("45", "EUR", 4500),
        ("45.5", "EUR", 4550),
        ("45,50", "EUR", 4550),
        (" 0.01 ", "EUR", 1),
        ("49.900", "EUR", 4990),
        ("10000000", "EUR", 1_000_000_000),
        ("5980", "JPY", 5980),
        ("5980.0", "JPY", 5980),
        ("1e2", "USD", 10_000),
    ],
)
def test_amounts_are_read_in_whole_units(text: str, currency: str, expected: int) -> None:
    assert Money.parse(text, currency) == Money(expected, currency)


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        pytest.param("", "EUR", id="empty"),
        pytest.param("cheap", "EUR", id="a word"),
        pytest.param("45 EUR", "EUR", id="with its currency"),
        pytest.param("1.234,50", "EUR", id="two separators"),
        pytest.param("1.234", "EUR", id="a tenth of a cent"),
        pytest.param("45.5", "JPY", id="half a yen"),
        pytest.param("0", "EUR", id="nothing"),
        pytest.param("-5", "EUR", id="negative"),
        pytest.param("10000000.01", "EUR", id="beyond ten million"),
        pytest.param("nan", "EUR", id="no number"),
        pytest.param("sNaN", "EUR", id="no number, loudly"),
        pytest.param("inf", "EUR", id="infinite"),
        pytest.param("1e999999", "EUR", id="beyond what Decimal holds"),
        pytest.param("1e-999999", "EUR", id="below what Decimal holds"),
    ],
)
def test_what_is_no_amount_is_refused(text: str, currency: str) -> None:
    with pytest.raises(AmountInvalid):
        Money.parse(text, currency)


@pytest.mark.parametrize(
    ("money", "shown"),
    [
        (Money(4999, "EUR"), "49.99 €"),
        (Money(5980, "JPY"), "5,980 ¥"),
        (Money(5, "GBP"), "0.05 £"),
        (Money(123456789, "MXN"), "1,234,567.89 MXN"),
    ],
    ids=str,
)
def test_money_is_shown_with_all_its_digits(money: Money, shown: str) -> None:
    assert str(money) == shown
