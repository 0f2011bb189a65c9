"""Every answer has the keys and JSON types of the recorded ones."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from keeper.simulator.server import Simulator

pytestmark = pytest.mark.recordings

COMPLETE = ("product_us_B0D8W1YVBX_stats_rating_buybox_4tokens.json", {"stats": 180, "rating": 1, "buybox": 1, "videos": 1, "aplus": 1})
PLAIN = ("product_us_B0D8W1YVBX_1token.json", {"stats": 0, "videos": 1, "aplus": 1})
WITH_OFFERS = "product_us_code_lookup_offers_47tokens_2025.json"
TRUNCATED = "productobj_de_B0BFRDGFP6_stats90_csv_truncated.json"
# Keys of 2025 that Keepa has removed since, and those of the recorded product's category.
REMOVED_OFFER_KEYS = {"isAddonItem", "isScam"}
# Keys of other products than the recorded one: a perfume recorded in 2025 has the first, Keepa documents both.
OTHER_KEYS = {"hazardousMaterials", "returnRate"}
PRODUCTS = 90


def recording(name: str) -> Any:
    return json.loads((Path(os.environ["KEEPER_RECORDINGS"]) / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(products=PRODUCTS, refill_per_minute=1000) as running:
        yield running


def ask(simulator: Simulator, **parameters: Any) -> dict[str, Any]:
    asins = ",".join(simulator.keepa.catalog.asins())
    response = httpx.get(f"{simulator.url}/product", params={"key": simulator.key, "asin": asins, "domain": 1, **parameters}, timeout=60)
    answer: dict[str, Any] = response.json()
    return answer


def kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    return type(value).__name__


def differences(path: str, recorded: Any, ours: Any) -> list[str]:
    """Names where an answer of ours cannot stand for the recorded one; null may stand for anything and anything for null."""
    if recorded is None or ours is None:
        return []
    if kind(recorded) != kind(ours):
        return [f"{path}: {kind(recorded)} recorded, {kind(ours)} here"]
    found = []
    if isinstance(recorded, dict) and path.rsplit(".", 1)[-1] not in ("salesRanks", "buyBoxStats"):
        found += [f"{path}: {name} missing" for name in recorded.keys() - ours.keys()]
        found += [f"{path}: {name} unknown" for name in ours.keys() - recorded.keys()]
        for name in recorded.keys() & ours.keys():
            found += differences(f"{path}.{name}", recorded[name], ours[name])
    elif isinstance(recorded, dict):
        for value in ours.values():
            found += differences(f"{path}[]", next(iter(recorded.values())), value)
    elif isinstance(recorded, list) and recorded:
        examples = {kind(value): value for value in recorded if value is not None}
        for value in ours:
            if value is not None and examples:
                found += [f"{path}: no {kind(value)} recorded"] if kind(value) not in examples else []
                found += differences(f"{path}[]", examples.get(kind(value)), value)
    return found


@pytest.mark.parametrize(("name", "options"), [COMPLETE, PLAIN], ids=["complete", "plain"])
def test_product_answer_has_the_recorded_keys_and_types(simulator: Simulator, name: str, options: dict[str, Any]) -> None:
    recorded = recording(name)
    answer = ask(simulator, **options)
    found = set(
        differences(
            "envelope", {k: v for k, v in recorded.items() if k != "products"}, {k: v for k, v in answer.items() if k != "products"}
        )
    )
    for product in answer["products"]:
        found |= set(differences("product", recorded["products"][0], {k: v for k, v in product.items() if k not in OTHER_KEYS}))
    # A+ modules and videos are empty here; a keyboard's tree has no such thing as an ingredient.
    assert found == set()


@pytest.mark.parametrize(("name", "options"), [COMPLETE, PLAIN], ids=["complete", "plain"])
def test_what_a_price_watch_needs_is_never_null(simulator: Simulator, name: str, options: dict[str, Any]) -> None:
    recorded = recording(name)["products"][0]
    needed = {"asin", "domainId", "title", "brand", "images", "rootCategory", "categories", "eanList", "lastUpdate", "trackingSince", "csv"}
    assert all(recorded[name] is not None for name in needed)
    for product in ask(simulator, **options)["products"]:
        assert not [name for name in needed if product[name] is None]
        assert not [
            name for name, value in recorded["stats"].items() if isinstance(value, list) and len(value) == 36 and not product["stats"][name]
        ]


@pytest.mark.parametrize(("name", "options"), [COMPLETE, PLAIN], ids=["complete", "plain"])
def test_arrays_are_as_long_and_gated_types_as_open_as_recorded(simulator: Simulator, name: str, options: dict[str, Any]) -> None:
    recorded = recording(name)["products"][0]
    for product in ask(simulator, **options)["products"]:
        assert len(product["csv"]) == len(recorded["csv"]) == 36
        for gated in (7, 9, 10, 15, 16, 17, 18, *range(19, 28), 32):
            if recorded["csv"][gated] is None:
                assert product["csv"][gated] is None
                assert product["stats"]["current"][gated] == -1


def test_offers_have_the_recorded_keys_and_types(simulator: Simulator) -> None:
    recorded = recording(WITH_OFFERS)["products"][0]
    example = {name: value for name, value in recorded["offers"][0].items() if name not in REMOVED_OFFER_KEYS}
    answer = ask(simulator, offers=20, history=0)
    offers = [offer for product in answer["products"] for offer in product["offers"] or ()]
    assert offers
    assert {difference for offer in offers for difference in differences("offer", example, offer)} == set()
    for name in ("csv", "salesRanks", "buyBoxSellerIdHistory", "salesRankReferenceHistory", "stats"):
        assert recorded[name] is None
        assert all(product[name] is None for product in answer["products"])


def test_german_product_has_the_recorded_statistics(simulator: Simulator) -> None:
    recorded = recording(TRUNCATED)
    product = ask(simulator, domain=3, stats=90)["products"][0]
    assert {name for name in recorded if not name.startswith("_")} <= product.keys()
    assert recorded["stats"].keys() <= product["stats"].keys()
    assert [found for name in recorded["stats"] for found in differences(name, recorded["stats"][name], product["stats"][name])] == []


DEALS = "deal_de_amazon_week_page0_150deals.json"
SOMETIMES = {"parentAsin", "warehouseConditionComment"}


@pytest.fixture(scope="module")
def deal_answer(simulator: Simulator) -> dict[str, Any]:
    selection = {"domainId": 3, "priceTypes": [1], "page": 0, "dateRange": 3}
    response = httpx.post(f"{simulator.url}/deal", params={"key": simulator.key}, json=selection, timeout=60)
    answer: dict[str, Any] = response.json()
    return answer


def test_deal_rows_have_the_recorded_keys_and_types(deal_answer: dict[str, Any]) -> None:
    recorded = recording(DEALS)["deals"]["dr"]
    always = set.intersection(*(set(row) for row in recorded))
    commented = next(row for row in recorded if row.keys() >= SOMETIMES and row["image"])
    rows = deal_answer["deals"]["dr"]
    assert len(rows) > 30
    for row in rows:
        assert row.keys() - SOMETIMES == always
        assert [found for name in row for found in differences(name, commented[name], row[name])] == []


def test_deal_envelope_has_the_recorded_keys_and_types(deal_answer: dict[str, Any]) -> None:
    recorded = recording(DEALS)
    assert deal_answer.keys() == recorded.keys()
    assert deal_answer["deals"].keys() == recorded["deals"].keys()
    for ours, theirs in ((deal_answer, recorded), (deal_answer["deals"], recorded["deals"])):
        # Both 0 and 0.0 were recorded; the rows have a test of their own.
        names = ours.keys() - {"tokenFlowReduction", "deals", "dr"}
        assert [found for name in names for found in differences(name, theirs[name], ours[name])] == []


@pytest.mark.parametrize("name", ["current", "currentSince", "deltaLast", "backInStock"])
def test_deal_arrays_are_as_long_as_recorded(deal_answer: dict[str, Any], name: str) -> None:
    assert {len(row[name]) for row in recording(DEALS)["deals"]["dr"]} == {len(row[name]) for row in deal_answer["deals"]["dr"]} == {36}


@pytest.mark.parametrize("source", ["recorded", "simulated"])
def test_deal_arithmetic_is_that_of_the_recording(deal_answer: dict[str, Any], source: str) -> None:
    deals = recording(DEALS)["deals"]["dr"] if source == "recorded" else deal_answer["deals"]["dr"]
    wrong = [
        (deal["asin"], row, each)
        for deal in deals
        for row, averages in enumerate(deal["avg"])
        for each, (average, current) in enumerate(zip(averages, deal["current"], strict=True))
        if each not in (8, 9, 33)
        and average > 0
        and current > 0
        and (deal["delta"][row][each], deal["deltaPercent"][row][each])
        != (average - current, math.floor(100 * (average - current) / average + 0.5))
    ]
    assert wrong == []


def test_envelopes_and_errors_have_the_recorded_bodies(simulator: Simulator) -> None:
    recorded = {each["label"]: each["body"] for each in recording("envelopes.json")}
    token = httpx.get(f"{simulator.url}/token", params={"key": simulator.key}).json()
    assert token.keys() == recorded["token_status"].keys()
    wrong = httpx.get(f"{simulator.url}/token", params={"key": "wrong"})
    volatile = ("timestamp", "processingTimeInMs")
    assert wrong.status_code == 400
    assert {k: v for k, v in wrong.json().items() if k not in volatile} == {
        k: v for k, v in recorded["invalid_key"].items() if k not in volatile
    }
    httpx.post(f"{simulator.url}/_simulator/faults", json={"kind": "429"})
    empty = httpx.get(f"{simulator.url}/product", params={"key": simulator.key, "asin": "B08DG4C63H", "domain": 1})
    assert empty.status_code == 429
    assert empty.json().keys() - {"error"} == recorded["empty_bucket_no_error_object"].keys()
    assert empty.json()["refillIn"] > 0
