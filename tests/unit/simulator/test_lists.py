"""`/category`, `/bestsellers` and `/search`."""

from typing import Any

import pytest

from keeper.simulator.catalog import MARKETPLACES
from tests.unit.simulator.conftest import World, WorldMaker

ROOT, MIDDLE, KEYBOARDS, ACCESSORIES, TOYS = 340_843_031, 427_954_031, 430_178_031, 430_179_031, 12_950_651


def categories(world: World, wanted: object, **parameters: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = world.get("/category", domain=3, category=wanted, **parameters)["categories"]
    return found


@pytest.mark.parametrize("domain", sorted(MARKETPLACES))
def test_roots_are_keyboards_root_and_two_more(shared_world: World, domain: int) -> None:
    answer = shared_world.get("/category", domain=domain, category=0)
    assert (len(answer["categories"]), answer["tokensConsumed"]) == (3, 1)
    assert all((category["parent"], category["domainId"]) == (0, domain) for category in answer["categories"].values())
    assert MARKETPLACES[domain].root[1] in {category["name"] for category in answer["categories"].values()}


def test_tree_is_that_of_the_products(shared_world: World) -> None:
    wanted = ",".join(map(str, (ROOT, MIDDLE, KEYBOARDS, ACCESSORIES)))
    found = categories(shared_world, wanted)
    for number in range(47, 150):
        for step, node in enumerate(tree := shared_world.product(number)["categoryTree"] or []):
            category = found[str(node["catId"])]
            assert category["name"] == node["name"]
            assert category["parent"] == (tree[step - 1]["catId"] if step else 0)
    for key, category in found.items():
        assert all(found[str(child)]["parent"] == int(key) for child in category["children"] or [])
    assert found[str(KEYBOARDS)]["productCount"] > found[str(ACCESSORIES)]["productCount"] > 0
    assert found[str(ROOT)]["productCount"] == found[str(KEYBOARDS)]["productCount"] + found[str(ACCESSORIES)]["productCount"]


def test_parents_come_on_wish_and_up_to_the_root(shared_world: World) -> None:
    assert "categoryParents" not in shared_world.get("/category", domain=3, category=KEYBOARDS)
    answer = shared_world.get("/category", domain=3, category=KEYBOARDS, parents=1)
    assert (set(answer["categories"]), set(answer["categoryParents"])) == ({str(KEYBOARDS)}, {str(MIDDLE), str(ROOT)})
    assert answer["tokensConsumed"] == 1


def test_unknown_category_is_left_out(shared_world: World) -> None:
    answer = shared_world.get("/category", domain=3, category=f"5,{KEYBOARDS}")
    assert (set(answer["categories"]), answer["tokensConsumed"]) == ({str(KEYBOARDS)}, 1)
    assert shared_world.get("/category", domain=3, category="9223372036854775807")["categories"] == {}


@pytest.mark.parametrize(
    ("path", "parameters", "status"),
    [
        ("/category", {}, 400),
        ("/category", {"category": "a"}, 400),
        ("/category", {"category": ",".join(map(str, range(1, 12)))}, 400),
        ("/category", {"category": 0, "domain": 12}, 400),
        ("/category", {"category": 0, "parents": 2}, 400),
        ("/bestsellers", {}, 400),
        ("/bestsellers", {"category": ROOT, "domain": 12}, 400),
        ("/bestsellers", {"category": ROOT, "range": 60}, 405),
        ("/bestsellers", {"category": ROOT, "month": 5}, 400),
        ("/bestsellers", {"category": ROOT, "month": 5, "year": 2026, "range": 30}, 400),
        ("/bestsellers", {"category": ROOT, "month": 13, "year": 2026}, 405),
        ("/bestsellers", {"category": ROOT, "month": 11, "year": 2026}, 405),
        ("/bestsellers", {"category": ROOT, "month": 10, "year": 2023}, 405),
        ("/bestsellers", {"category": ROOT, "sublist": 1, "range": 30}, 400),
        ("/search", {"type": "product"}, 400),
        ("/search", {"term": "x"}, 400),
        ("/search", {"type": "seller", "term": "x"}, 400),
        ("/search", {"type": "category", "term": "ab"}, 400),
        ("/search", {"type": "product", "term": "x", "domain": 12}, 400),
    ],
    ids=str,
)
def test_bad_parameter_costs_nothing_and_says_so(shared_world: World, path: str, parameters: dict[str, Any], status: int) -> None:
    answer = shared_world.get(path, **({"domain": 3} | parameters))
    assert (answer["status"], answer["tokensConsumed"]) == (status, 0)
    assert answer["error"]["type"] == "invalidParameter"


@pytest.mark.parametrize("path", ["/category", "/bestsellers", "/search"])
def test_post_is_405(shared_world: World, path: str) -> None:
    assert shared_world.keepa.answer(path, {"key": "x" * 64}, method="POST").status == 405


@pytest.mark.parametrize("path", ["/category", "/bestsellers", "/search", "/query", "/deal"])
def test_empty_bucket_waits(new_world: WorldMaker, path: str) -> None:
    world = new_world(products=47, tokens=0)
    selection = '{"domainId": 3, "priceTypes": [1], "hasReviews": true}' if path == "/deal" else '{"hasReviews": true}'
    answer = world.get(path, domain=3, category=ROOT, type="category", term="tastatur", selection=selection)
    assert (answer["status"], answer["tokensConsumed"]) == (429, 0)
    assert answer["refillIn"] > 0


@pytest.mark.parametrize("category", [ROOT, MIDDLE, KEYBOARDS, ACCESSORIES])
def test_best_sellers_are_the_categorys_products_in_order_of_rank(shared_world: World, category: int) -> None:
    answer = shared_world.get("/bestsellers", domain=3, category=category, variations=1)
    asins = answer["bestSellersList"]["asinList"]
    products = [
        product
        for start in range(0, len(asins), 100)
        for product in shared_world.get(asin=",".join(asins[start : start + 100]), domain=3, update=0, stats=1, history=1)["products"]
    ]
    assert all(category in {node["catId"] for node in product["categoryTree"]} for product in products)
    rebuilt = answer["bestSellersList"]["lastUpdate"]
    ranks = [
        next(rank for at, rank in zip(product["csv"][3][-2::-2], product["csv"][3][-1::-2], strict=True) if at <= rebuilt)
        for product in products
    ]
    assert len(ranks) > 10
    assert ranks == sorted(ranks)
    assert (answer["tokensConsumed"], answer["bestSellersList"]["categoryId"]) == (50, category)


@pytest.mark.parametrize("category", [TOYS, 5, "wireless"])
def test_category_without_a_list_costs_nothing(shared_world: World, category: object) -> None:
    answer = shared_world.get("/bestsellers", domain=3, category=category)
    assert (answer["status"], answer["bestSellersList"], answer["tokensConsumed"]) == (200, None, 0)


def test_family_is_one_best_seller_unless_variations_are_asked_for(shared_world: World) -> None:
    few, many = (
        shared_world.get("/bestsellers", domain=3, category=ROOT, variations=variations)["bestSellersList"]["asinList"]
        for variations in (0, 1)
    )
    children = set(shared_world.keepa.catalog.asins(90, 96))
    assert len(children & set(few)) == 1
    assert len(children & set(many)) > 1


@pytest.mark.parametrize("parameters", [{"range": 30}, {"range": 180}, {"month": 10, "year": 2026}, {"sublist": 1}], ids=str)
def test_best_sellers_of_other_windows_are_the_same_products(shared_world: World, parameters: dict[str, Any]) -> None:
    now = shared_world.get("/bestsellers", domain=3, category=ROOT, variations=1)["bestSellersList"]["asinList"]
    other = shared_world.get("/bestsellers", domain=3, category=ROOT, variations=1, **parameters)["bestSellersList"]["asinList"]
    assert set(other) == set(now)


def test_search_finds_products_by_every_word_of_the_title(shared_world: World) -> None:
    answer = shared_world.get("/search", domain=3, type="product", term="Logitech KEYBOARD", history=0)
    titles = [product["title"].lower() for product in answer["products"]]
    assert 0 < len(titles) <= 20
    assert all("logitech" in title and "keyboard" in title for title in titles)
    assert answer["tokensConsumed"] == 10


def test_search_answers_with_asins_alone_on_wish(shared_world: World) -> None:
    products = shared_world.get("/search", domain=3, type="product", term="cherry", history=0)["products"]
    answer = shared_world.get("/search", domain=3, type="product", term="cherry", asins_only=1)
    assert answer["asinList"] == [product["asin"] for product in products]
    assert ("products" in answer, answer["tokensConsumed"]) == (False, 10)


def test_search_for_a_common_word_stops_at_20(shared_world: World) -> None:
    assert len(shared_world.get("/search", domain=3, type="product", term="tastatur", asins_only=1)["asinList"]) == 20


def test_rating_adds_at_most_5_tokens_to_a_search(shared_world: World) -> None:
    assert shared_world.get("/search", domain=3, type="product", term="tastatur", rating=1, history=0)["tokensConsumed"] == 15


def test_search_for_nothing_there_still_costs_10(shared_world: World) -> None:
    answer = shared_world.get("/search", domain=3, type="product", term="harpsichord")
    assert (answer["products"], answer["tokensConsumed"]) == ([], 10)


def test_search_finds_categories_by_every_word_of_the_name(shared_world: World) -> None:
    answer = shared_world.get("/search", domain=3, type="category", term="Tastatur Zubehör in")
    assert (set(answer["categories"]), answer["tokensConsumed"]) == ({str(ACCESSORIES)}, 1)
