"""Forecasts: given where a price repeats itself, withheld where it only wanders."""

import math
import random

import pytest

from keeper.domain.forecast import HORIZONS, LEAST_DAYS, HorizonForecast, forecast_price
from keeper.domain.price_series import PriceSeries

DAY = 1440
END = 364 * DAY


def sales(*, period: int = 20, length: int = 4, days: int = 365, usual: int = 10_000, sale: int = 7_000) -> PriceSeries:
    """At the usual price, and for the last days of each period on sale."""
    points: list[tuple[int, int | None]] = []
    for begin in range(0, days, period):
        points += [(begin * DAY, usual), ((begin + period - length) * DAY, sale)]
    return PriceSeries([minute for minute, _ in points], [amount for _, amount in points])


def walk(seed: int, *, changes: float) -> PriceSeries:
    """Some 2 % up or down, on so many of a year's days."""
    dice = random.Random(seed)
    points = {0: 10_000}
    level = 10_000.0
    for day in range(1, 365):
        if dice.random() < changes:
            level *= math.exp(dice.gauss(0, 0.02))
            points[day * DAY + dice.randrange(DAY)] = round(level)
    return PriceSeries(list(points), list(points.values()))


def week(series: PriceSeries, *, end: int = END, target: int | None = None) -> HorizonForecast:
    return forecast_price(series, end_minute=end, target_minor=target)[0]


@pytest.mark.parametrize(
    ("day", "price"),
    [
        pytest.param(345, 10_000, id="no sale in a week"),
        pytest.param(350, 7_000, id="in a week the next sale has begun"),
        pytest.param(357, 10_000, id="in a week this sale is over"),
    ],
)
def test_a_sale_that_returns_is_forecast(day: int, price: int) -> None:
    assert week(sales(), end=day * DAY).price_minor == price


def test_a_forecast_says_how_much_better_it_was_than_the_last_price() -> None:
    tried = week(sales()).price_backtest
    assert tried is not None
    assert (tried.is_better, tried.loss < tried.baseline_loss / 5) == (True, True)


def test_the_range_is_around_the_price() -> None:
    found = week(sales(), end=350 * DAY)
    assert (found.low_minor, found.price_minor, found.high_minor) == (7_000, 7_000, 10_000)


def test_the_chance_of_a_sale_grows_as_its_time_comes() -> None:
    after, before = (week(sales(), end=day * DAY, target=7_500).chance for day in (343, 350))
    assert after is not None
    assert before is not None
    assert (after < 0.2, before > 0.75) == (True, True)


def test_a_longer_time_has_a_larger_chance() -> None:
    chances = [one.chance for one in forecast_price(sales(), end_minute=END, target_minor=7_500)]
    week_long, month_long = chances
    assert week_long is not None
    assert month_long is not None
    assert week_long < month_long


def test_the_share_of_the_past_is_told_beside_the_chance() -> None:
    found = week(sales(), target=7_500)
    assert found.base_rate == pytest.approx(7 / 20, abs=0.02)


@pytest.mark.parametrize("changes", [1.0, 0.3, 0.05], ids=["every day", "now and then", "seldom"])
def test_of_prices_that_only_wander_hardly_any_forecast_is_given(changes: float) -> None:
    found = [
        one
        for seed in range(10)
        for series in [walk(seed, changes=changes)]
        for one in forecast_price(series, end_minute=END, target_minor=round((series.amounts[-1] or 0) * 0.95))
    ]
    # Each is tried at 1 %, so of these twenty one may be there by chance.
    assert sum(one.price_minor is not None for one in found) <= 1
    assert sum(one.chance is not None for one in found) <= 1


def test_a_price_that_stays_is_not_forecast_to_stay() -> None:
    found = week(PriceSeries([0], [5_000]), target=4_000)
    assert (found.price_minor, found.low_minor, found.chance, found.base_rate) == (None, None, None, 0)
    assert found.why_no_price == "on its own history nothing could be better than to say that the last price stays"
    assert found.why_no_chance == "on its own history nothing could be better than to say how often it happened so far"


def test_a_fall_that_happened_once_has_no_chance() -> None:
    found = week(PriceSeries([0, 200 * DAY, 204 * DAY], [10_000, 7_000, 10_000]), target=7_500)
    assert (found.chance, found.why_no_chance.startswith("on its own history it was not surely better")) == (None, True)


def test_what_comes_after_the_end_changes_nothing() -> None:
    known = sales()
    cut = [place for place, minute in enumerate(known.minutes) if minute <= 350 * DAY]
    earlier = PriceSeries([known.minutes[place] for place in cut], [known.amounts[place] for place in cut])
    assert forecast_price(known, end_minute=350 * DAY, target_minor=7_500) == forecast_price(
        earlier, end_minute=350 * DAY, target_minor=7_500
    )


def test_a_short_history_says_how_much_is_missing() -> None:
    found = week(sales(days=100), end=99 * DAY, target=7_500)
    assert found.why_no_price == f"{LEAST_DAYS + 35} days of history are needed to try it, and there are 99"
    assert (found.why_no_chance, found.price_backtest) == (found.why_no_price, None)


@pytest.mark.parametrize(
    "series", [pytest.param(PriceSeries([], []), id="no history"), pytest.param(PriceSeries([0, 360 * DAY], [10_000, None]), id="sold out")]
)
def test_without_an_offer_there_is_no_forecast(series: PriceSeries) -> None:
    for one in forecast_price(series, end_minute=END, target_minor=7_500):
        assert (one.price_minor, one.chance, one.why_no_price, one.why_no_chance) == (None, None, *["there is no offer now"] * 2)


def test_days_without_an_offer_are_left_out() -> None:
    known = sales()
    minutes, amounts = [*known.minutes], [*known.amounts]
    gap = minutes.index(160 * DAY)
    amounts[gap] = amounts[gap + 1] = None
    assert week(PriceSeries(minutes, amounts), end=350 * DAY).price_minor == 7_000


def test_a_price_that_is_at_the_target_needs_no_chance() -> None:
    found = week(sales(), end=358 * DAY, target=7_000)
    assert (found.chance, found.why_no_chance) == (None, "the price is there already")


def test_without_a_target_nothing_is_said_of_one() -> None:
    found = week(sales())
    assert (found.chance, found.base_rate, found.why_no_chance, found.chance_backtest) == (None, None, "", None)


def test_only_the_last_year_counts() -> None:
    recent = sales()
    minutes = [minute + 398 * DAY for minute in recent.minutes]
    old = PriceSeries([0, *minutes], [50, *recent.amounts])
    end = (398 + 365) * DAY
    assert forecast_price(old, end_minute=end) == forecast_price(PriceSeries(minutes, recent.amounts), end_minute=end)


def test_every_horizon_is_answered() -> None:
    assert tuple(one.days for one in forecast_price(sales(), end_minute=END)) == HORIZONS
