"""Whether two listings of one ASIN are the same article: what speaks against it, in words.

An ASIN that is equal in both stores is the start and not the proof: sellers reuse one for another pack, another size or another plug.
Only what both listings say is compared; what one of them does not say is no doubt. Words of five languages, and no more than that: a
doubt is a reason to look before buying, not a verdict.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final

# A title of a thousand letters tells no more than its beginning.
LONGEST_TITLE: Final = 300
# What differs by less is the same size, rounded or converted.
SIZE_TOLERANCE_PCT: Final = 3
_LARGEST_PACK = 1000

_SEPARATE = re.compile(r"[\W_]+")
_WORDS = r"packs?|pack(?:ung)?en|stücke?|stk|count|ct|pcs|pieces?|pezzi|pz|pièces?|unidades|uds?|unités?|piezas|teilig"
_PACK = re.compile(
    rf"""
    (?:(?:pack|packung|set|lot|box|confezione|paquete|paquet|juego|caja|multipack|boîte)\s+(?:of|de|da|di|mit|von|à)\s+(?P<after>\d{{1,4}})\b)
    | (?:\b(?P<er>\d{{1,4}})\s?er[\s-]?(?:pack|set|packung|box)\b)
    | (?:\b(?P<before>\d{{1,4}})[\s-]?(?:{_WORDS})\b)
    | (?:\(\s?(?:x\s?(?P<x>\d{{1,4}})|(?P<times>\d{{1,4}})\s?x)\s?\))
    """,
    re.IGNORECASE | re.VERBOSE,
)
_MEASURE = re.compile(
    r"(\d+(?:[.,]\d+)?)\s*(ml|cl|dl|l|liter|litre|litri|litros|mg|g|gr|kg|mm|cm|m|zoll|inch|in|pollici|pulgadas|pouces|\")(?![a-z])"
)
_UNITS: Final = {
    "ml": ("volume", "1"),
    "cl": ("volume", "10"),
    "dl": ("volume", "100"),
    **dict.fromkeys(("l", "liter", "litre", "litri", "litros"), ("volume", "1000")),
    "mg": ("weight", "0.001"),
    "g": ("weight", "1"),
    "gr": ("weight", "1"),
    "kg": ("weight", "1000"),
    "mm": ("length", "1"),
    "cm": ("length", "10"),
    "m": ("length", "1000"),
    **dict.fromkeys(("zoll", "inch", "in", "pollici", "pulgadas", "pouces", '"'), ("length", "25.4")),
}
_LETTER_SIZES: Final = frozenset({"xxs", "xs", "s", "m", "l", "xl", "xxl", "xxxl", "2xl", "3xl", "4xl", "5xl"})
_COLORS: Final = {
    word: color
    for color, words in {
        "black": "schwarz black nero nera negro negra noir noire",
        "white": "weiß weiss white bianco bianca blanco blanca blanc blanche",
        "red": "rot red rosso rossa rojo roja rouge",
        "blue": "blau blue blu azul bleu bleue",
        "green": "grün gruen green verde vert verte",
        "yellow": "gelb yellow giallo gialla amarillo amarilla jaune",
        "grey": "grau grey gray grigio grigia gris grise",
        "pink": "rosa pink rose",
        "brown": "braun brown marrone marrón marron",
        "orange": "orange arancione naranja",
        "purple": "lila violett purple violet viola morado violeta violette",
        "silver": "silber silver argento plata plateado argent",
        "gold": "gold oro dorado doré",
    }.items()
    for word in words.split()
}


@dataclass(frozen=True, slots=True)
class Listing:
    """What a store says of a product; None and empty where it says nothing.

    Attributes:
        codes: EANs and UPCs, digits.
        package_quantity: how many pieces are sold as one; unit_count: how many units (pieces, washes, capsules) are in it.
    """

    codes: Collection[str] = ()
    brand: str | None = None
    title: str | None = None
    package_quantity: int | None = None
    unit_count: int | None = None
    size: str | None = None
    color: str | None = None
    model: str | None = None


def find_doubts(source: Listing, target: Listing) -> tuple[str, ...]:
    """Why both may not be the same article; empty where nothing speaks against it.

    A code in common settles brand, model and color: they are often worded differently and seldom wrong then. It does not settle the
    number of pieces and the size, since a listing may carry the codes of several packs.
    """
    doubts: list[str] = []
    is_same_code = False
    if source.codes and target.codes:
        codes, others = {_gtin(code) for code in source.codes}, {_gtin(code) for code in target.codes}
        is_same_code = not codes.isdisjoint(others)
        if not is_same_code:
            doubts.append("no EAN in common")
    if not is_same_code:
        if _is_other_name(source.brand, target.brand):
            doubts.append(f"brand {source.brand} and {target.brand}")
        if _is_other_name(source.model, target.model):
            doubts.append(f"model {source.model} and {target.model}")
    if (pieces := _find_other_pieces(source, target)) is not None:
        doubts.append(f"{pieces[0]} and {pieces[1]} pieces")
    units = source.unit_count or 0, target.unit_count or 0
    if min(units) > 0 and units[0] != units[1]:
        doubts.append(f"{units[0]} and {units[1]} units")
    if source.size != target.size and source.size and target.size and _is_other_size(source.size, target.size):
        doubts.append(f"size {source.size} and {target.size}")
    if not is_same_code and source.color != target.color and source.color and target.color:
        colors, others = _find_colors(source.color), _find_colors(target.color)
        if colors and others and colors.isdisjoint(others):
            doubts.append(f"color {source.color} and {target.color}")
    return tuple(doubts)


@lru_cache(maxsize=4096)
def count_pieces(title: str) -> int | None:
    """How many pieces a title says there are; None where it does not say, or says several numbers."""
    found = {int(next(number for number in match.groups() if number)) for match in _PACK.finditer(title[:LONGEST_TITLE])}
    found = {number for number in found if 0 < number <= _LARGEST_PACK}
    return found.pop() if len(found) == 1 else None


def _find_other_pieces(source: Listing, target: Listing) -> tuple[int, int] | None:
    """Both numbers where they differ. The fields go before the titles; what titles say counts against the other's fields, too."""
    fields = source.package_quantity or 0, target.package_quantity or 0
    if min(fields) > 0:
        # Equal fields say the same pack, whatever the titles count.
        return None if fields[0] == fields[1] else fields
    if source.title == target.title:
        return None
    said = count_pieces(source.title or ""), count_pieces(target.title or "")
    numbers = said[0] or fields[0], said[1] or fields[1]
    # One piece is seldom said, so a single number may be of either.
    return numbers if min(numbers) > 0 and numbers[0] != numbers[1] else None


def _gtin(code: str) -> str:
    """UPC, EAN and GTIN are one number with more or fewer zeros in front."""
    return code.strip().lstrip("0")


def _is_other_name(one: str | None, other: str | None) -> bool:
    if one == other or not one or not other:
        return False
    name, another = (_SEPARATE.sub("", word.casefold()) for word in (one, other))
    if not name or not another:
        return False
    return name not in another and another not in name


def _is_other_size(one: str, other: str) -> bool:
    size, another = one.casefold().strip(), other.casefold().strip()
    if size in _LETTER_SIZES and another in _LETTER_SIZES:
        return size != another
    measures, others = _measure(size), _measure(another)
    for kind in measures.keys() & others.keys():
        if len(measures[kind]) != len(others[kind]):
            continue
        for left, right in zip(measures[kind], others[kind], strict=True):
            if abs(left - right) * 100 > SIZE_TOLERANCE_PCT * max(left, right):
                return True
    return False


def _measure(size: str) -> dict[str, list[Decimal]]:
    """Amounts by kind in its base unit, in order of their size."""
    found: dict[str, list[Decimal]] = {}
    for number, unit in _MEASURE.findall(size[:LONGEST_TITLE]):
        kind, factor = _UNITS[unit]
        found.setdefault(kind, []).append(Decimal(number.replace(",", ".")) * Decimal(factor))
    return {kind: sorted(amounts) for kind, amounts in found.items()}


def _find_colors(words: str) -> set[str]:
    return {_COLORS[word] for word in _SEPARATE.split(words.casefold()) if word in _COLORS}
