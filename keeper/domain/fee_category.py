"""From Keepa's categories to ours: under which fees and taxes a product falls, as far as somebody has said so.

A store's root category is enough where all below it has the same fees; where it has not, the names on the way down to the product
decide: the deepest one that has a line. What has no line, and what a line calls unknown, is not known; it is never the default.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from keeper.domain.dated_rows import UNKNOWN, Cells, TableInvalid, read_rows
from keeper.domain.marketplace import Marketplace
from keeper.domain.wording import shown

_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True)
class FeeCategoryRule:
    """One line: what is below a node of a store's tree falls under a category of fees.

    Attributes:
        root_category_id: Keepa's id of the root.
        name: of the root, for people.
        path: name of a node below the root; None for the root itself.
        category: ours; None where a line says that it is unknown.
        source: who says so.
    """

    marketplace: Marketplace
    root_category_id: int
    name: str
    path: str | None
    category: str | None
    source: str


@dataclass(frozen=True)
class FeeCategories:
    """All lines, in the file's order."""

    rules: tuple[FeeCategoryRule, ...] = ()

    @cached_property
    def by_root(self) -> Mapping[Marketplace, Mapping[int, str]]:
        """Our category by store and root, where the root alone decides."""
        found: dict[Marketplace, dict[int, str]] = {}
        for rule in self.rules:
            if rule.path is None and rule.category is not None:
                found.setdefault(rule.marketplace, {})[rule.root_category_id] = rule.category
        return found

    def find(self, marketplace: Marketplace, root_category_id: int | None, path: Sequence[str] = ()) -> str | None:
        """Our category of a product; None where nobody has said so.

        Args:
            path: names from the root down, as `Product.category_path`.
        """
        rule = self.find_rule(marketplace, root_category_id, path)
        return None if rule is None else rule.category

    def find_rule(self, marketplace: Marketplace, root_category_id: int | None, path: Sequence[str] = ()) -> FeeCategoryRule | None:
        """The line that decides: of the deepest node of the path that has one, else of the root."""
        if root_category_id is None:
            return None
        rules = self._by_node.get((marketplace, root_category_id), {})
        for node in reversed(path):
            if (rule := rules.get(node.casefold())) is not None:
                return rule
        return rules.get(None)

    @cached_property
    def _by_node(self) -> Mapping[tuple[Marketplace, int], Mapping[str | None, FeeCategoryRule]]:
        found: dict[tuple[Marketplace, int], dict[str | None, FeeCategoryRule]] = {}
        for rule in self.rules:
            node = None if rule.path is None else rule.path.casefold()
            found.setdefault((rule.marketplace, rule.root_category_id), {})[node] = rule
        return found


def parse_fee_categories(name: str, text: str) -> FeeCategories:
    """The lines of a CSV file.

    Raises:
        TableInvalid: names line and column.
    """
    rules: dict[tuple[Marketplace, int, str], FeeCategoryRule] = {}
    for line in read_rows(name, text, ("marketplace", "root_category_id", "name", "path", "category", "source")):
        rule = _parse_rule(line)
        if rules.setdefault((rule.marketplace, rule.root_category_id, (rule.path or "").casefold()), rule) is not rule:
            raise TableInvalid(name, line.line, f"{rule.marketplace} {rule.root_category_id} {rule.path or ''} is in the table already")
    return FeeCategories(tuple(rules.values()))


def _parse_rule(line: Cells) -> FeeCategoryRule:
    stores = line.marketplaces("marketplace")
    if len(stores) != 1:
        line.refuse("marketplace", "must be one store; each has ids of its own")
    digits = line.text("root_category_id")
    if not (digits.isascii() and digits.isdigit() and 0 < len(digits) <= _MOST_DIGITS and int(digits)):
        line.refuse("root_category_id", f"{shown(digits)} must be Keepa's id of a root category, a whole number above 0")
    category = None if line.cells["category"] == UNKNOWN else line.category("category")
    return FeeCategoryRule(stores[0], int(digits), line.text("name"), line.cells["path"] or None, category, line.text("source"))
