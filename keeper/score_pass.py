"""Flags and scores over columns: what `keeper.domain.opportunity_score` says of one opportunity; a property test holds both together."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keeper.domain import opportunity_score as score
from keeper.domain.opportunity_score import Flag, ScorePart

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NONE: Final = -1
FLAG_BITS: Final = {flag: 1 << place for place, flag in enumerate(Flag)}
PARTS: Final = tuple(ScorePart)


@dataclass(frozen=True, slots=True)
class FactColumns:
    """`OpportunityFacts` as columns; a yes or no is 1 or 0, what is not known is `NONE`.

    Attributes:
        roi_pct, has_roi: an ROI may be below 0, so what is not known is said apart.
    """

    roi_pct: Ints
    has_roi: Bools
    sales_rank_drops_30: Ints
    monthly_sold: Ints
    offer_count: Ints
    buy_box_is_amazon: Ints
    amazon_matches: Ints
    is_hazardous: Ints
    is_heat_sensitive: Ints
    is_often_returned: Ints
    is_lightning: Bools
    has_coupon: Bools
    is_in_stock: Ints
    is_old: Bools


def find_flags(facts: FactColumns) -> Ints:
    """Sums of `FLAG_BITS`."""
    drops, sold = facts.sales_rank_drops_30, facts.monthly_sold
    is_unknown = (drops == NONE) & (sold == NONE)
    holds = {
        Flag.SELLS_FAST: (drops >= score.FAST_DROPS_30) | (sold >= score.FAST_MONTHLY_SOLD),
        # What is not known is below every bound.
        Flag.SELLS_SLOWLY: (drops < score.SLOW_DROPS_30) & (sold < score.SLOW_MONTHLY_SOLD) & ~is_unknown,
        Flag.DEMAND_UNKNOWN: is_unknown,
        Flag.MANY_SELLERS: facts.offer_count >= score.MANY_SELLERS,
        Flag.AMAZON_SELLS: _is_amazon_there(facts) == 1,
        Flag.HAZARDOUS: facts.is_hazardous == 1,
        Flag.HEAT_SENSITIVE: facts.is_heat_sensitive == 1,
        Flag.OFTEN_RETURNED: facts.is_often_returned == 1,
        Flag.LIGHTNING_DEAL: facts.is_lightning,
        Flag.COUPON: facts.has_coupon,
        Flag.STOCK_UNKNOWN: facts.is_in_stock == NONE,
        Flag.OLD_PRICE: facts.is_old,
    }
    found = np.zeros(len(drops), np.int64)
    for flag, bit in FLAG_BITS.items():
        found |= np.where(holds[flag], bit, 0)
    return found


def compute_score_parts(facts: FactColumns) -> Ints:
    """Parts x opportunities, in the order of `PARTS`; their sum is the score."""
    velocity = np.maximum(
        _of(score.VELOCITY_POINTS, facts.sales_rank_drops_30, score.FULL_DROPS_30),
        _of(score.VELOCITY_POINTS, facts.monthly_sold, score.FULL_MONTHLY_SOLD),
    )
    sellers = facts.offer_count
    is_open = (sellers > 0) & (sellers <= score.CROWDED_SELLERS)
    few = _of(score.FEW_SELLERS_POINTS, score.CROWDED_SELLERS - sellers, score.CROWDED_SELLERS - 1)
    competition = np.where(is_open, few, 0) + np.where(_is_amazon_there(facts) == 0, score.NOT_AMAZON_POINTS, 0)
    safety = np.where(facts.is_hazardous == 0, score.NOT_HAZARDOUS_POINTS, 0)
    safety = safety + np.where(facts.is_heat_sensitive == 0, score.NOT_HEAT_SENSITIVE_POINTS, 0)
    safety = safety + np.where(facts.is_often_returned == 0, score.SELDOM_RETURNED_POINTS, 0)
    certainty = np.where(facts.is_old, 0, score.FRESH_POINTS) + np.where(facts.is_in_stock == 1, score.IN_STOCK_POINTS, 0)
    certainty = certainty + np.where(facts.is_lightning, 0, score.ORDINARY_PRICE_POINTS)
    profit = np.where(facts.has_roi, _of(score.PROFIT_POINTS, facts.roi_pct, score.FULL_ROI), 0)
    by_part = {
        ScorePart.PROFIT: profit,
        ScorePart.VELOCITY: velocity,
        ScorePart.COMPETITION: competition,
        ScorePart.SAFETY: safety,
        ScorePart.CERTAINTY: certainty,
    }
    return np.stack([by_part[part] for part in PARTS])


def _is_amazon_there(facts: FactColumns) -> Ints:
    """1 before 0 before `NONE`, as they are in order."""
    return np.maximum(facts.buy_box_is_amazon, facts.amazon_matches)


def _of(points: int, value: Ints, full: int) -> Ints:
    """What is not known is below 0, and has none."""
    found: Ints = (2 * points * np.clip(value, 0, full) + full) // (2 * full)
    return found
