"""What a reseller should know before buying: flags in words, and a score of 0 to 100 whose parts are shown and sum to it.

The weights and bounds below are Keeper's own judgement; no paper and no vendor stands behind them. What is not known adds nothing: an
opportunity is not ranked higher for what nobody has looked at. All of it is integers, so that the pass over columns can say the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from keeper.domain.rounding import divide_half_up


class Flag(StrEnum):
    """In the order they are told."""

    SELLS_FAST = "sells fast"
    SELLS_SLOWLY = "sells slowly"
    DEMAND_UNKNOWN = "demand unknown"
    MANY_SELLERS = "many sellers"
    AMAZON_SELLS = "Amazon sells it"
    HAZARDOUS = "hazardous"
    HEAT_SENSITIVE = "heat-sensitive"
    OFTEN_RETURNED = "often returned"
    LIGHTNING_DEAL = "lightning deal"
    COUPON = "coupon"
    STOCK_UNKNOWN = "stock unknown"
    OLD_PRICE = "old price"


class ScorePart(StrEnum):
    """The parts of a score, in the order they are told."""

    PROFIT = "profit"
    VELOCITY = "velocity"
    COMPETITION = "competition"
    SAFETY = "safety"
    CERTAINTY = "certainty"


# An ROI of so many hundredths of a percent has all the points of profit.
PROFIT_POINTS: Final = 40
FULL_ROI: Final = 5000
# By what sells in the target store: falls of the rank in 30 days, which many read as sales, or what Amazon says was sold in a month.
VELOCITY_POINTS: Final = 25
FULL_DROPS_30: Final = 60
FULL_MONTHLY_SOLD: Final = 200
FAST_DROPS_30: Final = 30
FAST_MONTHLY_SOLD: Final = 100
SLOW_DROPS_30: Final = 5
SLOW_MONTHLY_SOLD: Final = 20
# Few sellers in the target store, and Amazon none that matters.
FEW_SELLERS_POINTS: Final = 9
NOT_AMAZON_POINTS: Final = 6
CROWDED_SELLERS: Final = 20
MANY_SELLERS: Final = 15
# Known not to be so.
NOT_HAZARDOUS_POINTS: Final = 3
NOT_HEAT_SENSITIVE_POINTS: Final = 2
SELDOM_RETURNED_POINTS: Final = 5
# Whether both prices can be trusted to be there.
FRESH_POINTS: Final = 4
IN_STOCK_POINTS: Final = 4
ORDINARY_PRICE_POINTS: Final = 2


@dataclass(frozen=True, slots=True)
class OpportunityFacts:
    """What is known of a gap; None is not known.

    Attributes:
        roi_pct: in hundredths of a percent.
        sales_rank_drops_30, monthly_sold, offer_count, buy_box_is_amazon: of the target's listing.
        amazon_matches: Amazon itself sells there for the compared price or less; False where it has no offer, None where that is not known
            or it asks for more: whose the buy box is then, only the buy box tells.
        is_hazardous, is_heat_sensitive: of either listing: what one store knows is so in the other, too.
        is_often_returned: of the target's listing.
        is_lightning: the purchase price is a lightning deal's that runs now.
        has_coupon: the source has one, which is not in its price.
        is_in_stock: the source has it at the compared price; only of Amazon's own offer that is ever known.
        is_old: one of both prices has not been looked at for too long.
    """

    roi_pct: int | None = None
    sales_rank_drops_30: int | None = None
    monthly_sold: int | None = None
    offer_count: int | None = None
    buy_box_is_amazon: bool | None = None
    amazon_matches: bool | None = None
    is_hazardous: bool | None = None
    is_heat_sensitive: bool | None = None
    is_often_returned: bool | None = None
    is_lightning: bool = False
    has_coupon: bool = False
    is_in_stock: bool | None = None
    is_old: bool = False


def find_flags(facts: OpportunityFacts) -> tuple[Flag, ...]:
    """What to tell, in the order of `Flag`."""
    drops, sold = facts.sales_rank_drops_30, facts.monthly_sold
    is_fast = (drops is not None and drops >= FAST_DROPS_30) or (sold is not None and sold >= FAST_MONTHLY_SOLD)
    is_unknown = drops is None and sold is None
    is_slow = (drops is None or drops < SLOW_DROPS_30) and (sold is None or sold < SLOW_MONTHLY_SOLD) and not is_unknown
    holds = {
        Flag.SELLS_FAST: is_fast,
        Flag.SELLS_SLOWLY: is_slow,
        Flag.DEMAND_UNKNOWN: is_unknown,
        Flag.MANY_SELLERS: facts.offer_count is not None and facts.offer_count >= MANY_SELLERS,
        Flag.AMAZON_SELLS: _is_amazon_there(facts) is True,
        Flag.HAZARDOUS: facts.is_hazardous is True,
        Flag.HEAT_SENSITIVE: facts.is_heat_sensitive is True,
        Flag.OFTEN_RETURNED: facts.is_often_returned is True,
        Flag.LIGHTNING_DEAL: facts.is_lightning,
        Flag.COUPON: facts.has_coupon,
        Flag.STOCK_UNKNOWN: facts.is_in_stock is None,
        Flag.OLD_PRICE: facts.is_old,
    }
    return tuple(flag for flag in Flag if holds[flag])


def compute_score_parts(facts: OpportunityFacts) -> Mapping[ScorePart, int]:
    """The points by part; their sum is the score."""
    velocity = max(
        _of(VELOCITY_POINTS, facts.sales_rank_drops_30, FULL_DROPS_30), _of(VELOCITY_POINTS, facts.monthly_sold, FULL_MONTHLY_SOLD)
    )
    # One seller has all the points; nobody there, or as many as fill the page, has none.
    sellers = facts.offer_count or 0
    is_open = 0 < sellers <= CROWDED_SELLERS
    competition = _of(FEW_SELLERS_POINTS, CROWDED_SELLERS - sellers, CROWDED_SELLERS - 1) if is_open else 0
    competition += NOT_AMAZON_POINTS if _is_amazon_there(facts) is False else 0
    safety = NOT_HAZARDOUS_POINTS if facts.is_hazardous is False else 0
    safety += NOT_HEAT_SENSITIVE_POINTS if facts.is_heat_sensitive is False else 0
    safety += SELDOM_RETURNED_POINTS if facts.is_often_returned is False else 0
    certainty = 0 if facts.is_old else FRESH_POINTS
    certainty += IN_STOCK_POINTS if facts.is_in_stock else 0
    certainty += 0 if facts.is_lightning else ORDINARY_PRICE_POINTS
    return {
        ScorePart.PROFIT: _of(PROFIT_POINTS, facts.roi_pct, FULL_ROI),
        ScorePart.VELOCITY: velocity,
        ScorePart.COMPETITION: competition,
        ScorePart.SAFETY: safety,
        ScorePart.CERTAINTY: certainty,
    }


def _is_amazon_there(facts: OpportunityFacts) -> bool | None:
    """Whether Amazon is a seller to reckon with: one sign that says so is enough."""
    signs = (facts.buy_box_is_amazon, facts.amazon_matches)
    return True if True in signs else False if False in signs else None


def _of(points: int, value: int | None, full: int) -> int:
    """So many points at `full` and above, none at 0 and below."""
    return 0 if value is None else divide_half_up(points * min(max(value, 0), full), full)
