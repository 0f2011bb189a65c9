import math
import statistics

import pytest

from keeper.simulator.catalog import Catalog
from keeper.simulator.clock import keepa_minute
from keeper.simulator.prices import AMAZON, BUY_BOX_SHIPPING, DAY, LIGHTNING_DEAL, NEW, PRICES, TRIPLETS, History, make_history

START = 1_795_000_000.0
NOW = keepa_minute(START)
NUMBERS = [*range(0, 47, 6), *range(60, 96, 7)]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(products=300, seed=1, start_at=START)


@pytest.fixture(scope="module")
def histories(catalog: Catalog) -> list[History]:
    return [catalog.history(catalog.product(number), domain, NOW) for number in NUMBERS for domain in (3, 8)]


def values_by_minute(history: History, minutes: range) -> list[tuple[int, ...]]:
    return [tuple(-1 if column is None else column.value_at(minute, len(column.times)) for column in history.columns) for minute in minutes]


@pytest.mark.parametrize("number", [0, 20, 70, 130])
def test_price_does_not_depend_on_how_far_the_history_goes_back(catalog: Catalog, number: int) -> None:
    traits = catalog.traits(catalog.product(number), 3)
    long = make_history(traits, NOW - 1000 * DAY, NOW)
    short = make_history(traits, NOW - 120 * DAY, NOW)
    # Without review counts and fetches, whose first entry may come after the beginning.
    minutes = range(NOW - 110 * DAY, NOW, 701)
    assert values_by_minute(long, minutes) == values_by_minute(short, minutes)


@pytest.mark.parametrize("number", [0, 20, 70, 130])
def test_price_does_not_depend_on_when_it_is_asked_for(catalog: Catalog, number: int) -> None:
    traits = catalog.traits(catalog.product(number), 4)
    now, later = (make_history(traits, NOW - 400 * DAY, moment) for moment in (NOW, NOW + 700 * DAY))
    minutes = range(NOW - 390 * DAY, NOW, 1009)
    assert values_by_minute(now, minutes) == values_by_minute(later, minutes)


def test_two_catalogs_with_one_seed_agree_whatever_was_asked_first(catalog: Catalog) -> None:
    other = Catalog(products=100_000, seed=1, start_at=START)
    for number in (250, 47, 3):
        mine, theirs = (each.history(each.product(number), 9, NOW) for each in (catalog, other))
        assert [c and c.flat for c in mine.columns] == [c and c.flat for c in theirs.columns]


def test_another_seed_is_another_world(catalog: Catalog) -> None:
    other = Catalog(products=300, seed=2, start_at=START)
    mine, theirs = (each.history(each.product(0), 3, NOW).columns[NEW] for each in (catalog, other))
    assert mine is not None
    assert theirs is not None
    assert mine.flat != theirs.flat


def test_times_ascend_strictly_in_every_series(histories: list[History]) -> None:
    for history in histories:
        for column in history.columns:
            if column is not None:
                assert all(a < b for a, b in zip(column.times, column.times[1:], strict=False))


def test_only_lightning_deals_reach_beyond_the_made_up_time(histories: list[History]) -> None:
    for history in histories:
        for price_type, column in enumerate(history.columns):
            if column is not None and price_type != LIGHTNING_DEAL:
                assert column.times[-1] < history.last


def test_prices_are_positive_or_absent(histories: list[History]) -> None:
    for history in histories:
        for price_type in PRICES:
            column = history.columns[price_type]
            if column is not None:
                assert all(value == -1 or value > 0 for value in column.totals)


def test_triplets_have_three_numbers_an_entry(histories: list[History]) -> None:
    for history in histories:
        for price_type, column in enumerate(history.columns):
            if column is not None:
                assert column.stride == (3 if price_type in TRIPLETS else 2)


def test_history_is_at_least_two_years_long(histories: list[History]) -> None:
    assert all(NOW - history.first >= 2 * 365 * DAY for history in histories)


def test_amazon_is_never_cheaper_than_the_lowest_new_offer(histories: list[History]) -> None:
    for history in histories:
        amazon, new = history.columns[AMAZON], history.columns[NEW]
        assert amazon is not None
        assert new is not None
        for minute, value in zip(amazon.times, amazon.totals, strict=True):
            if value > 0:
                assert 0 < new.value_at(minute, len(new.times)) <= value


def test_rates_of_change_differ_by_more_than_ten_times_between_products(catalog: Catalog) -> None:
    rates = sorted(catalog.traits(catalog.product(number), 3).changes_per_day for number in range(47, 297) if number % 100 < 97)
    assert rates[-len(rates) // 20] > 25 * rates[len(rates) // 20]
    assert statistics.median(rates) == pytest.approx(0.15, rel=0.5)


def test_prices_of_one_product_stand_near_each_other_across_marketplaces(catalog: Catalog) -> None:
    ratios = []
    for number in range(47, 87):
        product = catalog.product(number)
        ratios.append(math.log(catalog.traits(product, 3).level_minor / catalog.traits(product, 8).level_minor))
    assert statistics.pstdev(ratios) < 0.15


def test_daily_prices_move_together_across_marketplaces(catalog: Catalog) -> None:
    correlations = []
    for number in range(0, 47, 3):
        product = catalog.product(number)
        series = []
        for domain in (3, 4):
            column = catalog.history(product, domain, NOW).columns[NEW]
            assert column is not None
            series.append([column.value_at(minute, len(column.times)) for minute in range(NOW - 700 * DAY, NOW, DAY)])
        pairs = [(math.log(a), math.log(b)) for a, b in zip(*series, strict=True) if a > 0 and b > 0]
        correlations.append(statistics.correlation([a for a, _ in pairs], [b for _, b in pairs]))
    assert statistics.mean(correlations) > 0.15


def test_world_holds_gaps_lightning_deals_and_glitches(histories: list[History]) -> None:
    gaps = lightning = glitches = 0
    for history in histories:
        lightning += len(history.lightning_windows)
        new = history.columns[NEW]
        amazon = history.columns[AMAZON]
        assert new is not None
        assert amazon is not None
        gaps += sum(1 for value in amazon.totals[1:] if value < 0)
        usual = statistics.median(value for value in new.totals if value > 0)
        glitches += sum(1 for value in new.totals if 0 < value < 0.4 * usual)
    assert min(gaps, lightning, glitches) > 0


def test_buy_box_holder_is_nobody_exactly_while_there_is_no_buy_box_price(histories: list[History]) -> None:
    for history in histories:
        box = history.columns[BUY_BOX_SHIPPING]
        assert box is not None
        for minute, seller in zip(history.buybox_times, history.buybox_sellers, strict=True):
            assert (box.value_at(minute, len(box.times)) < 0) == (seller == "-1")
