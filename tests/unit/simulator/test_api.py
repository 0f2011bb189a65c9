from typing import Any

import pytest

from keeper.simulator.api import DEFAULT_KEY
from keeper.simulator.catalog import make_ean
from keeper.simulator.faults import Fault
from tests.unit.simulator.conftest import World, WorldMaker

ENVELOPE = {"timestamp", "tokensLeft", "refillIn", "refillRate", "tokenFlowReduction", "tokensConsumed", "processingTimeInMs"}
ASIN = "B08DG4C63H"


def test_token_status_costs_nothing_and_runs_on_an_empty_bucket(new_world: WorldMaker) -> None:
    world = new_world(tokens=-5)
    answer = world.get("/token")
    assert answer.keys() == ENVELOPE | {"status"}
    assert (answer["status"], answer["tokensLeft"], answer["tokensConsumed"]) == (200, -5, 0)


@pytest.mark.parametrize("path", ["/product", "/product/"])
def test_product_is_answered_with_and_without_a_trailing_slash(shared_world: World, path: str) -> None:
    assert shared_world.get(path, asin=ASIN, domain=3)["products"][0]["asin"] == ASIN


@pytest.mark.parametrize("key", ["", "short", "x" * 63, "x" * 65])
def test_wrong_key_gets_400_with_every_token_field_zero(shared_world: World, key: str) -> None:
    answer = shared_world.keepa.answer("/token", {"key": key})
    assert answer.status == 400
    assert answer.body["error"]["type"] == "invalidParameter"
    assert {answer.body[name] for name in ("tokensLeft", "refillIn", "refillRate", "tokensConsumed")} == {0}


def test_every_key_has_a_bucket_of_its_own(new_world: WorldMaker) -> None:
    world = new_world(rate=10)
    world.get(asin=ASIN, domain=3)
    assert world.keepa.answer("/token", {"key": "y" * 64}).body["tokensLeft"] == 600


def test_only_the_one_key_is_accepted_where_one_is_set(new_world: WorldMaker) -> None:
    world = new_world(key="k" * 64)
    assert world.keepa.answer("/token", {"key": "k" * 64}).status == 200
    assert world.get("/token")["status"] == 400


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"asin": ASIN}, 400),
        ({"asin": ASIN, "domain": 7}, 400),
        ({"asin": ASIN, "domain": 99}, 400),
        ({"asin": ASIN, "domain": "de"}, 400),
        ({"domain": 3}, 400),
        ({"domain": 3, "asin": ASIN, "code": "4012718281828"}, 400),
        ({"domain": 3, "asin": ",".join(f"B{n:09d}" for n in range(101))}, 400),
        ({"domain": 3, "asin": ASIN, "stats": "x"}, 400),
        ({"domain": 3, "asin": ASIN, "stats": "2026-01-01,never"}, 400),
        ({"domain": 3, "asin": ASIN, "history": "2"}, 400),
        ({"domain": 3, "asin": ASIN, "stock": 1}, 400),
        ({"domain": 3, "asin": ASIN, "stats": -1}, 405),
        ({"domain": 3, "asin": ASIN, "stats": "2026-02-01,2026-01-01"}, 405),
        ({"domain": 3, "asin": ASIN, "days": 0}, 405),
        ({"domain": 3, "asin": ASIN, "offers": 19}, 405),
        ({"domain": 3, "asin": ASIN, "offers": 101}, 405),
        ({"domain": 3, "code": "4012718281828", "code_limit": 0}, 405),
    ],
)
def test_bad_parameter_costs_nothing_and_says_so(new_world: WorldMaker, parameters: dict[str, Any], status: int) -> None:
    answer = new_world().get(**parameters)
    assert (answer["status"], answer["tokensConsumed"], answer["tokensLeft"]) == (status, 0, 60_000)
    assert answer["error"]["type"] == "invalidParameter"
    assert "products" not in answer


@pytest.mark.parametrize("path", ["/deals", "/products", "/", "/product/x"])
def test_unknown_path_is_404(shared_world: World, path: str) -> None:
    assert shared_world.get(path)["status"] == 404


def test_wrong_method_is_405(shared_world: World) -> None:
    assert shared_world.keepa.answer("/product", {"key": DEFAULT_KEY}, method="POST").status == 405


def test_request_runs_on_the_last_token_and_the_next_one_waits(new_world: WorldMaker) -> None:
    world = new_world(tokens=1)
    asins = ",".join(world.keepa.catalog.asins(0, 47))
    first = world.get(asin=asins, domain=3)
    assert (first["status"], first["tokensConsumed"], first["tokensLeft"]) == (200, 47, -46)
    second = world.get(asin=ASIN, domain=3)
    assert (second["status"], second["tokensConsumed"], second["tokensLeft"]) == (429, 0, -46)
    assert 0 < second["refillIn"] <= 60_000
    world.machine[0] += 60
    assert world.get(asin=ASIN, domain=3)["status"] == 200


def test_answers_come_in_the_order_asked_for_each_asin_once(shared_world: World) -> None:
    asins = shared_world.keepa.catalog.asins(40, 50)[::-1]
    answer = shared_world.get(asin=",".join([*asins, asins[0]]), domain=3)
    assert [product["asin"] for product in answer["products"]] == asins
    assert answer["tokensConsumed"] == len(asins)


def test_unknown_asin_is_an_entry_without_content_for_one_token(shared_world: World) -> None:
    answer = shared_world.get(asin="B000000000", domain=3, stats=30)
    (product,) = answer["products"]
    assert (product["asin"], product["productType"], product["title"], answer["tokensConsumed"]) == ("B000000000", 4, None, 1)
    assert product.keys() == shared_world.product(0).keys() - {"hazardousMaterials", "returnRate"}


def test_unknown_asin_with_update_minus_1_is_free_and_absent(shared_world: World) -> None:
    answer = shared_world.get(asin=f"B000000000,{ASIN}", domain=3, update=-1)
    assert ([product["asin"] for product in answer["products"]], answer["tokensConsumed"]) == ([ASIN], 1)


def test_malformed_asins_alone_give_an_answer_without_products(shared_world: World) -> None:
    answer = shared_world.get(asin="XXXXXXXXXX", domain=3)
    assert (answer["status"], answer["tokensConsumed"], "products" in answer) == (200, 0, False)


def test_malformed_asin_among_good_ones_is_left_out(shared_world: World) -> None:
    answer = shared_world.get(asin=f"XXXXXXXXXX,{ASIN}", domain=3)
    assert ([product["asin"] for product in answer["products"]], answer["tokensConsumed"]) == ([ASIN], 1)


def test_code_finds_every_product_that_carries_it_up_to_the_limit(shared_world: World) -> None:
    numbers = [shared_world.keepa.catalog.product(number).asin for number in (58, 59)]
    both = shared_world.get(code=make_ean(58), domain=3)
    assert ([product["asin"] for product in both["products"]], both["tokensConsumed"]) == (numbers, 2)
    one = shared_world.get(code=make_ean(58), domain=3, code_limit=1)
    assert ([product["asin"] for product in one["products"]], one["tokensConsumed"]) == (numbers[:1], 1)


def test_unknown_code_finds_nothing_for_nothing(shared_world: World) -> None:
    answer = shared_world.get(code="4006381333931", domain=3)
    assert (answer["products"], answer["tokensConsumed"]) == ([], 0)


def test_data_seen_once_never_get_older_again(new_world: WorldMaker) -> None:
    world = new_world()
    for number in range(20):
        fresh = world.product(number, update=0)["lastUpdate"]
        assert world.product(number, update=-1)["lastUpdate"] == fresh
        assert world.product(number)["lastUpdate"] == fresh


def test_update_0_shows_this_very_minute(new_world: WorldMaker) -> None:
    world = new_world()
    world.machine[0] += 12_345
    product = world.product(3, update=0)
    assert product["lastUpdate"] == int(world.machine[0]) // 60 - 21_564_000


def test_never_refreshing_leaves_old_data_old(new_world: WorldMaker) -> None:
    world = new_world()
    ages = [int(world.machine[0]) // 60 - 21_564_000 - world.product(number, update=-1)["lastUpdate"] for number in range(46)]
    assert max(ages) > 60


def test_second_fetch_of_offers_within_the_hour_is_flat_5(new_world: WorldMaker) -> None:
    world = new_world()
    asin = world.keepa.catalog.product(0).asin
    first = world.get(asin=asin, domain=3, offers=20)
    second = world.get(asin=asin, domain=3, offers=20)
    assert (first["tokensConsumed"], second["tokensConsumed"]) == (6, 5)
    assert second["products"][0]["offers"] == first["products"][0]["offers"]


@pytest.mark.parametrize(("status", "code"), [("invalid", 400), ("unpaid", 402), ("valid", 200)])
def test_key_can_be_made_unusable_and_usable_again(new_world: WorldMaker, status: str, code: int) -> None:
    world = new_world()
    world.keepa.control("POST", "key", {"status": "unpaid"})
    world.keepa.control("POST", "key", {"status": status})
    assert world.get("/token")["status"] == code


@pytest.mark.parametrize(
    ("kind", "status"), [("429", 429), ("500", 500), ("503", 503), ("402", 402), ("400", 400), ("invalid_key", 400), ("in_body_error", 200)]
)
def test_status_fault_takes_no_tokens(new_world: WorldMaker, kind: str, status: int) -> None:
    world = new_world()
    world.keepa.faults.order(Fault(kind), count=1)
    answer = world.get(asin=ASIN, domain=3)
    assert (answer["status"], answer["tokensConsumed"]) == (status, 0)
    assert "products" not in answer
    assert answer["error"]["type"]
    assert world.get("/token")["tokensLeft"] == 60_000


def test_missing_asin_is_not_charged(new_world: WorldMaker) -> None:
    world = new_world()
    world.keepa.faults.order(Fault("missing_asin"), count=1)
    other = world.keepa.catalog.product(1).asin
    answer = world.get(asin=f"{ASIN},{other}", domain=3)
    assert ([product["asin"] for product in answer["products"]], answer["tokensConsumed"]) == ([other], 1)


def test_extra_fields_come_on_top_of_a_right_answer(new_world: WorldMaker) -> None:
    world = new_world()
    plain = world.product(0, stats=30)
    world.keepa.faults.order(Fault("extra_fields"), count=1)
    strange = world.product(0, stats=30)
    assert strange.keys() - plain.keys() == {"simulatedUnknown"}
    assert strange["csv"][:36] == plain["csv"]
    assert len(strange["csv"]) == 38


def test_log_counts_calls_by_status_and_holds_no_key(new_world: WorldMaker) -> None:
    world = new_world(tokens=1)
    for _ in range(3):
        world.get(asin=ASIN, domain=3)
    calls = world.keepa.control("GET", "requests", {"last": "2"}).body
    assert (calls["total"], calls["by_status"], calls["tokens_consumed"]) == (3, {"200": 1, "429": 2}, 1)
    assert [call["status"] for call in calls["calls"]] == [429, 429]
    assert DEFAULT_KEY not in str(calls)
    assert DEFAULT_KEY not in str(world.keepa.describe())


def test_control_moves_clock_tokens_and_rate(new_world: WorldMaker) -> None:
    world = new_world(rate=20)
    control = world.keepa.control
    before = world.keepa.clock.now()
    control("POST", "tokens", {"tokens": 100})
    control("POST", "spend", {"tokens": 30})
    state = control("POST", "rate", {"refill_per_minute": 50, "token_flow_reduction": 10}).body
    (balance,) = state["keys"].values()
    assert (balance["tokens_left"], balance["refill_per_minute"], balance["capacity"]) == (70, 50, 3000)
    control("POST", "jump", {"seconds": 120})
    assert world.keepa.clock.now() == before + 120
    answer = world.get("/token")
    assert (answer["tokensLeft"], answer["refillRate"], answer["tokenFlowReduction"]) == (150, 50, 10)


@pytest.mark.parametrize(
    ("name", "wish"),
    [
        ("jump", {}),
        ("jump", {"seconds": -1}),
        ("jump", {"seconds": "soon"}),
        ("speed", {"speed": 0}),
        ("clock", {"anchor_machine": 1}),
        ("tokens", {"tokens": None}),
        ("rate", {"refill_per_minute": 0}),
        ("rate", {"token_flow_reduction": -1}),
        ("key", {"status": "lost"}),
        ("key", {"status": "valid", "key": 5}),
        ("faults", {"kind": "418"}),
        ("faults", {"kind": "500", "next": 0}),
    ],
)
def test_control_refuses_what_makes_no_sense(new_world: WorldMaker, name: str, wish: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        new_world().keepa.control("POST", name, wish)


def test_unknown_control_endpoint_does_not_exist(new_world: WorldMaker) -> None:
    with pytest.raises(LookupError):
        new_world().keepa.control("GET", "jump", {})


def test_set_back_clock_shows_nothing_from_the_future(new_world: WorldMaker) -> None:
    world = new_world()
    world.product(0, update=0, offers=20)
    world.keepa.control("POST", "clock", {"anchor_machine": world.machine[0], "anchor_simulated": world.machine[0] - 86_400, "speed": 1})
    now = int(world.machine[0] - 86_400) // 60 - 21_564_000
    assert world.product(0, update=-1)["lastUpdate"] <= now
