"""What is collected and discovered, as files: queries and lists of products; each fault named with its place."""

import csv
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from keeper.domain.deal import DEAL_PRICE_TYPES, DateRange, DealQuery, DealQueryInvalid
from keeper.domain.discovery import DiscoveryQuery, Selection
from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import AmountInvalid, Money
from keeper.domain.price_type import PriceType
from keeper.domain.wording import WordsUnclear, read_asin, read_marketplace, shown

_FLAGS = ("is_lowest", "is_lowest_90", "has_reviews", "must_have_amazon_offer", "without_erotic", "single_variation")
_NUMBERS = ("fall_pct_from", "fall_pct_to", "rank_from", "rank_to")
_WORDS = ("words", "brands")
_IDS = ("categories", "not_categories")
_KNOWN = ("marketplace", "group", "price_types", "date_range", "price_from", "price_to", "rating_from", *_NUMBERS, *_WORDS, *_IDS, *_FLAGS)
_DISCOVERED = ("marketplace", "group", "bestsellers", "find")
_FOUND_NUMBERS = ("root_category", "rank_from", "rank_to", "reviews_from", "most")
_FOUND = ("words", "brands", "categories", "price_type", "price_from", "price_to", "rating_from", *_FOUND_NUMBERS)
_MOST_FOUND = (50, 10_000)
_MOST_SEEDS = 10_000
# Not all that `splitlines` knows: a title may hold U+2028.
_LINE_END = re.compile("\r\n|\n|\r")
_SEPARATORS = (",", ";", "\t")

E = TypeVar("E", bound=StrEnum)


class DealFileInvalid(KeeperError):
    """A file of queries or seeds that cannot be used; says which and what to do."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """Products to look at in every collection.

    Attributes:
        asins: each once, in the file's order.
        problems: lines that could not be read, each with its number; the others count.
    """

    name: str
    asins: tuple[str, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DealFiles:
    """What is collected.

    Attributes:
        troubles: files that cannot be used, each with what to do; they are left out.
    """

    queries: tuple[DealQuery, ...]
    seeds: tuple[Seeds, ...]
    troubles: tuple[str, ...] = ()


def parse_queries(name: str, text: str) -> tuple[DealQuery, ...]:
    """The queries of one TOML file: the same question for each of its price types.

    Raises:
        DealFileInvalid: names the key and what it may be.
    """
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DealFileInvalid(f"{name}: no TOML: {error}") from error
    _check_known(name, said, _KNOWN)
    options: dict[str, Any] = {}
    try:
        marketplace = read_marketplace(_text(name, said, "marketplace"))
        for bound in ("price_from", "price_to"):
            if bound in said:
                options[f"{bound}_minor"] = Money.parse(str(said[bound]), marketplace.currency).amount_minor
        if "date_range" in said:
            options["date_range"] = _one_of(DateRange, _text(name, said, "date_range").lower(), "date_range")
        if "rating_from" in said:
            options["rating_from_tenths"] = round(10 * float(said["rating_from"]))
        price_types = [_one_of(PriceType, one.upper(), "price_types") for one in _list(name, said, "price_types", str, ("NEW",))]
        options |= {key: _checked(name, said, key, int) for key in _NUMBERS if key in said}
        options |= {key: _checked(name, said, key, bool) for key in _FLAGS if key in said}
        options |= {key: _list(name, said, key, str) for key in _WORDS}
        options |= {key: _list(name, said, key, int) for key in _IDS}
        query = DealQuery(name, marketplace, group=_text(name, said, "group") if "group" in said else None, **options)
        return tuple(replace(query, price_type=price_type) for price_type in dict.fromkeys(price_types))
    except (DealQueryInvalid, WordsUnclear, AmountInvalid, ValueError, TypeError) as error:
        raise DealFileInvalid(f"{name}: {error}") from error


def parse_discovery(name: str, text: str) -> DiscoveryQuery:
    """One TOML file of the discovery.

    Raises:
        DealFileInvalid: names the key and what it may be.
    """
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DealFileInvalid(f"{name}: no TOML: {error}") from error
    _check_known(name, said, _DISCOVERED)
    try:
        marketplace = read_marketplace(_text(name, said, "marketplace"))
        lists = _list(name, said, "bestsellers", int)
        if any(category_id <= 0 for category_id in lists):
            raise DealFileInvalid(f"{name}: bestsellers must be ids of categories")
        selection = None
        if "find" in said:
            if not isinstance(said["find"], dict) or not said["find"]:
                raise DealFileInvalid(f"{name}: [find] must say what to find: {', '.join(_FOUND)}")
            selection = _selection(name, said["find"], marketplace)
        if not lists and selection is None:
            raise DealFileInvalid(f"{name}: it must say bestsellers = [...] or [find]")
        group = _text(name, said, "group") if "group" in said else None
        return DiscoveryQuery(name, marketplace, group, tuple(dict.fromkeys(lists)), selection)
    except (DealQueryInvalid, WordsUnclear, AmountInvalid, ValueError, TypeError) as error:
        raise DealFileInvalid(f"{name}: {error}") from error


def _selection(name: str, said: Mapping[str, Any], marketplace: Marketplace) -> Selection:
    _check_known(name, said, _FOUND)
    options: dict[str, Any] = {key: _list(name, said, key, str) for key in _WORDS}
    options["categories"] = _list(name, said, "categories", int)
    options |= {key: _checked(name, said, key, int) for key in _FOUND_NUMBERS if key in said}
    if "root_category" in options:
        options["root_category_id"] = options.pop("root_category")
    for bound in ("price_from", "price_to"):
        if bound in said:
            options[f"{bound}_minor"] = Money.parse(str(said[bound]), marketplace.currency).amount_minor
    if "rating_from" in said:
        options["rating_from_tenths"] = round(10 * float(said["rating_from"]))
    if "price_type" in said:
        options["price_type"] = _one_of(PriceType, _text(name, said, "price_type").upper(), "price_type")
    least, most = _MOST_FOUND
    if not least <= options.get("most", least) <= most:
        raise DealFileInvalid(f"{name}: most must be from {least} to {most}")
    return Selection(**options)


def _check_known(name: str, said: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(set(said) - set(known)):
        raise DealFileInvalid(f"{name}: {', '.join(unknown)} is unknown; it may say {', '.join(known)}")


def parse_seeds(name: str, text: str) -> Seeds:
    """The ASINs of a CSV file: of its column `asin`, or its first; between the columns commas, semicolons or tabs.

    Each line is read by itself, so that a quote that is never closed costs no other line.

    Raises:
        DealFileInvalid: no line of it can be used.
    """
    lines = _LINE_END.split(text.removeprefix("\ufeff"))
    separator = _separator(lines)
    asins: dict[str, None] = {}
    problems: list[str] = []
    column = 0
    is_first = True
    for number, line in enumerate(lines, 1):
        if not line.strip(f"{separator} \t"):
            continue
        try:
            cells = _cells(line, separator)
            names = [cell.strip().lower() for cell in cells]
            if is_first and "asin" in names:
                column = names.index("asin")
            else:
                asins[read_asin(cells[column] if column < len(cells) else "")] = None
        except (WordsUnclear, csv.Error) as error:
            problems.append(f"{name}, line {number}: {error}")
        is_first = False
        if len(asins) > _MOST_SEEDS:
            raise DealFileInvalid(f"{name}: more than {_MOST_SEEDS} products; split it, and mind that each costs a token an hour")
    if not asins:
        raise DealFileInvalid(f"{name}: no line of it holds an ASIN" + (f"; {problems[0]}" if problems else ""))
    return Seeds(name, tuple(asins), tuple(problems))


def _separator(lines: Sequence[str]) -> str:
    """The one that finds a column `asin` in the first line, else the one that cuts it in most cells."""
    first = next((line for line in lines if line.strip()), "")

    def found(separator: str) -> tuple[bool, int]:
        try:
            cells = _cells(first, separator)
        except csv.Error:
            return False, 0
        return "asin" in (cell.strip().lower() for cell in cells), len(cells)

    return max(_SEPARATORS, key=found)


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator, strict=True), [])


def read_marketplaces(words: tuple[str, ...]) -> tuple[Marketplace, ...]:
    """Stores by their letters, each once."""
    return tuple(dict.fromkeys(read_marketplace(word) for word in words))


def _one_of(kind: type[E], word: str, key: str) -> E:
    try:
        return kind(word)
    except ValueError:
        choices = DEAL_PRICE_TYPES if kind is PriceType else list(kind)
        raise DealQueryInvalid(key, f"{shown(word)} is none of {', '.join(str(choice) for choice in choices)}") from None


def _text(name: str, said: Mapping[str, Any], key: str) -> str:
    value = said.get(key)
    if not isinstance(value, str) or not value:
        raise DealFileInvalid(f'{name}: it must say {key} = "..."')
    return value


def _checked(name: str, said: Mapping[str, Any], key: str, kind: type) -> Any:
    value = said[key]
    if type(value) is not kind:
        raise DealFileInvalid(f"{name}: {key} is {shown(value)}; it must be {'true or false' if kind is bool else 'a whole number'}")
    return value


def _list(name: str, said: Mapping[str, Any], key: str, kind: type, default: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    value = said.get(key, list(default))
    if not isinstance(value, list) or any(type(one) is not kind for one in value):
        raise DealFileInvalid(f"{name}: {key} must be a list of {'texts' if kind is str else 'whole numbers'}")
    return tuple(value)
