"""How well a product sells: a bestseller score of 0 to 100 whose parts are shown and sum to it.

The weights and bounds are Keeper's own judgement; no paper and no vendor stands behind them. What is not known adds nothing. All of it is
whole numbers, so that the database says the same of all products at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from keeper.domain.rounding import divide_half_up


class RankingPart(StrEnum):
    """The parts of a score, in the order they are told."""

    RANK = "rank"
    DROPS = "drops"
    SOLD = "sold"
    REVIEWS = "reviews"


# Up to a sales rank, so many points; the first that holds counts. A rank says less the larger it is.
RANK_POINTS: Final = (
    (10, 40),
    (30, 37),
    (100, 34),
    (300, 30),
    (1_000, 26),
    (3_000, 22),
    (10_000, 17),
    (30_000, 12),
    (100_000, 7),
    (300_000, 3),
)
# Falls of the rank within 30 days, which many read as sales.
DROPS_POINTS: Final = 25
FULL_DROPS_30: Final = 60
# What Amazon says was sold in a month.
SOLD_POINTS: Final = 20
FULL_MONTHLY_SOLD: Final = 1_000
# Rating by reviews: tenths of stars times how many.
REVIEW_POINTS: Final = 15
FULL_REVIEW_TENTHS: Final = 45_000


@dataclass(frozen=True, slots=True)
class RankingFacts:
    """What is known of a product in one store; None is not known."""

    sales_rank: int | None = None
    sales_rank_drops_30: int | None = None
    monthly_sold: int | None = None
    rating_tenths: int | None = None
    review_count: int | None = None


@dataclass(frozen=True, slots=True)
class RankedProduct:
    """A product in its place.

    Attributes:
        score: the sum of its parts.
        facts: as they are now, which may be later than the score.
    """

    asin: str
    title: str | None
    brand: str | None
    image_url: str | None
    root_category_id: int | None
    category: str | None
    score: int
    parts: Mapping[RankingPart, int]
    facts: RankingFacts


def compute_ranking_parts(facts: RankingFacts) -> Mapping[RankingPart, int]:
    """The points by part; their sum is the score."""
    rank = facts.sales_rank
    reviews = None if facts.rating_tenths is None or facts.review_count is None else facts.rating_tenths * facts.review_count
    return {
        RankingPart.RANK: 0 if rank is None or rank < 1 else next((points for most, points in RANK_POINTS if rank <= most), 0),
        RankingPart.DROPS: _of(DROPS_POINTS, facts.sales_rank_drops_30, FULL_DROPS_30),
        RankingPart.SOLD: _of(SOLD_POINTS, facts.monthly_sold, FULL_MONTHLY_SOLD),
        RankingPart.REVIEWS: _of(REVIEW_POINTS, reviews, FULL_REVIEW_TENTHS),
    }


def _of(points: int, value: int | None, full: int) -> int:
    """So many points at `full` and above, none at 0 and below."""
    return 0 if value is None else divide_half_up(points * min(max(value, 0), full), full)
