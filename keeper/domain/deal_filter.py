"""Which deals somebody wants to hear of."""

import math
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final, TypeVar

from keeper.domain.deal import DEAL_PRICE_TYPES
from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.domain.search import LARGEST_AMOUNT_MINOR, LARGEST_COUNT, LONGEST_TEXT, MOST_CHOICES, MOST_TERMS, SearchInvalid, parse_terms

LONGEST_NAME: Final = 100
MOST_FILTERS: Final = 200

E = TypeVar("E", bound=StrEnum)


class DealFilterInvalid(KeeperError):
    """A filter that cannot be.

    Attributes:
        field: which part of it.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


@dataclass(frozen=True, slots=True)
class DealFilter:
    """What a deal must be. All conditions hold at once, within each list any one does; an empty list or None is no condition.

    What a deal does not tell (a rating nobody knows) is outside of any range.

    Attributes:
        words: as in a search, all of which title and brand must have; in quotes a phrase.
        exclude_words: likewise, none of which they may have.
        brands: exact but for case.
        categories: the name of any category on the product's path but for case, or the id of any.
        price_from_minor, price_to_minor: inclusive, in the currency that all the marketplaces have.
        discount_from_pct, discount_to_pct: of the list price, inclusive, 0 to 100.
        below_median_from_pct: how far below its median of 90 days the price must be at least.
        rating_from: stars, 0 to 5.
        rank_to: the sales rank it may have at most.
        score_from: the least quality score, 0 to 100.
        layouts, group: of the product group that knows them.

    Raises:
        DealFilterInvalid: something is out of its bounds.
    """

    words: str = ""
    exclude_words: str = ""
    brands: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    marketplaces: tuple[Marketplace, ...] = ()
    price_from_minor: int | None = None
    price_to_minor: int | None = None
    discount_from_pct: float | None = None
    discount_to_pct: float | None = None
    below_median_from_pct: float | None = None
    rating_from: float | None = None
    reviews_from: int | None = None
    rank_to: int | None = None
    score_from: float | None = None
    price_types: tuple[PriceType, ...] = ()
    layouts: tuple[str, ...] = ()
    group: str | None = None

    def __post_init__(self) -> None:
        for name in ("words", "exclude_words"):
            terms_of(name, getattr(self, name))
        for name in ("brands", "categories", "layouts"):
            _check_texts(name, getattr(self, name))
        if self.group is not None:
            _check_texts("group", (self.group,))
        for name in ("marketplaces", "price_types"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise DealFilterInvalid(name, "names one twice")
        for kind in self.price_types:
            if kind not in DEAL_PRICE_TYPES:
                raise DealFilterInvalid("price_types", f"{kind} has no deals; choose among {', '.join(DEAL_PRICE_TYPES)}")
        for name, highest in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not 0 <= value <= highest:
                raise DealFilterInvalid(name, f"must be from 0 to {highest}")
        for first, last in (("price_from_minor", "price_to_minor"), ("discount_from_pct", "discount_to_pct")):
            least, most = getattr(self, first), getattr(self, last)
            if least is not None and most is not None and least > most:
                raise DealFilterInvalid(last, f"must not be below {first}")
        if (self.price_from_minor, self.price_to_minor) != (None, None):
            self._check_currency("price_from_minor" if self.price_from_minor is not None else "price_to_minor")

    @property
    def currency(self) -> str | None:
        """Of all its marketplaces; None where they have several."""
        currencies = {marketplace.currency for marketplace in self.marketplaces or Marketplace}
        return currencies.pop() if len(currencies) == 1 else None

    def _check_currency(self, field: str) -> None:
        if self.currency is not None:
            return
        if not self.marketplaces:
            raise DealFilterInvalid(field, "a price needs marketplaces of one currency; name them, such as DE")
        by_currency: dict[str, list[str]] = {}
        for marketplace in self.marketplaces:
            by_currency.setdefault(marketplace.currency, []).append(marketplace.value)
        told = "; ".join(f"{', '.join(places)} in {currency}" for currency, places in sorted(by_currency.items()))
        raise DealFilterInvalid(field, f"a price is in one currency, and the marketplaces have several ({told}); make a filter for each")


# The highest value of each number; the lowest is 0.
_BOUNDS: Final[Mapping[str, int]] = {
    "price_from_minor": LARGEST_AMOUNT_MINOR,
    "price_to_minor": LARGEST_AMOUNT_MINOR,
    "discount_from_pct": 100,
    "discount_to_pct": 100,
    "below_median_from_pct": 100,
    "rating_from": 5,
    "reviews_from": LARGEST_COUNT,
    "rank_to": LARGEST_COUNT,
    "score_from": 100,
}


def check_name(name: str) -> str:
    """A filter's name, without spaces around it.

    Raises:
        DealFilterInvalid: there is none, or it is too long.
    """
    trimmed = " ".join(name.split())
    if not 0 < len(trimmed) <= LONGEST_NAME or any(unicodedata.category(sign) in ("Cc", "Cs") for sign in trimmed):
        raise DealFilterInvalid("name", f"must have 1 to {LONGEST_NAME} characters that can be seen")
    return trimmed


def terms_of(field: str, text: str) -> tuple[str, ...]:
    """The words and phrases of `words` or `exclude_words`.

    Raises:
        DealFilterInvalid: a text without any word, or too many, or too long.
    """
    if len(text) > LONGEST_TEXT or "\x00" in text or not _is_text(text):
        raise DealFilterInvalid(field, f"must be a text of at most {LONGEST_TEXT} characters")
    try:
        return tuple(term.words for term in parse_terms(text))
    except SearchInvalid as error:
        raise DealFilterInvalid(field, f"holds no word, or more than {MOST_TERMS}") from error


def write_rules(wanted: DealFilter) -> dict[str, Any]:
    """As it is kept: only the conditions there are."""
    rules = {}
    for one in fields(wanted):
        value = getattr(wanted, one.name)
        if value not in (None, "", ()):
            rules[one.name] = list(value) if isinstance(value, tuple) else value
    return rules


def read_rules(rules: object) -> DealFilter:
    """The reverse, of what anybody may have written.

    Raises:
        DealFilterInvalid: it names what it does not know, and what is not of its kind.
    """
    if not isinstance(rules, Mapping):
        raise DealFilterInvalid("rules", "must be an object")
    if unknown := sorted(str(name) for name in rules if name not in _READERS):
        raise DealFilterInvalid(unknown[0], f"is no rule; a filter knows {', '.join(_READERS)}")
    known: dict[str, Any] = {name: _READERS[name](name, value) for name, value in rules.items()}
    return DealFilter(**known)


def _check_texts(field: str, texts: Collection[str]) -> None:
    if len(texts) > MOST_CHOICES:
        raise DealFilterInvalid(field, f"names {len(texts)}; at most {MOST_CHOICES}")
    for said in texts:
        if not said.strip() or len(said) > LONGEST_TEXT or "\x00" in said or not _is_text(said):
            raise DealFilterInvalid(field, f"each must be a text of 1 to {LONGEST_TEXT} characters")


def _is_text(said: str) -> bool:
    return not any(0xD800 <= ord(sign) <= 0xDFFF for sign in said)


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise DealFilterInvalid(field, "must be a text")
    return value


def _texts(field: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise DealFilterInvalid(field, "must be a list of texts")
    return tuple(_text(field, said) for said in value)


def _whole(field: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise DealFilterInvalid(field, "must be a whole number")
    return value


def _number(field: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise DealFilterInvalid(field, "must be a number")
    return value


def _choices(kind: type[E]) -> Callable[[str, object], tuple[E, ...]]:
    def read(field: str, value: object) -> tuple[E, ...]:
        known = {one.value: one for one in kind}
        for said in (texts := _texts(field, value)):
            if said not in known:
                raise DealFilterInvalid(field, f"{said[:40]!r} is not known; choose among {', '.join(known)}")
        return tuple(known[said] for said in texts)

    return read


_READERS: Final[Mapping[str, Callable[[str, object], object]]] = {
    "words": _text,
    "exclude_words": _text,
    "brands": _texts,
    "categories": _texts,
    "marketplaces": _choices(Marketplace),
    "price_from_minor": _whole,
    "price_to_minor": _whole,
    "discount_from_pct": _number,
    "discount_to_pct": _number,
    "below_median_from_pct": _number,
    "rating_from": _number,
    "reviews_from": _whole,
    "rank_to": _whole,
    "score_from": _number,
    "price_types": _choices(PriceType),
    "layouts": _texts,
    "group": lambda field, value: None if value is None else _text(field, value),
}
