"""A product's document over all its marketplaces."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from keeper.domain.events import Sink
from keeper.domain.incoming import decode_raw
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.domain.product import ProductKind
from keeper.postgres.catalog import ProductDocument, raise_revisions, select_asins, select_documents
from keeper.postgres.sinks import lock_routes
from tests.integration.makers import ASIN, NOW, ago, one, product, rows, run_record, use_sinks
from tests.integration.opportunities import add_opportunities, opportunity


def document_of(engine: Engine, asin: str = ASIN) -> ProductDocument:
    with engine.begin() as connection:
        [found] = select_documents(connection, [asin])
    return found


def fields(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document_of(engine).body)
    return found


def test_prices_of_all_marketplaces_are_in_one_document(engine: Engine) -> None:
    run_record(engine, product([(ago(days=1), 4999)], at=NOW), product([(ago(days=1), 4599)], marketplace=Marketplace.UK, at=NOW))
    assert fields(engine)["current_prices"] == {"DE": 4999, "UK": 4599}


def test_the_document_has_the_fields_of_the_reference(engine: Engine) -> None:
    run_record(engine, product([(ago(days=1), 4999)]))
    found = fields(engine)
    wanted = {
        "asin": str, "title": str, "current_prices": dict, "last_updated": str, "first_seen": str, "is_active": bool, "revision": int,
    }  # fmt: skip
    assert {name: type(found[name]) for name in wanted} == wanted
    assert {"brand", "category", "sales_rank", "rating", "review_count", "image"} <= set(found)
    assert found["last_updated"].endswith("Z")


@pytest.mark.parametrize(
    ("kind", "is_active"), [(ProductKind.STANDARD, True), (ProductKind.INVALID, False)], ids=["standard", "unknown to Keepa"]
)
def test_active_is_what_keepa_can_see(engine: Engine, kind: ProductKind, is_active: bool) -> None:
    run_record(engine, product([(ago(days=1), 4999)], kind=kind))
    assert fields(engine)["is_active"] is is_active


def test_a_price_that_ended_is_left_out(engine: Engine) -> None:
    run_record(engine, product([(ago(days=1), 4999), (NOW, None)], at=NOW))
    assert fields(engine)["current_prices"] == {}


def test_the_discount_is_against_the_list_price(engine: Engine) -> None:
    run_record(engine, product({PriceType.NEW: [(ago(days=1), 3999)], PriceType.LISTPRICE: [(ago(days=1), 5999)]}))
    found = fields(engine)
    assert (found["list_prices"], found["discount_percent"]) == ({"DE": 5999}, {"DE": 33.34})


def test_the_average_is_weighted_by_time(engine: Engine) -> None:
    """A day at 100, three days at 200."""
    run_record(engine, product([(NOW - timedelta(days=4), 10000), (NOW - timedelta(days=3), 20000)], at=NOW))
    assert fields(engine)["statistics"]["DE"] == {"minimum": 10000, "maximum": 20000, "average": 17500, "changes": 1}


def test_statistics_begin_with_the_price_in_force_ninety_days_ago(engine: Engine) -> None:
    run_record(engine, product([(NOW - timedelta(days=300), 50000), (NOW - timedelta(days=200), 10000)], at=NOW))
    assert fields(engine)["statistics"]["DE"] == {"minimum": 10000, "maximum": 10000, "average": 10000, "changes": 0}


def test_a_change_in_one_marketplace_is_a_newer_version_of_the_whole(engine: Engine) -> None:
    run_record(engine, product([(ago(days=2), 4999)], at=ago(days=1)), product([(ago(days=2), 4599)], marketplace=Marketplace.UK))
    before = document_of(engine).revision
    run_record(engine, product([(ago(days=2), 4999), (NOW, 4500)], at=NOW))
    assert document_of(engine).revision == before + 1


def test_a_check_without_a_change_leaves_the_document_as_it_is(engine: Engine) -> None:
    run_record(engine, product([(ago(days=2), 4999)], at=ago(days=1)))
    before = document_of(engine)
    run_record(engine, product([(ago(days=2), 4999)], at=NOW))
    assert document_of(engine) == before


def test_unknown_asins_are_left_out(engine: Engine) -> None:
    with engine.begin() as connection:
        assert select_documents(connection, ["B000000000"]) == []


def test_a_walk_meets_every_asin_once(engine: Engine) -> None:
    run_record(
        engine, *(product([(NOW, 100)], asin=f"B{number:09d}") for number in range(5)), product([(NOW, 90)], marketplace=Marketplace.UK)
    )
    met: list[str] = []
    with engine.begin() as connection:
        while page := select_asins(connection, after=met[-1] if met else "", limit=2):
            met += page
    assert met == [*(f"B{number:09d}" for number in range(5)), ASIN]


def best_of(engine: Engine) -> dict[str, Any]:
    found = fields(engine)
    return {name: found[name] for name in BEST}


BEST = (
    "source_market", "target_market", "source_price", "target_price", "margin", "margin_percentage", "profit_minor", "roi_pct",
    "profit_margin_pct", "opportunity_is_active",
)  # fmt: skip


def test_the_document_has_the_best_opportunity(engine: Engine) -> None:
    run_record(engine, product([(ago(days=1), 6000)]))
    add_opportunities(engine, opportunity(), opportunity(target=Marketplace.ES, profit=None), opportunity(target=Marketplace.FR, profit=20))

    assert best_of(engine) == dict(zip(BEST, ("DE", "IT", 6000, 9999, 3999, 66.65, 1054, 20.3, 10.54, True), strict=True))


@pytest.mark.parametrize(
    "facts", [{"doubts": ("another brand",)}, {"closed_at": NOW, "closed_why": "gap closed"}], ids=["doubtful", "closed"]
)
def test_what_is_doubtful_or_over_is_no_best_opportunity(engine: Engine, facts: dict[str, Any]) -> None:
    run_record(engine, product([(ago(days=1), 6000)]))
    add_opportunities(engine, opportunity(**facts))

    assert best_of(engine) == dict.fromkeys(BEST) | {"opportunity_is_active": False}


def test_another_best_opportunity_is_a_newer_document_that_the_enrichment_hears_of(engine: Engine) -> None:
    run_record(engine, product([(ago(days=1), 6000)]), product([(ago(days=1), 9999)], marketplace=Marketplace.IT))
    before = document_of(engine).revision
    use_sinks(engine, ())
    use_sinks(engine, {Sink.KAFKA, Sink.ENRICH}, without=())
    with engine.begin() as connection:
        raised = raise_revisions(connection, [ASIN, ASIN, "B000000000"], now=NOW, routes=lock_routes(connection))

    assert (raised, document_of(engine).revision) == (1, before + 1)
    assert rows(engine, "SELECT kind, payload -> 'product' IS NULL FROM events WHERE kind ~ 'product' ORDER BY kind") == [
        ("product_update", True),
        ("raw_product", False),
    ]
    raw = one(engine, "SELECT payload FROM events WHERE kind = 'raw_product'")
    assert raw["product"] is None
    assert decode_raw(json.dumps(raw).encode(), topic="raw.keepa_updates", now=NOW).raw is None
