"""What the comparison has written is what reading shows: the same profit part by part, and the documents of its products."""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text

from keeper.compare import Compared, Terms, compare
from keeper.domain.events import EventKind
from keeper.domain.fee_category import FeeCategories, FeeCategoryRule
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity_query import OpportunityQuery
from keeper.domain.seller import InboundBand, SellerProfile
from keeper.domain.trade_terms import Tables
from keeper.opportunities import Own, OwnProfits, Reckoning, explain, list_opportunities
from keeper.postgres import opportunities
from keeper.postgres.catalog import raise_revisions, select_documents
from keeper.postgres.sinks import lock_routes
from tests.integration.makers import ASIN, NOW, one, product, rows, run_record
from tests.integration.opportunities import add_opportunities, opportunity
from tests.unit.domain.seed_tables import BORDERS, FEES, RATES, VAT

DE, IT, ES, FR, UK = Marketplace.DE, Marketplace.IT, Marketplace.ES, Marketplace.FR, Marketplace.UK
FIGURES = (
    "margin_minor", "margin_pct", "profit_minor", "invested_minor", "roi_pct", "profit_margin_pct", "unknown_parts", "is_stale",
)  # fmt: skip
ROOT = 562066
BANDS = (InboundBand(None, None, 500, 80), InboundBand(None, None, None, 130))
SELLER = SellerProfile("DE", frozenset({"DE"}), True, "EUR", 50, 15, Decimal(2), BANDS)
TABLES = Tables(VAT, FEES, BORDERS)
ROOTS = tuple(FeeCategoryRule(store, ROOT, "root", None, "default", "test") for store in (DE, IT, ES, FR, UK))
TERMS = Terms(seller=SELLER, tables=TABLES, rates=RATES, fee_categories=FeeCategories(ROOTS))
RECKONING = Reckoning(SELLER, TABLES, RATES, NOW.date())


def seen(engine: Engine, prices: dict[Marketplace, int], *, at: Any = NOW, **facts: Any) -> None:
    said: dict[str, Any] = {"root_category_id": ROOT, "fba_pick_pack_minor": 420, "package_weight_g": 400} | facts
    run_record(engine, *(product([(at, price)], marketplace=store, at=at, **said) for store, price in prices.items()), sinks=frozenset())


def run(engine: Engine, *, at: Any = NOW) -> Compared:
    return compare(
        engine,
        now=at,
        terms=TERMS,
        on_changed=lambda connection, asins: raise_revisions(connection, asins, now=at, routes=lock_routes(connection)),
    )


def document(engine: Engine) -> tuple[int, dict[str, Any]]:
    with engine.begin() as connection:
        [found] = select_documents(connection, [ASIN])
    return found.revision, json.loads(found.body)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"package_weight_g": 900},
        {"fba_pick_pack_minor": None},
        {"root_category_id": None, "referral_fee_pct": 8.0},
        {"package_weight_g": None},
    ],
    ids=["known", "heavy", "no FBA fee", "no category, a stated share", "no weight"],
)
def test_reading_reckons_what_the_comparison_reckoned(engine: Engine, facts: dict[str, Any]) -> None:
    seen(engine, {DE: 6000, IT: 9999, ES: 8000, FR: 12000, UK: 4000}, **facts)
    run(engine)
    with engine.begin() as connection:
        stored = opportunities.select_opportunities(connection, OpportunityQuery(includes_doubtful=True)).found
        explained = [explain(connection, found.opportunity.id or 0, RECKONING) for found in stored]

    assert len(stored) >= 5
    for found, told in zip(stored, explained, strict=True):
        known, again = found.opportunity, told.found.opportunity
        for name in FIGURES:
            assert getattr(again, name) == getattr(known, name), (name, known.source_market, known.target_market)


def test_a_profile_like_the_default_sellers_is_told_what_the_table_holds(engine: Engine) -> None:
    seen(engine, {DE: 6000, IT: 9999, ES: 8000, FR: 12000})
    run(engine)
    query = OpportunityQuery(limit=3)
    with engine.begin() as connection:
        default = list_opportunities(connection, query)
        own = list_opportunities(connection, query, own=Own(RECKONING, ("anna",)), kept=OwnProfits())

    assert [found.opportunity.profit_minor for found in own.found] == [found.opportunity.profit_minor for found in default.found]
    assert (own.total, own.next) == (default.total, default.next)


def test_what_was_reckoned_for_a_seller_is_kept_as_long_as_its_key(engine: Engine) -> None:
    add_opportunities(engine, opportunity())
    kept = OwnProfits()

    def considered(key: str) -> int | None:
        with engine.begin() as connection:
            return list_opportunities(connection, OpportunityQuery(), own=Own(RECKONING, (key,)), kept=kept).considered

    before = considered("anna")
    add_opportunities(engine, opportunity(target=ES))

    assert (before, considered("anna"), considered("ben")) == (1, 1, 2)


def test_a_comparison_makes_the_documents_of_what_it_changed_newer_and_no_other(engine: Engine) -> None:
    seen(engine, {DE: 6000, IT: 9999})
    first, before = document(engine)
    run(engine)
    second, after = document(engine)
    run(engine)

    assert (before["opportunity_is_active"], after["opportunity_is_active"]) == (False, True)
    assert (after["source_market"], after["target_market"], after["margin"]) == ("DE", "IT", 3999)
    assert (second, document(engine)[0]) == (first + 1, second)


def test_a_gap_that_closes_leaves_the_document(engine: Engine) -> None:
    seen(engine, {DE: 6000, IT: 9999})
    run(engine)
    later = NOW + timedelta(hours=1)
    seen(engine, {IT: 6001}, at=later)
    before, _ = document(engine)
    run(engine, at=later)
    after, body = document(engine)

    assert (after, body["opportunity_is_active"], body["margin"]) == (before + 1, False, None)


def test_the_enrichment_hears_of_it_in_the_same_transaction(engine: Engine) -> None:
    seen(engine, {DE: 6000, IT: 9999})
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO sinks (name, kinds) VALUES ('enrich', '{product_update}')"))
    run(engine)

    assert rows(engine, "SELECT kind, key FROM events") == [(EventKind.PRODUCT_UPDATE.value, ASIN)]
    assert one(engine, "SELECT sink FROM outbox") == "enrich"
