"""The verb `plan`: what is due, in which requests, as far as the budget goes, and nobody pays twice."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from keeper.check import give_back, note_failure, record_answer
from keeper.domain.budget import Bucket
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.domain.tokens import TokenStatus
from keeper.keepa.answer import ProductAnswer
from keeper.plan import PlannedRequest, plan, plan_products
from keeper.postgres import installation, ledger, watches
from keeper.tokens import TokenSettings
from tests.integration.makers import ASIN, add_user, add_watch, one, product, rows, run_record

ALL_TOKENS = TokenSettings(user_share_pct=0)
BUYBOX = PriceType.BUY_BOX_SHIPPING


@pytest.fixture
def now(engine: Engine) -> datetime:
    """Business time; a full bucket of 1200 tokens was seen just then."""
    with engine.begin() as connection:
        at = installation.select_now(connection)
        fill_bucket(engine, 1200, at)
    return at


def fill_bucket(engine: Engine, tokens: int, at: datetime, *, refill: int = 20) -> None:
    with engine.begin() as connection:
        seen = Bucket(tokens, refill, 0.0, at, at + timedelta(minutes=1))
        ledger.update_bucket(connection, seen, said_at=at, key_fingerprint="k", unexplained_tokens=0)


def run_plan(engine: Engine, now: datetime, **options: Any) -> list[PlannedRequest]:
    with engine.begin() as connection:
        return plan(connection, now=now, settings=options.pop("settings", ALL_TOKENS), **options)


def asins(count: int) -> list[str]:
    return [f"B{number:09d}" for number in range(count)]


def watch_many(engine: Engine, user_id: int, many: Sequence[str], due_at: datetime, **options: Any) -> None:
    for asin in many:
        add_watch(engine, user_id, asin=asin, now=due_at, **options)


def checked(engine: Engine, at: datetime | None) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE planned_checks SET last_checked_at = :at"), {"at": at})


def test_nothing_due_is_an_empty_plan(engine: Engine, now: datetime) -> None:
    add_watch(engine, add_user(engine), now=now + timedelta(seconds=1))
    assert run_plan(engine, now) == []


def test_without_a_word_from_keepa_nothing_is_planned(engine: Engine) -> None:
    at = datetime.now(UTC)
    add_watch(engine, add_user(engine), now=at - timedelta(hours=1))
    assert run_plan(engine, at) == []


def test_watches_of_all_users_on_a_product_are_one_request(engine: Engine, now: datetime) -> None:
    for name in ("anna", "bert", "carl"):
        user_id = add_user(engine, name)
        add_watch(engine, user_id, now=now)
        add_watch(engine, user_id, price_type=PriceType.USED, now=now)
    [request] = run_plan(engine, now)
    assert (request.asins, request.tokens) == ((ASIN,), 1)


def test_products_go_in_batches_of_a_hundred(engine: Engine, now: datetime) -> None:
    watch_many(engine, add_user(engine), asins(250), now)
    planned = run_plan(engine, now)
    assert sorted(request.size for request in planned) == [50, 100, 100]
    assert Counter(asin for request in planned for asin in request.asins) == Counter(asins(250))


def test_a_batch_is_as_small_as_asked(engine: Engine, now: datetime) -> None:
    watch_many(engine, add_user(engine), asins(25), now)
    assert sorted(request.size for request in run_plan(engine, now, batch_size=10)) == [5, 10, 10]


def test_marketplaces_are_asked_apart(engine: Engine, now: datetime) -> None:
    user_id = add_user(engine)
    for place in (Marketplace.DE, Marketplace.UK):
        add_watch(engine, user_id, marketplace=place, now=now)
    assert {(request.marketplace, request.asins) for request in run_plan(engine, now)} == {("DE", (ASIN,)), ("UK", (ASIN,))}


def test_the_buy_box_is_asked_only_for_its_watches(engine: Engine, now: datetime) -> None:
    user_id = add_user(engine)
    plain, boxed = asins(2)
    add_watch(engine, user_id, asin=plain, now=now)
    add_watch(engine, user_id, asin=boxed, price_type=BUYBOX, now=now)
    add_watch(engine, user_id, asin=boxed, now=now)
    assert {(request.asins, request.buybox, request.tokens) for request in run_plan(engine, now)} == {
        ((plain,), False, 1),
        ((boxed,), True, 3),
    }


@pytest.mark.parametrize(
    ("last_check", "days"),
    [
        pytest.param(None, 365, id="never checked"),
        pytest.param(timedelta(hours=6), 2, id="today"),
        pytest.param(timedelta(days=1, seconds=1), 31, id="some days ago"),
        pytest.param(timedelta(days=30, seconds=1), 365, id="months ago"),
    ],
)
def test_history_covers_the_time_since_the_last_check(engine: Engine, now: datetime, last_check: timedelta | None, days: int) -> None:
    add_watch(engine, add_user(engine), now=now)
    checked(engine, now - last_check if last_check else None)
    [request] = run_plan(engine, now)
    assert request.history_days == days
    assert last_check is None or last_check <= timedelta(days=days)


def test_products_that_need_different_history_are_asked_apart(engine: Engine, now: datetime) -> None:
    user_id = add_user(engine)
    known, new = asins(2)
    add_watch(engine, user_id, asin=known, now=now)
    checked(engine, now - timedelta(hours=6))
    add_watch(engine, user_id, asin=new, now=now)
    assert {(request.asins, request.history_days) for request in run_plan(engine, now)} == {((known,), 2), ((new,), 365)}


@pytest.mark.parametrize("interval", [timedelta(hours=6), timedelta(hours=1)], ids=["as often", "more often"])
def test_a_further_watch_on_a_checked_product_finds_its_year_recorded(engine: Engine, now: datetime, interval: timedelta) -> None:
    add_watch(engine, add_user(engine, "anna"), now=now)
    checked(engine, now - timedelta(hours=6))
    add_watch(engine, add_user(engine, "bert"), now=now, interval=interval)
    assert [request.history_days for request in run_plan(engine, now)] == [2]


def test_the_first_watch_of_the_buy_box_asks_the_whole_year(engine: Engine, now: datetime) -> None:
    add_watch(engine, add_user(engine, "anna"), now=now)
    checked(engine, now - timedelta(hours=6))
    add_watch(engine, add_user(engine, "bert"), now=now, price_type=BUYBOX)
    assert [request.history_days for request in run_plan(engine, now)] == [365]


def test_what_the_budget_cannot_pay_waits_and_the_oldest_due_goes_first(engine: Engine, now: datetime) -> None:
    user_id = add_user(engine)
    many = asins(10)
    for number, asin in enumerate(many):
        add_watch(engine, user_id, asin=asin, now=now - timedelta(minutes=number))
    fill_bucket(engine, 3, now)
    assert [request.asins for request in run_plan(engine, now)] == [tuple(many[:6:-1])]


def test_an_empty_bucket_plans_nothing_and_leaves_everything_due(engine: Engine, now: datetime) -> None:
    add_watch(engine, add_user(engine), now=now)
    fill_bucket(engine, 0, now)
    assert run_plan(engine, now) == []
    assert rows(engine, "SELECT * FROM check_claims") == []


def test_the_users_share_is_left_in_the_bucket(engine: Engine, now: datetime) -> None:
    watch_many(engine, add_user(engine), asins(100), now)
    fill_bucket(engine, 100, now)
    [request] = run_plan(engine, now, settings=TokenSettings(user_share_pct=5))
    assert request.size == 40


def test_the_refill_since_keepas_last_word_is_spent(engine: Engine, now: datetime) -> None:
    watch_many(engine, add_user(engine), asins(45), now)
    with engine.begin() as connection:
        at = now - timedelta(minutes=2)
        seen = Bucket(0, 20, 0.0, at, at + timedelta(minutes=1))
        ledger.update_bucket(connection, seen, said_at=at, key_fingerprint="k", unexplained_tokens=0)
    assert sum(request.tokens for request in run_plan(engine, now)) == 40


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [
        pytest.param(None, {(40, False), (40, True)}, id="no limit"),
        pytest.param(30, {(30, False), (10, False), (10, True)}, id="cut to the limit"),
        pytest.param(3, {(3, False), (1, False), (1, True)}, id="one buy box fits"),
        pytest.param(2, {(2, False)}, id="no buy box fits, the others go"),
        pytest.param(0, set(), id="nothing fits"),
    ],
)
def test_no_request_costs_more_than_the_largest_allowed(
    engine: Engine, now: datetime, largest: int | None, sizes: set[tuple[int, bool]]
) -> None:
    user_id = add_user(engine)
    watch_many(engine, user_id, asins(40), now)
    watch_many(engine, user_id, [f"C{number:09d}" for number in range(40)], now, price_type=BUYBOX)
    planned = run_plan(engine, now, largest_request=largest)
    assert {(request.size, request.buybox) for request in planned} == sizes
    assert all(request.tokens <= (largest if largest is not None else 1200) for request in planned)


def test_only_watches_of_the_asked_interval_are_taken(engine: Engine, now: datetime) -> None:
    user_id = add_user(engine)
    often, seldom = asins(2)
    add_watch(engine, user_id, asin=often, interval=timedelta(minutes=1), now=now)
    add_watch(engine, user_id, asin=seldom, now=now)
    assert [request.asins for request in run_plan(engine, now, interval=timedelta(hours=6))] == [(seldom,)]


def test_watches_due_soon_are_taken_where_asked(engine: Engine, now: datetime) -> None:
    add_watch(engine, add_user(engine), now=now + timedelta(minutes=3))
    assert len(run_plan(engine, now, until=now + timedelta(minutes=5))) == 1


def test_a_claimed_product_is_not_planned_again(engine: Engine, now: datetime) -> None:
    watch_many(engine, add_user(engine), asins(5), now)
    assert [len(run_plan(engine, now)) for _ in range(2)] == [1, 0]


def test_claimed_products_hide_no_others(engine: Engine, now: datetime) -> None:
    user_id = add_user(engine)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO planned_checks (asin, marketplace, is_buybox, interval_seconds, next_check_at) "
                "SELECT 'B' || to_char(n, 'FM000000000'), 'DE', false, 21600, :at FROM generate_series(1, 1200) n"
            ),
            {"at": now - timedelta(hours=1)},
        )
    assert sum(request.size for request in run_plan(engine, now)) == 1200
    add_watch(engine, user_id, now=now)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE token_reservations"))
    fill_bucket(engine, 10, now)
    assert [request.asins for request in run_plan(engine, now)] == [(ASIN,)]


def test_recording_ends_the_claim(engine: Engine, now: datetime) -> None:
    add_watch(engine, add_user(engine), interval=timedelta(minutes=1), now=now)
    run_plan(engine, now)
    run_record(engine, product([(now - timedelta(days=1), 5000)], at=now))
    assert len(run_plan(engine, now + timedelta(minutes=1))) == 1


def answer_of(request: PlannedRequest, *answered: Any, missing: tuple[str, ...] = (), **unreadable: str) -> ProductAnswer:
    tokens = TokenStatus(datetime.now(UTC), 100, 30.0, 20, 0.0, request.tokens)
    return ProductAnswer(
        "product", request.marketplace, request.size, tokens, 200, 0.1, b"", {one_.asin: one_ for one_ in answered}, {}, missing, unreadable
    )


def test_a_product_missing_in_the_answer_is_tried_again_later(engine: Engine, now: datetime) -> None:
    good, missing, odd = asins(3)
    watch_many(engine, add_user(engine), [good, missing, odd], now)
    [request] = run_plan(engine, now)
    answer = answer_of(request, product([(now - timedelta(days=1), 5000)], asin=good, at=now), missing=(missing,), **{odd: "csv: cut off"})
    done = record_answer(engine, request, answer, now=now)
    due = dict(rows(engine, "SELECT asin, next_check_at FROM planned_checks"))
    failures = dict(rows(engine, "SELECT asin, last_failure FROM planned_checks"))
    assert due == {good: now + timedelta(hours=6), missing: now + timedelta(minutes=15), odd: now + timedelta(minutes=15)}
    assert failures == {good: None, missing: "Keepa's answer does not hold this product", odd: "csv: cut off"}
    assert (done.checked, set(done.failures)) == (1, {f"{missing} DE", f"{odd} DE"})
    assert rows(engine, "SELECT * FROM check_claims") == []


@pytest.mark.parametrize(("interval", "wait"), [(timedelta(hours=6), timedelta(minutes=15)), (timedelta(minutes=1), timedelta(minutes=1))])
def test_a_failed_request_is_tried_again_after_a_while_or_the_interval(
    engine: Engine, now: datetime, interval: timedelta, wait: timedelta
) -> None:
    add_watch(engine, add_user(engine), interval=interval, now=now)
    [request] = run_plan(engine, now)
    note_failure(engine, request, "Keepa answered 503", now=now)
    assert one(engine, "SELECT next_check_at, last_failure FROM planned_checks") == (now + wait, "Keepa answered 503")
    assert len(run_plan(engine, now + wait)) == 1


def test_what_was_never_sent_stays_due_and_its_tokens_are_free(engine: Engine, now: datetime) -> None:
    add_watch(engine, add_user(engine), now=now)
    [request] = run_plan(engine, now)
    give_back(engine, request)
    assert rows(engine, "SELECT * FROM token_reservations") == []
    assert len(run_plan(engine, now)) == 1


def test_a_dead_claim_expires(engine: Engine, now: datetime) -> None:
    add_watch(engine, add_user(engine), now=now)
    run_plan(engine, now)
    with engine.begin() as connection:
        connection.execute(text("UPDATE check_claims SET expires_at = clock_timestamp() - interval '1 second'"))
    assert len(run_plan(engine, now)) == 1


def test_two_plans_at_once_never_take_the_same_product(engine: Engine, now: datetime) -> None:
    watch_many(engine, add_user(engine), asins(120), now)
    with ThreadPoolExecutor(4) as pool:
        plans = list(pool.map(lambda _: run_plan(engine, now, batch_size=7, settings=ALL_TOKENS), range(4)))
    taken = Counter(asin for planned in plans for request in planned for asin in request.asins)
    assert taken == Counter(asins(120))


def test_two_plans_at_once_never_spend_more_than_there_is(engine: Engine, now: datetime) -> None:
    watch_many(engine, add_user(engine), asins(120), now)
    fill_bucket(engine, 50, now)
    with ThreadPoolExecutor(4) as pool:
        plans = list(pool.map(lambda _: run_plan(engine, now), range(4)))
    assert sum(request.tokens for planned in plans for request in planned) == 50


def plan_own(engine: Engine, *wanted: str) -> PlannedRequest | None:
    with engine.begin() as connection:
        return plan_products(connection, wanted, Marketplace.DE, buybox=False, history_days=365, reservation_id=1, settings=ALL_TOKENS)


def test_a_users_own_check_takes_only_what_nobody_checks(engine: Engine, now: datetime) -> None:
    busy, free = asins(2)
    add_watch(engine, add_user(engine), asin=busy, now=now)
    run_plan(engine, now)
    request = plan_own(engine, busy, free)
    assert request is not None
    assert (request.asins, request.tokens) == ((free,), 1)
    assert plan_own(engine, busy, free) is None


def test_the_due_query_reads_the_due_index_when_few_of_many_are_due(engine: Engine, now: datetime) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO planned_checks (asin, marketplace, is_buybox, interval_seconds, next_check_at) "
                "SELECT 'B' || to_char(n, 'FM000000000'), 'DE', false, 21600, "
                "CAST(:at AS timestamptz) + CASE WHEN n <= 100 THEN interval '-1 hour' ELSE n * interval '1 second' END "
                "FROM generate_series(1, 50000) n"
            ),
            {"at": now},
        )
        connection.execute(text("ANALYZE planned_checks"))
        query = watches._DUE.format(conditions="") + watches._BATCHED
        parameters = {
            "until": now, "day_ago": now, "month_ago": now, "tokens": 1200, "plain_tokens": 1, "buybox_tokens": 3, "plain_size": 100,
            "buybox_size": 100, "most_plans": 5800,
        }  # fmt: skip
        explained = "\n".join(connection.execute(text("EXPLAIN (ANALYZE, COSTS OFF) " + query), parameters).scalars())
    assert "planned_checks_due" in explained
    assert "Seq Scan on planned_checks" not in explained


def test_claims_of_a_batch_are_released_together(engine: Engine, now: datetime) -> None:
    batch_id = uuid4()
    with engine.begin() as connection:
        watches.claim_products(connection, batch_id, asins(3), "DE", lease_seconds=60)
        watches.release_claims(connection, batch_id)
    assert rows(engine, "SELECT * FROM check_claims") == []
