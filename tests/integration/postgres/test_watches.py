"""The watch list in SQL: what a change does, all of it or nothing, and nothing of another user's."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.domain.watch import Watch, WatchChange, WatchInvalid, WatchState
from keeper.postgres import watches
from keeper.postgres.watches import (
    StandingWatch,
    WatchExists,
    WatchRow,
    WatchUnknown,
    find_watch,
    insert_watch,
    insert_watches,
    remove_watches,
    select_standing,
    select_watches,
    update_each_watch,
    update_watches,
)
from tests.integration.makers import ASIN, NOW, add_user, add_watch, ago, everything, one, product, rows, run_record
from tests.services.waiting import wait_until

OTHER = "B00OCMRV40"
PAUSE, RESUME = WatchChange(is_paused=True), WatchChange(is_paused=False)
_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
"""


def euro(amount_minor: int) -> Money:
    return Money(amount_minor, "EUR")


def change(engine: Engine, user_id: int, ids: Sequence[int], change: WatchChange, *, now: datetime = NOW) -> None:
    with engine.begin() as connection:
        update_watches(connection, user_id, ids, change, now=now)


def remove(engine: Engine, user_id: int, ids: Sequence[int], *, now: datetime = NOW) -> None:
    with engine.begin() as connection:
        remove_watches(connection, user_id, ids, now=now)


def listed(engine: Engine, **filters: Any) -> list[WatchRow]:
    with engine.begin() as connection:
        return select_watches(connection, **filters)


def add_paused(engine: Engine, user_id: int, **facts: Any) -> int:
    watch_id = add_watch(engine, user_id, **facts)
    change(engine, user_id, [watch_id], PAUSE)
    return watch_id


@pytest.fixture
def anna(engine: Engine) -> int:
    return add_user(engine)


# --- adding


def test_a_watch_that_is_there_says_which_it_is(engine: Engine, anna: int) -> None:
    watch_id = add_watch(engine, anna)
    with pytest.raises(WatchExists, match=f"watched already, by watch {watch_id}") as raised:
        add_watch(engine, anna)
    assert (raised.value.watch_id, raised.value.is_paused) == (watch_id, False)


def test_a_paused_watch_is_not_added_a_second_time(engine: Engine, anna: int) -> None:
    watch_id = add_paused(engine, anna)
    with pytest.raises(WatchExists, match=f"it is paused; `keeper watch resume {watch_id}` goes on with it") as raised:
        add_watch(engine, anna)
    assert (raised.value.watch_id, raised.value.is_paused) == (watch_id, True)


def test_of_many_watches_those_paused_are_not_new(engine: Engine, anna: int) -> None:
    add_paused(engine, anna)
    with engine.begin() as connection:
        added = insert_watches(connection, anna, [Watch(ASIN, Marketplace.DE), Watch(OTHER, Marketplace.DE)], now=NOW)
    assert len(added) == 1


def test_another_users_paused_watch_is_in_nobodys_way(engine: Engine, anna: int) -> None:
    add_paused(engine, anna)
    add_watch(engine, add_user(engine, "bert"))


def test_a_watch_can_be_added_paused(engine: Engine, anna: int) -> None:
    with engine.begin() as connection:
        insert_watches(connection, anna, [Watch(ASIN, Marketplace.DE), Watch(OTHER, Marketplace.DE)], now=NOW, are_paused=[False, True])
    assert [(row.asin, row.is_paused) for row in listed(engine, state=WatchState.ALL)] == [(ASIN, False), (OTHER, True)]


def test_what_stands_on_prices_is_told_in_their_order(engine: Engine, anna: int) -> None:
    paused = add_paused(engine, anna, target=4500, interval=timedelta(hours=1), hysteresis_pct=2.5)
    active = add_watch(engine, anna, asin=OTHER)
    add_watch(engine, add_user(engine, "bert"), marketplace=Marketplace.UK)
    wanted = [Watch(OTHER, Marketplace.DE), Watch(ASIN, Marketplace.UK), Watch(ASIN, Marketplace.DE)]
    with engine.begin() as connection:
        assert select_standing(connection, anna, wanted) == [
            StandingWatch(active, None, 21600, 2.0, False, False),
            None,
            StandingWatch(paused, 4500, 3600, 2.5, True, False),
        ]


# --- changing


@pytest.mark.parametrize(
    ("asked", "target", "is_armed"),
    [
        pytest.param(WatchChange(target=euro(4600)), 4600, True, id="another target"),
        pytest.param(WatchChange(target=euro(5000)), 5000, False, id="the same target"),
        pytest.param(WatchChange(clears_target=True), None, True, id="no target"),
        pytest.param(WatchChange(hysteresis_pct=5), 5000, False, id="not a word of the target"),
    ],
)
def test_another_target_arms_again(engine: Engine, anna: int, asked: WatchChange, target: int | None, is_armed: bool) -> None:
    watch_id = add_watch(engine, anna, 5000)
    with engine.begin() as connection:
        connection.execute(text("UPDATE watched_products SET is_armed = false"))
    change(engine, anna, [watch_id], asked)
    assert one(engine, "SELECT target_minor, is_armed FROM watched_products") == (target, is_armed)


@pytest.mark.parametrize(
    ("checked", "interval", "due"),
    [
        pytest.param(ago(hours=1), timedelta(minutes=30), ago(minutes=30), id="shorter: an interval after the last check"),
        pytest.param(ago(hours=1), timedelta(hours=24), NOW + timedelta(hours=5), id="longer: as it was, then later"),
        pytest.param(None, timedelta(minutes=30), NOW, id="never checked: now"),
        pytest.param(None, timedelta(hours=6), NOW + timedelta(hours=5), id="the same: as it was"),
    ],
)
def test_a_shorter_interval_brings_the_next_check_forward(
    engine: Engine, anna: int, checked: datetime | None, interval: timedelta, due: datetime
) -> None:
    watch_id = add_watch(engine, anna, now=NOW + timedelta(hours=5))
    with engine.begin() as connection:
        connection.execute(text("UPDATE planned_checks SET last_checked_at = :at"), {"at": checked})
    change(engine, anna, [watch_id], WatchChange(interval=interval))
    assert one(engine, "SELECT interval_seconds, next_check_at FROM planned_checks") == (interval.total_seconds(), due)


def test_a_paused_watch_is_not_checked(engine: Engine, anna: int) -> None:
    add_paused(engine, anna, target=6000)
    assert run_record(engine, product([(ago(days=1), 5000)])).alerts == 0
    assert rows(engine, "SELECT 1 FROM planned_checks") == []


def test_a_resumed_watch_is_due_now(engine: Engine, anna: int) -> None:
    watch_id = add_paused(engine, anna, now=ago(days=9))
    change(engine, anna, [watch_id], RESUME)
    assert one(engine, "SELECT is_active, next_check_at FROM watched_products JOIN planned_checks USING (asin)") == (True, NOW)


def test_resuming_what_is_not_paused_changes_nothing(engine: Engine, anna: int) -> None:
    watch_id = add_watch(engine, anna, now=ago(days=9))
    before = everything(engine)
    change(engine, anna, [watch_id], RESUME)
    assert everything(engine) == before


def test_many_watches_are_changed_at_once(engine: Engine, anna: int) -> None:
    ids = [add_watch(engine, anna, asin=asin) for asin in (ASIN, OTHER)]
    change(engine, anna, ids, WatchChange(target=euro(100), hysteresis_pct=7.5, interval=timedelta(hours=1), is_paused=True))
    assert (
        rows(engine, "SELECT target_minor, hysteresis_pct::float8, interval_seconds, is_active FROM watched_products")
        == [(100, 7.5, 3600, False)] * 2
    )


def test_each_watch_has_its_own_change(engine: Engine, anna: int) -> None:
    first, second = (add_watch(engine, anna, 5000, asin=asin) for asin in (ASIN, OTHER))
    with engine.begin() as connection:
        update_each_watch(connection, anna, {first: WatchChange(clears_target=True), second: PAUSE}, now=NOW)
    assert rows(engine, "SELECT target_minor, is_active FROM watched_products ORDER BY id") == [(None, True), (5000, False)]


def twin_pair(engine: Engine, user_id: int) -> tuple[int, int]:
    """An active and a paused watch of one price, as two who work at the same moment can leave them."""
    paused = add_paused(engine, user_id)
    with engine.begin() as connection:
        active = connection.execute(
            text("INSERT INTO watched_products (user_id, asin, marketplace, currency) VALUES (:user, :asin, 'DE', 'EUR') RETURNING id"),
            {"user": user_id, "asin": ASIN},
        ).scalar_one()
    return active, paused


@pytest.mark.parametrize(("which", "asked"), [(0, PAUSE), (1, RESUME)], ids=["pause", "resume"])
def test_of_one_price_there_is_one_watch_in_a_state(engine: Engine, anna: int, which: int, asked: WatchChange) -> None:
    pair = twin_pair(engine, anna)
    chosen = pair[which]
    with pytest.raises(WatchExists) as raised:
        change(engine, anna, [chosen], asked)
    assert {chosen, raised.value.watch_id} == set(pair)


def test_a_twin_made_at_the_same_moment_is_told_in_words(engine: Engine, anna: int) -> None:
    paused = add_paused(engine, anna)
    with ThreadPoolExecutor(1) as pool, engine.connect() as connection, connection.begin() as transaction:
        connection.execute(
            text("INSERT INTO watched_products (user_id, asin, marketplace, currency) VALUES (:user, :asin, 'DE', 'EUR')"),
            {"user": anna, "asin": ASIN},
        )
        resuming = pool.submit(change, engine, anna, [paused], RESUME)
        wait_until(lambda: one(engine, _WAITING) == 1, "the resuming waits for the new watch")
        transaction.commit()
        with pytest.raises(WatchExists, match="at this very moment"):
            resuming.result(30)


def test_a_target_is_in_the_marketplaces_currency(engine: Engine, anna: int) -> None:
    ids = [add_watch(engine, anna), add_watch(engine, anna, marketplace=Marketplace.UK)]
    before = everything(engine)
    with pytest.raises(WatchInvalid, match=f"watch {ids[1]} must be in GBP"), engine.begin() as connection:
        update_watches(connection, anna, ids, WatchChange(target=euro(100)), now=NOW)
        connection.commit()
    assert everything(engine) == before


# --- all or nothing


def pause_them(connection: Connection, user_id: int, ids: Sequence[int]) -> None:
    update_watches(connection, user_id, ids, PAUSE, now=NOW)


def remove_them(connection: Connection, user_id: int, ids: Sequence[int]) -> None:
    remove_watches(connection, user_id, ids, now=NOW)


def berts(engine: Engine, _anna: int) -> int:
    return add_watch(engine, add_user(engine, "bert"))


def removed(engine: Engine, anna: int) -> int:
    watch_id = add_watch(engine, anna, asin=OTHER)
    remove(engine, anna, [watch_id])
    return watch_id


@pytest.mark.parametrize("act", [pause_them, remove_them])
@pytest.mark.parametrize("unknown", [999, -1, 10**30, berts, removed], ids=["nobody's", "below zero", "no number", "another's", "removed"])
def test_one_unknown_among_many_changes_none_and_is_named(
    engine: Engine, anna: int, act: Callable[[Connection, int, Sequence[int]], None], unknown: int | Callable[[Engine, int], int]
) -> None:
    mine, wrong = add_watch(engine, anna), unknown if isinstance(unknown, int) else unknown(engine, anna)
    before = everything(engine)
    with engine.connect() as connection, connection.begin() as transaction:
        with pytest.raises(WatchUnknown, match=f"no watch {wrong} of yours") as raised:
            act(connection, anna, [mine, wrong])
        transaction.commit()
    assert (raised.value.watch_ids, everything(engine)) == ((wrong,), before)


@pytest.mark.parametrize("act", [pause_them, remove_them])
def test_none_is_a_change_of_nothing(engine: Engine, anna: int, act: Callable[[Connection, int, Sequence[int]], None]) -> None:
    with engine.begin() as connection:
        act(connection, anna, [])


def test_the_same_id_twice_is_one_watch(engine: Engine, anna: int) -> None:
    watch_id = add_watch(engine, anna)
    change(engine, anna, [watch_id, watch_id], PAUSE)
    remove(engine, anna, [watch_id, watch_id])
    assert listed(engine, state=WatchState.ALL) == []


def test_a_paused_watch_can_be_removed_and_made_again(engine: Engine, anna: int) -> None:
    remove(engine, anna, [add_paused(engine, anna)], now=ago(days=-1))
    assert one(engine, "SELECT is_active, removed_at FROM watched_products") == (False, NOW + timedelta(days=1))
    add_watch(engine, anna)


def test_who_changes_many_waits_for_a_recording_instead_of_a_deadlock(engine: Engine, anna: int) -> None:
    ids = [add_watch(engine, anna, asin=asin) for asin in (ASIN, OTHER)]
    run_record(engine, product([(ago(days=1), 5000)]))
    touch = text("UPDATE planned_checks SET last_failure = 'x' WHERE asin = :asin")
    with ThreadPoolExecutor(1) as pool, engine.begin() as recording:
        recording.execute(text("SELECT 1 FROM products FOR UPDATE"))
        recording.execute(touch, {"asin": OTHER})
        changing = pool.submit(change, engine, anna, ids, PAUSE)
        wait_until(lambda: one(engine, _WAITING) == 1, "the change waits for the recording")
        recording.execute(touch, {"asin": ASIN})
        recording.commit()
        changing.result(30)
    assert rows(engine, "SELECT is_active FROM watched_products") == [False] * 2
    assert rows(engine, "SELECT 1 FROM planned_checks") == []


@pytest.mark.parametrize("has_failed", [False, True], ids=["a check", "a failed check"])
def test_a_recording_locks_plans_in_the_order_of_their_key(engine: Engine, anna: int, has_failed: bool) -> None:
    # As they lie on the disk the longer interval comes first.
    for interval in (6, 1):
        add_watch(engine, add_user(engine, f"every-{interval}"), interval=timedelta(hours=interval))
    with engine.begin() as connection:
        connection.execute(text("ANALYZE planned_checks"))
    lock = text("SELECT 1 FROM planned_checks WHERE interval_seconds = :seconds FOR UPDATE")

    def check() -> None:
        if not has_failed:
            run_record(engine, product([(ago(days=1), 5000)]))
            return
        with engine.begin() as connection:
            watches.postpone_failed(connection, [ASIN], "DE", failure="x", now=NOW, wait=timedelta(hours=1))

    with ThreadPoolExecutor(1) as pool, engine.begin() as changing:
        changing.execute(lock, {"seconds": 3600})
        checking = pool.submit(check)
        wait_until(lambda: one(engine, _WAITING) == 1, "the check waits for the change")
        changing.execute(lock, {"seconds": 21600})
        changing.commit()
        checking.result(30)


# --- plans: one for all watches of a product with one interval


PLANS = "SELECT asin, is_buybox, interval_seconds FROM planned_checks ORDER BY 1, 2, 3"


def test_watches_of_one_interval_share_a_plan_and_the_buy_box_has_its_own(engine: Engine, anna: int) -> None:
    add_watch(engine, anna)
    add_watch(engine, add_user(engine, "bert"), price_type=PriceType.USED)
    add_watch(engine, anna, price_type=PriceType.BUY_BOX_SHIPPING)
    add_watch(engine, anna, price_type=PriceType.AMAZON, interval=timedelta(hours=1))
    assert rows(engine, PLANS) == [(ASIN, False, 3600), (ASIN, False, 21600), (ASIN, True, 21600)]


@pytest.mark.parametrize("others", [0, 1], ids=["nobody else", "somebody else"])
@pytest.mark.parametrize("end", ["removed", "paused", "another interval", "the user goes"])
def test_a_plan_lasts_as_long_as_anybody_needs_it(engine: Engine, anna: int, end: str, others: int) -> None:
    watch_id = add_watch(engine, anna)
    for number in range(others):
        add_watch(engine, add_user(engine, f"other-{number}"))
    if end == "removed":
        remove(engine, anna, [watch_id])
    elif end == "the user goes":
        leave(engine, anna)
    else:
        change(engine, anna, [watch_id], PAUSE if end == "paused" else WatchChange(interval=timedelta(hours=1)))
    assert ((ASIN, False, 21600) in rows(engine, PLANS)) is (others > 0)


def leave(engine: Engine, user_id: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM users WHERE id = :id"), {"id": user_id})


def test_a_watch_added_while_the_last_one_is_removed_keeps_its_plan(engine: Engine, anna: int) -> None:
    watch_id = add_watch(engine, anna)
    watch = Watch(ASIN, Marketplace.DE, PriceType.NEW)
    bert = add_user(engine, "bert")
    with ThreadPoolExecutor(1) as pool, engine.begin() as adding:
        insert_watch(adding, bert, watch, now=NOW)
        removing = pool.submit(remove, engine, anna, [watch_id])
        wait_until(lambda: one(engine, _WAITING) == 1, "the removal waits for the watch that is added")
        adding.commit()
        removing.result(30)
    assert rows(engine, PLANS) == [(ASIN, False, 21600)]


def test_a_watch_added_while_the_last_user_goes_keeps_its_plan(engine: Engine, anna: int) -> None:
    add_watch(engine, anna)
    watch = Watch(ASIN, Marketplace.DE, PriceType.NEW)
    bert = add_user(engine, "bert")
    with ThreadPoolExecutor(1) as pool, engine.begin() as adding:
        insert_watch(adding, bert, watch, now=NOW)
        leaving = pool.submit(leave, engine, anna)
        wait_until(lambda: one(engine, _WAITING) == 1, "who goes waits for the watch that is added")
        adding.commit()
        leaving.result(30)
    assert rows(engine, PLANS) == [(ASIN, False, 21600)]


def test_a_plan_that_ended_meanwhile_is_made_anew(engine: Engine, anna: int) -> None:
    watch_id = add_watch(engine, anna)
    bert = add_user(engine, "bert")
    with ThreadPoolExecutor(1) as pool, engine.begin() as removing:
        remove_watches(removing, anna, [watch_id], now=NOW)
        adding = pool.submit(add_watch, engine, bert)
        wait_until(lambda: one(engine, _WAITING) == 1, "the watch waits for the removal")
        removing.commit()
        adding.result(30)
    assert rows(engine, PLANS) == [(ASIN, False, 21600)]


# --- listing


def test_a_listed_watch_tells_what_is_known_of_the_product(engine: Engine, anna: int) -> None:
    watch_id = add_watch(engine, anna)
    run_record(engine, product([(ago(days=1), 5000)], image_urls=("https://m.media-amazon.com/images/I/1.jpg",)))
    row = listed(engine, user_id=anna)[0]
    assert (row.watch_id, row.currency, row.observed_at, row.created_at, row.is_paused, row.image_url) == (
        watch_id, "EUR", ago(days=1), NOW, False, "https://m.media-amazon.com/images/I/1.jpg",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        pytest.param({}, "abcd", id="active of everybody"),
        pytest.param({"state": WatchState.PAUSED}, "e", id="paused"),
        pytest.param({"state": WatchState.ALL}, "abcde", id="all"),
        pytest.param({"marketplace": Marketplace.UK}, "b", id="marketplace"),
        pytest.param({"asin": OTHER}, "c", id="asin"),
        pytest.param({"asin": OTHER, "state": WatchState.ALL}, "ce", id="asin, all"),
        pytest.param({"price_type": PriceType.USED}, "d", id="price type"),
        pytest.param({"asin": "B000000000"}, "", id="an asin nobody watches"),
        pytest.param({"limit": 2}, "ab", id="a first page"),
    ],
)
def test_watches_are_found_by_what_they_are(engine: Engine, anna: int, filters: dict[str, Any], found: str) -> None:
    letters = {
        add_watch(engine, anna): "a",
        add_watch(engine, anna, marketplace=Marketplace.UK): "b",
        add_watch(engine, anna, asin=OTHER): "c",
        add_watch(engine, anna, price_type=PriceType.USED): "d",
        add_paused(engine, anna, asin=OTHER, marketplace=Marketplace.FR): "e",
    }
    remove(engine, anna, [add_watch(engine, anna, asin="B000000009")])
    assert "".join(letters[row.watch_id] for row in listed(engine, **filters)) == found


def test_the_next_page_begins_after_the_last_id(engine: Engine, anna: int) -> None:
    ids = [add_watch(engine, anna, asin=f"B00000000{number}") for number in range(5)]
    assert [row.watch_id for row in listed(engine, user_id=anna, after_id=ids[1], limit=2)] == ids[2:4]


def test_a_users_list_holds_nobody_elses(engine: Engine, anna: int) -> None:
    add_watch(engine, add_user(engine, "bert"))
    assert listed(engine, user_id=anna, state=WatchState.ALL) == []


def test_a_paused_watch_is_found_by_its_id(engine: Engine, anna: int) -> None:
    watch_id = add_paused(engine, anna)
    with engine.begin() as connection:
        assert find_watch(connection, anna, watch_id).is_paused


@pytest.mark.parametrize("watch_id", [0, -1, 999, 10**30])
def test_an_id_that_is_none_is_unknown(engine: Engine, anna: int, watch_id: int) -> None:
    with pytest.raises(WatchUnknown), engine.begin() as connection:
        find_watch(connection, anna, watch_id)


@pytest.fixture
def crowded(engine: Engine, anna: int) -> Engine:
    """100,000 watches of a hundred users, anna one of them; of each ten one is paused and one removed."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO users (name) SELECT 'user' || n FROM generate_series(1, 99) n"))
        connection.execute(
            text(
                "INSERT INTO watched_products (user_id, asin, marketplace, currency, is_active, removed_at) "
                "SELECT id, 'B' || to_char(n, 'FM000000000'), 'DE', 'EUR', n % 10 > 1, CASE WHEN n % 10 = 1 THEN now() END "
                "FROM generate_series(1, 1000) n, users"
            )
        )
        connection.execute(text("ANALYZE watched_products, users"))
    return engine


@pytest.mark.parametrize("state", [WatchState.ACTIVE, WatchState.ALL])
def test_a_page_of_one_of_many_users_is_read_from_the_index_of_users(crowded: Engine, anna: int, state: WatchState) -> None:
    explained = explain_page(crowded, anna, state)
    assert re.search(r"watched_products_of_user.*\n +Index Cond: \(\(user_id = .*\) AND \(id > ", explained)
    assert "Seq Scan on watched_products" not in explained


def test_a_page_of_the_only_user_is_read_in_order(engine: Engine, anna: int) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO watched_products (user_id, asin, marketplace, currency) "
                "SELECT :anna, 'B' || to_char(n, 'FM000000000'), 'DE', 'EUR' FROM generate_series(1, 100000) n"
            ),
            {"anna": anna},
        )
        connection.execute(text("ANALYZE watched_products"))
    explained = explain_page(engine, anna, WatchState.ACTIVE)
    assert ("Sort" in explained, "Seq Scan on watched_products" in explained) == (False, False)


def explain_page(engine: Engine, user_id: int, state: WatchState) -> str:
    query = watches._SELECT.format(conditions=f"{watches._STATES[state]} AND w.user_id = :user_id")
    parameters = {"user_id": user_id, "after_id": 50_000, "limit": 1000}
    with engine.begin() as connection:
        return "\n".join(connection.execute(text(f"EXPLAIN (COSTS OFF) {query}"), parameters).scalars())


@pytest.mark.parametrize("asked", [PAUSE, RESUME, WatchChange(target=euro(100))], ids=["pause", "resume", "target"])
def test_a_change_of_one_watch_in_a_long_list_reads_only_its_price(crowded: Engine, anna: int, asked: WatchChange) -> None:
    parameters = {
        "user_id": anna, "now": NOW, "count": 1, "ids": [10], "sets_target": [False], "targets": [None], "currencies": [None],
        "intervals": [None], "hystereses": [None], "paused": [asked.is_paused],
    }  # fmt: skip
    with crowded.begin() as connection:
        explained = "\n".join(connection.execute(text(f"EXPLAIN {watches._UPDATE}"), parameters).scalars())
    assert ("watched_products_one_active" in explained, "watched_products_one_paused" in explained) == (True, True)
    assert ("Seq Scan on watched_products" in explained, "watched_products_of_user" in explained) == (False, False)
