"""Claims about series: what held when, the sums over it, and what is kept of it where it is long."""

import json
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import (
    Extreme,
    PriceSeries,
    PriceSummary,
    average,
    downsample,
    iso_of,
    minute_of,
    out_of_stock_pct,
    summarize,
    time_of,
    value_at,
)
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


# --- a summary


@st.composite
def series(draw: st.DrawFn, *, most: int = 40, longest: int = 200) -> PriceSeries:
    minutes = sorted(draw(st.sets(st.integers(0, longest), max_size=most)))
    amounts = st.one_of(st.none(), st.integers(1, 6), st.integers(1, 100_000))
    return PriceSeries(minutes, draw(st.lists(amounts, min_size=len(minutes), max_size=len(minutes))))


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    start = draw(st.integers(-5, 210))
    return start, draw(st.integers(start, 260))


def summarize_slowly(known: PriceSeries, start: int, end: int, limit: int | None) -> PriceSummary:
    """Minute by minute."""
    begun = [minute for minute in range(start, end) if known.minutes and minute >= known.minutes[0]]
    values = [value_at(known, minute) for minute in begun]
    offers = sorted(value for value in values if value is not None)
    # The value at the very end has no time of its own, but it has been seen.
    seen = [(amount, minute) for minute in range(start, end + 1) if (amount := value_at(known, minute)) is not None]
    low, high = (min((amount for amount, _ in seen), default=None), max((amount for amount, _ in seen), default=None))
    left = [minute for minute in range(start, end) if value_at(known, minute) == low and value_at(known, minute + 1) != low]
    since = end
    while since > -10 and value_at(known, since - 1) == value_at(known, end):
        since -= 1
    begun_at = known.minutes[0] if known.minutes else None
    return PriceSummary(
        lowest=None if low is None else Extreme(low, min(minute for amount, minute in seen if amount == low)),
        lowest_until_minute=None if low is None else end if value_at(known, end) == low else left[-1] + 1,
        highest=None if high is None else Extreme(high, min(minute for amount, minute in seen if amount == high)),
        average=sum(offers) // len(offers) if offers else None,
        median=offers[(len(offers) - 1) // 2] if offers else None,
        known_minutes=len(values),
        offer_minutes=len(offers),
        at_or_below_minutes=None if limit is None else sum(value <= limit for value in offers),
        current=value_at(known, end),
        current_since_minute=None if begun_at is None or end < begun_at else max(since, begun_at),
    )


@given(known=series(), span=ranges(), limit=st.one_of(st.none(), st.integers(0, 8), st.integers(1, 100_000)))
def test_a_summary_is_that_of_every_minute(known: PriceSeries, span: tuple[int, int], limit: int | None) -> None:
    assert summarize(known, *span, limit) == summarize_slowly(known, *span, limit)


def test_a_summary_of_a_year_with_a_drop() -> None:
    summary = summarize(PriceSeries([0, 50, 60, 90], [300, None, 100, 200]), 10, 110, at_or_below=200)
    assert (summary.lowest, summary.highest, summary.lowest_until_minute) == (Extreme(100, 60), Extreme(300, 10), 90)
    assert (summary.average, summary.median, summary.current, summary.current_since_minute) == ((12000 + 3000 + 4000) // 90, 200, 200, 90)
    assert (summary.offer_pct, summary.at_or_below_minutes, summary.at_or_below_pct) == (90.0, 50, 100 * 50 / 90)


def test_the_median_is_what_it_stood_at_or_below_for_half_of_the_time() -> None:
    assert summarize(PriceSeries([0, 50, 100], [100, 900, 1]), 0, 100).median == 100


def test_a_price_that_fell_at_the_very_end_is_the_lowest() -> None:
    summary = summarize(PriceSeries([0, 100], [500, 400]), 0, 100)
    assert (summary.lowest, summary.current, summary.average) == (Extreme(400, 100), 400, 500)


def test_repeated_points_are_one_current_price() -> None:
    assert summarize(PriceSeries([0, 10, 20, 30], [5, 7, 7, 7]), 25, 40).current_since_minute == 10


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        pytest.param(PriceSeries([], []), (None, None, None), id="nothing known"),
        pytest.param(PriceSeries([0], [None]), (0.0, None, None), id="never an offer"),
        pytest.param(PriceSeries([0], [5]), (100.0, 100.0, 5), id="always the same"),
    ],
)
def test_shares_are_of_what_is_known(known: PriceSeries, expected: tuple[float | None, float | None, int | None]) -> None:
    summary = summarize(known, 0, 60, at_or_below=5)
    assert (summary.offer_pct, summary.at_or_below_pct, summary.median) == expected


# --- fewer points


def points_of(some: PriceSeries) -> list[tuple[int, int | None]]:
    return list(zip(some.minutes, some.amounts, strict=True))


def in_range(known: PriceSeries, start: int, end: int) -> list[tuple[int, int | None]]:
    """Slowly: the points in force from start to end."""
    led = [point for point in points_of(known) if point[0] <= start][-1:]
    return led + [point for point in points_of(known) if start < point[0] <= end]


@given(known=series(), span=ranges(), points=st.integers(2, 50))
def test_what_is_kept_of_a_series_are_points_of_it_in_order_and_not_too_many(
    known: PriceSeries, span: tuple[int, int], points: int
) -> None:
    kept = points_of(downsample(known, *span, points))
    assert len(kept) <= points
    assert kept == [point for point in in_range(known, *span) if point in kept]


@given(known=series(), span=ranges(), more=st.integers(0, 3))
def test_a_series_short_enough_stays_as_it_is(known: PriceSeries, span: tuple[int, int], more: int) -> None:
    whole = in_range(known, *span)
    assert points_of(downsample(known, *span, max(2, len(whole) + more))) == whole


@given(known=series(), span=ranges(), points=st.integers(4, 50))
def test_both_ends_and_both_extremes_are_kept(known: PriceSeries, span: tuple[int, int], points: int) -> None:
    whole, kept = in_range(known, *span), points_of(downsample(known, *span, points))
    assume(whole)
    assert (kept[0], kept[-1]) == (whole[0], whole[-1])
    offers = [amount for _, amount in whole if amount is not None]
    kept_offers = [amount for _, amount in kept if amount is not None]
    assert (min(kept_offers, default=None), max(kept_offers, default=None)) == (min(offers, default=None), max(offers, default=None))


@given(steps=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 9999)), min_size=51, max_size=120), points=st.integers(6, 50))
def test_each_span_of_time_keeps_its_lowest_and_highest(steps: list[tuple[int, int]], points: int) -> None:
    known = PriceSeries(list(accumulate(minutes for minutes, _ in steps)), [amount for _, amount in steps])
    end = known.minutes[-1]
    kept = downsample(known, 0, end, points)
    buckets = (points - 4) // 2
    for bucket in range(buckets):
        is_last = bucket == buckets - 1

        def within(some: PriceSeries, bucket: int = bucket, is_last: bool = is_last) -> list[int]:
            return [
                amount
                for minute, amount in points_of(some)
                if amount is not None and (minute * buckets // end == bucket or (is_last and minute == end))
            ]

        for extreme in (min, max):
            assert extreme(within(kept), default=0) == extreme(within(known), default=0)


def test_the_longest_time_without_an_offer_keeps_its_edges() -> None:
    minutes = list(range(1000))
    amounts: list[int | None] = [500 + minute % 7 for minute in minutes]
    amounts[300:400] = [None] * 100
    amounts[700] = None
    kept = points_of(downsample(PriceSeries(minutes, amounts), 0, 999, 12))
    assert ((300, None) in kept, (400, 500 + 400 % 7) in kept) == (True, True)


def test_room_that_quiet_times_leave_goes_to_busy_ones() -> None:
    minutes = [0, *range(900_000, 901_000)]
    kept = downsample(PriceSeries(minutes, [1000 + minute * 7919 % 500 for minute in minutes]), 0, 901_000, 100)
    assert len(kept) > 50


def test_a_series_in_less_than_two_points_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        downsample(SERIES, 0, 400, 1)


@given(st.integers(min_value=0, max_value=200_000_000))
def test_a_minute_is_told_as_isoformat_tells_it(minute: int) -> None:
    assert iso_of(minute) == time_of(minute).isoformat().replace("+00:00", "Z")
