"""Value added tax by country, category and day."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

from keeper.domain.dated_rows import TableInvalid, TableRow, find_own_or_general, read_rows

DEFAULT: Final = "default"

_EU: Final = frozenset("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split())  # noqa: SIM905


def find_vat_area(country: str) -> str:
    """Within which goods cross no customs border: `EU`, or the country itself."""
    return "EU" if country in _EU else country


@dataclass(frozen=True, slots=True)
class VatRate:
    """One row.

    Attributes:
        rate_pct: None where the country has another rate for (parts of) the category and nobody has looked which.
    """

    country: str
    category: str
    rate_pct: Decimal | None
    valid_from: date
    source: str

    @property
    def row(self) -> TableRow:
        """What it stands on."""
        return TableRow("VAT", f"{self.country} {self.category}", self.valid_from, self.source)


@dataclass(frozen=True, slots=True)
class VatTable:
    """All rows, in the file's order."""

    rates: tuple[VatRate, ...]

    def find_rate(self, country: str, category: str, on: date) -> VatRate | None:
        """The category's own row, or the country's `default` where it has none; None where that does not hold on the day."""
        own = [rate for rate in self.rates if (rate.country, rate.category) == (country, category)]
        general = [rate for rate in self.rates if (rate.country, rate.category) == (country, DEFAULT)]
        return find_own_or_general(own, general, on)


def parse_vat(name: str, text: str) -> VatTable:
    """The table of a CSV file.

    Raises:
        TableInvalid: names line and column.
    """
    rates: dict[tuple[str, str, date], VatRate] = {}
    for line in read_rows(name, text, ("country", "category", "rate_pct", "valid_from", "source")):
        rate = VatRate(
            line.country("country"), line.category("category"), line.pct("rate_pct"), line.day("valid_from"), line.text("source")
        )
        if rates.setdefault((rate.country, rate.category, rate.valid_from), rate) is not rate:
            raise TableInvalid(name, line.line, f"{rate.country} {rate.category} from {rate.valid_from} is in the table already")
    return VatTable(tuple(rates.values()))
