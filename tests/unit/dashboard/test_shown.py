"""Amounts, percents and times in the form of their language."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dashboard import shown
from dashboard.bodies import Horizon, PriceForecast
from dashboard.words import Language, Words


@pytest.mark.parametrize(
    ("amount", "currency", "language", "text"),
    [
        (1234.5, "EUR", "de", "1.234,50 €"),
        (1234.5, "EUR", "en", "€1,234.50"),
        (-2.12, "EUR", "de", "−2,12 €"),
        (-2.12, "EUR", "en", "−€2.12"),
        (24.37, "GBP", "en", "£24.37"),
        (5, "MXN", "en", "MXN 5.00"),
        (1200, "JPY", "de", "1.200 ¥"),
        (-0.001, "EUR", "en", "€0.00"),
        (None, "EUR", "de", "–"),
    ],
)
def test_money(amount: float | None, currency: str, language: Language, text: str) -> None:
    assert shown.money(amount, currency, language) == text


@pytest.mark.parametrize(
    ("value", "language", "text"),
    [(20.3, "de", "20,30 %"), (20.305, "en", "20.31 %"), (-5.075, "en", "−5.08 %"), (-0.001, "en", "0.00 %"), (None, "de", "–")],
)
def test_percents_are_rounded_half_up(value: float | None, language: Language, text: str) -> None:
    assert shown.percent(value, language) == text


def test_yen_have_no_cents() -> None:
    assert (shown.in_units(1200, "JPY"), shown.in_units(1200, "EUR")) == (1200, 12)


def test_moments_are_of_the_browsers_zone() -> None:
    at = datetime(2026, 11, 21, 23, 30, tzinfo=UTC)

    assert shown.moment(at, "de", shown.zone_of("Europe/Berlin")) == "22.11.2026 00:30"
    assert shown.moment(at, "en", shown.zone_of("No/Where")) == "2026-11-21 23:30"


@pytest.mark.parametrize(
    ("minutes", "text"), [(0.4, "weniger als einer Minute"), (30, "30 min"), (150, "2,5 Std."), (5 * 1440, "5,0 Tagen")]
)
def test_spans_are_in_the_largest_unit_that_fits(minutes: float, text: str) -> None:
    assert shown.span(minutes, Words("de")) == text


def test_text_of_somebody_else_is_no_markup() -> None:
    assert shown.plain("*a* [b](c) $1$ :red[d] <e>\n#f") == r"\*a\* \[b\]\(c\) \$1\$ \:red\[d\] \<e\> \#f"


def test_commands_in_a_text_of_the_api_stay_commands() -> None:
    assert shown.told("*run* `keeper migrate` now") == r"\*run\* `keeper migrate` now"


@pytest.mark.parametrize("url", [None, "", "javascript:alert(1)", "http://example.org/a.png", "data:text/html,a"])
def test_pages_lead_to_https_only(url: str | None) -> None:
    assert shown.web_link(url) is None


@pytest.mark.parametrize("text", ["=1+1", "+49", "-1", "@a", "\ta"])
def test_cell_that_would_be_run_has_an_apostrophe(text: str) -> None:
    assert shown.cell(text) == f"'{text}"


def told(language: Language, target_minor: int | None = None, **said: Any) -> str:
    return shown.forecast_line(PriceForecast("DE", "EUR", [Horizon(7, **said)], target_minor), Words(language)).replace("\\", "")


def test_a_forecast_is_one_line() -> None:
    known: dict[str, Any] = {"price_minor": 4990, "low_minor": 4500, "high_minor": 5200, "chance_pct": 62.5}
    assert told("en", 4600, **known) == "DE in 7 days between €45.00 and €52.00; chance to reach your target of €46.00: 63 %."
    assert told("de", **known) == "DE in 7 Tagen zwischen 45,00 € und 52,00 €."


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("en", "DE in 7 days: no forecast, 97 days of history are needed to try it, and there are 12."),
        ("de", "DE in 7 Tagen: keine Vorhersage, erst ab 97 Tagen Verlauf lässt sie sich erproben, da sind 12."),
    ],
)
def test_a_forecast_that_is_not_given_says_why_once(language: Language, line: str) -> None:
    why = "97 days of history are needed to try it, and there are 12"
    assert told(language, 4600, why_no_price=why, why_no_chance=why) == line


def test_a_chance_stands_without_a_price() -> None:
    line = told("en", 4600, why_no_price="there is no offer now", chance_pct=10.0)
    assert line == "DE in 7 days: no forecast, there is no offer now; chance to reach your target of €46.00: 10 %."
