"""Instant alerts: each deal once to a user, at most so many an hour, the rest for the report."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine

from keeper.deal_alerts import tell_deals
from keeper.domain.deal_filter import DealFilter
from keeper.domain.marketplace import Marketplace
from keeper.postgres.deal_filters import delete_filter
from keeper.postgres.deals import Key
from keeper.postgres.reports import Told
from keeper.postgres.sinks import lock_routes
from keeper.report import ReportSettings, report
from tests.integration.deals import add_deal, add_filter, add_reader, asin_of, end_deal
from tests.integration.makers import NOW, one, rows

BELOW = DealFilter(words="tastatur")


def tell(engine: Engine, keys: Sequence[Key], *, now: datetime = NOW, most: int = 5) -> Told:
    """The verb in a transaction of its own."""
    with engine.begin() as connection:
        return tell_deals(connection, keys, now=now, routes=lock_routes(connection), most_per_hour=most)


def test_matching_deal_is_told_on_every_channel(engine: Engine) -> None:
    user_id = add_reader(engine, channels=["ntfy://127.0.0.1:9/a", "ntfy://127.0.0.1:9/b"])
    add_filter(engine, user_id, "Keys", BELOW, is_instant=True)

    told = tell(engine, [add_deal(engine)])

    assert told == Told(told=1, held=0, deliveries=2)
    assert rows(engine, "SELECT kind, key = payload ->> 'channel_id' FROM events") == [("deal_alert", True)] * 2
    assert rows(engine, "SELECT sink FROM outbox") == ["notify"] * 2
    assert one(engine, "SELECT content ->> 'filter' FROM deal_alerts") == "Keys"


def test_deal_is_told_once_to_a_user_whatever_filters_match(engine: Engine) -> None:
    user_id = add_reader(engine)
    for name in ("one", "other"):
        add_filter(engine, user_id, name, is_instant=True)
    keys = [add_deal(engine)]

    assert [tell(engine, keys).told for _ in range(2)] == [1, 0]


def test_product_is_told_again_where_it_is_cheaper_by_three_percent_or_a_week_later(engine: Engine) -> None:
    add_filter(engine, add_reader(engine), is_instant=True)
    found = []
    for minutes, price in ((0, 10000), (10, 9900), (20, 9701), (30, 9700), (40, 9500), (50, 10500), (60 * 24 * 7 + 40, 9900)):
        now = NOW + timedelta(minutes=minutes)
        key = add_deal(engine, price=price, changed_at=now)
        found.append(tell(engine, [key], now=now).told)
        end_deal(engine, key, at=now)

    assert found == [1, 0, 0, 1, 0, 0, 1]


def test_prices_of_one_product_that_fall_together_are_told_once(engine: Engine) -> None:
    user_id = add_reader(engine)
    keys = [add_deal(engine, price=10000, score=80), add_deal(engine, price=8000, score=20, changed_at=NOW - timedelta(minutes=5))]
    add_filter(engine, user_id, "dear", DealFilter(marketplaces=(Marketplace.DE,), price_from_minor=9000), is_instant=True)
    add_filter(engine, user_id, "cheap", DealFilter(marketplaces=(Marketplace.DE,), price_to_minor=9000), is_instant=True)

    assert tell(engine, keys).told == 1
    assert one(engine, "SELECT content ->> 'filter' FROM deal_alerts") == "dear"


@pytest.mark.parametrize("is_instant", [True, False])
def test_only_instant_filters_tell(engine: Engine, is_instant: bool) -> None:
    add_filter(engine, add_reader(engine), is_instant=is_instant)
    assert tell(engine, [add_deal(engine)]).told == is_instant


def test_what_no_filter_wants_and_what_may_be_a_glitch_is_not_told(engine: Engine) -> None:
    add_filter(engine, add_reader(engine), wanted=DealFilter(words="piano"), is_instant=True)
    add_filter(engine, add_reader(engine, "ben"), is_instant=True)

    assert tell(engine, [add_deal(engine, announced_at=None)]) == Told()
    assert tell(engine, [add_deal(engine, 1)]).told == 1
    assert tell(engine, []) == Told()


@pytest.mark.parametrize(("hour", "held"), [(7, 1), (None, 0)])
def test_user_without_channels_is_told_by_the_report_if_any(engine: Engine, hour: int | None, held: int) -> None:
    add_filter(engine, add_reader(engine, channels=[], hour=hour), is_instant=True)
    assert tell(engine, [add_deal(engine)]) == Told(told=0, held=held, deliveries=0)


def test_removing_a_filter_forgets_nothing_that_was_told(engine: Engine) -> None:
    user_id = add_reader(engine)
    filter_id = add_filter(engine, user_id, is_instant=True)
    keys = [add_deal(engine, number) for number in range(2)]
    tell(engine, keys[:1], most=1)
    with engine.begin() as connection:
        delete_filter(connection, user_id, filter_id)
    add_filter(engine, user_id, is_instant=True)

    assert tell(engine, keys, most=1) == Told(told=0, held=1, deliveries=0)
    assert rows(engine, "SELECT filter_id IS NULL FROM deal_alerts ORDER BY id") == [True, False]
    assert one(engine, "SELECT count(*) FROM deliveries") == 1


def test_best_are_told_up_to_the_hours_bound_and_the_rest_is_held(engine: Engine) -> None:
    add_filter(engine, add_reader(engine), is_instant=True)
    keys = [add_deal(engine, number) for number in (3, 0, 2, 1)]

    assert tell(engine, keys, most=2) == Told(told=2, held=2, deliveries=2)
    assert rows(engine, "SELECT asin FROM deal_alerts WHERE NOT is_held ORDER BY asin") == [asin_of(0), asin_of(1)]


def test_bound_is_of_the_last_hour_and_of_each_user(engine: Engine) -> None:
    add_filter(engine, add_reader(engine), is_instant=True)
    found = [
        tell(engine, [add_deal(engine, place)], now=NOW + timedelta(minutes=minutes), most=1)
        for place, minutes in ((0, 0), (1, 59), (2, 61))
    ]
    add_filter(engine, add_reader(engine, "ben"), is_instant=True)
    bens = tell(engine, [add_deal(engine, 3)], now=NOW + timedelta(minutes=62), most=1)

    assert [(one.told, one.held) for one in found] == [(1, 0), (0, 1), (1, 0)]
    assert (bens.told, bens.held) == (1, 1)


def test_two_collections_at_once_keep_the_bound_together(engine: Engine) -> None:
    for name in ("anna", "ben", "cleo"):
        add_filter(engine, add_reader(engine, name), is_instant=True)
    batches = [[add_deal(engine, number) for number in range(first, first + 5)] for first in (0, 5, 10, 15)]
    ready = threading.Barrier(len(batches))

    def collect(keys: Sequence[Key]) -> Told:
        ready.wait()
        return tell(engine, keys, most=7)

    with ThreadPoolExecutor(len(batches)) as pool:
        found = list(pool.map(collect, batches))

    assert (sum(one.told for one in found), sum(one.held for one in found)) == (21, 39)
    assert rows(engine, "SELECT count(*) FROM deal_alerts WHERE NOT is_held GROUP BY user_id") == [7, 7, 7]
    assert one(engine, "SELECT count(*) FROM deliveries") == 21


def test_two_collections_of_the_same_deals_tell_each_once(engine: Engine) -> None:
    add_filter(engine, add_reader(engine), is_instant=True)
    keys = [add_deal(engine, number) for number in range(6)]
    ready = threading.Barrier(3)

    def collect(_: int) -> Told:
        ready.wait()
        return tell(engine, keys, most=4)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(collect, range(3)))

    assert sorted((one.told, one.held) for one in found) == [(0, 0), (0, 0), (4, 2)]


def test_what_was_held_is_told_by_the_next_report_and_only_by_that(engine: Engine) -> None:
    user_id = add_reader(engine)
    add_filter(engine, user_id, "Instant", DealFilter(words="tastatur"), is_instant=True)
    tell(engine, [add_deal(engine, number) for number in range(3)], most=1)

    for days in (0, 1):
        report(engine, now=NOW + timedelta(days=days), settings=ReportSettings())

    contents = rows(engine, "SELECT content FROM deal_reports ORDER BY report_date")
    assert [[held["deal"]["asin"] for held in content["held"]] for content in contents] == [[asin_of(1), asin_of(2)], []]
    assert one(engine, "SELECT count(*) FROM deal_alerts WHERE is_held AND report_id IS NULL") == 0


def _held(engine: Engine, *, days: int = 0) -> tuple[int, int]:
    """How many held deals the day's report shows, and of how many."""
    report(engine, now=NOW + timedelta(days=days), settings=ReportSettings())
    content = one(engine, "SELECT content FROM deal_reports ORDER BY report_date DESC LIMIT 1")
    return len(content["held"]), content["held_found"]


def test_what_a_report_has_no_room_for_waits_for_the_next(engine: Engine) -> None:
    add_filter(engine, add_reader(engine), is_instant=True)
    tell(engine, [add_deal(engine, number) for number in range(25)], most=0)

    assert [_held(engine, days=days) for days in range(3)] == [(20, 25), (5, 5), (0, 0)]


def test_held_deal_that_is_over_is_not_told(engine: Engine) -> None:
    add_filter(engine, add_reader(engine), is_instant=True)
    keys = [add_deal(engine, number) for number in range(3)]
    tell(engine, keys, most=0)
    end_deal(engine, keys[1], at=NOW)

    assert _held(engine) == (2, 2)
    assert rows(engine, "SELECT 1 FROM deal_alerts WHERE report_id IS NULL") == []


def test_nothing_is_held_for_one_who_gets_no_reports(engine: Engine) -> None:
    add_filter(engine, add_reader(engine, hour=None), is_instant=True)

    assert tell(engine, [add_deal(engine, number) for number in range(3)], most=1) == Told(told=1, held=0, deliveries=1)
