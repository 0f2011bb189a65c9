"""A step function over time: each value holds from its minute until the next one."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def minute_of(at: datetime) -> int:
    """Whole minutes since 1970-01-01T00:00Z, rounded down. `at` must be aware."""
    if at.tzinfo is None:
        raise ValueError("a datetime without a time zone has no place here")
    return (at - EPOCH) // timedelta(minutes=1)


def time_of(minute: int) -> datetime:
    """The aware UTC datetime of a minute since 1970."""
    return EPOCH + timedelta(minutes=minute)


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
