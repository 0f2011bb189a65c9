"""Flags and score of an opportunity: what each fact adds, and that the parts are the score."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.opportunity_score import Flag, OpportunityFacts, ScorePart, compute_score_parts, find_flags

BEST = OpportunityFacts(
    roi_pct=5000,
    sales_rank_drops_30=60,
    monthly_sold=200,
    offer_count=1,
    buy_box_is_amazon=False,
    is_hazardous=False,
    is_heat_sensitive=False,
    is_often_returned=False,
    is_in_stock=True,
)
ANY_FACTS = st.builds(
    OpportunityFacts,
    roi_pct=st.one_of(st.none(), st.integers(-20_000, 1_000_000)),
    sales_rank_drops_30=st.one_of(st.none(), st.integers(0, 1000)),
    monthly_sold=st.one_of(st.none(), st.integers(0, 100_000)),
    offer_count=st.one_of(st.none(), st.integers(0, 500)),
    buy_box_is_amazon=st.one_of(st.none(), st.booleans()),
    amazon_matches=st.one_of(st.none(), st.booleans()),
    is_hazardous=st.one_of(st.none(), st.booleans()),
    is_heat_sensitive=st.one_of(st.none(), st.booleans()),
    is_often_returned=st.one_of(st.none(), st.booleans()),
    is_lightning=st.booleans(),
    has_coupon=st.booleans(),
    is_in_stock=st.one_of(st.none(), st.booleans()),
    is_old=st.booleans(),
)


@pytest.mark.parametrize(
    ("facts", "flags"),
    [
        pytest.param({"sales_rank_drops_30": 30}, [Flag.SELLS_FAST, Flag.STOCK_UNKNOWN], id="the rank falls often"),
        pytest.param({"monthly_sold": 100, "is_in_stock": True}, [Flag.SELLS_FAST], id="many are sold"),
        pytest.param({"sales_rank_drops_30": 4, "is_in_stock": True}, [Flag.SELLS_SLOWLY], id="few falls"),
        pytest.param({"sales_rank_drops_30": 4, "monthly_sold": 50, "is_in_stock": True}, [], id="few falls, some sold"),
        pytest.param({"is_in_stock": True}, [Flag.DEMAND_UNKNOWN], id="nothing is known of the demand"),
        pytest.param(
            {"monthly_sold": 50, "offer_count": 15, "is_in_stock": False}, [Flag.MANY_SELLERS], id="many sellers; out of stock is known"
        ),
        pytest.param({"monthly_sold": 50, "buy_box_is_amazon": True, "is_in_stock": True}, [Flag.AMAZON_SELLS], id="Amazon in the buy box"),
        pytest.param({"monthly_sold": 50, "amazon_matches": True, "is_in_stock": True}, [Flag.AMAZON_SELLS], id="Amazon's own price"),
        pytest.param(
            {"monthly_sold": 50, "is_hazardous": True, "is_heat_sensitive": True, "is_often_returned": True, "is_in_stock": True},
            [Flag.HAZARDOUS, Flag.HEAT_SENSITIVE, Flag.OFTEN_RETURNED],
            id="what makes trouble",
        ),
        pytest.param(
            {"monthly_sold": 50, "is_lightning": True, "has_coupon": True, "is_old": True, "is_in_stock": True},
            [Flag.LIGHTNING_DEAL, Flag.COUPON, Flag.OLD_PRICE],
            id="what may not last",
        ),
    ],
)
def test_flags_are_told_by_the_facts(facts: dict[str, Any], flags: list[Flag]) -> None:
    assert list(find_flags(OpportunityFacts(**facts))) == flags


@pytest.mark.parametrize(
    ("facts", "part", "points"),
    [
        pytest.param({"roi_pct": 2030}, ScorePart.PROFIT, 16, id="an ROI of 20.30 %"),
        pytest.param({"roi_pct": -100}, ScorePart.PROFIT, 0, id="a loss"),
        pytest.param({"roi_pct": None}, ScorePart.PROFIT, 0, id="an unknown profit"),
        pytest.param({"sales_rank_drops_30": 30}, ScorePart.VELOCITY, 13, id="half of the full velocity, half up"),
        pytest.param({"sales_rank_drops_30": 0, "monthly_sold": 200}, ScorePart.VELOCITY, 25, id="the better of both signs"),
        pytest.param({"offer_count": 20}, ScorePart.COMPETITION, 0, id="a crowd"),
        pytest.param({"offer_count": 1}, ScorePart.COMPETITION, 9, id="one seller"),
        pytest.param({"offer_count": 0}, ScorePart.COMPETITION, 0, id="no seller"),
        pytest.param({"buy_box_is_amazon": False}, ScorePart.COMPETITION, 6, id="not Amazon"),
        pytest.param({"amazon_matches": False}, ScorePart.COMPETITION, 6, id="no offer of Amazon's"),
        pytest.param({"buy_box_is_amazon": False, "amazon_matches": True}, ScorePart.COMPETITION, 0, id="Amazon outside the buy box"),
        pytest.param({"buy_box_is_amazon": True, "amazon_matches": False}, ScorePart.COMPETITION, 0, id="Amazon as the box has it"),
        pytest.param({"is_hazardous": False}, ScorePart.SAFETY, 3, id="known not to be hazardous"),
        pytest.param({}, ScorePart.SAFETY, 0, id="nothing known"),
        pytest.param({"is_old": True, "is_in_stock": True}, ScorePart.CERTAINTY, 6, id="an old price"),
    ],
)
def test_a_part_has_its_points(facts: dict[str, Any], part: ScorePart, points: int) -> None:
    assert compute_score_parts(OpportunityFacts(**facts))[part] == points


def test_the_best_there_is_has_100() -> None:
    assert sum(compute_score_parts(BEST).values()) == 100


def test_nothing_known_has_little() -> None:
    assert sum(compute_score_parts(OpportunityFacts()).values()) == 6


@given(facts=ANY_FACTS)
def test_a_score_is_from_0_to_100(facts: OpportunityFacts) -> None:
    parts = compute_score_parts(facts)
    assert all(points >= 0 for points in parts.values())
    assert 0 <= sum(parts.values()) <= 100
