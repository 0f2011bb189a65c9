"""Claims about deal quality: what the numbers say, which of them are not believed, and how the score is made up."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keeper.domain.deal_quality import WEIGHTS, DealFacts, DealJudgement, judge_deal
from keeper.domain.price_type import PriceType

KEYBOARD = DealFacts(
    4500,
    list_price_minor=7999,
    median_90_minor=6000,
    average_by_days={2: 5000, 7: 5800, 31: 6000, 90: 6100},
    previous_minor=5900,
    lowest_ever_minor=4500,
    lowest_year_minor=4700,
    highest_year_minor=7999,
    rating_tenths=45,
    review_count=2000,
    sales_rank=500,
    sales_rank_drops_90=60,
    offer_count=7,
    history_days=900,
)
NOTHING = DealFacts(4500)


def read(name: str) -> Any:
    return json.loads((Path(os.environ["KEEPER_RECORDINGS"]) / name).read_bytes())


def known(number: int) -> int | None:
    return number if number > 0 else None


def of_deal(deal: dict[str, Any], at: int = 0) -> DealFacts:
    """The facts in a row of the feed; `at` is Keepa's index of the price type, 0 is Amazon's own price."""
    current, drops = deal["current"], deal["salesRankDrops90"]
    return DealFacts(
        current[at],
        price_type=PriceType.AMAZON,
        list_price_minor=known(current[4]),
        average_by_days={days: mean[at] for days, mean in zip((2, 7, 31, 90), deal["avg"], strict=True) if mean[at] > 0},
        previous_minor=current[at] + deal["deltaLast"][at] if deal["deltaLast"][at] else None,
        rating_tenths=known(current[16]),
        review_count=known(current[17]),
        sales_rank=known(current[3]),
        sales_rank_drops_90=None if drops < 0 else drops,
        offer_count=known(current[11]),
    )


def of_product(product: dict[str, Any], at: int = 0) -> DealFacts:
    """The facts in a product's statistics."""
    stats = product["stats"]
    return DealFacts(
        stats["current"][at],
        price_type=PriceType.AMAZON,
        list_price_minor=known(stats["current"][4]),
        average_by_days={31: stats["avg30"][at], 90: stats["avg90"][at]},
        lowest_ever_minor=stats["min"][at][1],
        sales_rank=known(stats["current"][3]),
        sales_rank_drops_90=stats["salesRankDrops90"],
        offer_count=known(stats["current"][11]),
    )


def of_page(asin: str) -> DealFacts:
    deals = read("deal_de_amazon_week_page0_150deals.json")["deals"]["dr"]
    return of_deal(next(deal for deal in deals if deal["asin"] == asin))


def marks(judged: DealJudgement) -> tuple[bool, bool]:
    return judged.is_glitch, judged.is_inflated_reference


@pytest.mark.parametrize(
    ("price", "listed", "expected"),
    [
        pytest.param(4500, 7999, 43.74, id="two decimals"),
        pytest.param(8001, 9000, 11.1, id="exact"),
        pytest.param(159_995, 160_000, 0.0, id="below half a hundredth"),
        pytest.param(19_999, 20_000, 0.01, id="half a hundredth goes up"),
        pytest.param(7999, 7999, None, id="not below"),
        pytest.param(9000, 7999, None, id="above"),
        pytest.param(4500, None, None, id="no list price"),
    ],
)
def test_discount_is_against_the_list_price(price: int, listed: int | None, expected: float | None) -> None:
    assert judge_deal(DealFacts(price, list_price_minor=listed)).discount_pct == expected


@pytest.mark.parametrize(
    ("median", "averages", "reference", "pct"),
    [
        pytest.param(6000, {90: 9000}, "median", 25.0, id="median first"),
        pytest.param(None, {31: 5000, 90: 9000}, "average", 50.0, id="then the average of the same days"),
        pytest.param(None, {31: 5000}, None, None, id="no other average"),
        pytest.param(4000, {}, "median", -12.5, id="above it"),
    ],
)
def test_fall_names_its_reference(median: int | None, averages: dict[int, int], reference: str | None, pct: float | None) -> None:
    judged = judge_deal(DealFacts(4500, median_90_minor=median, average_by_days=averages))
    assert (judged.reference, judged.below_median_pct) == (reference, pct)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param({"highest_year_minor": 7500}, False, id="sold near it within the year"),
        pytest.param({"highest_year_minor": 6500}, True, id="never near it within the year"),
        pytest.param({"highest_year_minor": 7500, "median_90_minor": 5000}, False, id="the year decides over the quarter"),
        pytest.param({"median_90_minor": 5000}, True, id="median far below"),
        pytest.param({"median_90_minor": 7000}, False, id="median near"),
        pytest.param({"average_by_days": {90: 5000}}, True, id="average far below"),
        pytest.param({}, None, id="nobody can tell"),
        pytest.param({"highest_year_minor": 6500, "price_type": PriceType.USED}, None, id="a list price is of new ones"),
    ],
)
def test_list_price_nobody_paid_is_fiction(facts: dict[str, Any], expected: bool | None) -> None:
    assert judge_deal(replace(NOTHING, list_price_minor=8000, **facts)).is_list_price_fiction is expected


@pytest.mark.parametrize(
    ("facts", "all_time", "year"),
    [
        pytest.param({"lowest_ever_minor": 4500, "lowest_year_minor": 4800}, True, True, id="as low as ever"),
        pytest.param({"lowest_ever_minor": 4000, "lowest_year_minor": 4800}, False, True, id="of the year only"),
        pytest.param({"lowest_year_minor": 4400}, None, False, id="unknown and above"),
        pytest.param({"lowest_ever_minor": 4500, "lowest_year_minor": 4500, "history_days": 10}, None, None, id="ten days have no lows"),
    ],
)
def test_lows_are_told(facts: dict[str, Any], all_time: bool | None, year: bool | None) -> None:
    judged = judge_deal(replace(NOTHING, **facts))
    assert (judged.is_all_time_low, judged.is_year_low) == (all_time, year)


@pytest.mark.parametrize(
    ("facts", "glitch", "inflated"),
    [
        pytest.param(DealFacts(3046, list_price_minor=249_000, average_by_days={90: 241_351}), True, False, id="2,490 EUR to 30 EUR"),
        pytest.param(DealFacts(12, average_by_days={90: 4500}, offer_count=12), True, False, id="12 offers read as 0.12 EUR"),
        pytest.param(DealFacts(12, offer_count=12), True, False, id="12 offers, nothing else known"),
        pytest.param(DealFacts(12, list_price_minor=15, offer_count=12), False, False, id="cheap, and 12 offers"),
        pytest.param(DealFacts(450, previous_minor=5900), True, False, id="only the price before is known"),
        pytest.param(replace(KEYBOARD, amount_minor=590), True, False, id="a keyboard for a tenth"),
        pytest.param(replace(KEYBOARD, amount_minor=1200), False, False, id="a keyboard for a fifth"),
        pytest.param(
            DealFacts(699, list_price_minor=699, average_by_days={7: 54_366, 90: 91_892}), False, True, id="list price is the price"
        ),
        pytest.param(DealFacts(1999, average_by_days={31: 1999, 90: 169_997}), False, True, id="a month at this price"),
        pytest.param(DealFacts(3000, median_90_minor=3100, average_by_days={90: 20_000}), False, True, id="median knows it"),
        pytest.param(DealFacts(4397, average_by_days={7: 26_798, 31: 31_205, 90: 13_402}), False, True, id="two months before knew it"),
        pytest.param(KEYBOARD, False, False, id="a plain deal"),
        pytest.param(NOTHING, False, False, id="nothing known"),
    ],
)
def test_absurd_prices_are_marked(facts: DealFacts, glitch: bool, inflated: bool) -> None:
    assert marks(judge_deal(facts)) == (glitch, inflated)


@pytest.mark.recordings
@pytest.mark.parametrize(
    ("asin", "glitch", "inflated"),
    [
        pytest.param("B0BFRDGFP6", True, False, id="raclette from 2,490 EUR to 30 EUR"),
        pytest.param("B0BX45BQ1B", True, False, id="kit from 2,400 EUR to 26 EUR"),
        pytest.param("B0GJFS1HB5", False, True, id="cable that was 900 EUR by mistake"),
        pytest.param("B0010AH4BW", False, True, id="air mass sensor, its list price all along"),
        pytest.param("0749480033", False, True, id="book lifted in the last month only"),
        pytest.param("0198799616", False, False, id="book at a sixth"),
    ],
)
def test_recorded_deals_are_marked(asin: str, glitch: bool, inflated: bool) -> None:
    assert marks(judge_deal(of_page(asin))) == (glitch, inflated)


@pytest.mark.recordings
def test_recorded_99_percent_fall_is_no_deal() -> None:
    judged = judge_deal(of_deal(read("dealobj_de_exp04.json")))
    assert (judged.below_median_pct, judged.discount_pct, marks(judged)) == (98.82, None, (False, True))
    assert judged.score < 20


@pytest.mark.recordings
@pytest.mark.parametrize(
    ("name", "glitch", "inflated"),
    [
        pytest.param("productobj_de_B0BFRDGFP6_stats90_csv_truncated.json", True, False, id="raclette"),
        pytest.param("productobj_de_B0010AH4BW_stats90_csv_truncated.json", False, True, id="air mass sensor"),
    ],
)
def test_recorded_products_are_judged_as_their_deals(name: str, glitch: bool, inflated: bool) -> None:
    assert marks(judge_deal(of_product(read(name)))) == (glitch, inflated)


@pytest.mark.recordings
def test_every_recorded_deal_has_parts_that_sum_up() -> None:
    for deal in read("deal_de_amazon_week_page0_150deals.json")["deals"]["dr"]:
        judged = judge_deal(of_deal(deal))
        assert judged.score == sum(points or 0 for points in judged.parts.values())
        assert 0 <= judged.score <= 100


def test_parts_of_a_good_deal() -> None:
    judged = judge_deal(KEYBOARD)
    assert judged.parts == {
        "below_median": 20,
        "near_year_low": 12,
        "near_all_time_low": 8,
        "honest_list_price": 9,
        "rating": 11,
        "sales_rank": 4,
        "sales": 6,
        "inflated_reference": 0,
        "glitch": 0,
    }
    assert (judged.score, judged.confidence) == (70, 1.0)


def test_unknown_parts_are_none_and_lower_the_confidence() -> None:
    judged = judge_deal(DealFacts(4500, average_by_days={90: 6000}))
    assert {name for name, points in judged.parts.items() if points is None} == WEIGHTS.keys() - {"below_median"}
    assert (judged.parts["inflated_reference"], judged.parts["glitch"]) == (0, 0)
    assert (judged.score, judged.confidence) == (15, 0.3)


def test_nothing_known_is_no_score_and_no_confidence() -> None:
    judged = judge_deal(NOTHING)
    assert (judged.score, judged.confidence, judged.discount_pct, judged.reference) == (0, 0.0, None, None)
    assert set(judged.parts.values()) == {None}


def test_a_list_price_that_is_fiction_earns_nothing() -> None:
    assert judge_deal(replace(KEYBOARD, highest_year_minor=6500)).parts["honest_list_price"] == 0


def test_few_reviews_weigh_less_than_many() -> None:
    few, many = (judge_deal(replace(KEYBOARD, rating_tenths=50, review_count=count)).parts["rating"] for count in (1, 500))
    assert few is not None and many is not None and few < many


def test_glitch_that_was_seen_again_loses_less() -> None:
    glitch = replace(KEYBOARD, amount_minor=400)
    assert (
        judge_deal(glitch).score < judge_deal(replace(glitch, sightings=2)).score < judge_deal(replace(KEYBOARD, amount_minor=1200)).score
    )


def test_weights_are_a_hundred() -> None:
    assert sum(WEIGHTS.values()) == 100


PRICES = st.integers(1, 500_000)
MAYBE = st.none() | PRICES


@st.composite
def any_facts(draw: st.DrawFn) -> DealFacts:
    """Facts that may hold at once or not: sources disagree, and that must not matter."""
    return DealFacts(
        draw(PRICES),
        price_type=draw(st.sampled_from((PriceType.NEW, PriceType.USED, PriceType.WAREHOUSE))),
        list_price_minor=draw(MAYBE),
        median_90_minor=draw(MAYBE),
        average_by_days=draw(st.dictionaries(st.sampled_from((2, 7, 31, 90)), PRICES)),
        previous_minor=draw(MAYBE),
        lowest_ever_minor=draw(MAYBE),
        lowest_year_minor=draw(MAYBE),
        highest_year_minor=draw(MAYBE),
        rating_tenths=draw(st.none() | st.integers(0, 50)),
        review_count=draw(st.none() | st.integers(0, 10**7)),
        sales_rank=draw(st.none() | st.integers(1, 10**8)),
        sales_rank_drops_90=draw(st.none() | st.integers(0, 10**4)),
        offer_count=draw(st.none() | st.integers(0, 200)),
        sightings=draw(st.integers(1, 5)),
        history_days=draw(st.none() | st.integers(0, 4000)),
    )


@given(any_facts())
def test_parts_sum_to_a_score_within_bounds(facts: DealFacts) -> None:
    judged = judge_deal(facts)
    assert judged.score == sum(points or 0 for points in judged.parts.values())
    assert 0 <= judged.score <= 100
    assert 0 <= judged.confidence <= 1
    assert all(0 <= (judged.parts[name] or 0) <= weight for name, weight in WEIGHTS.items())
    assert (judged.parts["glitch"] or 0) <= 0 and (judged.parts["inflated_reference"] or 0) <= 0


@given(any_facts(), PRICES)
def test_score_falls_in_price(facts: DealFacts, other: int) -> None:
    """Among prices that are believed alike: a price so low that it is taken for a glitch is meant to score less."""
    low, high = (judge_deal(replace(facts, amount_minor=price)) for price in sorted((facts.amount_minor, other)))
    assume(marks(low) == marks(high))
    assert low.score >= high.score


@given(
    any_facts(),
    st.sampled_from(
        ("list_price_minor", "lowest_ever_minor", "lowest_year_minor", "rating_tenths", "review_count", "sales_rank", "sales_rank_drops_90")
    ),
)
def test_a_fact_less_never_raises_the_score(facts: DealFacts, name: str) -> None:
    """Unless it was what cast doubt on the price."""
    without: dict[str, Any] = {name: None}
    more, less = judge_deal(facts), judge_deal(replace(facts, **without))
    assume(marks(more) == marks(less))
    assert less.score <= more.score
    assert less.confidence <= more.confidence


@given(any_facts(), st.sampled_from(("median_90_minor", "highest_year_minor", "previous_minor", "offer_count", "history_days")))
def test_every_fact_may_be_missing(facts: DealFacts, name: str) -> None:
    without: dict[str, Any] = {name: None, "average_by_days": {}}
    assert 0 <= judge_deal(replace(facts, **without)).score <= 100


@given(any_facts())
def test_a_mark_has_its_reason_and_only_one(facts: DealFacts) -> None:
    judged = judge_deal(facts)
    assert judged.is_glitch is (judged.glitch_reason is not None)
    assert not (judged.is_glitch and judged.is_inflated_reference)
