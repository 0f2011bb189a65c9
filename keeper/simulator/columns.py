"""Holds one price type's step function in columns and answers questions about windows of it without walking it."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

NONE = -1


class StepWriter:
    """Collects changes in time order and keeps only those that change something."""

    __slots__ = ("shippings", "times", "values")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.values: list[int] = []
        self.shippings: list[int] = []

    def write(self, minute: int, value: int) -> None:
        """Notes the value in force from `minute` on; a second value of the same minute replaces the first."""
        values = self.values
        if values:
            if values[-1] == value:
                return
            if self.times[-1] == minute:
                values[-1] = value
                if len(values) > 1 and values[-2] == value:
                    values.pop()
                    self.times.pop()
                return
        self.times.append(minute)
        values.append(value)


class Column:
    """A step function: strictly ascending Keepa minutes and the value from each on.

    Attributes:
        times: Keepa minutes.
        totals: Value in force from that minute on, price plus shipping for triplets; -1 is "none".
        flat: The entries as Keepa writes them, `stride` numbers each.
        stride: 2, or 3 with a shipping column.
    """

    __slots__ = ("_cum_live", "_cum_value", "_highs", "_lows", "flat", "stride", "times", "totals")

    def __init__(self, times: Sequence[int], values: Sequence[int], shippings: Sequence[int] | None = None) -> None:
        self.times = array("i", times)
        plain = array("i", values)
        count = len(self.times)
        self.stride = 2 if shippings is None else 3
        self.flat = array("i", bytes(4 * count * self.stride))
        self.flat[0 :: self.stride] = self.times
        self.flat[1 :: self.stride] = plain
        if shippings is None:
            self.totals = plain
        else:
            self.flat[2::3] = array("i", shippings)
            self.totals = array("i", [v + s if v >= 0 and s > 0 else v for v, s in zip(values, shippings, strict=True)])
        self._cum_value: array[int] | None = None
        self._cum_live: array[int] | None = None
        self._lows: tuple[list[int], list[int]] | None = None
        self._highs: tuple[list[int], list[int]] | None = None

    def count_until(self, minute: float) -> int:
        """Returns how many entries are not later than `minute`."""
        return bisect_right(self.times, minute)

    def select_flat(self, count: int, since: int | None) -> list[int]:
        """Returns the first `count` entries as Keepa writes them, from the one in force at `since` on."""
        first = 0 if since is None else max(0, bisect_right(self.times, since, 0, count) - 1)
        return self.flat[first * self.stride : count * self.stride].tolist()

    def value_at(self, minute: float, count: int) -> int:
        """Returns the value in force at `minute` among the first `count` entries, -1 before the first."""
        i = bisect_right(self.times, minute, 0, count) - 1
        return self.totals[i] if i >= 0 else NONE

    def measure(self, starts: Sequence[float], end: float, count: int) -> list[tuple[float, float, float]]:
        """Measures the windows from each start to one end over the first `count` entries.

        Returns:
            For each start: sum of value x minutes while there was a value, minutes with a value, minutes covered by the history.
        """
        if count == 0:
            return [(0.0, 0.0, 0.0)] * len(starts)
        value_end, live_end = self._area(end, count)
        first = self.times[0]
        windows = []
        for start in starts:
            if end <= start:
                windows.append((0.0, 0.0, 0.0))
            elif start <= first:
                windows.append((value_end, live_end, max(0.0, end - first)))
            else:
                value_start, live_start = self._area(start, count)
                windows.append((value_end - value_start, live_end - live_start, end - start))
        return windows

    def lowest(self, minute: float) -> tuple[int, int] | None:
        """Returns when the lowest value up to `minute` was first reached, and that value; None without any."""
        if self._lows is None:
            self._lows = _records(self.times, self.totals, lowest=True)
        return _last_record(self._lows, minute)

    def highest(self, minute: float) -> tuple[int, int] | None:
        """Returns when the highest value up to `minute` was first reached, and that value; None without any."""
        if self._highs is None:
            self._highs = _records(self.times, self.totals, lowest=False)
        return _last_record(self._highs, minute)

    def range_in(self, start: float, end: float, count: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Returns first time and value of the lowest and the highest value in force in a window; None without any."""
        if end <= start:
            return None
        first = bisect_right(self.times, start, 0, count) - 1
        last = bisect_left(self.times, end, 0, count)
        window = self.totals[max(first, 0) : last]
        if not window:
            return None
        high = max(window)
        if high < 0:
            return None
        low = min(window)
        if low < 0:
            low = min(value for value in window if value >= 0)
        times, offset, begin = self.times, max(first, 0), int(start)
        return (max(begin, times[offset + window.index(low)]), low), (max(begin, times[offset + window.index(high)]), high)

    def lowest_since(self, start: float, count: int) -> int:
        """Returns the lowest value in force from `start` to the last of the first `count` entries, -1 without any."""
        window = self.totals[max(0, bisect_right(self.times, start, 0, count) - 1) : count]
        low = min(window, default=NONE)
        return low if low >= 0 else min((value for value in window if value >= 0), default=NONE)

    def _area(self, minute: float, count: int) -> tuple[float, float]:
        if self._cum_live is None or self._cum_value is None:
            times, totals = self.times, self.totals
            spans = [later - earlier for earlier, later in pairwise(times)]
            # The order matters to a second thread: it reads `_cum_live` first.
            self._cum_value = array("q", accumulate((v * s if v > 0 else 0 for v, s in zip(totals, spans, strict=False)), initial=0))
            self._cum_live = array("q", accumulate((s if v >= 0 else 0 for v, s in zip(totals, spans, strict=False)), initial=0))
        i = bisect_right(self.times, minute, 0, count) - 1
        if i < 0:
            return 0.0, 0.0
        value = self.totals[i]
        if value < 0:
            return self._cum_value[i], self._cum_live[i]
        rest = minute - self.times[i]
        return self._cum_value[i] + value * rest, self._cum_live[i] + rest


def make_column(writer: StepWriter, first: int, last: int, *, with_shipping: bool = False) -> Column | None:
    """Makes a column of what was written, starting at `first` with the value in force there and ending before `last`."""
    times, values = writer.times, writer.values
    begin = max(0, bisect_right(times, first) - 1)
    end = bisect_left(times, last)
    if begin >= end:
        return None
    times, values = times[begin:end], values[begin:end]
    if times[0] < first:
        times[0] = first
    if not with_shipping:
        return Column(times, values)
    shippings = writer.shippings[begin:end] if writer.shippings else [0 if value >= 0 else NONE for value in values]
    return Column(times, values, shippings)


def _records(times: Sequence[int], totals: Sequence[int], *, lowest: bool) -> tuple[list[int], list[int]]:
    record_times: list[int] = []
    record_values: list[int] = []
    best = NONE
    for minute, value in zip(times, totals, strict=True):
        if value >= 0 and (best < 0 or (value < best if lowest else value > best)):
            best = value
            record_times.append(minute)
            record_values.append(value)
    return record_times, record_values


def _last_record(records: tuple[list[int], list[int]], minute: float) -> tuple[int, int] | None:
    i = bisect_right(records[0], minute) - 1
    return (records[0][i], records[1][i]) if i >= 0 else None
