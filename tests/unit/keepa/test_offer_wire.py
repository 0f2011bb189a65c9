"""Sellers in Keepa's JSON: who is read, at which price, and what is left out."""

import json
from typing import Any

import pytest

from keeper.domain.seller_offer import SellerOffer
from keeper.keepa.offer_wire import decode_offers


def offer(seller: str = "A1SELLER", price: int = 4990, shipping: int = 0, **facts: Any) -> dict[str, Any]:
    said = {
        "sellerId": seller,
        "condition": 1,
        "isFBA": True,
        "isAmazon": False,
        "offerCSV": [7_000_000, 9000, 0, 7_900_000, price, shipping],
    }
    return said | {"offerId": 7, "conditionComment": "wie neu"} | facts


def product(*offers: Any, live: list[int] | None = None, shares: dict[str, Any] | None = None) -> bytes:
    order = list(range(len(offers))) if live is None else live
    return json.dumps({"asin": "B000000001", "offers": offers, "liveOffersOrder": order, "stats": {"buyBoxStats": shares}}).encode()


def test_the_last_price_counts_with_its_shipping() -> None:
    assert decode_offers(product(offer(price=4990, shipping=399))) == (SellerOffer("A1SELLER", 5389, False, True),)


def test_sellers_are_in_the_order_of_their_price() -> None:
    found = decode_offers(product(offer("A2DEAR", 5000), offer("A1CHEAP", 4000)))
    assert [one.seller_id for one in found or ()] == ["A1CHEAP", "A2DEAR"]


def test_a_seller_with_two_offers_is_one_at_the_lower_price() -> None:
    assert decode_offers(product(offer(price=5000), offer(price=4500))) == (SellerOffer("A1SELLER", 4500, False, True),)


def test_a_share_of_the_buy_box_stands_beside_its_seller() -> None:
    assert decode_offers(product(offer(), shares={"A1SELLER": {"percentageWon": 61.2345, "isFBA": True}})) == (
        SellerOffer("A1SELLER", 4990, False, True, 61.23),
    )


def test_who_had_the_buy_box_and_sells_no_more_is_last_and_without_a_price() -> None:
    found = decode_offers(product(offer(), shares={"A0GONE": {"percentageWon": 20, "isFBA": False}}))
    assert found == (SellerOffer("A1SELLER", 4990, False, True), SellerOffer("A0GONE", None, None, False, 20))


@pytest.mark.parametrize(
    "left_out",
    [
        pytest.param(offer(condition=2), id="used"),
        pytest.param(offer(offerCSV=[]), id="without a price"),
        pytest.param(offer(price=-1), id="a price that is none"),
        pytest.param(offer(price=2**31), id="a price the database has no room for"),
        pytest.param(offer(sellerId=None), id="nobody"),
        pytest.param(offer(sellerId="Max Mustermann, Weg 1"), id="no id"),
        pytest.param(offer(offerCSV="x"), id="what makes no sense"),
        pytest.param(17, id="no offer at all"),
    ],
)
def test_what_is_no_offer_of_new_goods_is_left_out(left_out: Any) -> None:
    assert decode_offers(product(left_out, offer("A9OTHER"))) == (SellerOffer("A9OTHER", 4990, False, True),)


def test_an_offer_of_the_past_is_none() -> None:
    assert decode_offers(product(offer("A1GONE"), offer("A2HERE"), live=[1, 7, -3])) == (SellerOffer("A2HERE", 4990, False, True),)


@pytest.mark.parametrize("share", [{"percentageWon": 101}, {"percentageWon": -1}, {"percentageWon": "x"}, {}, 3])
def test_a_share_that_is_none_is_left_out(share: Any) -> None:
    assert decode_offers(product(offer(), shares={"A1SELLER": share})) == (SellerOffer("A1SELLER", 4990, False, True),)


def test_a_product_that_nobody_sells_has_no_sellers() -> None:
    assert decode_offers(b'{"offers": null, "liveOffersOrder": null, "stats": null}') == ()


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"offers": 3}', b"\xff"])
def test_what_cannot_be_read_is_not_taken_for_nobody(raw: bytes) -> None:
    assert decode_offers(raw) is None
