"""Amounts, percents and times as a person reads them, in their language."""

import re
from datetime import datetime, tzinfo
from decimal import ROUND_HALF_UP, Decimal
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dashboard.bodies import PriceForecast
from dashboard.words import Language, Words

STORES: Final = ("DE", "IT", "ES", "FR", "UK")
ALL_STORES: Final = ("DE", "IT", "ES", "FR", "UK", "US", "CA", "JP", "IN", "MX", "BR")
CURRENCIES: Final = {"UK": "GBP", "US": "USD", "CA": "CAD", "JP": "JPY", "IN": "INR", "MX": "MXN", "BR": "BRL"}
_SIGNS: Final = {"EUR": "€", "GBP": "£", "USD": "$", "JPY": "¥", "INR": "₹"}
_WITHOUT_CENTS: Final = frozenset({"JPY"})
_MARKDOWN: Final = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_{}[]()<>#+-.!|~$:"})
# A cell that begins so would be run as a formula by a spreadsheet.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def currency_of(store: str) -> str:
    """ISO 4217 code of a store's prices."""
    return CURRENCIES.get(store, "EUR")


def in_units(amount_minor: int, currency: str) -> float:
    """Cents as whole units."""
    return amount_minor if currency in _WITHOUT_CENTS else amount_minor / 100


def number(value: float, language: Language, places: int = 0) -> str:
    """1.234,50 or 1,234.50."""
    written = f"{value:,.{places}f}"
    return written.translate(str.maketrans(",.", ".,")) if language == "de" else written


def money(amount: float | None, currency: str, language: Language) -> str:
    """1.234,50 € or €1,234.50; an amount that is not known is a dash."""
    if amount is None:
        return "–"
    places = 0 if currency in _WITHOUT_CENTS else 2
    sign = _SIGNS.get(currency, currency)
    # A real minus, so that no line is broken behind it.
    minus = "−" if round(amount, places) < 0 else ""
    written = number(abs(amount), language, places)
    if language == "de":
        return f"{minus}{written} {sign}"
    return f"{minus}{sign}{written}" if len(sign) == 1 else f"{minus}{sign} {written}"


def minor(amount_minor: int | None, currency: str, language: Language) -> str:
    """The same of cents."""
    return money(None if amount_minor is None else in_units(amount_minor, currency), currency, language)


def percent(value: float | None, language: Language, places: int = 2) -> str:
    """12,34 % or 12.34 %, half up; what is not known is a dash."""
    if value is None:
        return "–"
    rounded = float(Decimal(str(value)).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))
    return f"{'−' if rounded < 0 else ''}{number(abs(rounded), language, places)} %"


def zone_of(name: str | None) -> tzinfo:
    """A browser's time zone; UTC where it tells none that is known."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def moment(at: datetime | None, language: Language, zone: tzinfo) -> str:
    """21.11.2026 14:05 or 2026-11-21 14:05; none is a dash."""
    if at is None:
        return "–"
    return at.astimezone(zone).strftime("%d.%m.%Y %H:%M" if language == "de" else "%Y-%m-%d %H:%M")


def day(written: str | None, language: Language) -> str:
    """A day of ISO 8601, as 21.11.2026 or as it is; none is a dash."""
    if written is None or language == "en":
        return written or "–"
    return ".".join(reversed(written.split("-")))


def span(minutes: float, words: Words) -> str:
    """About how long, in the largest unit that fits."""
    if minutes < 1:
        return words("no_time")
    if minutes < 90:
        return words("minutes", count=round(minutes))
    if minutes < 48 * 60:
        return words("hours", count=number(minutes / 60, words.language, 1))
    return words("days", count=number(minutes / 1440, words.language, 1))


def interval(seconds: int, words: Words) -> str:
    """6 h, 15 min, 2 days."""
    if seconds % 86400 == 0:
        return words("days_plain", count=seconds // 86400)
    if seconds % 3600 == 0:
        return words("hours", count=seconds // 3600)
    return words("minutes", count=number(seconds / 60, words.language, 0 if seconds % 60 == 0 else 1))


def forecast_line(known: PriceForecast, words: Words) -> str:
    """The nearest horizon in one sentence; what is not known better than the last price is says why."""
    one = known.horizons[0]
    shown = {
        name: minor(amount, known.currency, words.language)
        for name, amount in (("low", one.low_minor), ("high", one.high_minor), ("target", known.target_minor))
    }
    if one.low_minor is not None and one.high_minor is not None:
        said = words("forecast_range", store=known.marketplace, days=one.days, **shown)
    else:
        said = words("forecast_none", store=known.marketplace, days=one.days, why=_reason(one.why_no_price, words))
    if known.target_minor is None or (one.chance_pct is None and one.why_no_chance == one.why_no_price):
        return plain(f"{said}.")
    if one.chance_pct is not None:
        chance = words("forecast_chance", chance=percent(one.chance_pct, words.language, 0), **shown)
    else:
        chance = words("forecast_no_chance", why=_reason(one.why_no_chance, words), **shown)
    return plain(f"{said}; {chance}.")


def _reason(why: str | None, words: Words) -> str:
    """The API's reason, with its numbers, in the person's language."""
    said = words.name(re.sub(r"\d+", "#", why or "–"))
    for figure in re.findall(r"\d+", why or ""):
        said = said.replace("#", figure, 1)
    return said


def plain(text: str) -> str:
    """A text of somebody else's that Markdown leaves as it is."""
    return text.replace("\n", " ").translate(_MARKDOWN)


def told(text: str) -> str:
    """A text of the API's own, in which commands stand between backticks."""
    return "`".join(part if place % 2 else plain(part) for place, part in enumerate(text.split("`")))


def cut(text: str, length: int) -> str:
    """At most so many characters."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def web_link(url: str | None) -> str | None:
    """An address a page may lead to: https and nothing else."""
    return url if url is not None and url.startswith("https://") else None


def cell(text: str) -> str:
    """A text as a cell of CSV that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
