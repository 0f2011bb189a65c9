"""Claims about series: what held when, and the sums over it."""

import json
from pathlib import Path

import pytest

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import PriceSeries, average, minute_of, out_of_stock_pct, value_at
from keeper.domain.price_type import PriceType
from keeper.domain.product import Product
from keeper.keepa.wire import decode_products

RECORDING = Path(__file__).parents[2] / "recordings" / "product_us_B0D8W1YVBX_stats_rating_buybox_4tokens.json"
WINDOWS = (30, 90, 180, 365)

SERIES = PriceSeries(minutes=(100, 200, 300), amounts=(1000, None, 501))


@pytest.fixture(scope="module")
def recorded() -> Product:
    body = RECORDING.read_bytes()
    asin = json.loads(body)["products"][0]["asin"]
    return decode_products(body, [asin], Marketplace.US).products[asin]


@pytest.mark.parametrize(
    ("minute", "expected"),
    [
        pytest.param(99, None, id="before the first entry"),
        pytest.param(100, 1000, id="at an entry"),
        pytest.param(199, 1000, id="until the next"),
        pytest.param(200, None, id="without an offer"),
        pytest.param(10_000, 501, id="after the last"),
    ],
)
def test_value_holds_until_the_next_entry(minute: int, expected: int | None) -> None:
    assert value_at(SERIES, minute) == expected


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        pytest.param(0, 100, None, id="not begun"),
        pytest.param(0, 200, 1000, id="time before the first entry does not count"),
        pytest.param(200, 300, None, id="no offer throughout"),
        pytest.param(100, 400, 750, id="time without an offer does not count, the rest is cut"),
        pytest.param(150, 350, 750, id="cut at both ends"),
        pytest.param(175, 350, 667, id="weighted by time"),
        pytest.param(400, 400, None, id="no time at all"),
        pytest.param(350, 600, 501, id="after the last entry"),
    ],
)
def test_average_is_weighted_by_time_and_cut(start: int, end: int, expected: int | None) -> None:
    assert average(SERIES, start, end) == expected


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        pytest.param(0, 100, None, id="not begun"),
        pytest.param(0, 200, 0, id="always an offer"),
        pytest.param(0, 400, 34, id="a third, rounded up, of what is covered"),
        pytest.param(200, 300, 100, id="never an offer"),
        pytest.param(100, 100_000, 1, id="a tenth of a percent shows as one"),
    ],
)
def test_out_of_stock_share_is_rounded_up(start: int, end: int, expected: int | None) -> None:
    assert out_of_stock_pct(SERIES, start, end) == expected


def test_an_empty_series_has_neither_value_nor_average_nor_share() -> None:
    empty = PriceSeries((), ())
    assert (value_at(empty, 5), average(empty, 0, 9), out_of_stock_pct(empty, 0, 9)) == (None, None, None)


@pytest.mark.parametrize("days", WINDOWS)
def test_averages_of_the_recording_are_reproduced_from_its_history(recorded: Product, days: int) -> None:
    assert recorded.stats is not None
    end = minute_of(recorded.answered_at)
    ours = {price_type: average(series, end - days * 1440, end) for price_type, series in recorded.series.items()}
    # Keepa gives no average of its own fetch marks.
    known = {price_type: mean for price_type, mean in ours.items() if mean is not None and price_type is not PriceType.EXTRA_INFO_UPDATES}
    theirs = recorded.stats.average[days]
    assert known.keys() == theirs.keys()
    assert {price_type for price_type, mean in known.items() if abs(mean - theirs[price_type]) > 1} == set()


@pytest.mark.parametrize("days", WINDOWS)
def test_out_of_stock_shares_of_the_recording_are_reproduced_from_its_history(recorded: Product, days: int) -> None:
    assert recorded.stats is not None
    end = minute_of(recorded.answered_at)
    ours = {
        price_type: share
        for price_type, series in recorded.series.items()
        if price_type.is_price and (share := out_of_stock_pct(series, end - days * 1440, end)) is not None
    }
    theirs = recorded.stats.out_of_stock_pct[days]
    assert ours.keys() == theirs.keys()
    assert {price_type: (share, theirs[price_type]) for price_type, share in ours.items() if abs(share - theirs[price_type]) > 1} == {}
