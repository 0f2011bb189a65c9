"""A user's rule: which opportunities they want to be told of."""

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity import Opportunity
from keeper.domain.wording import shown

LONGEST_NAME: Final = 100
# Of one user; each is looked at with every comparison.
MOST_RULES: Final = 50
MOST_CATEGORIES: Final = 40
MOST_PCT: Final = 1_000_000
MOST_PROFIT_MINOR: Final = 1_000_000_000

_CATEGORY = re.compile(r"[a-z][a-z0-9_]{0,39}")


class RuleInvalid(KeeperError):
    """A rule that cannot be.

    Attributes:
        field: which of its conditions, or `name`.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


@dataclass(frozen=True, slots=True)
class OpportunityRule:
    """All conditions hold at once, within a list any one does; None and an empty list are no condition.

    Attributes:
        least_roi_pct: true profit of what is invested.
        least_profit_minor: euro cents.
        least_margin_pct: gross gap of the purchase price.
        sources: stores to buy in.
        targets: stores to sell in.
        categories: Keeper's own fee categories.
    """

    least_roi_pct: Decimal | None = None
    least_profit_minor: int | None = None
    least_margin_pct: Decimal | None = None
    sources: tuple[Marketplace, ...] = ()
    targets: tuple[Marketplace, ...] = ()
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("least_roi_pct", "least_margin_pct"):
            pct: Decimal | None = getattr(self, name)
            if pct is not None and not (pct.is_finite() and abs(pct) <= MOST_PCT and pct == round(pct, 2)):
                raise RuleInvalid(name, f"{pct} must be a percentage of at most {MOST_PCT:,} with at most two decimals")
        if self.least_profit_minor is not None and abs(self.least_profit_minor) > MOST_PROFIT_MINOR:
            raise RuleInvalid("least_profit_minor", f"{self.least_profit_minor} must be at most {MOST_PROFIT_MINOR:,} cents")
        if len(self.categories) > MOST_CATEGORIES:
            raise RuleInvalid("categories", f"has {len(self.categories)}; {MOST_CATEGORIES} are the most")
        for category in self.categories:
            if not _CATEGORY.fullmatch(category):
                raise RuleInvalid("categories", f"{shown(category)} is no category; write it like home_products")
        if len(self.sources) == len(self.targets) == 1 and self.sources == self.targets:
            raise RuleInvalid("targets", f"nothing is bought and sold in {self.sources[0]}; name another store")

    def is_met(self, one: Opportunity) -> bool:
        """Whether it is worth telling: there, surely the same article, not stale, the profit known, and as the rule wants it."""
        if not one.is_active or one.doubts or one.is_stale or one.profit_minor is None or one.roi_pct is None:
            return False
        return (
            (self.least_roi_pct is None or one.roi_pct >= self.least_roi_pct)
            and (self.least_profit_minor is None or one.profit_minor >= self.least_profit_minor)
            and (self.least_margin_pct is None or one.margin_pct >= self.least_margin_pct)
            and (not self.sources or one.source_market in self.sources)
            and (not self.targets or one.target_market in self.targets)
            and (not self.categories or one.category in self.categories)
        )


def check_rule_name(name: str) -> str:
    """A rule's name, without spaces around it.

    Raises:
        RuleInvalid: there is none, or it is too long.
    """
    trimmed = " ".join(name.split())
    if not 0 < len(trimmed) <= LONGEST_NAME or any(unicodedata.category(sign) in ("Cc", "Cs") for sign in trimmed):
        raise RuleInvalid("name", f"must have 1 to {LONGEST_NAME} characters that can be seen")
    return trimmed
