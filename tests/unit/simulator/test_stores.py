"""The same product in five stores: mostly the same article, at prices between which there is sometimes something to earn."""

from itertools import permutations

import pytest

from keeper.simulator.catalog import MARKETPLACES, SEED_KEYBOARDS, Catalog, count_pieces, list_ean
from tests.unit.simulator.conftest import START, World

EUROPE = (2, 3, 4, 8, 9)
SIZE = 1000
# What the price levels of the stores differ by anyway, and what a pound is worth.
POUNDS_PER_EURO = 0.864


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(products=SIZE, seed=1, start_at=START)


def euro_levels(catalog: Catalog, number: int) -> list[float]:
    product = catalog.product(number)
    return [catalog.traits(product, domain).level_minor / (POUNDS_PER_EURO if domain == 2 else 1) for domain in EUROPE]


def largest_gap_pct(levels: list[float]) -> float:
    return max(100 * (target - source) / source for source, target in permutations(levels, 2))


def test_many_products_have_gaps_of_ten_to_forty_percent_and_few_larger_ones(catalog: Catalog) -> None:
    gaps = [largest_gap_pct(euro_levels(catalog, number)) for number in range(SIZE)]
    usual, large = sum(10 < gap <= 40 for gap in gaps), sum(gap > 40 for gap in gaps)
    assert 0.4 * SIZE < usual < 0.9 * SIZE
    assert 0.02 * SIZE < large < 0.2 * SIZE
    assert max(gaps) < 150


def test_two_catalogs_of_one_seed_agree_on_every_gap(catalog: Catalog) -> None:
    other = Catalog(products=SIZE, seed=1, start_at=START)
    assert [euro_levels(catalog, number) for number in range(100)] == [euro_levels(other, number) for number in range(100)]


def test_a_product_has_the_price_it_was_seen_at_in_the_store_where_it_was_seen(catalog: Catalog) -> None:
    products = [catalog.product(number) for number in range(SEED_KEYBOARDS)]
    home = {place.code: place.domain for place in MARKETPLACES.values()}
    assert [round(catalog.traits(one, home[one.seen_on]).level_minor) for one in products] == [one.price_minor for one in products]


def test_some_products_have_another_ean_in_a_single_store(catalog: Catalog) -> None:
    others = []
    for number in range(SIZE):
        eans = [list_ean(catalog.product(number), MARKETPLACES[domain]) for domain in EUROPE]
        others.append(len(set(eans)) - 1)
    assert set(others) == {0, 1}
    assert 0.03 * SIZE < sum(others) < 0.12 * SIZE


def test_some_products_are_a_pack_of_two_in_a_single_store(catalog: Catalog) -> None:
    packs = [sum(count_pieces(catalog.product(number), MARKETPLACES[domain]) - 1 for domain in EUROPE) for number in range(SIZE)]
    assert set(packs) == {0, 1}
    assert 0.01 * SIZE < sum(packs) < 0.05 * SIZE


def test_the_real_keyboards_are_the_same_article_everywhere(catalog: Catalog) -> None:
    products = [catalog.product(number) for number in range(SEED_KEYBOARDS)]
    assert {
        len({(list_ean(one, MARKETPLACES[domain]), count_pieces(one, MARKETPLACES[domain])) for domain in EUROPE}) for one in products
    } == {1}


def test_fees_for_sending_differ_by_store(shared_world: World) -> None:
    fees = [shared_world.product(0, domain=domain)["fbaFees"]["pickAndPackFee"] for domain in (3, 8, 2)]
    assert fees[1] > fees[0] > fees[2]


def test_some_products_are_hazardous_heat_sensitive_or_often_sent_back(shared_world: World) -> None:
    products = [shared_world.product(number) for number in range(SEED_KEYBOARDS)]
    assert {bool(one.get("hazardousMaterials")) for one in products} == {True, False}
    assert {one.get("returnRate") for one in products} == {None, 1, 2}
    assert {one["isHeatSensitive"] for one in products} == {True, False}
