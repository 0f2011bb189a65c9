"""The index templates are complete and keep the reference systems' names and types."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest

from keeper.domain.marketplace import Marketplace
from keeper.domain.tokens import KeepaCall
from keeper.search.connection import SearchConnection
from keeper.search.mapping import Alias, Template, index_name, load_template

CONNECTION = SearchConnection(("http://127.0.0.1:9200",), index_prefix="t-", shards=3, replicas=2)

# What a JSON value of the reference documents may be indexed as.
STRING = frozenset({"keyword", "text"})
DATE = frozenset({"date"})
WHOLE = frozenset({"long", "integer"})
DECIMAL = frozenset({"double"})
TRUTH = frozenset({"boolean"})
BY_MARKETPLACE = frozenset({"object"})

REFERENCE: dict[Alias, dict[str, frozenset[str]]] = {
    Alias.PRICES: {
        "asin": STRING,
        "product_title": STRING,
        "current_price": DECIMAL,
        "target_price": DECIMAL,
        "previous_price": DECIMAL,
        "price_change": DECIMAL,
        "domain": STRING,
        "currency": STRING,
        "timestamp": DATE,
        "event_type": STRING,
        "price_change_percent": DECIMAL,
    },
    Alias.DEALS: {
        "asin": STRING,
        "product_title": STRING,
        "current_price": DECIMAL,
        "original_price": DECIMAL,
        "discount_percent": DECIMAL,
        "rating": DECIMAL,
        "review_count": WHOLE,
        "sales_rank": WHOLE,
        "domain": STRING,
        "timestamp": DATE,
        "event_type": STRING,
        "description": STRING,
        "category": STRING,
        "prime_eligible": TRUTH,
        "url": STRING,
        "deal_score": DECIMAL,
    },
    Alias.METRICS: {
        "timestamp": DATE,
        "operation": STRING,
        "tokens_consumed": WHOLE,
        "tokens_left": WHOLE,
        "refill_rate": WHOLE,
        "refill_in": WHOLE,
        "response_time_ms": WHOLE,
        "asin_count": WHOLE,
        "domain": STRING,
        "success": TRUTH,
        "error": STRING,
    },
    Alias.PRODUCTS: {
        "asin": STRING,
        "title": STRING,
        "brand": STRING,
        "current_prices": BY_MARKETPLACE,
        "last_updated": DATE,
        "first_seen": DATE,
        "is_active": TRUTH,
        "category": STRING,
        "sales_rank": WHOLE,
        "rating": DECIMAL,
        "review_count": WHOLE,
        "image": STRING,
    },
}

OURS: dict[Alias, set[str]] = {
    Alias.PRICES: {"event_id", "schema_version", "price_type", "current_price_minor", "target_price_minor", "previous_price_minor"},
    Alias.DEALS: {
        "event_id",
        "schema_version",
        "price_type",
        "current_price_minor",
        "original_price_minor",
        "currency",
        "deal_id",
        "revision",
        "ended_at",
        "brand",
        "first_seen",
        "announced_at",
        "source",
        "product_group",
        "layout",
        "sightings",
        "median_90_minor",
        "average_90_minor",
        "below_median_percent",
        "lowest_year_minor",
        "lowest_ever_minor",
        "is_year_low",
        "is_all_time_low",
        "is_list_price_fiction",
        "is_glitch",
        "glitch_reason",
    },
    Alias.METRICS: {"event_id", "schema_version"},
    Alias.PRODUCTS: {
        "category_path",
        "category_ids",
        "previous_prices",
        "list_prices",
        "discount_percent",
        "sales_ranks",
        "revision",
        "schema_version",
        "statistics",
        "source_market",
        "target_market",
        "source_price",
        "target_price",
        "margin",
        "margin_percentage",
        "profit_minor",
        "roi_pct",
        "profit_margin_pct",
        "opportunity_is_active",
    },
}


def _properties(alias: Alias) -> dict[str, Any]:
    properties: dict[str, Any] = load_template(CONNECTION, alias).body["template"]["mappings"]["properties"]
    return properties


def _fields(properties: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every mapped field, subfields included."""
    for field in properties.values():
        yield field
        yield from _fields(field.get("fields", {}))
        yield from _fields(field.get("properties", {}))


@pytest.mark.parametrize(("alias", "name"), [(alias, name) for alias, names in REFERENCE.items() for name in names], ids=str)
def test_reference_field_keeps_its_name_and_type(alias: Alias, name: str) -> None:
    assert _properties(alias)[name].get("type", "object") in REFERENCE[alias][name]


@pytest.mark.parametrize("alias", Alias)
def test_mapping_holds_the_reference_fields_and_ours_and_no_other(alias: Alias) -> None:
    assert set(_properties(alias)) == REFERENCE[alias].keys() | OURS[alias]


def test_metrics_map_every_field_of_a_keepa_call() -> None:
    assert {field.name for field in dataclasses.fields(KeepaCall)} <= _properties(Alias.METRICS).keys()


@pytest.mark.parametrize("name", ["current_prices", "previous_prices", "list_prices", "discount_percent", "sales_ranks"])
def test_maps_by_marketplace_name_every_marketplace(name: str) -> None:
    assert set(_properties(Alias.PRODUCTS)[name]["properties"]) == set(Marketplace)


@pytest.mark.parametrize("alias", Alias)
def test_unknown_fields_are_kept_and_not_mapped(alias: Alias) -> None:
    assert load_template(CONNECTION, alias).body["template"]["mappings"]["dynamic"] is False


@pytest.mark.parametrize("alias", Alias)
def test_money_and_text_do_without_what_the_tested_copy_lacks(alias: Alias) -> None:
    types = {field.get("type", "object") for field in _fields(_properties(alias))}
    assert types <= {"keyword", "text", "completion", "long", "integer", "double", "date", "boolean", "object"}


@pytest.mark.parametrize("alias", Alias)
def test_no_indexed_keyword_can_be_too_long_to_store(alias: Alias) -> None:
    keywords = [field for field in _fields(_properties(alias)) if field.get("type") == "keyword" and field.get("index", True)]
    # Lucene takes 32,766 bytes, which are at least so many characters divided by four.
    assert all(field["ignore_above"] <= 8191 for field in keywords)


@pytest.mark.parametrize(
    ("alias", "name"), [(Alias.PRICES, "product_title"), (Alias.DEALS, "product_title"), (Alias.PRODUCTS, "title")], ids=str
)
def test_titles_are_analysed_in_german_and_english(alias: Alias, name: str) -> None:
    assert {"keyword", "german", "english", "prefix"} <= _properties(alias)[name]["fields"].keys()


@pytest.mark.parametrize(("alias", "name"), [(Alias.DEALS, "product_title"), (Alias.PRODUCTS, "title")], ids=str)
def test_titles_complete_what_is_typed(alias: Alias, name: str) -> None:
    assert _properties(alias)[name]["fields"]["suggest"]["type"] == "completion"


@pytest.mark.parametrize("alias", Alias)
def test_analyzers_that_fields_name_are_defined(alias: Alias) -> None:
    defined = load_template(CONNECTION, alias).body["template"]["settings"]["analysis"]["analyzer"]
    named = {field[kind] for field in _fields(_properties(alias)) for kind in ("analyzer", "search_analyzer") if kind in field}
    assert named <= defined.keys()


def test_compound_words_are_written_as_the_filter_before_leaves_them() -> None:
    words = load_template(CONNECTION, Alias.PRICES).body["template"]["settings"]["analysis"]["filter"]["keeper_compounds"]["word_list"]
    assert all(word.isascii() and word.islower() and len(word) >= 4 for word in words)


@pytest.mark.parametrize("alias", Alias)
def test_template_has_the_prefix_shards_and_replicas(alias: Alias) -> None:
    body = load_template(CONNECTION, alias).body
    index = body["template"]["settings"]["index"]
    assert (body["index_patterns"], index["number_of_shards"], index["number_of_replicas"]) == ([f"t-{alias}", f"t-{alias}-v*"], 3, 2)


@pytest.mark.parametrize("alias", Alias)
def test_versions_of_deleted_documents_are_remembered_for_an_hour(alias: Alias) -> None:
    assert load_template(CONNECTION, alias).body["template"]["settings"]["index"]["gc_deletes"] == "1h"


@pytest.mark.parametrize("alias", Alias)
def test_nobody_makes_an_index_by_writing_to_its_name(alias: Alias) -> None:
    assert load_template(CONNECTION, alias).body["allow_auto_create"] is False


def test_digest_tells_another_setting_apart() -> None:
    def loaded(shards: int) -> Template:
        return load_template(dataclasses.replace(CONNECTION, shards=shards), Alias.PRICES)

    assert loaded(1).digest != loaded(2).digest
    assert loaded(1) == loaded(1)


def test_template_is_json() -> None:
    assert all(json.loads(json.dumps(load_template(CONNECTION, alias).body)) for alias in Alias)


def test_index_name_holds_mapping_version_and_counter() -> None:
    assert index_name(CONNECTION, Alias.PRICES, 2, 17) == "t-keeper-prices-v2-000017"
