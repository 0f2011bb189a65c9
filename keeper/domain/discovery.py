"""What a catalog grows by: lists of bestsellers and questions to the product finder."""

from dataclasses import dataclass

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.domain.wording import WordsUnclear, read_marketplace, shown

_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Selection:
    """What the finder looks for, the best sold first; what is given must all hold, None is open.

    Attributes:
        root_category_id: of the whole tree.
        categories: in one of which a product is listed directly.
        words: all of which the title must hold.
        brands: one of them.
        most: products asked for.
    """

    root_category_id: int | None = None
    categories: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    price_type: PriceType = PriceType.NEW
    price_from_minor: int | None = None
    price_to_minor: int | None = None
    rank_from: int | None = None
    rank_to: int | None = None
    rating_from_tenths: int | None = None
    reviews_from: int | None = None
    most: int = 1000


@dataclass(frozen=True, slots=True)
class DiscoveryQuery:
    """One file: where candidates of a store come from.

    Attributes:
        group: name of the product group they must belong to; None takes them all.
        bestsellers: categories whose lists are read.
    """

    name: str
    marketplace: Marketplace
    group: str | None = None
    bestsellers: tuple[int, ...] = ()
    selection: Selection | None = None


def read_list(word: str) -> tuple[Marketplace, int]:
    """A list of bestsellers as people write it: store and Keepa's id of the category, `DE:340843031`.

    Raises:
        WordsUnclear: it is none.
    """
    store, separator, digits = word.partition(":")
    if not separator or not (digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS and int(digits)):
        raise WordsUnclear(f"{shown(word)} is no list of bestsellers; write store and Keepa's id of the category, like DE:340843031")
    return read_marketplace(store), int(digits)
