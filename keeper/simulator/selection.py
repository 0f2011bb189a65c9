"""Reads the JSON selection of a `/deal` request and refuses what Keepa refuses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keeper.simulator.catalog import MARKETPLACES, OTHER_DOMAINS
from keeper.simulator.prices import SALES
from keeper.simulator.requests import BRAZIL, ParameterError

# Keepa API docs, deals: the price types a deal can be of. Others are refused since 2026-07-28.
DEAL_TYPES = frozenset({0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 18, 19, 20, 21, 22, 32, 33})
DEALS_PER_PAGE = 150
MAX_DEALS = 10_000
MIN_PERCENT, MIN_RANK_PERCENT = 10, 80
MAX_CATEGORIES = 500
MAX_WORDS = 50
# The fields of text a catalog row has, next to those it has not and which match nothing.
KNOWN_TEXTS = ("brand", "manufacturer", "model", "color", "type", "itemTypeKeyword", "brandStoreName", "brandStoreUrlName",
               "websiteDisplayGroup", "websiteDisplayGroupName", "salesRankDisplayGroup")  # fmt: skip
UNKNOWN_TEXTS = ("size", "productGroup", "material", "binding", "author", "languages", "format", "edition", "style", "pattern",
                 "scent", "itemForm", "unitType", "targetAudienceKeyword")  # fmt: skip
_RANGES = ("currentRange", "deltaRange", "deltaPercentRange", "deltaLastRange", "salesRankRange")
_SWITCHES = (
    "isLowest", "isLowest90", "isHighest", "isLowestOffer", "isOutOfStock", "isBackInStock", "hasReviews", "filterErotic",
    "singleVariation", "isRisers", "isPrimeExclusive", "mustHaveAmazonOffer", "mustNotHaveAmazonOffer",
)  # fmt: skip
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class DealSelection:
    """A `/deal` request that makes sense; a group whose master switch is off is empty.

    Attributes:
        domain: Keepa's marketplace id.
        price_type: The one requested.
        page: From 0.
        date_range: 0 day, 1 week, 2 31 days, 3 90 days.
        sort: 1 age, 2 difference, 3 rank, 4 percent; negative inverts.
        ranges: By field name, both ends included.
        switches: Names of the filters that are on.
        min_rating: Stars x 10; None means off.
        warehouse_conditions: Wanted ones; empty means all.
        title_words: Lower case; all must be in the title.
        texts: Wanted values by field, lower case.
        included: Categories of which one must hold the product; empty means all.
        excluded: Categories of which none may hold it.
    """

    domain: int
    price_type: int
    page: int
    date_range: int
    sort: int
    ranges: Mapping[str, Range]
    switches: frozenset[str]
    min_rating: int | None
    warehouse_conditions: frozenset[int]
    title_words: tuple[str, ...]
    texts: Mapping[str, frozenset[str]]
    included: frozenset[int]
    excluded: frozenset[int]


def read_selection(text: str | None) -> dict[str, Any]:
    """Returns the JSON object of a selection.

    Raises:
        ParameterError: There is none.
    """
    try:
        selection = json.loads(text or "")
    except (ValueError, RecursionError):
        raise ParameterError(400, "selection") from None
    if not isinstance(selection, dict):
        raise ParameterError(400, "selection")
    return selection


def parse_deal_selection(text: str | None) -> DealSelection:
    """Returns the request that a selection describes. Unknown fields are ignored, as are nulls.

    Raises:
        ParameterError: A field is malformed (400) or out of range (405).
    """
    fields = {name: value for name, value in read_selection(text).items() if value is not None}
    domain = whole(fields, "domainId")
    if domain is None or domain == BRAZIL or (domain not in MARKETPLACES and domain not in OTHER_DOMAINS):
        raise ParameterError(400, "domainId")
    types = _numbers(fields, "priceTypes")
    if len(types) != 1:
        raise ParameterError(400, "priceTypes")
    if types[0] not in DEAL_TYPES:
        raise ParameterError(405, "priceTypes")
    page = _within(fields, "page", range(-(-MAX_DEALS // DEALS_PER_PAGE)), 0)
    date_range = _within(fields, "dateRange", range(4), 0)
    sort = _within(fields, "sortType", (1, 2, 3, 4, -2, -3, -4), 4)
    ranges = {name: bounds for name in _RANGES if (bounds := _range(fields, name)) is not None}
    switches = frozenset(name for name in _SWITCHES if flag(fields, name))
    min_rating = _within(fields, "minRating", range(-1, 51), -1)
    conditions = frozenset(_numbers(fields, "warehouseConditions"))
    words = _words(fields)
    texts = {
        name: frozenset(text.lower() for text in wanted) for name in (*KNOWN_TEXTS, *UNKNOWN_TEXTS) if (wanted := _texts(fields, name))
    }
    included, excluded = (frozenset(_categories(fields, name)) for name in ("includeCategories", "excludeCategories"))
    if not flag(fields, "isRangeEnabled"):
        ranges = {}
    least = MIN_RANK_PERCENT if types[0] == SALES else MIN_PERCENT
    if "deltaPercentRange" in ranges and ranges["deltaPercentRange"][0] < least:
        raise ParameterError(405, "deltaPercentRange")
    if not flag(fields, "isFilterEnabled"):
        switches, min_rating, conditions, words, texts = frozenset(), -1, frozenset(), (), {}
    return DealSelection(
        domain=domain,
        price_type=types[0],
        page=page,
        date_range=date_range,
        sort=sort,
        ranges=ranges,
        switches=switches,
        min_rating=None if min_rating < 0 else min_rating,
        warehouse_conditions=conditions,
        title_words=words,
        texts=texts,
        included=included,
        excluded=excluded,
    )


def whole(fields: Mapping[str, Any], name: str) -> int | None:
    """Returns a whole number of a JSON object, None where it has none."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ParameterError(400, name)
    return value


def flag(fields: Mapping[str, Any], name: str) -> bool:
    """Returns a truth value of a JSON object, False where it has none."""
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise ParameterError(400, name)
    return value


def _within(fields: Mapping[str, Any], name: str, allowed: range | tuple[int, ...], default: int) -> int:
    value = whole(fields, name)
    if value is None:
        return default
    if value not in allowed:
        raise ParameterError(405, name)
    return value


def _numbers(fields: Mapping[str, Any], name: str) -> list[int]:
    values = fields.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise ParameterError(400, name)
    return values


def _texts(fields: Mapping[str, Any], name: str) -> list[str]:
    values = fields.get(name, [])
    values = [values] if isinstance(values, str) else values
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ParameterError(400, name)
    return values


def _categories(fields: Mapping[str, Any], name: str) -> list[int]:
    values = _numbers(fields, name)
    if len(values) > MAX_CATEGORIES:
        raise ParameterError(405, name)
    return values


def _words(fields: Mapping[str, Any]) -> tuple[str, ...]:
    title = fields.get("titleSearch", "")
    if not isinstance(title, str):
        raise ParameterError(400, "titleSearch")
    words = tuple(title.lower().split())
    if len(words) > MAX_WORDS:
        raise ParameterError(405, "titleSearch")
    return words


def _range(fields: Mapping[str, Any], name: str) -> Range | None:
    values = _numbers(fields, name)
    if not values:
        return None
    if len(values) != 2:
        raise ParameterError(400, name)
    low, high = values
    if name == "salesRankRange" and high == -1:
        high = 2**31
    if high < low:
        raise ParameterError(405, name)
    return low, high
