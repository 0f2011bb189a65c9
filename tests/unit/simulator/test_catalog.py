import re

import pytest

from keeper.simulator.catalog import MARKETPLACES, Catalog, is_asin, make_ean, make_title
from keeper.simulator.clock import keepa_minute

START = 1_795_000_000.0


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(products=100_000, seed=1, start_at=START)


def test_the_47_real_keyboards_come_first(catalog: Catalog) -> None:
    asins = catalog.asins(0, 47)
    assert len(set(asins)) == 47
    assert asins[0] == "B08DG4C63H"
    assert not any(asin.startswith("B0S") for asin in asins)


def test_marketplaces_are_the_five_and_the_us() -> None:
    assert {place.code for place in MARKETPLACES.values()} == {"DE", "FR", "IT", "ES", "UK", "US"}


@pytest.mark.parametrize("number", [0, 46, 47, 1234, 99_999])
def test_asin_leads_back_to_its_product(catalog: Catalog, number: int) -> None:
    product = catalog.product(number)
    assert is_asin(product.asin)
    assert catalog.find_asin(product.asin) == product


@pytest.mark.parametrize("asin", ["B000000000", "B0SZZZZZZZ", "3446274871"])
def test_foreign_asin_leads_nowhere(catalog: Catalog, asin: str) -> None:
    assert catalog.find_asin(asin) is None


def test_product_beyond_the_catalogs_size_does_not_exist(catalog: Catalog) -> None:
    small = Catalog(products=60, seed=1, start_at=START)
    assert small.find_asin(catalog.product(60).asin) is None
    with pytest.raises(IndexError):
        small.product(60)


@pytest.mark.parametrize("text", ["XXXXXXXXXX", "b08dg4c63h", "B08DG4C63", "B08DG4C63HH", "", "B08DG4C6 H", "344627487Y"])
def test_malformed_asin_is_seen_as_such(text: str) -> None:
    assert not is_asin(text)


@pytest.mark.parametrize("number", [0, 46, 47, 5_000, 99_997])
def test_ean_leads_back_to_its_product_and_has_a_true_check_digit(catalog: Catalog, number: int) -> None:
    ean = make_ean(number)
    assert re.fullmatch("401[0-9]{10}", ean)
    assert sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(ean)) % 10 == 0
    assert catalog.product(number) in catalog.find_code(ean)


def test_one_ean_can_belong_to_two_products(catalog: Catalog) -> None:
    assert [product.number for product in catalog.find_code(make_ean(59))] == [58, 59]


@pytest.mark.parametrize("code", ["4006381333931", "4010000000000", "abc", "", "401271828182"])
def test_foreign_or_broken_code_finds_nothing(catalog: Catalog, code: str) -> None:
    assert catalog.find_code(code) == []


def test_some_titles_hold_html_entities(catalog: Catalog) -> None:
    titles = [make_title(catalog.product(number), MARKETPLACES[3]) or "" for number in range(200)]
    assert any("&#x27;" in title for title in titles)
    assert any("&amp;" in title for title in titles)


def test_some_generated_products_have_no_prices(catalog: Catalog) -> None:
    kinds = {catalog.product(number).product_type for number in range(47, 200)}
    assert kinds == {0, 3, 4, 5}


def test_price_level_is_what_was_seen_where_it_was_seen(catalog: Catalog) -> None:
    product = catalog.product(0)
    assert (product.seen_on, product.price_minor) == ("UK", 1098)
    assert catalog.traits(product, 2).level_minor == 1098


def test_cache_forgets_the_oldest_history_first() -> None:
    catalog = Catalog(products=47, seed=1, start_at=START, max_cached_entries=12_000)
    now = keepa_minute(START)
    first = catalog.history(catalog.product(0), 3, now)
    assert catalog.history(catalog.product(0), 3, now) is first
    for number in range(1, 12):
        catalog.history(catalog.product(number), 3, now)
        assert catalog.cached_entries <= 12_000
    assert catalog.history(catalog.product(0), 3, now) is not first


@pytest.mark.parametrize("products", [0, -1, 100_001])
def test_size_out_of_range_is_refused(products: int) -> None:
    with pytest.raises(ValueError, match="products"):
        Catalog(products=products, start_at=START)
