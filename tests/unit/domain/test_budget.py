"""What the token bucket holds, who goes first, and which tokens nobody of ours can have spent."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.domain.budget import Bucket, Priority, Reservation, floor_of, forecast, spendable, tokens_ahead, unexplained

AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def bucket(tokens: int, *, refill: int = 20, reduction: float = 0.0, refill_in_seconds: float = 30.0, at: datetime = AT) -> Bucket:
    return Bucket(tokens, refill, reduction, at, at + timedelta(seconds=refill_in_seconds))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(0, 100, id="at once"),
        pytest.param(29.9, 100, id="just before the step"),
        pytest.param(30, 120, id="on the step"),
        pytest.param(89.9, 120, id="just before the second step"),
        pytest.param(90, 140, id="on the second step"),
        pytest.param(55 * 60, 1200, id="full after an hour's worth"),
        pytest.param(7 * 86400, 1200, id="never more than an hour's worth"),
        pytest.param(-3600, 100, id="a clock behind the observation adds nothing"),
    ],
)
def test_refill_comes_in_steps_up_to_an_hour_of_it(seconds: float, expected: int) -> None:
    assert bucket(100).tokens_at(AT + timedelta(seconds=seconds)) == expected


@pytest.mark.parametrize(
    ("refill", "reduction", "minutes", "expected"),
    [
        pytest.param(20, 0.0, 10, 200, id="no trackings"),
        pytest.param(20, 7.5, 10, 125, id="trackings eat their share"),
        pytest.param(20, 0.3, 1, 19, id="a part of a token is none"),
        pytest.param(20, 20.0, 60, 0, id="trackings eat all"),
        pytest.param(20, 35.0, 60, 0, id="trackings eat more than all"),
    ],
)
def test_trackings_reduce_the_refill_counted_on(refill: int, reduction: float, minutes: int, expected: int) -> None:
    assert bucket(0, refill=refill, reduction=reduction, refill_in_seconds=60).tokens_at(AT + timedelta(minutes=minutes)) == expected


def test_a_debt_is_paid_back_before_anything_can_be_spent() -> None:
    assert [bucket(-30).tokens_at(AT + timedelta(seconds=30 + 60 * step)) for step in range(3)] == [-10, 10, 30]


def test_a_balance_above_what_a_smaller_plan_holds_stays_until_keepa_says_otherwise() -> None:
    assert bucket(1200, refill=5).tokens_at(AT + timedelta(hours=1)) == 1200


@pytest.mark.parametrize(
    ("tokens", "seconds"),
    [
        pytest.param(100, 0, id="there already"),
        pytest.param(101, 30, id="one more needs a step"),
        pytest.param(120, 30, id="a whole step"),
        pytest.param(121, 90, id="one more needs the next"),
        pytest.param(1200, 30 + 54 * 60, id="a full bucket"),
    ],
)
def test_a_request_is_payable_from_the_step_that_brings_enough(tokens: int, seconds: float) -> None:
    assert bucket(100).payable_at(tokens, AT) == AT + timedelta(seconds=seconds)


def test_more_than_the_bucket_holds_is_never_payable() -> None:
    assert bucket(1200).payable_at(1201, AT + timedelta(days=1)) is None


def test_without_a_net_refill_nothing_more_is_payable() -> None:
    assert bucket(10, reduction=20.0).payable_at(11, AT) is None


@given(
    tokens=st.integers(-3000, 3000),
    refill=st.integers(1, 500),
    reduction=st.floats(0, 499),
    wanted=st.integers(1, 30_000),
    later=st.integers(0, 10_000),
)
def test_at_the_time_a_request_is_payable_the_balance_covers_it(
    tokens: int, refill: int, reduction: float, wanted: int, later: int
) -> None:
    seen = bucket(tokens, refill=refill, reduction=reduction)
    payable_at = seen.payable_at(wanted, AT + timedelta(seconds=later))
    assert payable_at is None or seen.tokens_at(payable_at) >= wanted


def reservation(number: int, tokens: int, priority: Priority = Priority.WATCH, *, granted: bool = False) -> Reservation:
    return Reservation(number, tokens, priority, granted)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        pytest.param(reservation(9, 50, Priority.BACKGROUND, granted=True), 50, id="granted, whatever its priority"),
        pytest.param(reservation(1, 50), 50, id="waits longer"),
        pytest.param(reservation(9, 50), 0, id="came later"),
        pytest.param(reservation(9, 50, Priority.USER), 50, id="came later, goes first"),
        pytest.param(reservation(1, 50, Priority.BACKGROUND), 0, id="waits longer, goes last"),
        pytest.param(reservation(5, 50), 0, id="itself"),
    ],
)
def test_what_goes_first_is_spent_first(other: Reservation, expected: int) -> None:
    assert tokens_ahead(reservation(5, 1), [other]) == expected


@pytest.mark.parametrize(
    ("priority", "expected"),
    [(Priority.USER, 0), (Priority.WATCH, 60), (Priority.COLLECTION, 60), (Priority.BACKGROUND, 60)],
    ids=lambda value: getattr(value, "name", value),
)
def test_only_a_users_own_check_may_empty_the_bucket(priority: Priority, expected: int) -> None:
    assert floor_of(priority, bucket(0), 5.0) == expected


@pytest.mark.parametrize(
    ("others", "priority", "expected"),
    [
        pytest.param([], Priority.USER, 100, id="all of it for a user"),
        pytest.param([], Priority.WATCH, 40, id="without the users' share for a job"),
        pytest.param([reservation(1, 30, granted=True)], Priority.WATCH, 10, id="without what is on its way"),
        pytest.param([reservation(1, 30)], Priority.WATCH, 10, id="without what others wait for"),
        pytest.param([reservation(1, 500)], Priority.USER, 0, id="never below zero"),
    ],
)
def test_a_new_request_gets_what_nobody_has_set_aside(others: list[Reservation], priority: Priority, expected: int) -> None:
    assert spendable(bucket(100), others, priority, 5.0, AT) == expected


def later(tokens: int, *, minutes: float = 0.25, refill: int = 20, reduction: float = 0.0) -> Bucket:
    return bucket(tokens, refill=refill, reduction=reduction, at=AT + timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("known", "observed", "consumed", "others", "carried", "expected"),
    [
        pytest.param(bucket(100), later(90), 10, [], 0, 0, id="our own request explains all"),
        pytest.param(bucket(100), later(60), 10, [], 0, 30, id="thirty are gone"),
        pytest.param(bucket(100), later(60), 10, [reservation(1, 30, granted=True)], 0, 0, id="another of ours may have spent them"),
        pytest.param(bucket(100), later(60), 10, [reservation(1, 30)], 0, 30, id="one that waits has spent nothing"),
        pytest.param(bucket(100), later(85), 10, [], 7, 12, id="doubts add up"),
        pytest.param(bucket(100), later(97), 10, [], 7, 0, id="a step counted too early comes back"),
        pytest.param(bucket(100), later(110, minutes=1), 10, [], 0, 0, id="the refill in between is counted"),
        pytest.param(bucket(100), later(101, minutes=1), 10, [], 0, 9, id="less than the refill in between"),
        pytest.param(bucket(1200), later(1190), 10, [], 15, 0, id="a full bucket ends the doubt"),
        pytest.param(bucket(100), later(125, minutes=5, refill=5), 0, [], 0, 0, id="a smaller plan is no spender"),
        pytest.param(bucket(1200), later(290, refill=5), 0, [], 0, 10, id="a smaller plan holds less"),
        pytest.param(bucket(100), later(110, minutes=5, reduction=18.0), 0, [], 0, 0, id="new trackings are no spender"),
        pytest.param(bucket(100), later(200, minutes=5, refill=40), 0, [], 0, 0, id="a larger plan counts from when it is known"),
    ],
)
def test_tokens_are_unexplained_only_beyond_all_we_can_have_spent(
    known: Bucket, observed: Bucket, consumed: int, others: list[Reservation], carried: int, expected: int
) -> None:
    assert unexplained(known, observed, consumed, others, carried) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(-90, 30, id="not come yet"),
        pytest.param(0, 30, id="the one Keepa told of"),
        pytest.param(30, 90, id="on a step it is the next one"),
        pytest.param(95, 150, id="two later"),
    ],
)
def test_the_next_step_of_the_refill_is_at_most_a_minute_away(seconds: float, expected: float) -> None:
    assert bucket(100).next_step_at(AT + timedelta(seconds=seconds)) == AT + timedelta(seconds=expected)


@given(seconds=st.integers(0, 100_000), tokens=st.integers(0, 1000))
def test_nothing_comes_before_the_next_step(seconds: int, tokens: int) -> None:
    now = AT + timedelta(seconds=seconds)
    at = bucket(tokens).next_step_at(now)
    assert now < at <= now + timedelta(minutes=1)
    assert bucket(tokens).tokens_at(at - timedelta(microseconds=1)) == bucket(tokens).tokens_at(now)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(bucket(1200), 0, id="full"),
        pytest.param(bucket(1160), 1.5, id="two steps"),
        pytest.param(bucket(0, reduction=20.0), None, id="trackings eat the refill"),
    ],
)
def test_a_bucket_is_full_when_nobody_spends_for_so_long(seen: Bucket, expected: float | None) -> None:
    assert forecast(seen, now=AT, reserved=0, planned_per_minute=0, spent_per_minute=0).minutes_until_full == expected


@pytest.mark.parametrize(
    ("per_minute", "reserved", "expected"),
    [
        pytest.param(0.0, 0, None, id="nobody spends"),
        pytest.param(20.0, 0, None, id="what is spent refills"),
        pytest.param(30.0, 0, 60, id="ten a minute more than refills"),
        pytest.param(30.0, 200, 40, id="what is on its way is as good as spent"),
        pytest.param(30.0, 700, 0, id="more is on its way than there is"),
    ],
)
def test_a_bucket_is_empty_when_more_is_spent_than_refills(per_minute: float, reserved: int, expected: float | None) -> None:
    as_planned = forecast(bucket(600), now=AT, reserved=reserved, planned_per_minute=per_minute, spent_per_minute=0)
    as_spent = forecast(bucket(600), now=AT, reserved=reserved, planned_per_minute=0, spent_per_minute=per_minute)
    assert (as_planned.minutes_until_empty_as_planned, as_spent.minutes_until_empty_as_spent) == (expected, expected)


@pytest.mark.parametrize(
    ("planned", "reduction", "needed_pct", "fit"),
    [
        pytest.param(5.0, 0.0, 25, True, id="a quarter"),
        pytest.param(20.0, 0.0, 100, True, id="all of it"),
        pytest.param(30.0, 0.0, 150, False, id="more than there is"),
        pytest.param(5.0, 10.0, 50, True, id="of what trackings leave"),
        pytest.param(5.0, 20.0, None, False, id="nothing is left"),
        pytest.param(0.0, 20.0, None, True, id="nothing is needed"),
    ],
)
def test_watches_fit_where_the_refill_carries_them(planned: float, reduction: float, needed_pct: float | None, fit: bool) -> None:
    told = forecast(bucket(600, reduction=reduction), now=AT, reserved=0, planned_per_minute=planned, spent_per_minute=0)
    assert (told.needed_pct, told.watches_fit) == (needed_pct, fit)


@given(tokens=st.integers(0, 1200), per_minute=st.integers(21, 500))
def test_spending_for_as_long_as_forecast_leaves_nothing(tokens: int, per_minute: int) -> None:
    minutes = forecast(bucket(tokens), now=AT, reserved=0, planned_per_minute=per_minute, spent_per_minute=0).minutes_until_empty_as_planned
    assert minutes is not None
    assert tokens + 20 * minutes - per_minute * minutes == pytest.approx(0, abs=1e-6)
