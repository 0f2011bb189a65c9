"""Sellers of what is worth buying: who is asked for, for how much, and what is kept of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text

from keeper.check import Checked, record_answer
from keeper.competitors import AGAIN, CompetitorsSeen, see_competitors, with_offers
from keeper.domain.marketplace import Marketplace
from keeper.domain.seller_offer import SellerOffer
from keeper.fetch import fetch
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import ServerDown
from keeper.plan import PlannedRequest
from keeper.postgres.installation import SIMULATOR, claim_source, select_now
from keeper.postgres.offers import insert_offers, select_due_offers, select_offers
from keeper.resources import SIMULATOR_KEY, agree_on_clock, jump_clock
from keeper.scan import plan_listings
from keeper.simulator.server import Simulator
from keeper.tokens import learn_bucket, release
from tests.integration.makers import ASIN, NOW, ago, one, rows
from tests.integration.opportunities import add_opportunities, opportunity
from tests.integration.test_scan import SETTINGS, TOKENS

DE, IT, FR = Marketplace.DE, Marketplace.IT, Marketplace.FR


@pytest.fixture
def client(engine: Engine, simulator: Simulator) -> Iterator[KeepaClient]:
    with KeepaClient(SIMULATOR_KEY, base_url=simulator.url) as opened:
        with engine.begin() as connection:
            claim_source(connection, SIMULATOR)
        agree_on_clock(engine, simulator.url)
        learn_bucket(engine, opened)
        yield opened


@pytest.fixture
def found(engine: Engine, simulator: Simulator) -> list[str]:
    """Three products worth buying in Germany and selling in Italy, the best first."""
    asins = list(simulator.keepa.catalog.asins(0, 3))
    add_opportunities(engine, *(opportunity(asin=asin, score=90 - place) for place, asin in enumerate(asins)))
    return asins


def see(engine: Engine, client: KeepaClient, *, least_roi: float = 20, most: int = 60, share_pct: float = 30, fails: bool = False) -> Any:
    settings = replace(SETTINGS, share_pct=share_pct)

    def plan(asins: Sequence[str], marketplace: Marketplace) -> PlannedRequest | None:
        return plan_listings(engine, asins, marketplace, 1, settings=with_offers(settings), token_settings=TOKENS)

    def check(request: PlannedRequest) -> Checked:
        if fails:
            release(engine, request.reservation_id)
            raise ServerDown("Keepa is down")
        with engine.begin() as connection:
            now = select_now(connection)
        return record_answer(engine, request, fetch(engine, client, request), now=now)

    return see_competitors(engine, settings=settings, least_roi_pct=least_roi, plan=plan, check=check, most=most)


def test_sellers_of_what_is_worth_buying_are_kept_with_their_share_of_the_buy_box(
    engine: Engine, client: KeepaClient, found: list[str]
) -> None:
    seen = see(engine, client)
    assert (seen.products, seen.troubles) == (3, {})
    assert 0 < seen.tokens <= 3 * 12
    assert rows(engine, "SELECT DISTINCT marketplace FROM offers_history") == ["IT"]
    assert sorted(rows(engine, "SELECT asin FROM offer_checks")) == sorted(found)
    assert one(engine, "SELECT count(*) > 3 AND count(price_minor) > 0 AND count(buy_box_pct) > 0 FROM offers_history")
    assert one(engine, "SELECT max(total) <= 100.5 FROM (SELECT sum(buy_box_pct) AS total FROM offers_history GROUP BY asin) one")
    assert rows(engine, "SELECT asin FROM check_claims") == []


def test_they_are_asked_for_again_a_day_later(engine: Engine, client: KeepaClient, found: list[str], simulator: Simulator) -> None:
    assert [see(engine, client).products for _ in range(2)] == [3, 0]
    jump_clock(engine, simulator.url, seconds=AGAIN.total_seconds() + 60)
    assert see(engine, client).products == 3
    assert one(engine, "SELECT count(DISTINCT checked_at) FROM offers_history") == 2


def test_nothing_is_paid_where_nothing_is_worth_buying(engine: Engine, client: KeepaClient, found: list[str]) -> None:
    assert see(engine, client, least_roi=20.31) == CompetitorsSeen()


def test_the_share_bounds_how_many_are_asked_for_and_the_best_come_first(engine: Engine, client: KeepaClient, found: list[str]) -> None:
    assert see(engine, client, share_pct=0.001) == CompetitorsSeen()
    assert see(engine, client, most=1).products == 1
    assert rows(engine, "SELECT asin FROM offer_checks") == found[:1]


def test_a_failed_request_is_told_and_its_products_are_free(engine: Engine, client: KeepaClient, found: list[str]) -> None:
    seen = see(engine, client, fails=True)
    assert (seen.products, list(seen.troubles)) == (0, ["sellers in IT: Keepa is down"])
    assert rows(engine, "SELECT asin FROM check_claims") == []
    assert see(engine, client).products == 3


def test_nothing_of_a_seller_is_kept_but_the_id(engine: Engine) -> None:
    assert sorted(rows(engine, "SELECT column_name FROM information_schema.columns WHERE table_name = 'offers_history'")) == [
        "asin", "buy_box_pct", "checked_at", "is_amazon", "is_fba", "marketplace", "price_minor", "seller_id",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"doubts": ["EANs differ"]}, id="perhaps another article"),
        pytest.param({"is_stale": True}, id="stale"),
        pytest.param({"profit": None}, id="profit unknown"),
        pytest.param({"profit": -5, "roi_pct": Decimal("-0.10")}, id="a loss"),
        pytest.param({"roi_pct": Decimal("19.99")}, id="too little"),
        pytest.param({"closed_at": NOW, "closed_why": "gap closed"}, id="over"),
        pytest.param({"target": FR}, id="a store that is not asked"),
    ],
)
def test_what_does_not_survive_the_filters_is_not_asked_for(engine: Engine, facts: dict[str, Any]) -> None:
    add_opportunities(engine, opportunity(**facts))
    with engine.begin() as connection:
        assert select_due_offers(connection, least_roi_pct=20, checked_before=NOW, marketplaces=["IT", "DE"], limit=9) == []


def test_the_last_check_is_told_the_cheapest_first(engine: Engine) -> None:
    now = (SellerOffer("A2", 4000, False, True, 70.5), SellerOffer("A1", 4500, True, True), SellerOffer("A0", None, None, False, 29.5))
    with engine.begin() as connection:
        insert_offers(connection, "IT", {ASIN: [SellerOffer("A9", 1)]}, now=ago(days=1))
        insert_offers(connection, "IT", {ASIN: now}, now=NOW)
        insert_offers(connection, "FR", {ASIN: []}, now=NOW)
        assert [(seen.marketplace, seen.checked_at, seen.offers) for seen in select_offers(connection, ASIN)] == [
            ("FR", NOW, ()),
            ("IT", NOW, now),
        ]


def test_a_check_recorded_twice_is_kept_once(engine: Engine) -> None:
    for _ in range(2):
        with engine.begin() as connection:
            insert_offers(connection, "IT", {ASIN: [SellerOffer("A9", 1)]}, now=NOW)
    assert one(engine, "SELECT count(*) FROM offers_history") == 1


def test_what_is_older_than_a_year_goes_with_the_next_check(engine: Engine) -> None:
    for at in (NOW - timedelta(days=366), NOW):
        with engine.begin() as connection:
            insert_offers(connection, "IT", {ASIN: [SellerOffer("A9", 1)]}, now=at)
    assert rows(engine, "SELECT checked_at FROM offers_history") == [NOW]


def test_an_answer_without_readable_sellers_is_asked_for_again(engine: Engine) -> None:
    with engine.begin() as connection:
        insert_offers(connection, "IT", {}, now=NOW)
        assert connection.execute(text("SELECT count(*) FROM offer_checks")).scalar_one() == 0
