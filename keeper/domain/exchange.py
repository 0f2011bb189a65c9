"""Exchange rates: what an amount is worth in another currency, by whose word and how old that is.

An amount is converted from minor unit to minor unit and rounded once, half up; between two foreign currencies it goes through the
euro without a rounding in between.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final
from xml.etree import ElementTree

from keeper.domain.dated_rows import TableInvalid, TableRow, read_day, read_rows
from keeper.domain.errors import KeeperError
from keeper.domain.money import minor_digits
from keeper.domain.rounding import divide_half_up
from keeper.domain.wording import shown

EURO: Final = "EUR"
ECB: Final = "European Central Bank, euro foreign exchange reference rates"
# A day's file has 2 KB, that of 90 days 150 KB.
LARGEST_CHARACTERS: Final = 512 * 1024

_CURRENCY = re.compile(r"[A-Z]{3}")
_RATE = re.compile(r"[0-9]{1,8}(?:\.[0-9]{1,8})?")


class ExchangeRatesUnreadable(KeeperError):
    """Not the reference rates as the ECB publishes them; says where they differ."""


@dataclass(frozen=True, slots=True)
class ExchangeRate:
    """What one euro was worth on a day.

    Attributes:
        per_euro: units of the currency for one euro, as published.
    """

    currency: str
    per_euro: Decimal
    on: date
    source: str

    @property
    def row(self) -> TableRow:
        """What it stands on."""
        return TableRow("exchange rate", f"EUR/{self.currency} {self.per_euro}", self.on, self.source)

    def age_days(self, on: date) -> int:
        """Whole days since."""
        return (on - self.on).days

    def is_stale(self, on: date, after_days: int) -> bool:
        """Whether it is older than so many days."""
        return self.age_days(on) > after_days


@dataclass(frozen=True, slots=True)
class Exchange:
    """A way from one currency to another.

    Attributes:
        numerator: with the denominator, the worth of one minor unit in the other's, exact.
        rates: the published ones it is made of; none where both currencies are the same.
    """

    numerator: int
    denominator: int
    rates: tuple[ExchangeRate, ...]

    def convert_minor(self, amount_minor: int) -> int:
        """Rounded once, half up."""
        return divide_half_up(amount_minor * self.numerator, self.denominator)


@dataclass(frozen=True, slots=True)
class ExchangeRates:
    """All that are known, of any day and source, in any order; of two for a day the later in the order counts."""

    rates: tuple[ExchangeRate, ...] = ()

    def find_rate(self, currency: str, on: date) -> ExchangeRate | None:
        """The last one published by a day; None for a currency that has none."""
        known = [rate for rate in self.rates if rate.currency == currency and rate.on <= on]
        return max(reversed(known), key=lambda rate: rate.on) if known else None

    def find_exchange(self, source: str, target: str, on: date) -> Exchange | None:
        """From one currency to another; None where a rate is not known."""
        if source == target:
            return Exchange(1, 1, ())
        used: list[ExchangeRate] = []
        ratio = Decimal(1).scaleb(minor_digits(target) - minor_digits(source)).as_integer_ratio()
        numerator, denominator = ratio
        for currency, is_target in ((target, True), (source, False)):
            if currency == EURO:
                continue
            rate = self.find_rate(currency, on)
            if rate is None:
                return None
            used.append(rate)
            above, below = rate.per_euro.as_integer_ratio()
            numerator, denominator = (numerator * above, denominator * below) if is_target else (numerator * below, denominator * above)
        return Exchange(numerator, denominator, tuple(used))


def parse_exchange_rates(name: str, text: str) -> tuple[ExchangeRate, ...]:
    """The rates of a CSV file.

    Raises:
        TableInvalid: names line and column.
    """
    rates: dict[tuple[str, date], ExchangeRate] = {}
    for line in read_rows(name, text, ("currency", "per_euro", "valid_from", "source")):
        currency = line.text("currency")
        if not _CURRENCY.fullmatch(currency) or currency == EURO:
            raise line.fault("currency", f"{shown(currency)} must be three capital letters, and not EUR")
        rate = ExchangeRate(currency, line.positive("per_euro"), line.day("valid_from"), line.text("source"))
        if rates.setdefault((currency, rate.on), rate) is not rate:
            raise TableInvalid(name, line.line, f"{currency} of {rate.on} is in the table already")
    return tuple(rates.values())


def parse_ecb_daily(text: str) -> tuple[ExchangeRate, ...]:
    """The rates of `eurofxref-daily.xml`, or of the file of 90 days in the same form.

    Entities are never resolved: a document type is refused before anything is parsed, as is a file that is too large.

    Raises:
        ExchangeRatesUnreadable: another file, or a rate that is none.
    """
    if len(text) > LARGEST_CHARACTERS:
        raise ExchangeRatesUnreadable(f"the reference rates are larger than {LARGEST_CHARACTERS} characters")
    if "<!doctype" in text.lower() or "<!entity" in text.lower():
        raise ExchangeRatesUnreadable("the reference rates have a document type; the ECB's have none")
    try:
        # With a str, an encoding named in the declaration is not used.
        root = ElementTree.fromstring(text)  # noqa: S314
    except (ElementTree.ParseError, UnicodeError) as error:
        raise ExchangeRatesUnreadable(f"the reference rates are no XML: {error}") from error
    days = [one for one in root.iter() if _is_cube(one) and "time" in one.attrib]
    rates = [rate for day in days for rate in _read_day(day)]
    if not rates:
        raise ExchangeRatesUnreadable("the file holds no rates; the ECB's have elements Cube with time, currency and rate")
    if len({(rate.currency, rate.on) for rate in rates}) != len(rates):
        raise ExchangeRatesUnreadable("the file holds two rates for one currency and day")
    return tuple(rates)


def _read_day(day: ElementTree.Element) -> Iterable[ExchangeRate]:
    on = read_day(day.attrib["time"])
    if on is None:
        raise ExchangeRatesUnreadable(f"time {shown(day.attrib['time'])} is no day")
    for cube in day:
        currency, rate = cube.get("currency", ""), cube.get("rate", "")
        if not _is_cube(cube) or not _CURRENCY.fullmatch(currency) or currency == EURO:
            raise ExchangeRatesUnreadable(f"currency {shown(currency)} of {on} is none")
        if not _RATE.fullmatch(rate) or Decimal(rate) == 0:
            raise ExchangeRatesUnreadable(f"rate {shown(rate)} of {currency} on {on} is no number above 0")
        yield ExchangeRate(currency, Decimal(rate), on, ECB)


def _is_cube(element: ElementTree.Element) -> bool:
    return element.tag.rpartition("}")[2] == "Cube"
