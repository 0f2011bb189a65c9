from typing import Any

import pytest

from keeper.simulator.costs import ENDPOINTS, ProductFacts, count_product_cost, count_query_cost

DAY = 1440
PLAIN: dict[str, Any] = {
    "offers": None,
    "buybox": False,
    "rating": False,
    "stock": False,
    "update_hours": 1,
    "historical_variations": False,
}


def facts(**changes: Any) -> ProductFacts:
    values: dict[str, Any] = {
        "age_minutes": 10,
        "rating_age_minutes": DAY,
        "stock_age_minutes": DAY,
        "has_parent": True,
        "offers_fetched": None,
    }
    return ProductFacts(**values | changes)


@pytest.mark.parametrize(
    ("given", "asked", "cost"),
    [
        ({}, {}, 1),
        ({}, {"buybox": True}, 3),
        ({}, {"rating": True}, 2),
        ({"rating_age_minutes": 15 * DAY}, {"rating": True}, 1),
        ({}, {"rating": True, "buybox": True}, 4),
        ({}, {"update_hours": 0}, 2),
        ({"age_minutes": 61}, {"update_hours": 0}, 1),
        ({}, {"update_hours": -1}, 1),
        ({}, {"historical_variations": True}, 2),
        ({"has_parent": False}, {"historical_variations": True}, 1),
        ({"offers_fetched": 3}, {"offers": 20}, 6),
        ({"offers_fetched": 12}, {"offers": 20}, 12),
        ({"offers_fetched": 0}, {"offers": 20}, 1),
        ({"offers_fetched": None}, {"offers": 20}, 5),
        ({"offers_fetched": 12}, {"offers": 20, "buybox": True}, 12),
        ({"offers_fetched": 12}, {"offers": 20, "stock": True, "rating": True}, 15),
        ({"offers_fetched": 12, "stock_age_minutes": 8 * DAY}, {"offers": 20, "stock": True}, 12),
    ],
    ids=[
        "plain",
        "buybox",
        "rating",
        "old rating is free",
        "as recorded: 4 tokens",
        "update=0 with fresh data",
        "update=0 with old data",
        "update=-1",
        "variations of a child",
        "variations of an only child",
        "one page of offers",
        "two pages of offers",
        "failed fetch",
        "recent offers: flat 5",
        "offers swallow buybox",
        "offers, stock and rating: at most 15",
        "old stock is free",
    ],
)
def test_product_costs_what_keepa_documents(given: dict[str, Any], asked: dict[str, Any], cost: int) -> None:
    assert count_product_cost(facts(**given), **PLAIN | asked) == cost


@pytest.mark.parametrize(
    ("returned", "matched", "stats", "cost"),
    [
        (0, 0, False, 10),
        (1, 1, False, 11),
        (100, 5_000, False, 11),
        (101, 5_000, False, 12),
        (10_000, 10_000, False, 110),
        (0, 0, True, 40),
        (50, 1_000_000, True, 42),
        (50, 1_000_001, True, 43),
    ],
)
def test_query_costs_by_what_is_returned_and_matched(returned: int, matched: int, stats: bool, cost: int) -> None:
    assert count_query_cost(returned=returned, matched=matched, stats=stats) == cost


@pytest.mark.parametrize(
    ("path", "methods", "cost"),
    [
        ("/token", ("GET",), 0),
        ("/product", ("GET",), 1),
        ("/deal", ("GET", "POST"), 5),
        ("/query", ("GET", "POST"), 10),
        ("/bestsellers", ("GET",), 50),
        ("/category", ("GET",), 1),
        ("/search", ("GET",), 10),
    ],
)
def test_endpoint_has_the_documented_methods_and_cost(path: str, methods: tuple[str, ...], cost: int) -> None:
    assert (ENDPOINTS[path].methods, ENDPOINTS[path].base_cost) == (methods, cost)
