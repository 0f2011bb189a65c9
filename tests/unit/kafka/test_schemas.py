"""A schema may only grow: `released/` holds the last released ones, and a released field stays as it is."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from keeper.kafka.schema import TOPICS_WITH_SCHEMA, load_schema
from keeper.kafka.topics import Topic

RELEASED = Path(__file__).parent / "released"
_FIXED = ("const", "enum", "pattern", "format", "minimum", "minLength", "minItems", "maximum", "maxLength", "maxItems")


def breaks(old: dict[str, Any], new: dict[str, Any], path: str = "") -> list[str]:
    """What a reader of the old schema could trip over in messages of the new one, or its sender be refused for."""
    found = []
    if _types(old) != _types(new):
        found.append(f"{path or '/'}: type {_types(old)} became {_types(new)}")
    found += [f"{path or '/'}: {name} changed" for name in _FIXED if old.get(name) != new.get(name)]
    if old.get("additionalProperties", True) is not False and new.get("additionalProperties", True) is False:
        found.append(f"{path or '/'}: further fields became forbidden")
    if added := set(new.get("required", ())) - set(old.get("required", ())):
        found.append(f"{path or '/'}: {sorted(added)} became required")
    if dropped := set(old.get("required", ())) - set(new.get("required", ())):
        found.append(f"{path or '/'}: {sorted(dropped)} may be missing now")
    for name, inner in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            found.append(f"{path}/{name}: removed")
        else:
            found += breaks(inner, new["properties"][name], f"{path}/{name}")
    return found


def _types(schema: dict[str, Any]) -> list[str]:
    types = schema.get("type", [])
    return sorted([types] if isinstance(types, str) else types)


@pytest.mark.parametrize("topic", TOPICS_WITH_SCHEMA)
def test_schema_is_valid(topic: Topic) -> None:
    Draft202012Validator.check_schema(load_schema(topic))


@pytest.mark.parametrize("topic", TOPICS_WITH_SCHEMA)
def test_schema_has_only_grown_since_the_last_release(topic: Topic) -> None:
    released = json.loads((RELEASED / f"{topic}.json").read_text())
    assert breaks(released, load_schema(topic)) == []


def test_every_released_schema_is_still_there() -> None:
    assert {path.stem for path in RELEASED.glob("*.json")} <= {topic.value for topic in TOPICS_WITH_SCHEMA}


OLD = {
    "type": "object",
    "required": ["asin"],
    "properties": {"asin": {"type": "string"}, "price": {"type": ["number", "null"], "minimum": 0}},
}


def _with(**changes: Any) -> dict[str, Any]:
    return {**OLD, **changes}


@pytest.mark.parametrize(
    ("new", "complaints"),
    [
        pytest.param(OLD, 0, id="same"),
        pytest.param(_with(properties={**OLD["properties"], "brand": {"type": "string"}}), 0, id="a field more"),  # type: ignore[dict-item]
        pytest.param(_with(properties={"asin": {"type": "string"}}), 1, id="removed"),
        pytest.param(_with(properties={**OLD["properties"], "asin": {"type": "integer"}}), 1, id="retyped"),  # type: ignore[dict-item]
        pytest.param(_with(properties={**OLD["properties"], "price": {"type": "number", "minimum": 0}}), 1, id="narrowed"),  # type: ignore[dict-item]
        pytest.param(_with(required=["asin", "price"]), 1, id="newly required"),
        pytest.param(_with(required=[]), 1, id="no longer sure"),
        pytest.param(_with(additionalProperties=False), 1, id="closed"),
    ],
)
def test_comparison_finds_what_breaks_readers(new: dict[str, Any], complaints: int) -> None:
    assert len(breaks(OLD, new)) == complaints


PRICE = {
    "asin": "B0TEST0001",
    "product_title": "Tastatur",
    "current_price": 49.99,
    "target_price": 45.0,
    "previous_price": 59.99,
    "price_change": 16.67,
    "price_change_percent": 16.67,
    "domain": "de",
    "currency": "EUR",
    "timestamp": "2026-02-20T12:30:00Z",
    "event_type": "price_update",
    "event_id": "6f1c4a52-6f0e-5c0e-9a52-6b6565706572",
    "schema_version": 1,
    "price_type": "NEW",
    "current_price_minor": 4999,
    "target_price_minor": 4500,
    "previous_price_minor": 5999,
}


@pytest.mark.parametrize(
    ("changes", "is_valid"),
    [
        pytest.param({}, True, id="as in the reference"),
        pytest.param({"current_price": None, "current_price_minor": None}, True, id="no offer"),
        pytest.param({"one_field_more": 1}, True, id="a newer sender"),
        pytest.param({"current_price": "49.99"}, False, id="price as text"),
        pytest.param({"current_price_minor": -1}, False, id="Keepa's -1"),
        pytest.param({"timestamp": "2026-02-20T12:30:00"}, False, id="without zone"),
    ],
)
def test_price_schema_takes_what_it_should(changes: dict[str, Any], is_valid: bool) -> None:
    assert Draft202012Validator(load_schema(Topic.PRICE_UPDATES)).is_valid(PRICE | changes) is is_valid


DEAL = {
    "asin": "B0TEST0001",
    "product_title": "Tastatur",
    "current_price": 49.99,
    "original_price": 79.99,
    "discount_percent": 37.5,
    "rating": 4.5,
    "review_count": 120,
    "sales_rank": 77,
    "domain": "de",
    "timestamp": "2026-02-20T12:30:00Z",
    "event_type": "deal_update",
    "event_id": "6f1c4a52-6f0e-5c0e-9a52-6b6565706572",
    "schema_version": 1,
    "price_type": "NEW",
    "current_price_minor": 4999,
    "original_price_minor": 7999,
    "currency": "EUR",
    "deal_id": "B0TEST0001-DE-NEW-1771590600",
    "revision": 3,
    "description": None,
    "category": None,
    "prime_eligible": None,
    "url": None,
    "deal_score": None,
    "ended_at": None,
}


@pytest.mark.parametrize(
    ("changes", "is_valid"),
    [
        pytest.param({}, True, id="as it is"),
        pytest.param({"deleted": True}, True, id="deleted, with its last state"),
        pytest.param({"deleted": "yes"}, False, id="deletion as text"),
    ],
)
def test_deal_schema_takes_what_it_should(changes: dict[str, Any], is_valid: bool) -> None:
    assert Draft202012Validator(load_schema(Topic.DEAL_UPDATES)).is_valid(DEAL | changes) is is_valid


def test_a_deletion_is_valid_for_readers_of_the_last_release_too() -> None:
    released = json.loads((RELEASED / f"{Topic.DEAL_UPDATES}.json").read_text())
    assert Draft202012Validator(released).is_valid(DEAL | {"deleted": True})


OPPORTUNITY = {
    "asin": "B0TEST0001",
    "product_title": "Tastatur",
    "brand": None,
    "image": None,
    "category": "default",
    "source_market": "DE",
    "target_market": "IT",
    "source_price": 6000,
    "target_price": 9999,
    "source_currency": "EUR",
    "target_currency": "EUR",
    "currency": "EUR",
    "price_type": "NEW",
    "source_checked_at": "2026-02-20T12:30:00Z",
    "target_checked_at": "2026-02-20T12:30:00Z",
    "margin": 3999,
    "margin_percentage": 66.65,
    "is_active": True,
    "profit_minor": 1054,
    "invested_minor": 5192,
    "roi_pct": 20.3,
    "profit_margin_pct": 10.54,
    "score": 70,
    "flags": ["Amazon sells it"],
    "severity": "medium",
    "opportunity_id": 1,
    "first_seen": "2026-02-20T12:30:00Z",
    "source_link": "https://www.amazon.de/dp/B0TEST0001",
    "target_link": "https://www.amazon.it/dp/B0TEST0001",
    "timestamp": "2026-02-20T12:30:00Z",
    "event_type": "arbitrage_alert",
    "event_id": "6f1c4a52-6f0e-5c0e-9a52-6b6565706572",
    "schema_version": 1,
}


@pytest.mark.parametrize(
    ("changes", "is_valid"),
    [
        pytest.param({}, True, id="as it is"),
        pytest.param({"profit_minor": None}, False, id="a profit that is not known"),
        pytest.param({"source_price": 0}, False, id="a price that is none"),
    ],
)
def test_arbitrage_schema_takes_what_it_should(changes: dict[str, Any], is_valid: bool) -> None:
    assert Draft202012Validator(load_schema(Topic.ARBITRAGE_ALERTS)).is_valid(OPPORTUNITY | changes) is is_valid
