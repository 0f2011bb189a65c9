"""Tables of rates and fees as CSV files: every row says from when it holds and who says so.

A cell may say `unknown`: the row is kept, what needs it is unknown and never 0. A row holds until a later one of the same key.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final, NoReturn, Protocol, TypeVar

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import minor_digits
from keeper.domain.wording import WordsUnclear, read_marketplace, shown

UNKNOWN: Final = "unknown"
ANY: Final = "*"
LARGEST_CHARACTERS: Final = 1024 * 1024

_NUMBER = re.compile(r"[0-9]{1,8}(?:\.[0-9]{1,6})?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_CATEGORY = re.compile(r"[a-z][a-z0-9_]{0,39}")


class TableInvalid(KeeperError):
    """A table of rates or fees that cannot be used as it is.

    Attributes:
        table: by which name it was read.
        line: of the file; None where it is the file as a whole.
    """

    def __init__(self, table: str, line: int | None, problem: str) -> None:
        super().__init__(f"{table}{f', line {line}' if line is not None else ''}: {problem}")
        self.table = table
        self.line = line


@dataclass(frozen=True, slots=True)
class TableRow:
    """What a figure stands on: shown beside it.

    Attributes:
        key: which row of the table, like `IT default`.
        valid_from: None for what is not dated, like a seller's own costs.
    """

    table: str
    key: str
    valid_from: date | None
    source: str


class Dated(Protocol):
    """A row of any table."""

    @property
    def valid_from(self) -> date: ...


D = TypeVar("D", bound=Dated)


def find_valid(rows: Iterable[D], on: date) -> D | None:
    """The row that holds on a day: the latest that began by then."""
    begun = [row for row in rows if row.valid_from <= on]
    return max(begun, key=lambda row: row.valid_from) if begun else None


def read_day(text: str) -> date | None:
    """A day like 2026-02-01; None for another text."""
    try:
        return date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        return None


def find_own_or_general(own: Sequence[D], general: Sequence[D], on: date) -> D | None:
    """The row that holds on a day: of those of its own where it has any, else of those for all.

    Where it has some but none that early, nothing is known: the general one was not its own then either.
    """
    return find_valid(own or general, on)


@dataclass(frozen=True, slots=True)
class Cells:
    """One line of a table; each method reads one cell.

    All raise `TableInvalid` with the line and the column.
    """

    table: str
    line: int
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """Anything but nothing."""
        return self.cells[column] or self.refuse(column, "is empty")

    def pct(self, column: str) -> Decimal | None:
        """0 to 100 with at most two decimals; None where it is unknown."""
        number = self._number(column)
        if number is not None and (number > 100 or number != round(number, 2)):
            self.refuse(column, f"{shown(self.cells[column])} is no percentage from 0 to 100 with at most two decimals")
        return number

    def amount_minor(self, column: str, currency: str) -> int | None:
        """Whole units like `0.30`; None where it is unknown. Nothing may cost 0."""
        number = self._number(column)
        if number is None:
            return None
        scaled = number.scaleb(minor_digits(currency))
        if scaled != scaled.to_integral_value():
            self.refuse(column, f"{shown(self.cells[column])} is finer than {currency} allows")
        return int(scaled)

    def positive(self, column: str) -> Decimal:
        """A number above 0, as it is written."""
        return self._number(column) or self.refuse(column, f"{shown(self.cells[column])} must be a number above 0")

    def yes(self, column: str) -> bool | None:
        """`yes` or `no`; None where it is unknown."""
        word = self.cells[column].lower()
        if word == UNKNOWN:
            return None
        return word == "yes" if word in ("yes", "no") else self.refuse(column, f"{shown(word)} must be yes, no or {UNKNOWN}")

    def day(self, column: str) -> date:
        """A day like 2026-02-01."""
        day = read_day(self.cells[column])
        return day if day is not None else self.refuse(column, f"{shown(self.cells[column])} is no day; write it like 2026-02-01")

    def country(self, column: str, *, is_any_allowed: bool = False) -> str:
        """Two capital letters (`UK`, not `GB`), or a star for all others where that is allowed."""
        word = self.cells[column]
        if (is_any_allowed and word == ANY) or (_COUNTRY.fullmatch(word) and word != "GB"):
            return word
        return self.refuse(column, f"{shown(word)} is no country; write two capital letters like DE, and UK for the United Kingdom")

    def category(self, column: str) -> str:
        """A category of fees, like `electronics`."""
        word = self.cells[column]
        return word if _CATEGORY.fullmatch(word) else self.refuse(column, f"{shown(word)} is no category; write it like home_products")

    def marketplaces(self, column: str) -> tuple[Marketplace, ...]:
        """One or more stores, each once, all of one currency."""
        try:
            stores = tuple(read_marketplace(word) for word in self.text(column).split())
        except WordsUnclear as error:
            raise self.fault(column, str(error)) from error
        if len(set(stores)) != len(stores):
            self.refuse(column, "names a store twice")
        return stores

    def currency(self, stores: Sequence[Marketplace]) -> str:
        """The one currency of a line's stores."""
        currencies = {store.currency for store in stores}
        if len(currencies) > 1:
            self.refuse("marketplaces", f"mixes {' and '.join(sorted(currencies))}; write a line for each currency")
        return currencies.pop()

    def fault(self, column: str, problem: str) -> TableInvalid:
        """An error that names this line."""
        return TableInvalid(self.table, self.line, f"{column}: {problem}")

    def _number(self, column: str) -> Decimal | None:
        word = self.cells[column]
        if word == UNKNOWN:
            return None
        return (
            Decimal(word)
            if _NUMBER.fullmatch(word)
            else self.refuse(column, f"{shown(word)} is no number; write it like 7.5, or {UNKNOWN}")
        )

    def refuse(self, column: str, problem: str) -> NoReturn:
        """Raise that error."""
        raise self.fault(column, problem)


def read_rows(table: str, text: str, columns: Sequence[str]) -> Iterator[Cells]:
    """The lines of a table; empty ones and those that begin with # are left out.

    Raises:
        TableInvalid: no such columns, a line of another length, or too large a file.
    """
    if len(text) > LARGEST_CHARACTERS:
        raise TableInvalid(table, None, f"is larger than {LARGEST_CHARACTERS} characters")
    rows = csv.reader(io.StringIO(text.lstrip("\ufeff")), strict=True)
    heading: list[str] | None = None
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells) or cells[0].startswith("#"):
                continue
            if heading is None:
                heading = cells
                if sorted(heading) != sorted(columns):
                    raise TableInvalid(table, rows.line_num, f"must begin with the columns {','.join(columns)}")
                continue
            if len(cells) != len(heading):
                raise TableInvalid(
                    table, rows.line_num, f"has {len(cells)} cells, not {len(heading)}; put quotes around a text with commas"
                )
            yield Cells(table, rows.line_num, dict(zip(heading, cells, strict=True)))
    except csv.Error as error:
        raise TableInvalid(table, rows.line_num, f"no CSV: {error}") from error
    if heading is None:
        raise TableInvalid(table, None, f"is empty; it must begin with the columns {','.join(columns)}")
