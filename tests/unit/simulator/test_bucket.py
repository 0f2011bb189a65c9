import threading

import pytest

from keeper.simulator.bucket import TokenBucket


def test_bucket_starts_full_with_an_hour_of_refill() -> None:
    assert TokenBucket(20, now=0.0).read(0.0).tokens_left == 1200


def test_bucket_starts_with_what_is_asked_for() -> None:
    assert TokenBucket(20, now=0.0, tokens=7).read(0.0).tokens_left == 7


@pytest.mark.parametrize(("tokens", "admits"), [(1, True), (0, False), (-3, False)], ids=["one", "none", "debt"])
def test_request_runs_only_above_zero(tokens: int, admits: bool) -> None:
    assert TokenBucket(20, now=0.0, tokens=tokens).read(0.0).admits is admits


def test_cost_may_take_the_balance_below_zero() -> None:
    assert TokenBucket(20, now=0.0, tokens=1).take(100, 0.0).tokens_left == -99


@pytest.mark.parametrize(
    ("now", "tokens_left", "refill_in_ms"),
    [(0.0, 0, 60_000), (59.5, 0, 500), (60.0, 20, 60_000), (119.0, 20, 1_000), (600.0, 200, 60_000)],
)
def test_refill_comes_in_one_step_a_minute(now: float, tokens_left: int, refill_in_ms: int) -> None:
    balance = TokenBucket(20, now=0.0, tokens=0).read(now)
    assert (balance.tokens_left, balance.refill_in_ms) == (tokens_left, refill_in_ms)


def test_refill_stops_at_the_capacity() -> None:
    assert TokenBucket(20, now=0.0, tokens=1190).read(86_400.0).tokens_left == 1200


def test_trackings_slow_the_refill_and_are_shown_apart() -> None:
    bucket = TokenBucket(20, now=0.0, tokens=0)
    bucket.change(0.0, flow_reduction=5.0)
    balance = bucket.read(120.0)
    assert (balance.tokens_left, balance.refill_per_minute, balance.flow_reduction) == (30, 20, 5.0)


def test_trackings_beyond_the_refill_take_no_tokens_away() -> None:
    bucket = TokenBucket(20, now=0.0, tokens=9)
    bucket.change(0.0, flow_reduction=50.0)
    assert bucket.read(600.0).tokens_left == 9


def test_foreign_spender_takes_with_each_refill() -> None:
    bucket = TokenBucket(20, now=0.0, tokens=100)
    bucket.change(0.0, foreign_per_minute=30.0)
    assert bucket.read(120.0).tokens_left == 80


def test_another_rate_counts_from_now_on_and_cuts_the_balance_to_the_capacity() -> None:
    bucket = TokenBucket(20, now=0.0)
    bucket.change(0.0, refill_per_minute=5)
    assert bucket.read(0.0).tokens_left == 300


def test_putting_tokens_leaves_the_refill_steps_alone() -> None:
    bucket = TokenBucket(20, now=0.0)
    assert bucket.put(3, 45.0).refill_in_ms == 15_000


def test_clock_set_back_takes_nothing_away() -> None:
    bucket = TokenBucket(20, now=1_000.0, tokens=5)
    bucket.set_back(0.0)
    assert bucket.read(0.0).tokens_left == 5
    assert bucket.read(60.0).tokens_left == 25


def test_late_request_counts_no_refill_twice() -> None:
    bucket = TokenBucket(20, now=0.0, tokens=5)
    assert bucket.read(125.0).tokens_left == 45
    assert bucket.read(30.0).tokens_left == 45
    assert bucket.read(126.0).tokens_left == 45


def test_no_token_is_lost_between_threads() -> None:
    bucket = TokenBucket(1000, now=0.0)
    threads = [threading.Thread(target=lambda: [bucket.take(1, 0.0) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bucket.read(0.0).tokens_left == 58_000
