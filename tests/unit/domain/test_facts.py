"""Facts about marketplaces and price types that other systems rely on."""

import pytest

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PRICES, PriceType
from keeper.domain.product import ProductKind


@pytest.mark.parametrize(
    ("marketplace", "currency", "host"),
    [
        ("US", "USD", "www.amazon.com"),
        ("UK", "GBP", "www.amazon.co.uk"),
        ("DE", "EUR", "www.amazon.de"),
        ("FR", "EUR", "www.amazon.fr"),
        ("JP", "JPY", "www.amazon.co.jp"),
        ("CA", "CAD", "www.amazon.ca"),
        ("IT", "EUR", "www.amazon.it"),
        ("ES", "EUR", "www.amazon.es"),
        ("IN", "INR", "www.amazon.in"),
        ("MX", "MXN", "www.amazon.com.mx"),
        ("BR", "BRL", "www.amazon.com.br"),
    ],
)
def test_a_marketplace_knows_its_currency_and_host(marketplace: str, currency: str, host: str) -> None:
    assert (Marketplace(marketplace).currency, Marketplace(marketplace).host) == (currency, host)


def test_keepa_has_36_types_of_which_26_are_prices() -> None:
    assert (len(PriceType), len(PRICES)) == (36, 26)


@pytest.mark.parametrize(
    "name",
    ["SALES", "COUNT_NEW", "COUNT_USED", "COUNT_REFURBISHED", "COUNT_COLLECTIBLE", "EXTRA_INFO_UPDATES", "RATING", "COUNT_REVIEWS",
     "COUNT_NEW_FBA", "COUNT_NEW_FBM"],
)  # fmt: skip
def test_counts_ranks_and_ratings_are_no_prices(name: str) -> None:
    assert not PriceType(name).is_price


@pytest.mark.parametrize(
    ("name", "landed"),
    [("NEW", False), ("AMAZON", False), ("BUY_BOX_SHIPPING", True), ("NEW_FBM_SHIPPING", True), ("NEW_FBA", False)],
)
def test_only_types_with_shipping_are_landed(name: str, landed: bool) -> None:
    assert PriceType(name).includes_shipping is landed


@pytest.mark.parametrize(
    ("kind", "has_prices"),
    [("standard", True), ("download", True), ("ebook", True), ("inaccessible", False), ("invalid", False), ("variation_parent", False)],
)
def test_some_kinds_of_product_have_no_price(kind: str, has_prices: bool) -> None:
    assert ProductKind(kind).has_prices is has_prices
