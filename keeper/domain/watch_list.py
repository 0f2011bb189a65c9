"""A list of watches in a file, CSV or JSON: read row by row, each fault named with its line and its field.

Whatever a file holds, it is read or refused in words; a row that cannot be read costs no other row anything.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final, TypeVar

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import AmountInvalid, Money
from keeper.domain.price_type import PriceType
from keeper.domain.watch import DEFAULT_HYSTERESIS_PCT, DEFAULT_INTERVAL, Watch, WatchChange, WatchInvalid
from keeper.domain.wording import (
    WordsUnclear,
    find_store,
    read_asin,
    read_marketplace,
    read_price_type,
    read_span_seconds,
    shown,
)

MOST_ROWS: Final = 10_000
LARGEST_BYTES: Final = 8 * 1024 * 1024
DEFAULT_MARKETPLACE: Final = Marketplace.DE

COLUMNS: Final = ("asin", "marketplace", "price_type", "target", "interval", "hysteresis_pct", "is_paused")
# What an export tells beside that, for people.
EXPORT_COLUMNS: Final = ("title", "price", "currency")
# A cell that begins so would be run as a formula by a spreadsheet.
FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\r")

_KNOWN = frozenset((*COLUMNS, *EXPORT_COLUMNS))
_SEPARATORS = (",", ";", "\t")
_ASIN_LENGTH = 10
_MOST_PROBLEMS = 10
_LONGEST_NUMBER = 40
_MOST_SECONDS = 10**9
# A German spreadsheet writes its own words.
_TRUTHS = dict.fromkeys(("true", "yes", "1", "wahr", "ja"), True) | dict.fromkeys(("false", "no", "0", "falsch", "nein"), False)

T = TypeVar("T")


class WatchListUnreadable(KeeperError):
    """A file that cannot be read as a whole; no row of it counts."""


class ListForm(StrEnum):
    """How a file is written."""

    CSV = "csv"
    JSON = "json"


class Existing(StrEnum):
    """What becomes of a watch that is in the file and there already."""

    KEEP = "keep"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class RowProblem:
    """Why a row is rejected.

    Attributes:
        line: of the file, from 1, where the row begins; in JSON the place in the list, from 1.
        field: None where it is about the row as a whole.
    """

    line: int
    field: str | None
    message: str


@dataclass(frozen=True, slots=True)
class ListedWatch:
    """One row.

    Attributes:
        watch: what was not said has its default.
        is_paused: None where the row does not say.
        said: the fields that the row has; an empty target says that there is none, other empty fields say nothing.
    """

    line: int
    watch: Watch
    is_paused: bool | None
    said: frozenset[str]


@dataclass(frozen=True, slots=True)
class WatchList:
    """A file's content.

    Attributes:
        rows: how many there are, rejected ones too.
        watches: each price once.
    """

    rows: int
    watches: tuple[ListedWatch, ...]
    rejected: tuple[RowProblem, ...]


def guess_form(content: bytes) -> ListForm:
    """JSON begins with a bracket or a brace; no line with the names of columns does."""
    return ListForm.JSON if content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"[", b"{") else ListForm.CSV


def decode_list(content: bytes, form: ListForm) -> WatchList:
    """Read a file.

    CSV: a line with the names of the columns, in any order, of which only `asin` is needed; between them commas, semicolons or tabs.
    JSON: a list of objects with the same names, or an object with this list as `watches`.

    Raises:
        WatchListUnreadable: not of that form, unknown columns, more than MOST_ROWS rows or LARGEST_BYTES bytes.
    """
    if len(content) > LARGEST_BYTES:
        raise WatchListUnreadable(f"the file is larger than {LARGEST_BYTES // 1024**2} MB; cut it in parts")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise WatchListUnreadable(f"line {line} is not UTF-8; let the spreadsheet save it as `CSV UTF-8`") from None
    rows = _csv_rows(text) if form is ListForm.CSV else _json_rows(text)
    count = 0
    watches: list[ListedWatch] = []
    rejected: list[RowProblem] = []
    first_lines: dict[tuple[str, Marketplace, PriceType], int] = {}
    for line, fields in rows:
        count += 1
        if count > MOST_ROWS:
            raise WatchListUnreadable(f"the file has more than {MOST_ROWS:,} rows; cut it in parts")
        found = _read_row(line, fields)
        if isinstance(found, ListedWatch):
            watch = found.watch
            first = first_lines.setdefault((watch.asin, watch.marketplace, watch.price_type), line)
            if first == line:
                watches.append(found)
                continue
            where = f"{watch.asin} in {watch.marketplace} ({watch.price_type})"
            found = [RowProblem(line, "asin", f"{where} is in {'line' if form is ListForm.CSV else 'row'} {first} already")]
        rejected += found[:_MOST_PROBLEMS]
    return WatchList(count, tuple(watches), tuple(rejected))


def _csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any] | RowProblem]]:
    """Rows with the line each begins in; empty ones are passed over."""
    lines = _csv_lines(text, _separator(text))
    header: list[str] | None = None
    for line, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _header(cells)
            continue
        if extra := [cell for name, cell in zip([*header, *[""] * len(cells)], cells, strict=False) if not name and cell.strip()]:
            hint = "an amount with a comma needs quotes around it"
            yield line, RowProblem(line, None, f"{shown(extra[0])} has no column: the row has more cells than the first line; {hint}")
            continue
        named = {name: _cell(cell) for name, cell in zip(header, cells, strict=False) if name}
        yield line, {name: cell for name, cell in named.items() if cell is not None or name == "target"}
    if header is None:
        raise WatchListUnreadable("the file is empty; its first line must name the columns, `asin` among them")


def _csv_lines(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    begins_after = 0
    try:
        for cells in reader:
            yield begins_after + 1, cells
            begins_after = reader.line_num
    except csv.Error as error:
        raise WatchListUnreadable(f"line {begins_after + 1} is not CSV: {error}; a quote within quotes is written twice") from None


def _separator(text: str) -> str:
    """The one that finds the most known names in the first line."""

    def known(separator: str) -> int:
        try:
            first = next((cells for _, cells in _csv_lines(text, separator) if any(cell.strip() for cell in cells)), [])
        except WatchListUnreadable:
            return 0
        return len(_KNOWN.intersection(map(_column, first)))

    return max(_SEPARATORS, key=known)


def _header(cells: Sequence[str]) -> list[str]:
    header = [_column(cell) for cell in cells]
    names = [name for name in header if name]
    known = f"known are {', '.join(COLUMNS)}; {', '.join(EXPORT_COLUMNS)} are passed over"
    if unknown := [name for name in names if name not in _KNOWN]:
        listed = ", ".join(map(shown, unknown[:_MOST_PROBLEMS]))
        if "asin" not in names:
            raise WatchListUnreadable(f"the first line must name the columns, `asin` among them; it has {listed}; {known}")
        raise WatchListUnreadable(f"unknown columns: {listed}; {known}")
    if "asin" not in names:
        raise WatchListUnreadable(f"the first line must name the column `asin`; {known}")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise WatchListUnreadable(f"the first line names {', '.join(twice)} twice")
    return header


def _column(cell: str) -> str:
    return cell.strip().lower().replace(" ", "_").replace("-", "_")


def _cell(cell: str) -> str | None:
    """Without the apostrophe that keeps a spreadsheet from running it; None where it is empty."""
    if cell[:1] == "'" and cell[1:2] in FORMULA_SIGNS:
        cell = cell[1:]
    return cell.strip() or None


def _json_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any] | RowProblem]]:
    try:
        document = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    except RecursionError:
        raise WatchListUnreadable("not a list of watches: it is nested too deeply") from None
    except InvalidOperation:
        raise WatchListUnreadable("it holds a number beyond any that can be read") from None
    except ValueError as error:
        raise WatchListUnreadable(f"not JSON: {str(error)[:200]}") from None
    rows = document.get("watches") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise WatchListUnreadable('JSON must be a list of watches, or an object like {"watches": [...]}')
    for line, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            yield line, RowProblem(line, None, f"a watch must be an object, this is {_kind(row)}")
        elif unknown := [name for name in row if name not in _KNOWN]:
            yield line, RowProblem(line, None, f"{shown(unknown[0])} is no field of a watch; known are {', '.join(COLUMNS)}")
        else:
            yield line, {name: value for name, value in row.items() if value is not None or name == "target"}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}.get(type(value), "a number")


class _Row:
    """One row while it is read: each field apart, so that all its faults are told at once."""

    def __init__(self, line: int, fields: Mapping[str, Any]) -> None:
        self.line = line
        self.fields = fields
        self.problems: list[RowProblem] = []

    def read(self, field: str, read: Callable[[Any], T]) -> T | None:
        """A field's value; None where it says nothing, or cannot be read."""
        value = self.fields.get(field)
        if value is None:
            return None
        try:
            return read(value)
        except (WordsUnclear, WatchInvalid, AmountInvalid) as error:
            self.reject(field, str(error))
            return None

    def reject(self, field: str, message: str) -> None:
        self.problems.append(RowProblem(self.line, field, message))


def _read_row(line: int, fields: Mapping[str, Any] | RowProblem) -> ListedWatch | list[RowProblem]:
    if isinstance(fields, RowProblem):
        return [fields]
    row = _Row(line, fields)
    if "asin" not in fields:
        row.reject("asin", "is missing")
    asin, store = row.read("asin", _read_asin) or ("", None)
    named = row.read("marketplace", lambda value: read_marketplace(_text(value)))
    marketplace = named or store or DEFAULT_MARKETPLACE
    if named is not None or "marketplace" not in fields:
        # Without the marketplace nobody knows in which currency a target would be.
        target = row.read("target", lambda value: _read_target(value, marketplace))
        row.read("currency", lambda value: _check_currency(value, marketplace))
    price_type = row.read("price_type", lambda value: read_price_type(_text(value))) or PriceType.NEW
    interval = row.read("interval", _read_interval) or DEFAULT_INTERVAL
    hysteresis_pct = row.read("hysteresis_pct", _read_hysteresis)
    is_paused = row.read("is_paused", _read_truth)
    if named is not None and store is not None and store is not named:
        row.reject("marketplace", f"is {named}, but the link leads to {store}")
    if row.problems:
        return row.problems
    watch = Watch(asin, marketplace, price_type, target, interval, DEFAULT_HYSTERESIS_PCT if hysteresis_pct is None else hysteresis_pct)
    return ListedWatch(line, watch, is_paused, frozenset(fields).intersection(COLUMNS))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise WordsUnclear(f"must be text, is {_kind(value)}")
    return value


def _number(value: Any) -> str:
    """A number as it was written; text is one too."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise WordsUnclear(f"must be a number, is {_kind(value)}")
    text = str(value).strip()
    if len(text) > _LONGEST_NUMBER:
        raise WordsUnclear(f"{shown(text)} is too long for a number")
    return text


def _read_asin(value: Any) -> tuple[str, Marketplace | None]:
    text = _text(value)
    try:
        return read_asin(text), find_store(text)
    except WordsUnclear as error:
        if text.isascii() and text.isdigit() and len(text) < _ASIN_LENGTH:
            raise WordsUnclear(f"{error}; a spreadsheet may have dropped the zeros it began with") from None
        raise


def _read_target(value: Any, marketplace: Marketplace) -> Money | None:
    text = _number(value)
    return Money.parse(text, marketplace.currency) if text else None


def _read_interval(value: Any) -> timedelta:
    text = _number(value)
    is_number = not isinstance(value, str) or (text.isascii() and text.isdigit())
    seconds = _decimal(text) if is_number else Decimal(round(read_span_seconds(text)))
    if seconds != seconds.to_integral_value():
        raise WordsUnclear(f"{shown(text)} is not a whole number of seconds; write it like 30m, 6h or 1d12h")
    interval = timedelta(seconds=int(max(Decimal(-1), min(seconds, Decimal(_MOST_SECONDS)))))
    WatchChange(interval=interval)
    return interval


def _read_hysteresis(value: Any) -> float:
    number = _decimal(_number(value).removesuffix("%").replace(",", "."))
    WatchChange(hysteresis_pct=float(max(Decimal(-1), min(number, Decimal(101)))))
    return float(number.quantize(Decimal("0.01"), ROUND_HALF_UP))


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise WordsUnclear(f"{shown(text)} is not a number")
    return number


def _read_truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    truth = _TRUTHS.get(_text(value).strip().lower())
    if truth is None:
        raise WordsUnclear(f"{shown(value)} is neither true nor false")
    return truth


def _check_currency(value: Any, marketplace: Marketplace) -> None:
    if _text(value).strip().upper() != marketplace.currency:
        raise WordsUnclear(f"is {shown(value)}, but prices in {marketplace} are in {marketplace.currency}")
