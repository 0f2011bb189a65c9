"""The history of a price: a range led by what was in force, no further than it is known, in one round trip."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from keeper.domain.price_series import time_of
from keeper.domain.price_type import PriceType
from keeper.domain.product import ProductKind
from keeper.postgres.history import HistoryRange, ProductUnknown, find_price_history
from keeper.postgres.partitions import make_partitions
from tests.integration.makers import ASIN, NOW, Points, ago, product, rows, run_record

POINTS: Points = [(ago(days=200), 9000), (ago(days=100), 8000), (ago(days=50), None), (ago(days=20), 7000), (ago(days=2), 7500)]


def known(engine: Engine, price_type: PriceType = PriceType.NEW, *, asin: str = ASIN, **options: Any) -> HistoryRange:
    with engine.begin() as connection:
        return find_price_history(connection, asin, "DE", price_type.value, **options)


def points(found: HistoryRange) -> list[tuple[datetime, int | None]]:
    return [(time_of(minute), amount) for minute, amount in zip(found.series.minutes, found.series.amounts, strict=True)]


@contextmanager
def statements(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """What is asked of the database meanwhile."""
    asked: list[tuple[str, Any]] = []

    def keep(connection: Connection, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", keep)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", keep)


def test_a_range_is_led_by_the_price_in_force_at_its_start(engine: Engine) -> None:
    run_record(engine, product(POINTS))
    assert points(known(engine, span=timedelta(days=60))) == POINTS[1:]


def test_a_point_at_the_start_leads(engine: Engine) -> None:
    run_record(engine, product(POINTS))
    assert points(known(engine, start=ago(days=50))) == POINTS[2:]


def test_a_price_that_begins_within_the_range_has_nothing_before(engine: Engine) -> None:
    run_record(engine, product(POINTS))
    assert points(known(engine, span=timedelta(days=365))) == POINTS


def test_a_range_has_an_end(engine: Engine) -> None:
    run_record(engine, product(POINTS))
    found = known(engine, start=ago(days=60), end=ago(days=20))
    assert (points(found), found.start_at, found.end_at) == (POINTS[1:4], ago(days=60), ago(days=20))


def test_a_span_is_counted_back_from_when_the_price_was_last_checked(engine: Engine) -> None:
    run_record(engine, product(POINTS[:3], at=ago(days=40)))
    found = known(engine, span=timedelta(days=15), end=NOW)
    assert (points(found), found.start_at, found.end_at, found.checked_at) == (
        POINTS[1:3],
        ago(days=55),
        ago(days=40),
        ago(days=40),
    )


def test_the_current_price_and_the_title_come_with_it(engine: Engine) -> None:
    run_record(engine, product(POINTS, title="Tastatur"))
    found = known(engine, span=timedelta(days=1))
    assert (found.title, found.amount_minor, found.currency, found.observed_at, found.checked_at) == (
        "Tastatur",
        7500,
        "EUR",
        ago(days=2),
        NOW,
    )


def test_a_check_without_news_moves_the_end_and_adds_no_point(engine: Engine) -> None:
    run_record(engine, product(POINTS, at=ago(days=1)))
    before = known(engine, start=ago(days=60))
    run_record(engine, product(POINTS))
    after = known(engine, start=ago(days=60))
    assert (before.series, before.end_at, after.end_at) == (after.series, ago(days=1), NOW)


def test_a_range_after_the_last_check_is_empty(engine: Engine) -> None:
    run_record(engine, product(POINTS[:2], at=ago(days=90)))
    found = known(engine, start=ago(days=10), end=NOW)
    assert (points(found), found.end_at) == ([], ago(days=90))


def test_a_product_nobody_has_checked_is_not_known(engine: Engine) -> None:
    with pytest.raises(ProductUnknown, match=ASIN):
        known(engine, span=timedelta(days=90))


def test_a_known_product_without_such_a_price_has_an_empty_series(engine: Engine) -> None:
    run_record(engine, product(POINTS))
    found = known(engine, price_type=PriceType.WAREHOUSE, span=timedelta(days=90))
    assert (points(found), found.title, found.currency, found.checked_at, found.end_at) == ([], "Tastatur", None, None, None)


def test_a_product_keepa_does_not_know_has_an_empty_series(engine: Engine) -> None:
    run_record(engine, product(kind=ProductKind.INVALID, title=None))
    assert points(known(engine, span=timedelta(days=90))) == []


def test_of_too_many_points_the_newest_are_read_and_the_answer_says_so(engine: Engine) -> None:
    run_record(engine, product(POINTS))
    found = known(engine, span=timedelta(days=365), most_points=2)
    assert (points(found), found.start_at, found.is_cut) == (POINTS[3:], ago(days=20), True)


def test_as_many_points_as_may_be_read_are_all(engine: Engine) -> None:
    run_record(engine, product(POINTS))
    found = known(engine, span=timedelta(days=60), most_points=3)
    assert (points(found), found.start_at, found.is_cut) == (POINTS[1:], ago(days=60), False)


def test_a_history_is_one_round_trip(engine: Engine) -> None:
    run_record(engine, product(POINTS))
    with statements(engine) as asked:
        known(engine, span=timedelta(days=60))
    assert len(asked) == 1


def test_a_range_reads_only_its_own_product_and_no_partition_beside_it(engine: Engine) -> None:
    run_record(engine, product(POINTS))
    with engine.begin() as connection:
        make_partitions(connection, now=NOW)
        connection.execute(
            text(
                """
                INSERT INTO price_history (asin, marketplace, price_type, observed_at, amount_minor, currency)
                SELECT 'B' || to_char(n % 500, 'FM000000000'), 'DE', 'NEW', CAST(:now AS timestamptz) - n * interval '10 minutes', n, 'EUR'
                FROM generate_series(1, 60000) n
                """
            ),
            {"now": NOW},
        )
        connection.execute(text("ANALYZE price_history"))
    with statements(engine) as asked:
        known(engine, span=timedelta(days=40))
    [(statement, parameters)] = asked
    with engine.begin() as connection:
        lines = [line for (line,) in connection.exec_driver_sql(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement}", parameters)]
    done = [line for line in lines if "never executed" not in line]
    assert not [line for line in done if "Seq Scan on price_history" in line]
    later = done[next(number for number, line in enumerate(done) if "Aggregate" in line) :]
    read = {found.group(1) for line in later if (found := re.search(r" on (price_history_\d+)", line))}
    assert read == {f"price_history_{at:%Y%m}" for at in (ago(days=40), ago(days=20), NOW)}


def test_rows_outside_every_month_are_found_too(engine: Engine) -> None:
    with engine.begin() as connection:
        make_partitions(connection, now=NOW)
    old: Points = [(ago(days=2000), 5000), (ago(days=1500), 4000), (ago(days=1), 3000)]
    run_record(engine, product(old))
    assert (points(known(engine, span=timedelta(days=3650))), len(rows(engine, "SELECT 1 FROM price_history_default"))) == (old, 2)
