"""Product groups: which products belong together, told from their titles and categories by rules that are data.

`seeds/groups/keyboards.toml` is one and explains its tables; another group is another file.
"""

import html
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from keeper.domain.errors import KeeperError

LARGEST_CHARACTERS: Final = 1024 * 1024
# No title of Amazon's is longer; what comes after tells nothing, and costs time.
LONGEST_TITLE: Final = 1000
MOST_WEIGHT: Final = 100
LONGEST_WORD: Final = 80

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_TABLES = frozenset(
    {
        "name",
        "label",
        "threshold",
        "against_after_pct",
        "for",
        "against",
        "never",
        "categories",
        "brands",
        "spellings",
        "made_for",
        "layouts",
    }
)
# The two share no letter: a title of a thousand hyphens is read as fast as any.
_BETWEEN_WORDS = r"[\s\-‐-―]+"
# Measured: more letters make it no faster.
_SORTED_LETTERS = 3
_ANY_WORD = r"[^\s\-‐-―]+"


class ProductGroupInvalid(KeeperError):
    """A group's file that cannot be used as it is.

    Attributes:
        group: by which name the file was read.
        table: in which table of the file, with dots; None where it is the file as a whole.
        key: which entry of it; None where it is the whole table.
    """

    def __init__(self, group: str, table: str | None, key: str | None, problem: str) -> None:
        where = "".join((f" [{table}]" if table else "", f" {key!r}" if key is not None else ""))
        super().__init__(f"product group {group}{where}: {problem}")
        self.group = group
        self.table = table
        self.key = key


@dataclass(frozen=True, slots=True)
class Membership:
    """Whether a product belongs to a group, and why.

    Attributes:
        score: the sum of what was found; from the group's threshold on it is a member.
        reasons: what was found and what it weighs, in order of the title, categories and the brand last; like `tastatur +10`.
    """

    is_member: bool
    score: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """One entry of the file as it is looked for.

    Attributes:
        weight_after: what it weighs after a name.
        is_name: it names the product itself: after it, a word that speaks against is an extra, not the product.
    """

    text: str
    weight: int
    weight_after: int
    is_name: bool


@dataclass(frozen=True, slots=True)
class ProductGroup:
    """Rules that tell the products of one group; made by `parse_group`.

    Attributes:
        label: its name for people.
        threshold: the score from which on a product is a member.
        brands: as they are spelled, each once.
        layouts: names of the variants a title can tell.
    """

    name: str
    label: str
    threshold: int
    brands: tuple[str, ...]
    layouts: tuple[str, ...]
    _rows: tuple[_Row, ...]
    _evidence: re.Pattern[str]
    _categories: Mapping[int, int]
    _brand_weights: Mapping[str, int]
    _brand_by_spelling: Mapping[str, str]
    _brand_spellings: tuple[str, ...]
    _brand_words: re.Pattern[str] | None
    _made_for_words: re.Pattern[str] | None
    _layout_places: tuple[int, ...]
    _layout_words: re.Pattern[str] | None

    def judge(
        self, title: str | None, category_ids: Iterable[int] = (), root_category_id: int | None = None, brand: str | None = None
    ) -> Membership:
        """Weigh a title, the categories a product is listed in and the root of them, and its maker where the source names one.

        Each entry counts once, however often it is found.
        """
        rows = self._rows
        score = 0
        reasons: list[str] = []
        seen: set[str] = set()
        is_named = False
        for found in self._evidence.finditer(_folded(title or "")):
            row = rows[(found.lastindex or 1) - 1]
            if row.text in seen:
                continue
            seen.add(row.text)
            weight = row.weight_after if is_named else row.weight
            is_named = is_named or row.is_name
            score += weight
            reasons.append(f"{row.text} {weight:+d}")
        maker = self._brand_by_spelling.get(_written(brand)) if brand else None
        if maker is not None and all(self._brand_by_spelling.get(text) != maker for text in seen):
            score += self._brand_weights[maker]
            reasons.append(f"brand {maker} {self._brand_weights[maker]:+d}")
        categories = self._categories
        for category_id in {*category_ids, root_category_id or 0}:
            if category_id in categories:
                score += categories[category_id]
                reasons.append(f"category {category_id} {categories[category_id]:+d}")
        return Membership(score >= self.threshold, score, tuple(reasons))

    def brand_of(self, title: str) -> str | None:
        """The maker a title begins with or names before it tells what the product is made for; None where it names none of the list."""
        if self._brand_words is None:
            return None
        folded = _folded(title)
        until = self._made_for_words.search(folded) if self._made_for_words is not None else None
        found = self._brand_words.search(folded, 0, until.start() if until else len(folded))
        return self._brand_by_spelling[self._brand_spellings[(found.lastindex or 1) - 1]] if found else None

    def layout_of(self, title: str) -> str | None:
        """The layout a title names; of several the one that is first in the file, which is the most exact."""
        if self._layout_words is None:
            return None
        places = [self._layout_places[(found.lastindex or 1) - 1] for found in self._layout_words.finditer(_folded(title))]
        return self.layouts[min(places)] if places else None


def parse_group(name: str, text: str) -> ProductGroup:
    """Read a group's file.

    Args:
        name: by which the file is known, as in `keyboards` for `keyboards.toml`; the file must say the same.

    Raises:
        ProductGroupInvalid: not TOML, a table or an entry that is missing, unknown or wrong; told with what to do.
    """
    return _GroupFile(name, text).group()


class _GroupFile:
    """A file while it is read; each check names where it failed."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        if not _NAME.fullmatch(name):
            raise ProductGroupInvalid(name, None, None, "a group's name is small letters, digits and hyphens, at most 40; rename the file")
        if len(text) > LARGEST_CHARACTERS:
            raise ProductGroupInvalid(name, None, None, f"the file has more than {LARGEST_CHARACTERS:,} characters; cut it")
        try:
            self.tables = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ProductGroupInvalid(name, None, None, f"not TOML: {error or 'nested too deeply'}") from None

    def group(self) -> ProductGroup:
        if unknown := [key for key in self.tables if key not in _TABLES]:
            raise self._fault(None, unknown[0], f"is no part of a group; known are {', '.join(sorted(_TABLES))}")
        if self.tables.get("name") != self.name:
            raise self._fault(None, "name", f"must be {self.name!r}, as the file is called")
        label = self.tables.get("label", self.name)
        if not isinstance(label, str) or not label.strip():
            raise self._fault(None, "label", "must be text, the group's name for people")
        threshold = self._whole_number(None, "threshold", self.tables.get("threshold"), 1, 10 * MOST_WEIGHT)
        after_pct = self._whole_number(None, "against_after_pct", self.tables.get("against_after_pct", 100), 0, 100)
        rows = self._evidence(threshold, after_pct)
        if not any(row.weight > 0 for row in rows.values()):
            raise self._fault("for", None, "is missing or empty; it holds the words that speak for a member, by language")
        brands = {brand: self._whole_number("brands", brand, weight, 0, MOST_WEIGHT) for brand, weight in self._table("brands").items()}
        spellings = self._spellings(brands)
        for spelling, brand in spellings.items():
            rows.setdefault(spelling, _Row(spelling, brands[brand], brands[brand], is_name=False))
        layouts = self._layouts()
        made_for = self._words(None, "made_for", self.tables.get("made_for", []))
        row_order, evidence = _compiled(rows)
        layout_of_word = {word: place for place, words in enumerate(layouts.values()) for word in words}
        brand_order, brand_words = _compiled(spellings) if spellings else ((), None)
        layout_order, layout_words = _compiled(layout_of_word) if layout_of_word else ((), None)
        return ProductGroup(
            name=self.name,
            label=label,
            threshold=threshold,
            brands=tuple(brands),
            layouts=tuple(layouts),
            _rows=tuple(rows[word] for word in row_order),
            _evidence=evidence,
            _categories=self._categories(),
            _brand_weights=brands,
            _brand_by_spelling=spellings,
            _brand_spellings=brand_order,
            _brand_words=brand_words,
            _made_for_words=_compiled(made_for)[1] if made_for else None,
            _layout_places=tuple(layout_of_word[word] for word in layout_order),
            _layout_words=layout_words,
        )

    def _evidence(self, threshold: int, after_pct: int) -> dict[str, _Row]:
        rows: dict[str, _Row] = {}
        for table, sign in (("for", 1), ("against", -1), ("never", -1)):
            for language, words in self._table(table).items():
                where = f"{table}.{language}"
                if not isinstance(words, dict):
                    raise self._fault(where, None, f"must be a table of words and weights; write [{where}] above them")
                for word, value in words.items():
                    text = self._pattern(where, word)
                    weight = sign * self._whole_number(where, word, value, 1, MOST_WEIGHT)
                    if (other := rows.get(text)) is not None and other.weight != weight:
                        raise self._fault(where, word, f"is in the file already with {other.weight:+d}; keep one of them")
                    weight_after = -(-weight * after_pct // 100) if table == "against" else weight
                    rows[text] = _Row(text, weight, weight_after, is_name=weight >= threshold)
        return rows

    def _spellings(self, brands: Mapping[str, int]) -> dict[str, str]:
        spellings = {self._pattern("brands", brand): brand for brand in brands}
        for spelling, brand in self._table("spellings").items():
            if brand not in brands:
                raise self._fault("spellings", spelling, f"leads to {brand!r}, which is not in [brands]; add it there")
            spellings[self._pattern("spellings", spelling)] = brand
        return spellings

    def _layouts(self) -> dict[str, list[str]]:
        layouts: dict[str, list[str]] = {}
        layout_of_word: dict[str, str] = {}
        for layout, words in self._table("layouts").items():
            layouts[layout] = self._words("layouts", layout, words)
            if not words:
                raise self._fault("layouts", layout, "has no words; write some or drop it")
            for word in layouts[layout]:
                if (other := layout_of_word.setdefault(word, layout)) != layout:
                    raise self._fault("layouts", layout, f"{word!r} is a word of {other} already; keep one of them")
        return layouts

    def _words(self, table: str | None, key: str, words: object) -> list[str]:
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise self._fault(table, key, 'must be a list of words like ["qwertz", "german layout"]')
        return [self._pattern(table, word, key) for word in words]

    def _categories(self) -> dict[int, int]:
        categories: dict[int, int] = {}
        for marketplace, ids in self._table("categories").items():
            where = f"categories.{marketplace}"
            if not isinstance(ids, dict):
                raise self._fault(where, None, f"must be a table of category ids and weights; write [{where}] above them")
            for category_id, value in ids.items():
                if not (category_id.isascii() and category_id.isdigit() and 0 < int(category_id[:20]) < 2**63):
                    raise self._fault(where, category_id, "is no category id; write Keepa's number, like 340843031")
                weight = self._whole_number(where, category_id, value, -MOST_WEIGHT, MOST_WEIGHT)
                if categories.setdefault(int(category_id), weight) != weight:
                    raise self._fault(
                        where, category_id, f"is in the file already with {categories[int(category_id)]:+d}; keep one of them"
                    )
        return categories

    def _table(self, table: str) -> Mapping[str, Any]:
        found = self.tables.get(table, {})
        if not isinstance(found, dict):
            raise self._fault(table, None, f"must be a table; write [{table}] above its entries")
        return found

    def _whole_number(self, table: str | None, key: str, value: object, least: int, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            missing = "is missing; write" if value is None else f"is {value!r}; write"
            raise self._fault(table, key, f"{missing} a whole number from {least} to {most}")
        return value

    def _pattern(self, table: str | None, word: str, key: str | None = None) -> str:
        written = _written(word)
        if not written.replace("*", "").strip() or written.startswith("* ") or "**" in written or len(written) > LONGEST_WORD:
            hint = f"write letters, with * for any letters, at most {LONGEST_WORD}, a first word that is not * alone"
            raise self._fault(table, word if key is None else key, f"{word!r} is no word to look for; {hint}")
        return written

    def _fault(self, table: str | None, key: str | None, problem: str) -> ProductGroupInvalid:
        return ProductGroupInvalid(self.name, table, key, problem)


def _folded(text: str) -> str:
    """As words are compared: small letters, entities and compatibility forms resolved, cut."""
    text = text[:LONGEST_TITLE]
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return text.lower()


def _written(text: str) -> str:
    """As words of the file are kept: one space between them."""
    return " ".join(re.sub(_BETWEEN_WORDS, " ", _folded(text)).split())


def _compiled(words: Iterable[str]) -> tuple[tuple[str, ...], re.Pattern[str]]:
    """One pattern for all words, and the words in the order of its groups: the group that took part tells the word.

    Alternatives are sorted by their first letters, so that at each place of a title only a few are tried.
    """
    exact_first = sorted(words, key=lambda word: (-len(word.split()), -len(word.replace("*", "")), word))
    plain = [word for word in exact_first if not word.startswith("*")]
    starred = [word for word in exact_first if word.startswith("*")]
    order: list[str] = []
    branches = [_branches([(word, word) for word in plain], _SORTED_LETTERS, order)] if plain else []
    if starred:
        branches.append(r"\w*?" + _branches([(word, word[1:]) for word in starred], _SORTED_LETTERS, order))
    return tuple(order), re.compile(rf"(?<!\w)(?:{'|'.join(branches)})(?!\w)")


def _branches(words: Sequence[tuple[str, str]], depth: int, order: list[str]) -> str:
    """Alternatives for the rests of words, told apart by their next letter down to a depth; each word's group goes to `order`."""
    by_letter: dict[str, list[tuple[str, str]]] = {}
    for word, rest in words:
        by_letter.setdefault(rest[0] if depth and rest and rest[0] not in "* " else "", []).append((word, rest))
    last = by_letter.pop("", [])
    branches = [
        re.escape(letter) + _branches([(word, rest[1:]) for word, rest in group], depth - 1, order) for letter, group in by_letter.items()
    ]
    for word, rest in last:
        order.append(word)
        branches.append(f"({_expression(rest)})")
    return f"(?:{'|'.join(branches)})"


def _expression(rest: str) -> str:
    """The rest of a word: a star in its first part stands for letters of that word, a later one alone for a word."""
    first, *others = rest.split(" ")
    return _BETWEEN_WORDS.join([_letters(first), *(_ANY_WORD if part == "*" else _letters(part) for part in others)])


def _letters(part: str) -> str:
    return r"\w*".join(re.escape(letters) for letters in part.split("*"))
