"""How many products a share of the tokens holds at which age."""

from datetime import timedelta

import pytest

from keeper.domain.scan_plan import ScanPlan


def plan(products: int = 1000, tokens_per_hour: int = 360, *, tokens_each: int = 1, ends_after_hours: float = 72) -> ScanPlan:
    return ScanPlan(products, 5, tokens_each, tokens_per_hour, timedelta(hours=ends_after_hours))


def test_a_round_takes_all_products_in_all_stores() -> None:
    assert (plan().round_tokens, plan(tokens_each=3).round_tokens) == (5000, 15000)


def test_a_price_is_as_old_as_a_round_takes() -> None:
    assert plan(720).oldest == timedelta(hours=10)


def test_no_product_is_looked_at_more_often_than_runs_are_made() -> None:
    assert plan(10).oldest == timedelta(hours=2)


@pytest.mark.parametrize(
    ("age_hours", "held"), [pytest.param(2, 144, id="a run"), pytest.param(24, 1728, id="a day"), pytest.param(0.01, 0, id="no time")]
)
def test_what_can_be_held_at_an_age_is_what_its_tokens_pay(age_hours: float, held: int) -> None:
    assert plan().count_held(timedelta(hours=age_hours)) == held


def test_dearer_prices_can_be_held_of_fewer_products() -> None:
    assert plan(tokens_each=3).count_held(timedelta(hours=2)) == 48


def test_the_plan_is_told_in_words() -> None:
    assert plan(720).sentence == "720 products in 5 stores take 3600 tokens a round; with 360 an hour each is looked at every 10.0 hours"


def test_without_a_bucket_nothing_is_promised() -> None:
    assert (plan(tokens_per_hour=0).oldest, plan(tokens_per_hour=0).warning) == (None, "")
    assert "Keepa has not said yet how many there are" in plan(tokens_per_hour=0).sentence


def test_a_round_that_outlasts_its_prices_says_what_to_do() -> None:
    assert plan(5184).warning == ""
    assert plan(5185).warning.startswith(
        "prices count for 3.0 days only (KEEPER_ARBITRAGE_STALE_PRICE_HOURS): compare 5184 products at most"
    )
