import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.simulator.columns import Column, StepWriter, make_column

steps = st.lists(st.tuples(st.integers(1, 50), st.integers(-1, 40)), min_size=1, max_size=30)


def make(changes: list[tuple[int, int]]) -> Column:
    minute, times, values = 100, [], []
    for gap, value in changes:
        minute += gap
        times.append(minute)
        values.append(value)
    return Column(times, values)


@given(steps, st.integers(50, 1200), st.integers(1, 900))
def test_window_measures_what_a_walk_minute_by_minute_measures(changes: list[tuple[int, int]], start: int, length: int) -> None:
    column = make(changes)
    count = len(column.times)
    in_force = [column.value_at(minute, count) for minute in range(start, start + length) if minute >= column.times[0]]
    live = [value for value in in_force if value >= 0]
    assert column.measure([start], start + length, count) == [(sum(live), len(live), len(in_force))]


@given(steps, st.integers(50, 1200), st.integers(1, 900))
def test_extremes_of_a_window_are_those_in_force_in_it(changes: list[tuple[int, int]], start: int, length: int) -> None:
    column = make(changes)
    count = len(column.times)
    live = [value for minute in range(start, start + length) if (value := column.value_at(minute, count)) >= 0]
    found = column.range_in(start, start + length, count)
    assert (found and (found[0][1], found[1][1])) == ((min(live), max(live)) if live else None)


@given(steps)
def test_lowest_ever_is_the_first_time_of_the_lowest_value(changes: list[tuple[int, int]]) -> None:
    column = make(changes)
    live = [(value, minute) for minute, value in zip(column.times, column.totals, strict=True) if value >= 0]
    assert column.lowest(math.inf) == ((min(live)[1], min(live)[0]) if live else None)


def test_entries_later_than_asked_for_stay_hidden() -> None:
    column = Column([10, 20, 30], [1, 2, 3])
    assert column.select_flat(column.count_until(20), None) == [10, 1, 20, 2]


@pytest.mark.parametrize(("since", "flat"), [(20, [20, 2, 30, 3]), (25, [20, 2, 30, 3]), (5, [10, 1, 20, 2, 30, 3])])
def test_limited_history_begins_with_the_entry_in_force(since: int, flat: list[int]) -> None:
    column = Column([10, 20, 30], [1, 2, 3])
    assert column.select_flat(3, since) == flat


def test_triplet_counts_price_and_shipping_together() -> None:
    column = Column([10, 20], [100, -1], [5, -1])
    assert (column.select_flat(2, None), list(column.totals)) == ([10, 100, 5, 20, -1, -1], [105, -1])


def test_writer_keeps_changes_only_and_the_last_word_of_a_minute() -> None:
    writer = StepWriter()
    for minute, value in ((1, 5), (2, 5), (3, 7), (4, 8), (4, 7), (5, 9)):
        writer.write(minute, value)
    assert (writer.times, writer.values) == ([1, 3, 5], [5, 7, 9])


def test_column_starts_with_the_value_in_force_at_its_beginning() -> None:
    writer = StepWriter()
    for minute, value in ((1, 5), (30, 6), (90, 7)):
        writer.write(minute, value)
    column = make_column(writer, 10, 80)
    assert column is not None
    assert column.flat.tolist() == [10, 5, 30, 6]
