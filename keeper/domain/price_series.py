"""A step function over time: each value holds from its minute until the next one."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def minute_of(at: datetime) -> int:
    """Whole minutes since 1970-01-01T00:00Z, rounded down. `at` must be aware."""
    if at.tzinfo is None:
        raise ValueError("a datetime without a time zone has no place here")
    return (at - EPOCH) // timedelta(minutes=1)


def time_of(minute: int) -> datetime:
    """The aware UTC datetime of a minute since 1970."""
    return EPOCH + timedelta(minutes=minute)


class Extreme(NamedTuple):
    """A lowest or highest value and the minute since 1970 at which it began."""

    amount: int
    minute: int

    @property
    def at(self) -> datetime:
        return time_of(self.minute)


@dataclass(frozen=True, slots=True)
class PriceSeries:
    """Change points as two columns of the same length, oldest first.

    Attributes:
        minutes: minutes since 1970-01-01T00:00Z, strictly ascending.
        amounts: minor units for prices (landed where shipping is known), else a plain count, rank or rating x 10;
            None from the moment there is no offer or no data.
    """

    minutes: Sequence[int]
    amounts: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.minutes)


@dataclass(frozen=True, slots=True)
class PriceSummary:
    """What a series came to in a range of time.

    Attributes:
        lowest, highest: with when the value first stood within the range; None where there was never an offer.
        lowest_until_minute: until when the value last stood at the lowest; the end of the range where it still does.
        average: time-weighted mean, as `average` has it.
        median: the time-weighted median: the value it stood at or below for half of the time with an offer, or for more.
        known_minutes: how much of the range the series covers.
        offer_minutes: how much of that there was an offer.
        at_or_below_minutes: how much of that the value was at or below the limit asked for; None where none was.
        current: the value in force at the end; None without an offer.
        current_since_minute: since when it is what it is, through points that repeat it; None where the series has not begun.
    """

    lowest: Extreme | None
    lowest_until_minute: int | None
    highest: Extreme | None
    average: int | None
    median: int | None
    known_minutes: int
    offer_minutes: int
    at_or_below_minutes: int | None
    current: int | None
    current_since_minute: int | None

    @property
    def offer_pct(self) -> float | None:
        """Share of the known time with an offer; None where nothing is known."""
        return 100 * self.offer_minutes / self.known_minutes if self.known_minutes else None

    @property
    def at_or_below_pct(self) -> float | None:
        """Share of the time with an offer; None where there was none, or no limit was asked for."""
        if self.at_or_below_minutes is None or not self.offer_minutes:
            return None
        return 100 * self.at_or_below_minutes / self.offer_minutes


_EPOCH_ORDINAL = 719_163
_CLOCK = [f"T{minute // 60:02d}:{minute % 60:02d}:00Z" for minute in range(1440)]


def iso_of(minute: int) -> str:
    """`2026-11-21T14:05:00Z`: as `time_of` and isoformat would say it, several times as fast."""
    day, rest = divmod(minute, 1440)
    return _day_of(day) + _CLOCK[rest]


@lru_cache(maxsize=10_000)
def _day_of(day: int) -> str:
    return date.fromordinal(_EPOCH_ORDINAL + day).isoformat()


def value_at(series: PriceSeries, minute: int) -> int | None:
    """The value in force at a minute; None before the first entry and where there is no offer."""
    index = bisect_right(series.minutes, minute) - 1
    return series.amounts[index] if index >= 0 else None


def average(series: PriceSeries, start_minute: int, end_minute: int) -> int | None:
    """Time-weighted mean from start to end, cut toward zero, over the spans that have a value; None where none has.

    A value lasts until the next entry, the last one until the end; time before the first entry does not count.
    This reproduces Keepa's `avg30`, `avg90`, `avg180` and `avg365` to within 1 (end = time of the answer, N x 1440 minutes).
    """
    total = covered = 0
    for amount, minutes in _spans(series, start_minute, end_minute):
        if amount is not None:
            total += amount * minutes
            covered += minutes
    if not covered:
        return None
    return total // covered if total >= 0 else -(-total // covered)


def out_of_stock_pct(series: PriceSeries, start_minute: int, end_minute: int) -> int | None:
    """Percent of the time from start to end without an offer, rounded up; None where the series has not begun by the end.

    Of the part the series covers, where it begins after the start. Keepa's `outOfStockPercentageN`, rounded up as there: 0.05 % is 1.
    """
    absent = covered = 0
    for amount, minutes in _spans(series, start_minute, end_minute):
        covered += minutes
        if amount is None:
            absent += minutes
    return -(-100 * absent // covered) if covered else None


def summarize(series: PriceSeries, start_minute: int, end_minute: int, at_or_below: int | None = None) -> PriceSummary:
    """What the series came to from start to end; each value is valid until the next point, the last one until the end.

    A value that begins at the very end is the current one and may be the lowest or highest, but has no time of its own.
    """
    first, stop = _bounds(series, start_minute, end_minute)
    standing: dict[int, int] = {}
    known = offer = 0
    for amount, minutes in _spans(series, start_minute, end_minute):
        known += minutes
        if amount is not None:
            offer += minutes
            standing[amount] = standing.get(amount, 0) + minutes
    lowest = highest = lowest_until = None
    priced = [(amount, index) for index in range(first, stop) if (amount := series.amounts[index]) is not None]
    if priced:
        amounts = [amount for amount, _ in priced]
        lowest = _extreme(series, min(amounts), priced, start_minute)
        highest = _extreme(series, max(amounts), priced, start_minute)
        until = max(index for amount, index in priced if amount == lowest.amount) + 1
        lowest_until = series.minutes[until] if until < stop else end_minute
    current, since = _current(series, end_minute)
    return PriceSummary(
        lowest=lowest,
        lowest_until_minute=lowest_until,
        highest=highest,
        average=average(series, start_minute, end_minute),
        median=_median(standing, offer),
        known_minutes=known,
        offer_minutes=offer,
        at_or_below_minutes=None if at_or_below is None else sum(time for amount, time in standing.items() if amount <= at_or_below),
        current=current,
        current_since_minute=since,
    )


def downsample(series: PriceSeries, start_minute: int, end_minute: int, points: int) -> PriceSeries:
    """At most `points` of the change points in force from start to end, in order; all of them where they are few enough.

    Kept are the one in force at the start, the last, the lowest and the highest (with fewer than four `points` in this order);
    then the edges of the longest times without an offer, for which up to a quarter of the rest is set aside, and the lowest and the
    highest of equal spans of time, as many as there is room for. What is left goes to more such edges. Of equal values the first is taken.

    Raises:
        ValueError: fewer than two `points`.
    """
    if points < 2:
        raise ValueError(f"a series cannot be told in {points} points; ask for at least 2")
    first, stop = _bounds(series, start_minute, end_minute)
    if stop - first <= points:
        return PriceSeries(series.minutes[first:stop], series.amounts[first:stop])
    amounts = series.amounts
    priced = [index for index in range(first, stop) if amounts[index] is not None]
    values = [amount for amount in amounts[first:stop] if amount is not None]
    wanted = [first, stop - 1]
    if priced:
        wanted += [priced[values.index(min(values))], priced[values.index(max(values))]]
    kept = set(wanted[:points])
    room = max(points - 4, 0)
    gaps = _gaps(series, first, stop)
    edges_first = [index for edges in _fitting(gaps, room // 4) for index in edges]
    kept.update(edges_first)
    room -= len(edges_first)
    if priced and room >= 2:
        times = [series.minutes[index] for index in priced]
        buckets = room // 2
        found = _bucket_extremes(times, values, start_minute, end_minute, buckets)
        # Halving every span at most doubles what is found, and never loses any of it.
        while 2 * len(found) <= room and buckets < end_minute - start_minute:
            buckets *= 2
            found = _bucket_extremes(times, values, start_minute, end_minute, buckets)
        kept.update(priced[place] for place in found)
    for edges in gaps:
        missing = [index for index in edges if index not in kept]
        if len(kept) + len(missing) <= points:
            kept.update(missing)
    order = sorted(kept)
    return PriceSeries([series.minutes[index] for index in order], [amounts[index] for index in order])


def _bounds(series: PriceSeries, start_minute: int, end_minute: int) -> tuple[int, int]:
    """Index of the point in force at the start, and of the first one after the end."""
    first = max(bisect_right(series.minutes, start_minute) - 1, 0)
    return first, max(bisect_right(series.minutes, end_minute), first)


def _extreme(series: PriceSeries, wanted: int, priced: Sequence[tuple[int, int]], start_minute: int) -> Extreme:
    index = next(index for amount, index in priced if amount == wanted)
    return Extreme(wanted, max(series.minutes[index], start_minute))


def _median(standing: dict[int, int], offer_minutes: int) -> int | None:
    passed = 0
    for amount in sorted(standing):
        passed += standing[amount]
        if 2 * passed >= offer_minutes:
            return amount
    return None


def _current(series: PriceSeries, end_minute: int) -> tuple[int | None, int | None]:
    index = bisect_right(series.minutes, end_minute) - 1
    if index < 0:
        return None, None
    amount = series.amounts[index]
    while index > 0 and series.amounts[index - 1] == amount:
        index -= 1
    return amount, series.minutes[index]


def _gaps(series: PriceSeries, first: int, stop: int) -> list[list[int]]:
    """The points between which there is no offer, the longest such time first; of one at either end only the inner point."""
    found: list[tuple[int, list[int]]] = []
    begun: int | None = first if series.amounts[first] is None else None
    for index in range(first + 1, stop):
        is_absent = series.amounts[index] is None
        if begun is None and is_absent:
            begun = index
        elif begun is not None and not is_absent:
            found.append((series.minutes[index] - series.minutes[begun], [begun, index]))
            begun = None
    if begun is not None:
        found.append((series.minutes[stop - 1] - series.minutes[begun], [begun]))
    return [edges for _, edges in sorted(found, key=lambda gap: -gap[0])]


def _fitting(gaps: Sequence[list[int]], room: int) -> Iterator[list[int]]:
    """The first gaps whose edges fit."""
    for edges in gaps:
        room -= len(edges)
        if room < 0:
            return
        yield edges


def _bucket_extremes(times: Sequence[int], values: Sequence[int], start_minute: int, end_minute: int, buckets: int) -> set[int]:
    """Places of the lowest and the highest value in each of so many equal spans from start to end that has any."""
    found: set[int] = set()
    minutes = end_minute - start_minute
    place = 0
    while place < len(times):
        bucket = min(max(times[place] - start_minute, 0) * buckets // minutes, buckets - 1)
        until = start_minute - (-(bucket + 1) * minutes // buckets)  # rounded up
        stop = bisect_left(times, until, place + 1) if bucket < buckets - 1 else len(times)
        span = values[place:stop]
        found |= {place + span.index(min(span)), place + span.index(max(span))}
        place = stop
    return found


def _spans(series: PriceSeries, start_minute: int, end_minute: int) -> Iterator[tuple[int | None, int]]:
    """Each value in force between start and end, and for how many minutes."""
    minutes, amounts = series.minutes, series.amounts
    index = max(bisect_right(minutes, start_minute) - 1, 0)
    while index < len(minutes) and minutes[index] < end_minute:
        begin = max(minutes[index], start_minute)
        index += 1
        end = min(minutes[index], end_minute) if index < len(minutes) else end_minute
        if end > begin:
            yield amounts[index - 1], end - begin
