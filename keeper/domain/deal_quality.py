"""How good a deal is: what a person needs beside the discount, and a score whose parts are shown.

The weights and bounds below are Keeper's own judgement, checked against the recorded deals; no paper and no vendor stands behind them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from keeper.domain.price_type import PriceType

Reference = Literal["median", "average"]

# What each part may add; together 100. The price decides (70), the product's standing supports (30). A fact that is missing adds nothing:
# a deal is not ranked higher for what is unknown of it (an average in place of the median may move it), and `confidence` tells
# a poor deal from an unknown one.
WEIGHTS: Final[Mapping[str, int]] = {
    "below_median": 40,
    "near_year_low": 12,
    "near_all_time_low": 8,
    "honest_list_price": 10,
    "rating": 15,
    "sales_rank": 8,
    "sales": 7,
}
# Of the weight of "below_median" where only the average is known: one absurd day moves it, not the median.
AVERAGE_WEIGHT: Final = 30
# A fall of this much has all the points; deeper ones are more often faults than bargains.
FULL_FALL_PCT: Final = 50
FULL_DISCOUNT_PCT: Final = 50
# Above a low by this share of it a price is not near it.
NEAR_LOW_PCT: Final = 15
# Days of history below which a low says nothing.
LEAST_HISTORY_DAYS: Final = 30
# A list price is a fiction where the year stayed below this share of it at its highest; where only a middle is known, below the second.
HONEST_HIGH_PCT: Final = 90
HONEST_MIDDLE_PCT: Final = 80
# Before any review a product is guessed to be rated 4.2, as if by 25 people; 3.5 earns nothing, 4.8 all (guesses, not measured).
PRIOR_RATING_TENTHS: Final = 42
PRIOR_REVIEWS: Final = 25
WORST_RATING_TENTHS: Final = 35
BEST_RATING_TENTHS: Final = 48
WORST_RANK: Final = 300_000
FULL_DROPS_90: Final = 90
# A price below this share of every reference is taken for a fault until it is seen again.
ABSURD_PCT: Final = 10
# An average this many times the price is inflated where a calmer reference knows the price as normal: it is NORMAL_PCT of that or more.
INFLATED_TIMES: Final = 3
NORMAL_PCT: Final = 80
# What a suspected glitch loses on first sight, and once it was seen again.
GLITCH_POINTS: Final = 60
SEEN_GLITCH_POINTS: Final = 20

_NEW = frozenset(
    {
        PriceType.AMAZON,
        PriceType.NEW,
        PriceType.NEW_FBM_SHIPPING,
        PriceType.NEW_FBA,
        PriceType.LIGHTNING_DEAL,
        PriceType.BUY_BOX_SHIPPING,
        PriceType.PRIME_EXCL,
    }
)


@dataclass(frozen=True, slots=True)
class DealFacts:
    """What is known of a deal; None is unknown. Prices in one currency's minor units, above 0.

    Attributes:
        average_by_days: time-weighted means by days (2, 7, 31, 90), without the windows that have none.
        lowest_ever_minor, lowest_year_minor: the present price not counted.
        sightings: how often it was seen at this price, this time included.
        history_days: how long prices are known; None is taken for long enough.
        is_lightning: told on, not weighed: such a price is as good as any other, only shorter.
    """

    amount_minor: int
    price_type: PriceType = PriceType.NEW
    list_price_minor: int | None = None
    median_90_minor: int | None = None
    average_by_days: Mapping[int, int] = field(default_factory=dict)
    previous_minor: int | None = None
    lowest_ever_minor: int | None = None
    lowest_year_minor: int | None = None
    highest_year_minor: int | None = None
    rating_tenths: int | None = None
    review_count: int | None = None
    sales_rank: int | None = None
    sales_rank_drops_90: int | None = None
    offer_count: int | None = None
    sightings: int = 1
    is_lightning: bool = False
    history_days: int | None = None


@dataclass(frozen=True, slots=True)
class DealJudgement:
    """What a deal is worth.

    Attributes:
        discount_pct: (1 - price / list price) x 100, two decimals, half up; None without a list price the price is below.
        below_median_pct: the same against `reference`; negative above it; None where neither median nor average is known.
        reference: which 90-day value that was.
        is_list_price_fiction: it was not sold near its list price; None where nobody can tell.
        is_all_time_low, is_year_low: at or below every other price known of that time; None where none is.
        is_glitch: the price is absurd against everything known; `glitch_reason` says how.
        is_inflated_reference: the price is normal, but a past one was absurd and makes it look like a fall.
        score: 0 to 100, the sum of `parts`.
        parts: points by name, in order of WEIGHTS, then what doubts take away; None where the facts for it are
            missing, which adds and takes nothing.
        confidence: share of the weights whose facts were known, 0 to 1.
    """

    discount_pct: float | None
    below_median_pct: float | None
    reference: Reference | None
    is_list_price_fiction: bool | None
    is_all_time_low: bool | None
    is_year_low: bool | None
    is_glitch: bool
    glitch_reason: str | None
    is_inflated_reference: bool
    score: int
    parts: Mapping[str, int | None]
    confidence: float


def judge_deal(facts: DealFacts) -> DealJudgement:
    """Judge a deal by what is known of it."""
    price = facts.amount_minor
    listed = facts.list_price_minor or None
    reference, middle = _middle(facts)
    discount_pct = _fall_pct(price, listed) if listed is not None and price < listed else None
    below_median_pct = _fall_pct(price, middle) if middle is not None else None
    is_fiction = _is_list_price_fiction(facts, middle)
    knows_lows = facts.history_days is None or facts.history_days >= LEAST_HISTORY_DAYS
    year_low = facts.lowest_year_minor if knows_lows else None
    all_time_low = facts.lowest_ever_minor if knows_lows else None
    inflated = _is_inflated(facts)
    references = _references(facts)
    glitch_reason = None if inflated else _glitch_reason(facts, references)

    depth_weight = AVERAGE_WEIGHT if reference == "average" else WEIGHTS["below_median"]
    parts: dict[str, int | None] = {
        "below_median": None if below_median_pct is None else _points(depth_weight, below_median_pct / FULL_FALL_PCT),
        "near_year_low": _near_points(WEIGHTS["near_year_low"], price, year_low),
        "near_all_time_low": _near_points(WEIGHTS["near_all_time_low"], price, all_time_low),
        "honest_list_price": _list_price_points(discount_pct, is_fiction),
        "rating": _rating_points(facts.rating_tenths, facts.review_count),
        "sales_rank": _rank_points(facts.sales_rank),
        "sales": _sales_points(facts.sales_rank_drops_90),
    }
    merit, known = 0, 0
    for name, points in parts.items():
        if points is not None:
            merit += points
            known += depth_weight if name == "below_median" else WEIGHTS[name]
    # The fall is from a price that never was one, so it earns nothing.
    taken_back = (parts["below_median"] or 0) if inflated else 0
    merit -= taken_back
    penalty = 0 if glitch_reason is None else min(merit, GLITCH_POINTS if facts.sightings < 2 else SEEN_GLITCH_POINTS)
    parts["inflated_reference"] = -taken_back if facts.average_by_days else None
    parts["glitch"] = -penalty if references or penalty else None
    return DealJudgement(
        discount_pct=discount_pct,
        below_median_pct=below_median_pct,
        reference=reference,
        is_list_price_fiction=is_fiction,
        is_all_time_low=None if all_time_low is None else price <= all_time_low,
        is_year_low=None if year_low is None else price <= year_low,
        is_glitch=glitch_reason is not None,
        glitch_reason=glitch_reason,
        is_inflated_reference=inflated,
        score=merit - penalty,
        parts=parts,
        confidence=known / 100,
    )


def _middle(facts: DealFacts) -> tuple[Reference | None, int | None]:
    if facts.median_90_minor:
        return "median", facts.median_90_minor
    if average := facts.average_by_days.get(90):
        return "average", average
    return None, None


def _fall_pct(price: int, reference: int) -> float:
    """(1 - price / reference) x 100 with two decimals, half up, exact until the last step."""
    return (20_000 * (reference - price) + reference) // (2 * reference) / 100


def _is_list_price_fiction(facts: DealFacts, middle: int | None) -> bool | None:
    # A list price is of new ones.
    listed = facts.list_price_minor
    if not listed or facts.price_type not in _NEW:
        return None
    if facts.highest_year_minor:
        return facts.highest_year_minor * 100 < listed * HONEST_HIGH_PCT
    return None if middle is None else middle * 100 < listed * HONEST_MIDDLE_PCT


def _is_inflated(facts: DealFacts) -> bool:
    """Whether an average is far above the price while something calmer knows the price as normal.

    Calmer are the list price, the median, the means of 31 and 90 days, and what the two say of the days between them: a short
    absurd price lifts the mean of the time it fell in, and little else (recorded: only the last 31 days, and only those before).
    """
    price, averages = facts.amount_minor, facts.average_by_days
    if not any(average > INFLATED_TIMES * price for average in averages.values()):
        return False
    month, quarter = averages.get(31), averages.get(90)
    earlier = (90 * quarter - 31 * month) // 59 if month and quarter else None
    # Means pass over the time without an offer, so this one is rough, and can be nonsense; it counts only where it is a price at all.
    calm = (facts.list_price_minor, facts.median_90_minor, month, quarter, earlier)
    return any(reference and reference > 0 and price * 100 >= reference * NORMAL_PCT for reference in calm)


def _references(facts: DealFacts) -> list[int]:
    """What a price can be absurd against; means of few days hold mostly the price itself and count only where nothing else is known.

    Lows are none of it: a glitch that was seen before is still one.
    """
    averages = facts.average_by_days
    known = (facts.list_price_minor, facts.median_90_minor, averages.get(31), averages.get(90), facts.highest_year_minor)
    return [one for one in known if one] or [one for one in (facts.previous_minor, averages.get(7)) if one]


def _glitch_reason(facts: DealFacts, references: list[int]) -> str | None:
    price = facts.amount_minor
    if facts.offer_count == price and price < 100 and all(2 * price < reference for reference in references):
        return "the price is the number of offers"
    if references and all(100 * price < reference * ABSURD_PCT for reference in references):
        return f"below {ABSURD_PCT} % of everything known"
    return None


def _list_price_points(discount_pct: float | None, is_fiction: bool | None) -> int | None:
    if is_fiction is None:
        return None
    return 0 if is_fiction or discount_pct is None else _points(WEIGHTS["honest_list_price"], discount_pct / FULL_DISCOUNT_PCT)


def _points(weight: int, share: float) -> int:
    return round(weight * min(1.0, max(0.0, share)))


def _near_points(weight: int, price: int, low: int | None) -> int | None:
    return None if not low else _points(weight, 1 - (price - low) * 100 / (NEAR_LOW_PCT * low))


def _rating_points(rating_tenths: int | None, review_count: int | None) -> int | None:
    """A mean drawn to the prior, so that one enthusiast does not outweigh a thousand people."""
    if rating_tenths is None or review_count is None:
        return None
    mean = (PRIOR_RATING_TENTHS * PRIOR_REVIEWS + rating_tenths * review_count) / (PRIOR_REVIEWS + review_count)
    return _points(WEIGHTS["rating"], (mean - WORST_RATING_TENTHS) / (BEST_RATING_TENTHS - WORST_RATING_TENTHS))


def _rank_points(rank: int | None) -> int | None:
    return None if not rank or rank < 1 else _points(WEIGHTS["sales_rank"], 1 - math.log(rank) / math.log(WORST_RANK))


def _sales_points(drops: int | None) -> int | None:
    return None if drops is None or drops < 0 else _points(WEIGHTS["sales"], math.log1p(drops) / math.log1p(FULL_DROPS_90))
