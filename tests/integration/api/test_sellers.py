"""Sellers on the page of a product."""

from sqlalchemy import Engine

from keeper.domain.marketplace import Marketplace
from keeper.domain.seller_offer import SellerOffer
from keeper.postgres.offers import insert_offers
from tests.integration.api.conftest import Person
from tests.integration.makers import ASIN, NOW, ago, product, run_record


def test_a_product_page_has_its_sellers_and_their_share_of_the_buy_box(anna: Person, engine: Engine) -> None:
    run_record(engine, product([(ago(days=1), 4000)], marketplace=Marketplace.IT), product([(ago(days=1), 3000)]))
    with engine.begin() as connection:
        insert_offers(connection, "IT", {ASIN: [SellerOffer("A2SELLER", 4000, False, True, 70.5)]}, now=NOW)

    markets = anna.get(f"/api/v1/products/{ASIN}")["markets"]

    assert markets["IT"]["sellers"] == [{"seller_id": "A2SELLER", "price": 4000, "is_amazon": False, "is_fba": True, "buy_box_pct": 70.5}]
    assert markets["IT"]["sellers_checked_at"] == NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (markets["DE"]["sellers"], markets["DE"]["sellers_checked_at"]) == ([], None)
