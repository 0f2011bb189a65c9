"""What the ledger tells people: who holds tokens, who has spent them and when, what the watches ask for."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from keeper.domain.budget import Bucket, Priority
from keeper.domain.price_type import PriceType
from keeper.domain.tokens import KeepaCall
from keeper.postgres import ledger
from keeper.postgres.installation import select_now
from keeper.postgres.ledger import Demand, HourSpending, Reserved
from keeper.tokens import TokenReport, report_tokens
from tests.integration.makers import ASIN, NOW, add_user, add_watch, plans

BUYBOX = PriceType.BUY_BOX_SHIPPING


def call(engine: Engine, at: datetime, tokens: int | None, *, operation: str = "product", error: str | None = None) -> None:
    made = KeepaCall(at, operation, tokens, 100, 20, 1000, 50, 1, "DE", error is None, error)
    with engine.begin() as connection:
        ledger.insert_call(connection, uuid4(), made, now=at)


def set_aside(engine: Engine, operation: str, tokens: int, *, is_granted: bool) -> None:
    with engine.begin() as connection:
        ledger.insert_reservation(
            connection, operation=operation, tokens=tokens, priority=Priority.WATCH, is_granted=is_granted, lease_seconds=600
        )


def hours(engine: Engine) -> list[HourSpending]:
    with engine.begin() as connection:
        return ledger.select_hourly_spending(connection, now=NOW + timedelta(minutes=30))


def demand(engine: Engine) -> Demand:
    with engine.begin() as connection:
        return ledger.select_demand(connection, plain_tokens=1, buybox_tokens=3)


def watch(engine: Engine, user_id: int, minutes: float, *, price_type: PriceType = PriceType.NEW, asin: str = ASIN) -> int:
    return add_watch(engine, user_id, asin=asin, price_type=price_type, interval=timedelta(minutes=minutes))


# --- spending


def test_spending_by_hour_has_every_hour_of_the_day(engine: Engine) -> None:
    found = hours(engine)
    assert [one.hour_at for one in found] == [NOW - timedelta(hours=23 - step) for step in range(24)]
    assert {(one.calls, one.failed, one.tokens) for one in found} == {(0, 0, 0)}


def test_calls_count_in_the_hour_they_were_made(engine: Engine) -> None:
    call(engine, NOW, 3)
    call(engine, NOW + timedelta(minutes=29), 4)
    call(engine, NOW - timedelta(microseconds=1), 100)
    call(engine, NOW - timedelta(hours=23), 7)
    call(engine, NOW - timedelta(hours=23, microseconds=1), 1000)
    found = {one.hour_at: one.tokens for one in hours(engine) if one.calls}
    assert found == {NOW: 7, NOW - timedelta(hours=1): 100, NOW - timedelta(hours=23): 7}


def test_a_failed_call_counts_though_nobody_knows_what_it_cost(engine: Engine) -> None:
    call(engine, NOW, None, error="ServerDown: 503")
    assert hours(engine)[-1] == HourSpending(NOW, 1, 1, 0)


def test_hours_are_utc_whatever_the_session_thinks(engine: Engine) -> None:
    call(engine, NOW, 3)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL timezone = 'Asia/Kolkata'"))
        found = ledger.select_hourly_spending(connection, now=NOW)
    assert [one.hour_at.astimezone(UTC) for one in found if one.tokens] == [NOW]


def test_spending_of_a_day_reads_the_index_of_times(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                INSERT INTO keepa_calls (id, called_at, operation, asin_count, tokens_consumed, response_time_ms, success)
                SELECT gen_random_uuid(), CAST(:now AS timestamptz) - n * interval '1 minute', 'product', 1, 1, 1, true
                FROM generate_series(1, 50000) n
                """
            ),
            {"now": NOW},
        )
        connection.execute(text("ANALYZE keepa_calls"))
    by_operation = plans(engine, lambda connection: ledger.select_spending(connection, since=NOW - timedelta(days=1)))
    by_hour = plans(engine, lambda connection: ledger.select_hourly_spending(connection, now=NOW))
    for plan in (by_operation, by_hour):
        assert "keepa_calls_by_time" in plan
        assert "Seq Scan on keepa_calls" not in plan


# --- reservations


def test_reservations_are_told_by_operation(engine: Engine) -> None:
    for operation, tokens, is_granted in [("product", 30, True), ("product", 20, True), ("product", 5, False), ("deal", 7, False)]:
        set_aside(engine, operation, tokens, is_granted=is_granted)
    with engine.begin() as connection:
        assert ledger.select_reserved(connection) == [Reserved("product", 50, 5), Reserved("deal", 0, 7)]


# --- what watches ask for


def test_without_watches_nothing_is_needed(engine: Engine) -> None:
    assert demand(engine) == Demand(0, 0.0)


@pytest.mark.parametrize(
    ("watches", "products", "per_minute"),
    [
        pytest.param([(ASIN, 60, PriceType.NEW)], 1, 1 / 60, id="one"),
        pytest.param([(ASIN, 60, PriceType.NEW), (ASIN, 10, PriceType.USED)], 1, 1 / 10, id="the shortest of a product"),
        pytest.param([(ASIN, 60, PriceType.NEW), ("B000000001", 60, PriceType.NEW)], 2, 2 / 60, id="two products"),
        pytest.param([(ASIN, 60, BUYBOX)], 1, 3 / 60, id="the buy box is dearer"),
        pytest.param([(ASIN, 60, BUYBOX), (ASIN, 60, PriceType.NEW)], 1, 3 / 60, id="a check of the buy box serves the other watch"),
        pytest.param([(ASIN, 60, BUYBOX), (ASIN, 120, PriceType.NEW)], 1, 3 / 60, id="and one that is due less often"),
        pytest.param([(ASIN, 60, BUYBOX), (ASIN, 20, PriceType.NEW)], 1, 3 / 60 + 2 / 60, id="of three checks one asks for the buy box"),
    ],
)
def test_a_product_is_counted_once_by_its_shortest_interval(
    engine: Engine, watches: list[tuple[str, float, PriceType]], products: int, per_minute: float
) -> None:
    user_id = add_user(engine)
    for asin, minutes, price_type in watches:
        watch(engine, user_id, minutes, price_type=price_type, asin=asin)
    found = demand(engine)
    assert found.products == products
    assert found.tokens_per_minute == pytest.approx(per_minute)


def test_two_users_of_one_product_are_checked_together(engine: Engine) -> None:
    for name in ("anna", "ben"):
        watch(engine, add_user(engine, name), 60)
    found = demand(engine)
    assert found.products == 1
    assert found.tokens_per_minute == pytest.approx(1 / 60)


def test_a_watch_that_is_not_active_needs_nothing(engine: Engine) -> None:
    watch(engine, add_user(engine), 60)
    with engine.begin() as connection:
        connection.execute(text("UPDATE watched_products SET is_active = false"))
    assert demand(engine) == Demand(0, 0.0)


# --- the report


def report(engine: Engine) -> TokenReport:
    with engine.begin() as connection:
        found = report_tokens(connection)
    assert found is not None
    return found


def test_there_is_no_report_before_keepa_was_asked(engine: Engine) -> None:
    with engine.begin() as connection:
        assert report_tokens(connection) is None


def test_a_report_says_whether_the_watches_fit(engine: Engine) -> None:
    with engine.begin() as connection:
        at = select_now(connection)
        seen = Bucket(600, 20, 0.0, at, at + timedelta(minutes=1))
        ledger.update_bucket(connection, seen, said_at=at, key_fingerprint="k", unexplained_tokens=0)
    set_aside(engine, "product", 100, is_granted=True)
    call(engine, at - timedelta(minutes=5), 3000)
    call(engine, at - timedelta(hours=2), 500)
    user_id = add_user(engine)
    for number in range(30):
        watch(engine, user_id, 1, asin=f"B{number:09d}")
    found = report(engine)
    assert (found.tokens, found.reserved) == (600, [Reserved("product", 100, 0)])
    assert (sum(one.tokens for one in found.last_hour), sum(one.tokens for one in found.last_day)) == (3000, 3500)
    assert sum(one.tokens for one in found.hours) == 3500
    assert not found.forecast.watches_fit
    assert found.forecast.needed_pct == pytest.approx(150)
    assert found.forecast.minutes_until_empty_as_planned == pytest.approx(50)
    assert found.forecast.minutes_until_empty_as_spent == pytest.approx(500 / 30)


def test_a_report_tells_of_others_on_the_key(engine: Engine) -> None:
    with engine.begin() as connection:
        at = select_now(connection)
        seen = Bucket(600, 20, 0.0, at, at + timedelta(minutes=1))
        ledger.update_bucket(connection, seen, said_at=at, key_fingerprint="k", unexplained_tokens=0)
        ledger.add_foreign_tokens(connection, 300, now=at)
    found = report(engine)
    assert (found.foreign_tokens, found.foreign_seen_at) == (300, at)
