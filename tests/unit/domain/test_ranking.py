"""The bestseller score: what each fact adds, and that the parts stay within it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.ranking import RankingFacts, RankingPart, compute_ranking_parts

ANY_FACTS = st.builds(
    RankingFacts,
    sales_rank=st.one_of(st.none(), st.integers(-1, 5_000_000)),
    sales_rank_drops_30=st.one_of(st.none(), st.integers(0, 1_000)),
    monthly_sold=st.one_of(st.none(), st.integers(0, 100_000)),
    rating_tenths=st.one_of(st.none(), st.integers(0, 50)),
    review_count=st.one_of(st.none(), st.integers(0, 2**31 - 1)),
)


@pytest.mark.parametrize(
    ("facts", "part", "points"),
    [
        pytest.param({"sales_rank": 1}, "rank", 40, id="the best rank"),
        pytest.param({"sales_rank": 10}, "rank", 40, id="at the edge of a step"),
        pytest.param({"sales_rank": 11}, "rank", 37, id="one beyond"),
        pytest.param({"sales_rank": 300_001}, "rank", 0, id="beyond all steps"),
        pytest.param({"sales_rank": 0}, "rank", 0, id="no rank at all"),
        pytest.param({"sales_rank_drops_30": 30}, "drops", 13, id="half the falls, half up"),
        pytest.param({"sales_rank_drops_30": 600}, "drops", 25, id="more falls than count"),
        pytest.param({"monthly_sold": 500}, "sold", 10, id="half of what counts was sold"),
        pytest.param({"rating_tenths": 45, "review_count": 1_000}, "reviews", 15, id="many good reviews"),
        pytest.param({"rating_tenths": 45}, "reviews", 0, id="a rating of nobody knows how many"),
    ],
)
def test_each_fact_adds_its_points(facts: dict[str, int], part: str, points: int) -> None:
    assert compute_ranking_parts(RankingFacts(**facts))[RankingPart(part)] == points


def test_the_best_there_is_has_a_hundred() -> None:
    best = RankingFacts(sales_rank=1, sales_rank_drops_30=60, monthly_sold=1_000, rating_tenths=50, review_count=5_000)
    assert sum(compute_ranking_parts(best).values()) == 100


def test_what_nobody_knows_has_none() -> None:
    assert sum(compute_ranking_parts(RankingFacts()).values()) == 0


@given(facts=ANY_FACTS)
def test_a_score_is_between_0_and_100(facts: RankingFacts) -> None:
    parts = compute_ranking_parts(facts)
    assert list(parts) == list(RankingPart)
    assert all(points >= 0 for points in parts.values())
    assert sum(parts.values()) <= 100


@given(facts=ANY_FACTS, better=st.integers(1, 1_000))
def test_selling_more_never_ranks_lower(facts: RankingFacts, better: int) -> None:
    more: Any = RankingFacts(
        sales_rank=facts.sales_rank,
        sales_rank_drops_30=(facts.sales_rank_drops_30 or 0) + better,
        monthly_sold=(facts.monthly_sold or 0) + better,
        rating_tenths=facts.rating_tenths,
        review_count=facts.review_count,
    )
    assert sum(compute_ranking_parts(more).values()) >= sum(compute_ranking_parts(facts).values())
