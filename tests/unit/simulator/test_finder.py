"""`/query`: filters against the products' own statistics, order, pages, costs and refusals."""

import json
from typing import Any

import pytest

from keeper.simulator.api import DEFAULT_KEY
from keeper.simulator.catalog import MARKETPLACES, make_title
from keeper.simulator.clock import KEEPA_EPOCH_MINUTES
from tests.unit.simulator.conftest import START, World

NOW = START / 60 - KEEPA_EPOCH_MINUTES
ROOT, KEYBOARDS, ACCESSORIES = 340_843_031, 430_178_031, 430_179_031


def ask(world: World, selection: dict[str, Any], *, method: str = "GET", **parameters: str) -> dict[str, Any]:
    text = json.dumps(selection)
    query = {"key": DEFAULT_KEY, "domain": "3"} | parameters | ({"selection": text} if method == "GET" else {})
    answer = world.keepa.answer("/query", query, method=method, content=text.encode() if method == "POST" else b"")
    return {"status": answer.status, **answer.body}


def find(world: World, **selection: Any) -> list[str]:
    asins: list[str] = ask(world, {"perPage": 300, "page": 0} | selection)["asinList"]
    return asins


@pytest.fixture(scope="module")
def products(shared_world: World) -> list[dict[str, Any]]:
    """Every product with prices, as `/product` shows it."""
    asins = shared_world.keepa.catalog.asins()
    found = []
    for start in range(0, len(asins), 100):
        part = ",".join(asins[start : start + 100])
        found += shared_world.get(asin=part, domain=3, stats=90, rating=1, buybox=1, update=-1)["products"]
    return [product for product in found if product["productType"] == 0]


def stat(name: str, price_type: int) -> Any:
    return lambda product: product["stats"][name][price_type]


def percent(days: int, price_type: int) -> Any:
    def measure(product: dict[str, Any]) -> float:
        average, value = product["stats"][f"avg{days}"][price_type], product["stats"]["current"][price_type]
        return (100 * (average - value) / average) if average > 0 and value > 0 else -(10**9)

    return measure


LIMITS = [
    ("current_NEW", 3_000, 6_000, stat("current", 1)),
    ("current_AMAZON", 3_000, 6_000, stat("current", 0)),
    ("current_SALES", 500, 5_000, stat("current", 3)),
    ("current_RATING", 42, 45, stat("current", 16)),
    ("current_COUNT_REVIEWS", 500, 20_000, stat("current", 17)),
    ("current_LISTPRICE", 3_000, 9_000, stat("current", 4)),
    ("current_COUNT_NEW", 2, 3, stat("current", 11)),
    ("current_BUY_BOX_SHIPPING", 3_000, 6_000, stat("current", 18)),
    ("avg30_NEW", 3_000, 6_000, stat("avg30", 1)),
    ("avg90_NEW", 3_000, 6_000, stat("avg90", 1)),
    ("avg90_SALES", 500, 5_000, stat("avg90", 3)),
    ("avg365_AMAZON", 3_000, 6_000, stat("avg365", 0)),
    ("deltaPercent90_NEW", 5.5, 90.5, percent(90, 1)),
    ("deltaPercent30_AMAZON", 3.5, 90.5, percent(30, 0)),
    ("monthlySold", 100, 5_000, lambda product: product["monthlySold"] or -1),
]


@pytest.mark.parametrize(("name", "low", "high", "measure"), LIMITS, ids=[limit[0] for limit in LIMITS])
def test_limits_let_through_what_lies_within_and_nothing_else(
    shared_world: World, products: list[dict[str, Any]], name: str, low: float, high: float, measure: Any
) -> None:
    found = set(find(shared_world, **{f"{name}_gte": low, f"{name}_lte": high}))
    # Percentages are rounded to whole ones before they are compared.
    slack = 0.5 if "Percent" in name else 0
    sure = {product["asin"] for product in products if low + slack <= measure(product) <= high - slack}
    possible = {product["asin"] for product in products if low - slack <= measure(product) <= high + slack}
    assert sure <= found <= possible
    assert 0 < len(found) < len(products)


@pytest.mark.parametrize("name", ["isLowest", "isLowest90"])
@pytest.mark.parametrize("wanted", [True, False])
def test_lowest_is_what_the_statistics_call_so(shared_world: World, products: list[dict[str, Any]], name: str, wanted: bool) -> None:
    expected = {product["asin"] for product in products if product["stats"][name][0] is wanted}
    assert set(find(shared_world, **{f"{name}_AMAZON": wanted})) == expected


def test_no_offer_is_asked_for_with_minus_1(shared_world: World, products: list[dict[str, Any]]) -> None:
    expected = {product["asin"] for product in products if product["stats"]["current"][0] < 0}
    assert set(find(shared_world, current_AMAZON_lte=-1)) == expected == set(find(shared_world, availabilityAmazon=[-1]))
    everything = {product["asin"] for product in products}
    assert set(find(shared_world, current_AMAZON_gte=0)) == everything - expected == set(find(shared_world, availabilityAmazon=[0]))


@pytest.mark.parametrize(
    ("title", "holds"),
    [
        ("tastatur RGB", lambda title: "tastatur" in title and "rgb" in title),
        ("tastatur -rgb", lambda title: "tastatur" in title and "rgb" not in title),
        ('"tastatur rgb"', lambda title: "tastatur rgb" in title),
        ('tastatur -"tastatur rgb"', lambda title: "tastatur" in title and "tastatur rgb" not in title),
    ],
)
def test_title_is_words_phrases_and_exclusions(shared_world: World, title: str, holds: Any) -> None:
    catalog = shared_world.keepa.catalog
    expected = set()
    for number in range(catalog.size):
        product = catalog.product(number)
        name = make_title(product, MARKETPLACES[3])
        if product.product_type == 0 and name and holds(name.lower()):
            expected.add(product.asin)
    assert set(find(shared_world, title=title)) == expected != set()


@pytest.mark.parametrize(
    ("selection", "holds"),
    [
        ({"brand": ["cherry", "Logitech"]}, lambda product: product["brand"] in ("CHERRY", "Logitech")),
        ({"brand": "✜CHERRY"}, lambda product: product["brand"] != "CHERRY"),
        ({"rootCategory": [ROOT]}, lambda product: product["rootCategory"] == ROOT),
        ({"categories_include": [ACCESSORIES]}, lambda product: ACCESSORIES in product["categories"]),
        ({"categories_exclude": [KEYBOARDS]}, lambda product: KEYBOARDS not in product["categories"]),
        ({"hasReviews": False}, lambda product: not product["hasReviews"]),
        ({"hasParentASIN": True}, lambda product: product["parentAsin"]),
        ({"material": ["steel"]}, lambda _: False),
        ({"productType": [5]}, lambda _: False),
    ],
    ids=lambda value: "" if callable(value) else str(value),
)
def test_other_filters_let_through_what_fulfils_them(
    shared_world: World, products: list[dict[str, Any]], selection: dict[str, Any], holds: Any
) -> None:
    assert set(find(shared_world, **selection)) == {product["asin"] for product in products if holds(product)}


def test_default_order_is_the_sales_rank_with_unranked_ones_last(shared_world: World, products: list[dict[str, Any]]) -> None:
    ranks = {product["asin"]: product["stats"]["current"][3] for product in products}
    order = [ranks[asin] if ranks[asin] > 0 else 2**40 for asin in find(shared_world, hasReviews=True)]
    assert len(order) > 200
    assert order == sorted(order)


def test_order_by_two_fields_goes_by_the_first_first(shared_world: World, products: list[dict[str, Any]]) -> None:
    values = {product["asin"]: (product["stats"]["current"][11], -product["stats"]["current"][1]) for product in products}
    asins = find(shared_world, current_NEW_gte=1, current_COUNT_NEW_gte=1, sort=[["current_COUNT_NEW", "asc"], ["current_NEW", "desc"]])
    order = [values[asin] for asin in asins]
    assert order == sorted(order)


def test_pages_share_nothing_and_leave_nothing_out(shared_world: World) -> None:
    pages = [ask(shared_world, {"hasReviews": True, "perPage": 50, "page": page}) for page in range(7)]
    asins = [asin for page in pages for asin in page["asinList"]]
    assert len(asins) == len(set(asins)) == pages[0]["totalResults"]
    assert pages[6]["asinList"] == []


@pytest.mark.parametrize(
    ("selection", "stats", "extra"),
    [({"brand": ["none"]}, "0", 0), ({"hasReviews": True, "perPage": 50}, "0", 1), ({"hasReviews": True, "perPage": 200}, "0", 2)],
    ids=["nothing found", "50", "200"],
)
def test_query_costs_10_and_1_for_each_hundred(shared_world: World, selection: dict[str, Any], stats: str, extra: int) -> None:
    assert ask(shared_world, selection, stats=stats)["tokensConsumed"] == 10 + extra


def test_insights_cost_30_and_1_for_each_million(shared_world: World) -> None:
    plain, known = (ask(shared_world, {"hasReviews": True}, stats=stats) for stats in ("0", "1"))
    assert known["tokensConsumed"] == plain["tokensConsumed"] + 31
    assert "searchInsights" not in plain
    assert known["searchInsights"]["avgBuyBox"] > 0


def test_post_and_get_answer_alike(shared_world: World) -> None:
    selection = {"title": "tastatur", "perPage": 100}
    get, post = (ask(shared_world, selection, method=method) for method in ("GET", "POST"))
    assert (get["asinList"], get["totalResults"]) == (post["asinList"], post["totalResults"])


@pytest.mark.parametrize("domain", ["5", "12"])
def test_marketplace_without_products_finds_nothing(shared_world: World, domain: str) -> None:
    answer = ask(shared_world, {"hasReviews": True}, domain=domain)
    assert (answer["asinList"], answer["totalResults"], answer["tokensConsumed"]) == ([], 0, 10)


@pytest.mark.parametrize(
    ("selection", "status"),
    [
        ({}, 400),
        ({"perPage": 100}, 400),
        ({"aNewField": 1}, 400),
        ({"current_NEW": 1}, 400),
        ({"current_OLD_gte": 1}, 400),
        ({"avg31_NEW_gte": 1}, 400),
        ({"current_NEW_gte": "1"}, 400),
        ({"hasReviews": 1}, 400),
        ({"brand": [1]}, 400),
        ({"brand": ["a"] * 51}, 405),
        ({"rootCategory": ["1"]}, 400),
        ({"title": 1}, 400),
        ({"hasReviews": True, "perPage": 49}, 405),
        ({"hasReviews": True, "perPage": 10_001}, 405),
        ({"hasReviews": True, "page": -1}, 405),
        ({"hasReviews": True, "page": 2, "perPage": 5_001}, 405),
        ({"hasReviews": True, "sort": "current_NEW"}, 400),
        ({"hasReviews": True, "sort": [["current_NEW", "up"]]}, 400),
        ({"hasReviews": True, "sort": [["title", "asc"]]}, 400),
        ({"hasReviews": True, "sort": [["current_NEW", "asc"]] * 4}, 405),
    ],
    ids=str,
)
def test_bad_selection_costs_nothing_and_says_so(shared_world: World, selection: dict[str, Any], status: int) -> None:
    answer = ask(shared_world, selection)
    assert (answer["status"], answer["tokensConsumed"]) == (status, 0)
    assert "asinList" not in answer


def test_unknown_marketplace_is_400(shared_world: World) -> None:
    assert ask(shared_world, {"hasReviews": True}, domain="7")["status"] == 400
