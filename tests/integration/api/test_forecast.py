"""A forecast over HTTP: what its own history bears out, and why not where it does not."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from keeper.domain.marketplace import Marketplace
from tests.integration.api.conftest import Person
from tests.integration.makers import ASIN, NOW, ago, product, run_record

FORECAST = f"/api/v1/prices/{ASIN}/forecast"


@pytest.fixture
def sold_off(engine: Engine) -> None:
    """Every twenty days on sale for four; the last sale ended ten days ago."""
    points = [(ago(days=10 + 4 * is_sale + 20 * back), 7000 if is_sale else 10_000) for back in range(17) for is_sale in (True, False)]
    run_record(engine, product(sorted(points)))


@pytest.mark.usefixtures("sold_off")
def test_a_sale_that_is_due_is_forecast_with_its_chance(anna: Person) -> None:
    found = anna.get(FORECAST, target=75)

    assert (found["price_minor"], found["target_minor"], found["currency"], found["title"]) == (10_000, 7500, "EUR", "Tastatur")
    week = found["horizons"][0]
    assert (week["days"], week["price"], week["price_minor"], week["why_no_price"]) == (7, 70, 7000, None)
    assert week["low_minor"] <= week["price_minor"] <= week["high_minor"]
    assert week["chance_pct"] > 75 > week["base_rate_pct"]
    for tried in (week["price_backtest"], week["chance_backtest"]):
        assert tried["is_better"] and tried["loss"] < tried["baseline_loss"]


@pytest.mark.usefixtures("sold_off")
def test_without_a_target_there_is_no_word_of_a_chance(anna: Person) -> None:
    week = anna.get(FORECAST)["horizons"][0]
    assert (week["price_minor"], week["chance_pct"], week["why_no_chance"]) == (7000, None, None)


def test_a_price_that_stays_gets_no_forecast_and_is_told_why(anna: Person, engine: Engine) -> None:
    run_record(engine, product([(ago(days=300), 5000)]))

    for one in anna.get(FORECAST, target=40)["horizons"]:
        assert (one["price"], one["chance_pct"]) == (None, None)
        assert one["why_no_price"].endswith("nothing could be better than to say that the last price stays")


def test_the_days_are_counted_from_the_last_check(anna: Person, engine: Engine) -> None:
    run_record(engine, product([(ago(days=300), 5000)], at=NOW - timedelta(hours=5)))
    assert anna.get(FORECAST)["since"] == (NOW - timedelta(hours=5)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_price_the_product_has_not_is_no_forecast(anna: Person, engine: Engine) -> None:
    run_record(engine, product([(ago(days=300), 5000)]))

    found = anna.get(FORECAST, price_type="USED")

    assert (found["price_minor"], found["since"]) == (None, None)
    assert {one["why_no_price"] for one in found["horizons"]} == {"there is no offer now"}


def test_an_unknown_product_is_not_found(anna: Person) -> None:
    assert anna.ask("GET", FORECAST, params={"marketplace": Marketplace.FR}).status_code == 404


def test_a_target_that_cannot_be_names_its_field(anna: Person) -> None:
    answered = anna.ask("GET", FORECAST, params={"target": "-5"})
    assert (answered.status_code, "target" in answered.text) == (422, True)
