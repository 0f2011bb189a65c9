"""Generated products that mislead who looks for bargains, and how many there are."""

from typing import Any

import pytest

from keeper.simulator.catalog import MARKETPLACES, Catalog, Oddities, make_title
from keeper.simulator.clock import KEEPA_EPOCH_MINUTES, keepa_minute
from keeper.simulator.prices import DAY, LISTPRICE, NEW
from tests.unit.simulator.conftest import START, World, WorldMaker

NOW = keepa_minute(START)


def catalog_of(products: int = 400, **shares: float) -> Catalog:
    return Catalog(products=products, seed=1, start_at=START, oddities=Oddities(**shares))


@pytest.mark.parametrize(("trait", "share"), [("crashes", 0.03), ("has_fictional_list", 0.05), ("trap", 0.06)])
def test_a_few_percent_of_the_generated_products_are_odd(trait: str, share: float) -> None:
    catalog = Catalog(products=10_000, seed=1, start_at=START)
    values = [getattr(catalog.product(number), trait) for number in range(10_000)]
    odd = sum(value is not None and value is not False for value in values)
    assert 0.7 * share < odd / 10_000 < 1.3 * share


@pytest.mark.parametrize("shares", [{"glitches": 1.0}, {"fictions": 1.0}, {"traps": 1.0}], ids=str)
def test_real_keyboards_are_never_odd(shares: dict[str, float]) -> None:
    odd, plain = catalog_of(47, **shares), catalog_of(47, glitches=0, fictions=0, traps=0)
    for number in range(47):
        assert odd.product(number) == plain.product(number)
        assert odd.traits(odd.product(number), 3) == plain.traits(plain.product(number), 3)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        Oddities(glitches=share)


def test_glitch_is_a_fall_by_nine_tenths_for_an_hour_at_most_every_day() -> None:
    catalog = catalog_of(glitches=1.0)
    absurd = 0
    for number in range(47, 67):
        product = catalog.product(number)
        column = catalog.history(product, 3, NOW).columns[NEW]
        assert column is not None
        level = catalog.traits(product, 3).level_minor
        spans = [
            (column.times[place + 1] - column.times[place], value)
            for place, value in enumerate(column.totals[:-1])
            if 0 < value < 0.1 * level and column.times[place] > NOW - 30 * DAY
        ]
        assert len(spans) > 5
        # Now and then any product has a glitch of some hours.
        assert sum(span > 60 for span, _ in spans) <= 1
        absurd += sum(value == 12 for _, value in spans)
    assert absurd > 10


def test_glitch_without_its_share_does_not_happen_and_leaves_no_trace() -> None:
    glitchy, plain = catalog_of(glitches=1.0), catalog_of(glitches=0)
    product = plain.product(60)
    with_glitches = glitchy.history(glitchy.product(60), 3, NOW).columns[NEW]
    without = plain.history(product, 3, NOW).columns[NEW]
    assert with_glitches is not None
    assert without is not None
    assert set(without.totals) - set(with_glitches.totals) == set()


def test_running_glitch_is_a_deal_of_more_than_90_percent(new_world: WorldMaker) -> None:
    world = new_world(products=200)
    catalog = world.keepa.catalog
    product = next(found for number in range(47, 200) if (found := catalog.product(number)).crashes)
    column = catalog.history(product, 3, NOW).columns[NEW]
    assert column is not None
    level = catalog.traits(product, 3).level_minor
    begin = next(at for at, value in zip(column.times, column.totals, strict=True) if at > NOW - 5 * DAY and 0 < value < 0.1 * level)
    world.machine[0] = (begin + 1 + KEEPA_EPOCH_MINUTES) * 60.0
    world.get(asin=product.asin, domain=3, update=0)
    deals = world.rows(dateRange=0, isRangeEnabled=True, deltaPercentRange=[80, 100])
    (deal,) = [deal for deal in deals if deal["asin"] == product.asin]
    assert deal["deltaPercent"][3][NEW] >= 90
    assert deal["deltaLast"][NEW] > 0.8 * level


def test_fiction_is_a_list_price_the_product_was_never_sold_near() -> None:
    catalog = catalog_of(fictions=1.0, glitches=0)
    for number in range(47, 80):
        columns = catalog.history(catalog.product(number), 3, NOW).columns
        new, listed = columns[NEW], columns[LISTPRICE]
        assert new is not None
        assert listed is not None
        usual = sorted(value for value in new.totals if value > 0)[-len(new.totals) // 20]
        assert min(listed.totals) > 1.5 * usual


def test_trap_is_in_the_root_category_with_a_keyboards_word_but_no_keyboard(shared_world: World) -> None:
    catalog = shared_world.keepa.catalog
    traps = [found for number in range(300) if (found := catalog.product(number)).trap is not None]
    assert len(traps) > 5
    keyboards: list[Any] = []
    for product in traps:
        answer = shared_world.product(product.number)
        assert answer["rootCategory"] in (340_843_031, 9_223_372_036_854_775_807)
        assert any(noun in answer["title"] for noun in MARKETPLACES[3].trap_nouns)
        assert make_title(product, MARKETPLACES[3]) == answer["title"]
        keyboards += [node for node in answer["categories"] if node == 430_178_031]
    assert not keyboards
