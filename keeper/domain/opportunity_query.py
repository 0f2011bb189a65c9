"""Which opportunities are asked for, in which order, and where a page of them ended."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace

LARGEST_PAGE: Final = 1000
# More are not counted: a person reads no more of them, and counting all takes as long as reading all.
LARGEST_TOTAL: Final = 1000
# In the place of a profit and an ROI that are not known: less than any there is, so that these come last.
LEAST_PROFIT_MINOR: Final = -(2**31)
LEAST_ROI_PCT: Final = Decimal(-9_999_999)


class OpportunityQueryInvalid(KeeperError):
    """What is asked for contradicts itself.

    Attributes:
        field: which part.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class OpportunitySort(StrEnum):
    """The order, the best first; among equals the newest first. Those that are over come in the order they ended, the latest first."""

    MARGIN = "margin"
    PROFIT = "profit"
    ROI = "roi"
    SCORE = "score"
    NEWEST = "newest"


class Place(NamedTuple):
    """Where a page ended: what it is ordered by, and the number of the last one.

    Attributes:
        value: of the order's figure; a time in seconds since 1970 for those that are over; 0 where the number alone makes the order.
    """

    value: Decimal
    opportunity_id: int


@dataclass(frozen=True, slots=True)
class OpportunityQuery:
    """All conditions hold at once, within a list any one does; None and an empty list are no condition.

    Attributes:
        least_margin_pct: gross, of the purchase price.
        least_profit_minor: euro cents; with it or a wanted ROI only those count whose profit is known.
        news_since: those that were opened, became better than just before, or no longer stale, doubtful or unknown, after that time.
        includes_doubtful: those too whose listings may not be the same article.
        is_active: those that are there; False: those that are over.
        after: the last one of the page before.
    """

    least_margin_pct: Decimal | None = None
    least_roi_pct: Decimal | None = None
    least_profit_minor: int | None = None
    sources: tuple[Marketplace, ...] = ()
    targets: tuple[Marketplace, ...] = ()
    categories: tuple[str, ...] = ()
    asin: str | None = None
    news_since: datetime | None = None
    includes_doubtful: bool = False
    is_active: bool = True
    sort: OpportunitySort = OpportunitySort.MARGIN
    limit: int = 100
    after: Place | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= LARGEST_PAGE:
            raise OpportunityQueryInvalid("limit", f"must be from 1 to {LARGEST_PAGE}")
        if not self.is_active and self.sort is not OpportunitySort.NEWEST:
            raise OpportunityQueryInvalid("sort", "those that are over come in the order they ended; ask for newest")
