"""`/deal`: which products, in which order, with which numbers, for which price."""

import html
import json
import math
from typing import Any

import pytest

from keeper.simulator.api import DEFAULT_KEY
from keeper.simulator.clock import KEEPA_EPOCH_MINUTES
from keeper.simulator.faults import Fault
from keeper.simulator.prices import TRIPLETS
from tests.unit.simulator.conftest import START, World, WorldMaker

NOW = START / 60 - KEEPA_EPOCH_MINUTES
DAY = 1440
UNKNOWN = 9_223_372_036_854_775_807
ROOT, KEYBOARDS, ACCESSORIES = 340_843_031, 430_178_031, 430_179_031
DAYS = (1, 7, 31, 90)
REFERRING = (8, 9, 33)


def all_rows(world: World, **selection: Any) -> list[dict[str, Any]]:
    rows, page = [], 0
    while found := world.rows(**selection, page=page):
        rows += found
        page += 1
    return rows


@pytest.fixture(scope="session")
def rows(shared_world: World) -> list[dict[str, Any]]:
    """Everything that changed within 90 days."""
    return all_rows(shared_world, dateRange=3)


def test_every_cell_of_delta_and_percent_follows_from_average_and_value(rows: list[dict[str, Any]]) -> None:
    compared = 0
    for deal in rows:
        for row in range(4):
            for each in range(36):
                average, value = deal["avg"][row][each], deal["current"][each]
                if each in REFERRING:
                    average = deal["avg"][row][0] if deal["avg"][row][0] > 0 else deal["avg"][row][1]
                known = average > 0 and value > 0
                compared += known
                assert deal["delta"][row][each] == (average - value if known else 0)
                assert deal["deltaPercent"][row][each] == (math.floor(100 * (average - value) / average + 0.5) if known else 0)
    assert compared > 5_000


def test_values_since_and_last_change_are_those_of_the_products_history(shared_world: World, rows: list[dict[str, Any]]) -> None:
    for deal in rows[:40]:
        answer = shared_world.get(asin=deal["asin"], domain=3, stats=90, rating=1, buybox=1, update=-1)
        product = answer["products"][0]
        assert (deal["lastUpdate"], deal["title"]) == (product["lastUpdate"], product["title"])
        for each, flat in enumerate(product["csv"]):
            if not flat or each == 8:
                continue
            stride = 3 if each in TRIPLETS else 2
            shippings = flat[2::3] if stride == 3 else [0] * len(flat[1::2])
            values = [price + max(0, shipping) for price, shipping in zip(flat[1::stride], shippings, strict=True)]
            assert deal["current"][each] == values[-1] == product["stats"]["current"][each]
            assert deal["currentSince"][each] == flat[-stride]
            if each not in REFERRING:
                known = len(values) > 1 and min(values[-2:]) >= 0
                assert deal["deltaLast"][each] == (values[-2] - values[-1] if known else 0)
            for row, name in ((2, "avg30"), (3, "avg90")):
                expected = product["stats"][name][each]
                assert abs(deal["avg"][row][each] - expected) <= 1 or (deal["avg"][row][each] < 0 and expected < 0)


@pytest.mark.parametrize("gated", [15, 16, 17, 18, 34, 35])
def test_types_behind_a_gate_are_open_in_deals(rows: list[dict[str, Any]], gated: int) -> None:
    assert any(deal["current"][gated] > 0 for deal in rows)


@pytest.mark.parametrize("price_type", [0, 1, 2, 3, 7, 9, 10, 18, 19, 20, 32])
def test_deal_is_dated_by_the_change_of_the_type_asked_for(shared_world: World, price_type: int) -> None:
    deals = shared_world.rows(priceTypes=[price_type], dateRange=2)
    assert deals
    for deal in deals:
        assert deal["creationDate"] == deal["currentSince"][price_type] >= NOW - 31 * DAY
        assert deal["current"][price_type] > 0
        assert NOW - DAY <= deal["lastUpdate"] <= NOW
        assert (deal["dateIntervalIndex"], len(deal["backInStock"])) == (0, 36)


@pytest.mark.parametrize("date_range", range(4))
def test_every_product_that_changed_within_the_days_is_a_deal_and_no_other(shared_world: World, date_range: int) -> None:
    found = {deal["asin"] for deal in all_rows(shared_world, dateRange=date_range)}
    catalog = shared_world.keepa.catalog
    expected = set()
    for number in range(150):
        answer = shared_world.get(asin=catalog.product(number).asin, domain=3, update=-1, stats=1)["products"][0]
        new = answer["csv"][1]
        if new and len(new) > 2 and new[-1] > 0 and new[-2] >= NOW - DAYS[date_range] * DAY:
            expected.add(answer["asin"])
    assert found & set(catalog.asins(0, 150)) == expected


@pytest.mark.parametrize("weeks", range(0, 30, 3))
def test_real_keyboards_have_deals_in_any_week(new_world: WorldMaker, weeks: int) -> None:
    world = new_world(seed=7, products=47, start_at=START - weeks * 7 * 86_400)
    assert world.rows(isRangeEnabled=True, deltaRange=[100, 1_000_000])
    deals = world.rows(dateRange=2, isRangeEnabled=True, deltaPercentRange=[10, 100])
    assert deals
    assert all(10 <= deal["deltaPercent"][2][1] <= 100 for deal in deals)


NUMBERS: dict[str, Any] = {
    "currentRange": lambda deal: deal["current"][1],
    "deltaRange": lambda deal: deal["delta"][2][1],
    "deltaPercentRange": lambda deal: deal["deltaPercent"][2][1],
    "deltaLastRange": lambda deal: deal["deltaLast"][1],
    "salesRankRange": lambda deal: deal["current"][3],
}
FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({"hasReviews": True}, lambda deal: deal["current"][16] > 0 or deal["current"][17] > 0),
    ({"minRating": 44}, lambda deal: deal["current"][16] >= 44),
    ({"mustHaveAmazonOffer": True}, lambda deal: deal["current"][0] > 0),
    ({"mustNotHaveAmazonOffer": True}, lambda deal: deal["current"][0] <= 0),
    ({"isRisers": True}, lambda deal: deal["delta"][2][1] < 0),
    ({"isBackInStock": True}, lambda deal: deal["backInStock"][1]),
    ({"isPrimeExclusive": True}, lambda deal: deal["current"][33] > 0),
    ({"titleSearch": "LOGITECH rgb"}, lambda deal: "logitech" in deal["title"].lower() and "rgb" in deal["title"].lower()),
    ({"warehouseConditions": [3, 4]}, lambda deal: deal["warehouseCondition"] in (3, 4)),
]


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("currentRange", [2_000, 5_000]),
        ("deltaRange", [200, 100_000]),
        ("deltaPercentRange", [10, 60]),
        ("deltaLastRange", [100, 1_000_000]),
        ("salesRankRange", [1, 5_000]),
        ("salesRankRange", [3_000, -1]),
    ],
)
def test_range_lets_through_what_lies_in_it_and_nothing_else(shared_world: World, name: str, bounds: list[int]) -> None:
    everything = all_rows(shared_world, dateRange=2)
    low, high = bounds[0], bounds[1] if bounds[1] >= 0 else 2**40
    expected = {deal["asin"] for deal in everything if low <= NUMBERS[name](deal) <= high}
    assert 0 < len(expected) < len(everything)
    found = all_rows(shared_world, dateRange=2, isRangeEnabled=True, **{name: bounds})
    assert {deal["asin"] for deal in found} == expected
    assert len(all_rows(shared_world, dateRange=2, isRangeEnabled=False, **{name: bounds})) == len(everything)


@pytest.mark.parametrize(("fields", "holds"), FILTERS, ids=[next(iter(fields)) for fields, _ in FILTERS])
def test_filter_lets_through_what_fulfils_it_and_nothing_else(shared_world: World, fields: dict[str, Any], holds: Any) -> None:
    everything = all_rows(shared_world, dateRange=2)
    expected = {deal["asin"] for deal in everything if holds(deal)}
    found = all_rows(shared_world, dateRange=2, isFilterEnabled=True, **fields)
    assert {deal["asin"] for deal in found} == expected
    assert len(expected) < len(everything)
    assert len(all_rows(shared_world, dateRange=2, isFilterEnabled=False, **fields)) == len(everything)


@pytest.mark.parametrize("name", ["isLowest", "isLowest90"])
def test_lowest_is_what_the_products_statistics_call_so(shared_world: World, name: str) -> None:
    found = {deal["asin"] for deal in all_rows(shared_world, dateRange=2, isFilterEnabled=True, **{name: True})}
    expected = set()
    for deal in all_rows(shared_world, dateRange=2):
        product = shared_world.get(asin=deal["asin"], domain=3, update=-1, stats=90)["products"][0]
        if product["stats"][name][1]:
            expected.add(deal["asin"])
    assert found == expected
    assert len(expected) < 100


def test_out_of_stock_shows_what_lost_its_offer_in_the_last_day(shared_world: World) -> None:
    found = all_rows(shared_world, priceTypes=[9], dateRange=2, isFilterEnabled=True, isOutOfStock=True)
    assert found
    assert all(deal["current"][9] == -1 and deal["currentSince"][9] >= NOW - DAY for deal in found)


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({"includeCategories": [ROOT]}, lambda deal: deal["rootCat"] == ROOT),
        ({"includeCategories": [KEYBOARDS]}, lambda deal: KEYBOARDS in deal["categories"]),
        ({"includeCategories": [ACCESSORIES, UNKNOWN]}, lambda deal: {ACCESSORIES, UNKNOWN} & {*deal["categories"]}),
        ({"excludeCategories": [KEYBOARDS]}, lambda deal: KEYBOARDS not in deal["categories"]),
        ({"includeCategories": [ROOT], "excludeCategories": [ACCESSORIES]}, lambda deal: deal["categories"] == [KEYBOARDS]),
        ({"includeCategories": [427_954_031]}, lambda _: False),
    ],
    ids=["root", "direct", "two", "without", "both", "not listed directly"],
)
def test_categories_root_means_its_tree_and_others_a_direct_listing(shared_world: World, fields: dict[str, Any], holds: Any) -> None:
    everything = all_rows(shared_world, dateRange=2)
    answer = shared_world.deals(dateRange=2, **fields)
    expected = [deal["asin"] for deal in everything if holds(deal)]
    assert [deal["asin"] for deal in all_rows(shared_world, dateRange=2, **fields)] == expected
    counts = dict(zip(answer["deals"]["categoryIds"], answer["deals"]["categoryCount"], strict=True))
    names = dict(zip(answer["deals"]["categoryIds"], answer["deals"]["categoryNames"], strict=True))
    assert sum(counts.values()) == len(everything)
    assert names == {ROOT: "Computer & Zubehör", UNKNOWN: "?"}


@pytest.mark.parametrize(
    ("name", "wanted", "found"), [("brand", ["CHERRY"], True), ("brand", "logitech", True), ("material", ["steel"], False)]
)
def test_text_field_the_catalog_has_not_matches_nothing(shared_world: World, name: str, wanted: Any, found: bool) -> None:
    deals = shared_world.rows(dateRange=2, isFilterEnabled=True, **{name: wanted})
    assert bool(deals) is found
    for deal in deals:
        brand = shared_world.get(asin=deal["asin"], domain=3)["products"][0]["brand"].lower()
        assert brand in ([wanted] if isinstance(wanted, str) else [each.lower() for each in wanted])


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        (1, lambda deal: -deal["creationDate"]),
        (2, lambda deal: -deal["delta"][1][1]),
        (-2, lambda deal: deal["delta"][1][1]),
        (3, lambda deal: deal["current"][3] if deal["current"][3] > 0 else 2**40),
        (-3, lambda deal: -deal["current"][3]),
        (4, lambda deal: -deal["deltaPercent"][1][1]),
        (-4, lambda deal: deal["deltaPercent"][1][1]),
    ],
)
def test_order_is_the_one_asked_for(shared_world: World, sort: int, key: Any) -> None:
    keys = [key(deal) for deal in all_rows(shared_world, sortType=sort)]
    assert len(keys) > 100
    assert keys == sorted(keys)


def test_pages_share_nothing_and_leave_nothing_out(shared_world: World) -> None:
    pages = [shared_world.deals(dateRange=3, page=page) for page in range(3)]
    asins = [deal["asin"] for page in pages for deal in page["deals"]["dr"]]
    assert len(pages[0]["deals"]["dr"]) == 150
    assert len(asins) == len(set(asins)) == sum(pages[0]["deals"]["categoryCount"])
    assert pages[2]["deals"]["dr"] == []


def test_page_costs_5_each_time_and_a_second_one_within_two_minutes_is_cached(new_world: WorldMaker) -> None:
    world = new_world(products=60)
    first, second = world.deals(), world.deals()
    assert (first["dealsCached"], second["dealsCached"]) == (False, True)
    assert first["deals"] == second["deals"]
    assert (first["tokensConsumed"], second["tokensConsumed"], second["tokensLeft"]) == (5, 5, 60_000 - 10)
    world.machine[0] += 119
    assert world.deals()["deals"] == first["deals"]
    world.machine[0] += 2
    later = world.deals()
    assert later["dealsCached"] is False
    assert world.deals(page=1)["dealsCached"] is False


def test_post_and_get_answer_alike(new_world: WorldMaker) -> None:
    world = new_world(products=60)
    assert world.deals(method="POST", includeCategories=[UNKNOWN, ROOT])["deals"] == world.deals(includeCategories=[UNKNOWN, ROOT])["deals"]


def test_two_worlds_with_one_seed_show_the_same_deals(new_world: WorldMaker) -> None:
    assert new_world(products=60).deals()["deals"] == new_world(products=60).deals()["deals"]


def test_deals_move_with_the_clock_across_the_quarters(new_world: WorldMaker) -> None:
    world = new_world(products=60)
    for _ in range(5):
        world.machine[0] += 40 * 86_400
        now = int(world.machine[0]) // 60 - KEEPA_EPOCH_MINUTES
        deals = world.rows()
        assert deals
        assert all(now - 7 * DAY <= deal["creationDate"] <= now for deal in deals)
        deal = deals[0]
        stats = world.get(asin=deal["asin"], domain=3, update=-1, stats=90)["products"][0]["stats"]
        assert abs(deal["avg"][3][1] - stats["avg90"][1]) <= 1


def test_product_fetched_by_the_client_is_a_fresh_deal(new_world: WorldMaker) -> None:
    world = new_world(products=60)
    asins = {deal["asin"] for deal in world.rows(dateRange=3)}
    world.get(asin=",".join(asins), domain=3, update=0)
    world.machine[0] += 180
    assert min(deal["lastUpdate"] for deal in world.rows(dateRange=3) if deal["asin"] in asins) == int(NOW)


def test_some_rows_have_no_image_a_parent_or_an_entity_in_the_title(rows: list[dict[str, Any]]) -> None:
    assert 0 < sum(deal["image"] is None for deal in rows) < len(rows) / 10
    assert all("".join(map(chr, deal["image"])).endswith(".jpg") for deal in rows if deal["image"])
    assert 0 < sum("parentAsin" in deal for deal in rows) < len(rows)
    assert any(html.unescape(deal["title"]) != deal["title"] for deal in rows)
    assert any(deal["categories"] == [deal["rootCat"]] == [UNKNOWN] for deal in rows)


def test_warehouse_condition_comes_with_a_comment_and_an_offer(rows: list[dict[str, Any]]) -> None:
    for deal in rows:
        assert ("warehouseConditionComment" in deal) is (deal["warehouseCondition"] > 0) is (deal["current"][9] > 0)


def test_running_lightning_deal_shows_its_span(new_world: WorldMaker) -> None:
    world = new_world(products=47)
    history = world.keepa.catalog.history(world.keepa.catalog.product(0), 3, int(NOW))
    start, end = next(window for window in history.lightning_windows if window[0] > NOW - 300 * DAY)
    world.machine[0] = (start + 60 + KEEPA_EPOCH_MINUTES) * 60.0
    asin = world.product(0, update=0)["asin"]
    (deal,) = [deal for deal in world.rows(priceTypes=[8], dateRange=0) if deal["asin"] == asin]
    assert (deal["lightningStart"], deal["lightningEnd"]) == (start, end)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"domainId": 12}, 400),
        ({"domainId": 7}, 400),
        ({"domainId": None}, 400),
        ({"domainId": "3"}, 400),
        ({"priceTypes": []}, 400),
        ({"priceTypes": [0, 1]}, 400),
        ({"priceTypes": 1}, 400),
        ({"priceTypes": [4]}, 405),
        ({"priceTypes": [23]}, 405),
        ({"page": -1}, 405),
        ({"page": 67}, 405),
        ({"dateRange": 4}, 405),
        ({"sortType": -1}, 405),
        ({"sortType": 0}, 405),
        ({"isRangeEnabled": True, "deltaPercentRange": [9, 100]}, 405),
        ({"isRangeEnabled": True, "deltaPercentRange": [20, 100], "priceTypes": [3]}, 405),
        ({"currentRange": [5]}, 400),
        ({"currentRange": [5, 1]}, 405),
        ({"minRating": 51}, 405),
        ({"isLowest": "yes"}, 400),
        ({"includeCategories": list(range(501))}, 405),
        ({"titleSearch": " ".join(["a"] * 51)}, 405),
        ({"brand": [1]}, 400),
    ],
    ids=str,
)
def test_bad_selection_costs_nothing_and_says_so(shared_world: World, fields: dict[str, Any], status: int) -> None:
    answer = shared_world.deals(**fields)
    assert (answer["status"], answer["tokensConsumed"]) == (status, 0)
    assert answer["error"]["type"] == "invalidParameter"
    assert "deals" not in answer


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\ufffd", "[" * 100_000])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_selection_that_is_no_json_object_is_400(shared_world: World, method: str, text: str) -> None:
    parameters = {"key": DEFAULT_KEY} | ({"selection": text} if method == "GET" else {})
    assert shared_world.keepa.answer("/deal", parameters, method=method, content=text.encode()).status == 400


@pytest.mark.parametrize("domain", [5, 10])
def test_marketplace_without_products_has_no_deals(shared_world: World, domain: int) -> None:
    answer = shared_world.deals(domainId=domain)
    assert (answer["status"], answer["deals"]["dr"], answer["deals"]["categoryIds"], answer["tokensConsumed"]) == (200, [], [], 5)


def test_unknown_fields_and_nulls_are_ignored(shared_world: World) -> None:
    assert shared_world.deals(aNewFilter=[1], brand=None, currentRange=None)["deals"] == shared_world.deals()["deals"]


def test_empty_bucket_waits(new_world: WorldMaker) -> None:
    world = new_world(products=47, tokens=1)
    assert (world.deals()["tokensLeft"], world.deals()["status"]) == (-4, 429)


@pytest.mark.parametrize("kind", ["500", "429", "in_body_error"])
def test_status_fault_has_no_deals(new_world: WorldMaker, kind: str) -> None:
    world = new_world(products=47)
    world.keepa.faults.order(Fault(kind), count=1, path="/deal")
    answer = world.deals()
    assert ("deals" in answer, answer["tokensConsumed"]) == (False, 0)


def test_holes_break_the_first_rows_of_this_answer_only(new_world: WorldMaker) -> None:
    world = new_world(products=100)
    whole = world.rows(dateRange=3)
    world.keepa.faults.order(Fault("deal_holes"), count=1)
    broken: list[Any] = world.deals(dateRange=3)["deals"]["dr"]
    assert len(broken) == len(whole) > 9
    assert broken[0] is None
    assert "current" not in broken[1]
    assert "title" not in broken[2]
    assert len(broken[3]["current"]) == 37
    assert (broken[4]["current"][1], broken[5]["current"][1]) == (-2, 0)
    assert broken[6]["title"].startswith("<b>")
    assert "asin" not in broken[7]
    assert broken[9:] == whole[9:]
    assert world.rows(dateRange=3) == whole


def test_extra_fields_come_on_top_of_right_rows(new_world: WorldMaker) -> None:
    world = new_world(products=60)
    whole = world.rows()
    world.keepa.faults.order(Fault("extra_fields"), count=1)
    strange = world.rows()
    assert strange[0].keys() - whole[0].keys() == {"simulatedUnknown"}
    assert strange[0]["current"][:36] == whole[0]["current"]
    assert world.rows() == whole


def test_log_names_the_selection_and_no_key(new_world: WorldMaker) -> None:
    world = new_world(products=47)
    world.deals(method="POST")
    (call,) = world.keepa.control("GET", "requests", {}).body["calls"]
    assert (call["path"], call["tokens_consumed"]) == ("/deal", 5)
    assert json.loads(call["parameters"]["selection"])["domainId"] == 3
    assert DEFAULT_KEY not in json.dumps(call)


def test_large_catalog_shows_the_real_keyboards_and_a_share_of_the_others(new_world: WorldMaker) -> None:
    world = new_world(products=100_000, listed=100)
    asins = {deal["asin"] for deal in world.rows(dateRange=3)}
    assert 60 < len(asins) <= 100
    assert len(asins & set(world.keepa.catalog.asins(0, 47))) > 40
    for deal in world.rows(dateRange=3)[:5]:
        assert world.get(asin=deal["asin"], domain=3, update=-1, stats=1)["products"][0]["stats"]["current"][1] == deal["current"][1]


def test_share_of_nothing_is_refused(new_world: WorldMaker) -> None:
    with pytest.raises(ValueError, match="listed"):
        new_world(listed=0)
