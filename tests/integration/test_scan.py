"""The scan of the compared stores on a real database: which products, in which stores, for which tokens, and what fails."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from keeper.check import Checked, record_answer
from keeper.domain.budget import Priority
from keeper.domain.discovery import DiscoveryQuery, Selection
from keeper.domain.marketplace import COMPARED, Marketplace
from keeper.domain.price_type import PriceType
from keeper.fetch import fetch
from keeper.keepa.answer import AsinAnswer
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import ServerDown
from keeper.maintain import Retention, maintain
from keeper.plan import PlannedRequest
from keeper.postgres.installation import SIMULATOR, claim_source, select_now
from keeper.postgres.scan import mark_scanned, select_due
from keeper.resources import SIMULATOR_KEY, agree_on_clock, jump_clock
from keeper.scan import OPERATION, Scanned, ScanSettings, plan_listings, plan_scan, scan, scan_all, share_of
from keeper.simulator.server import Simulator
from keeper.tokens import TokenSettings, learn_bucket, release, reserve
from tests.integration.makers import add_user, add_watch, one, product, rows, run_record
from tests.integration.test_collect import run_collect, sighting
from tests.integration.test_discover import root_of

TOKENS = TokenSettings()
SETTINGS = ScanSettings(
    stores=COMPARED,
    price_type=PriceType.NEW,
    share_pct=30,
    fresh_for=timedelta(hours=2),
    price_ends_after=timedelta(hours=72),
    deal_age=timedelta(days=7),
    most_asins=10_000,
    most_per_list=500,
    max_wait_seconds=0,
)
DE, IT, ES, FR, UK = COMPARED
Check = Callable[[PlannedRequest], Checked]


@pytest.fixture
def client(engine: Engine, simulator: Simulator) -> Iterator[KeepaClient]:
    with KeepaClient(SIMULATOR_KEY, base_url=simulator.url) as opened:
        with engine.begin() as connection:
            claim_source(connection, SIMULATOR)
        agree_on_clock(engine, simulator.url)
        learn_bucket(engine, opened)
        yield opened


@pytest.fixture
def watched(engine: Engine, simulator: Simulator) -> list[str]:
    """Products that somebody watches in Germany."""
    asins = simulator.keepa.catalog.asins(0, 5)
    user_id = add_user(engine)
    for asin in asins:
        add_watch(engine, user_id, asin=asin)
    return asins


def run(engine: Engine, client: KeepaClient, **changes: Any) -> Scanned:
    return scan_all(engine, client, settings=replace(SETTINGS, **changes), token_settings=TOKENS)


def run_checked(engine: Engine, client: KeepaClient, around: Callable[[PlannedRequest, Check], Checked], **changes: Any) -> Scanned:
    """A run whose requests go through `around`."""
    largest_request = changes.pop("largest_request", None)
    settings, scanned = replace(SETTINGS, **changes), Scanned()

    def check(request: PlannedRequest) -> Checked:
        with engine.begin() as connection:
            now = select_now(connection)
        return record_answer(engine, request, fetch(engine, client, request), now=now)

    def no_list(*_: object) -> AsinAnswer:
        raise AssertionError("no list is wanted here")

    def plan(asins: Sequence[str], marketplace: Marketplace, days: int) -> PlannedRequest | None:
        return plan_listings(engine, asins, marketplace, days, settings=settings, token_settings=TOKENS)

    scan(
        engine,
        settings=settings,
        fetch_list=no_list,
        fetch_found=no_list,
        plan=plan,
        check=lambda request: around(request, check),
        scanned=scanned,
        largest_request=largest_request,
    )
    return scanned


def down(engine: Engine, request: PlannedRequest) -> ServerDown:
    """What a fetch raises, settled as it settles."""
    release(engine, request.reservation_id)
    return ServerDown("Keepa is down")


def listings(engine: Engine) -> set[tuple[str, str]]:
    return {(asin, store) for asin, store in rows(engine, "SELECT DISTINCT asin, marketplace FROM current_prices WHERE price_type = 'NEW'")}


def now_of(engine: Engine) -> datetime:
    with engine.begin() as connection:
        return select_now(connection)


def test_a_watched_product_is_looked_at_in_every_compared_store(engine: Engine, client: KeepaClient, watched: list[str]) -> None:
    done = run(engine, client)
    assert listings(engine) == {(asin, store.value) for asin in watched for store in COMPARED}
    assert (done.products, done.checked, done.tokens, done.troubles) == (5, 25, 25, {})


def test_a_store_is_asked_for_many_products_in_one_request(engine: Engine, client: KeepaClient, watched: list[str]) -> None:
    done = run(engine, client)
    assert {store: (one.requests, one.checked) for store, one in done.stores.items()} == dict.fromkeys(COMPARED, (1, 5))
    assert rows(engine, "SELECT DISTINCT operation, reserved_for FROM keepa_calls WHERE tokens_consumed > 0") == [("product", OPERATION)]


def test_what_was_checked_lately_is_not_paid_again(engine: Engine, client: KeepaClient, watched: list[str]) -> None:
    run(engine, client)
    assert (run(engine, client).tokens, plan_scan(engine, SETTINGS).due) == (0, 0)


def test_what_a_watch_has_checked_is_asked_for_in_the_other_stores_only(engine: Engine, client: KeepaClient, watched: list[str]) -> None:
    for asin in watched:
        run_record(engine, product([(now_of(engine) - timedelta(days=1), 5000)], asin=asin, at=now_of(engine)))
    done = run(engine, client)
    assert (set(done.stores), done.tokens) == ({IT, ES, FR, UK}, 20)


def test_after_some_hours_all_are_due_again(engine: Engine, client: KeepaClient, watched: list[str], simulator: Simulator) -> None:
    run(engine, client)
    jump_clock(engine, simulator.url, seconds=3 * 3600)
    assert run(engine, client).tokens == 25


def test_products_of_deals_and_of_open_opportunities_are_compared(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    seen, gap = simulator.keepa.catalog.asins(10, 12)
    now = now_of(engine)
    run_collect(engine, sighting(asin=seen, changed=now - timedelta(hours=2), looked=now), now=now)
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                INSERT INTO opportunities (asin, source_market, target_market, price_type, source_minor, target_minor, source_currency,
                    target_currency, source_checked_at, target_checked_at, margin_minor, margin_pct, unknown_parts, reckoned_on,
                    first_seen_at, last_seen_at, best_margin_minor, best_at)
                VALUES (:asin, 'DE', 'IT', 'NEW', 1000, 1500, 'EUR', 'EUR', :now, :now, 500, 50, '{fba}', :now, :now, :now, 500, :now)
                """
            ),
            {"asin": gap, "now": now},
        )
    done = run(engine, client)
    assert done.plan is not None
    assert (done.plan.by_source, {asin for asin, _ in listings(engine)}) == ({"open opportunities": 1, "deals": 1}, {seen, gap})


def test_the_best_of_a_bestseller_list_are_compared_and_the_list_is_paid_once_a_day(
    engine: Engine, client: KeepaClient, simulator: Simulator
) -> None:
    lists = ((DE, root_of(simulator)),)
    done = run(engine, client, lists=lists, most_per_list=3)
    assert (done.lists, done.products, done.plan and done.plan.by_source) == (1, 3, {"lists": 3})
    jump_clock(engine, simulator.url, seconds=4 * 3600)
    again = run(engine, client, lists=lists, most_per_list=3)
    assert (again.lists, again.products) == (0, 3)


def test_what_the_finder_found_is_compared_and_it_is_asked_once_a_day(engine: Engine, client: KeepaClient) -> None:
    query = DiscoveryQuery("mine", DE, selection=Selection(rank_from=1, most=50))
    done = run(engine, client, queries=(query,), most_per_list=4)
    assert (done.lists, done.products) == (1, 4)
    assert run(engine, client, queries=(query,), most_per_list=4).lists == 0


def test_where_there_are_more_than_may_be_compared_the_best_of_the_lists_are(engine: Engine) -> None:
    now = now_of(engine)
    with engine.begin() as connection:
        due = select_due(
            connection,
            stores=["DE"],
            price_type="NEW",
            listed=["B000000002", "B000000001"],
            deals_since=now,
            most=1,
            seen_before=now,
            absent_before=now,
        )
    assert [one.asin for one in due] == ["B000000002"]


def test_a_run_ends_where_its_share_does_and_the_next_goes_on(
    engine: Engine, client: KeepaClient, watched: list[str], simulator: Simulator
) -> None:
    # 0.7 % of 1,200 tokens an hour are 16 in two hours: three products in five stores.
    done = run(engine, client, share_pct=0.7)
    assert (done.products, done.tokens) == (3, 15)
    assert any("has spent its share of 8 tokens an hour (KEEPER_ARBITRAGE_SHARE_PCT)" in note for note in done.notes)
    jump_clock(engine, simulator.url, seconds=2.1 * 3600)
    run(engine, client, share_pct=0.7, fresh_for=timedelta(hours=4))
    assert {asin for asin, _ in listings(engine)} == set(watched)


def test_what_others_have_reserved_for_comparing_counts_too(engine: Engine, client: KeepaClient) -> None:
    reserve(engine, operation=OPERATION, tokens=100, priority=Priority.BACKGROUND, max_wait_seconds=0, settings=TOKENS)
    with engine.begin() as connection:
        assert share_of(connection, share_pct=30, now=select_now(connection)).left == 620


def test_those_seen_longest_ago_come_first_and_never_seen_ones_before_them(engine: Engine, watched: list[str]) -> None:
    now = now_of(engine)
    with engine.begin() as connection:
        for hours, asin in enumerate(watched[:4], start=3):
            mark_scanned(connection, [asin], "DE", now=now - timedelta(hours=hours))
        due = select_due(
            connection,
            stores=["DE"],
            price_type="NEW",
            listed=[],
            deals_since=now,
            most=10,
            seen_before=now - timedelta(hours=2),
            absent_before=now,
        )
    assert [one.asin for one in due] == [watched[4], watched[3], watched[2], watched[1], watched[0]]


def test_a_dead_store_stops_no_other_and_is_told(engine: Engine, client: KeepaClient, watched: list[str]) -> None:
    def without_france(request: PlannedRequest, check: Check) -> Checked:
        if request.marketplace is FR:
            raise down(engine, request)
        return check(request)

    done = run_checked(engine, client, without_france)
    assert {store for _, store in listings(engine)} == {"DE", "IT", "ES", "UK"}
    assert list(done.troubles) == ["FR is left out: Keepa is down"]
    assert (done.stores[FR].failed, done.products) == (5, 5)


def test_a_dead_store_is_not_asked_again_in_a_run(engine: Engine, client: KeepaClient, watched: list[str]) -> None:
    asked: list[Marketplace] = []

    def without_italy(request: PlannedRequest, check: Check) -> Checked:
        asked.append(request.marketplace)
        if request.marketplace is IT:
            raise down(engine, request)
        return check(request)

    # Two products a round.
    run_checked(engine, client, without_italy, share_pct=0.45)
    assert asked.count(IT) == 1


def test_what_was_asked_for_in_vain_is_not_first_again(engine: Engine, client: KeepaClient, watched: list[str]) -> None:
    def none(request: PlannedRequest, _: Check) -> Checked:
        raise down(engine, request)

    run_checked(engine, client, none)
    assert (plan_scan(engine, SETTINGS).due, one(engine, "SELECT count(*) FROM scanned_products")) == (0, 25)
    assert one(engine, "SELECT count(*) FROM check_claims WHERE expires_at > clock_timestamp()") == 0


def test_what_changed_while_nobody_answered_is_fetched_afterwards(
    engine: Engine, client: KeepaClient, watched: list[str], simulator: Simulator
) -> None:
    days: list[int] = []

    def none(request: PlannedRequest, _: Check) -> Checked:
        raise down(engine, request)

    def noted(request: PlannedRequest, check: Check) -> Checked:
        days.append(request.history_days)
        return check(request)

    run(engine, client)
    for _ in range(4):
        jump_clock(engine, simulator.url, seconds=86400)
        run_checked(engine, client, none)
    jump_clock(engine, simulator.url, seconds=3 * 3600)
    run_checked(engine, client, noted)
    assert set(days) == {6}


@pytest.mark.parametrize(("is_there", "days"), [(True, 2), (False, 9)])
def test_what_was_answered_lately_is_asked_for_with_little_history(
    engine: Engine, client: KeepaClient, simulator: Simulator, is_there: bool, days: int
) -> None:
    asked: list[int] = []

    def noted(request: PlannedRequest, check: Check) -> Checked:
        asked.append(request.history_days)
        return check(request)

    add_watch(engine, add_user(engine), asin=simulator.keepa.catalog.asins(0, 1)[0] if is_there else "B000000000")
    run(engine, client)
    jump_clock(engine, simulator.url, seconds=3 * 3600 if is_there else 7 * 86400)
    run_checked(engine, client, noted)
    assert set(asked) == {days}


def test_a_run_that_is_ended_from_outside_gives_its_tokens_back(engine: Engine, client: KeepaClient, watched: list[str]) -> None:
    def interrupted(request: PlannedRequest, _: Check) -> Checked:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_checked(engine, client, interrupted)
    assert (one(engine, "SELECT count(*) FROM token_reservations"), plan_scan(engine, SETTINGS).due) == (0, 5)


def test_a_product_a_store_does_not_have_is_asked_for_again_after_a_week_only(
    engine: Engine, client: KeepaClient, simulator: Simulator
) -> None:
    add_watch(engine, add_user(engine), asin="B000000000")
    assert run(engine, client).tokens == 5
    jump_clock(engine, simulator.url, seconds=86400)
    assert plan_scan(engine, SETTINGS).due == 0
    jump_clock(engine, simulator.url, seconds=7 * 86400)
    assert plan_scan(engine, SETTINGS).due == 1


@pytest.mark.parametrize(
    ("price_type", "tokens_each", "recorded"),
    [
        pytest.param(PriceType.BUY_BOX_SHIPPING, 3, "BUY_BOX_SHIPPING", id="buy box"),
        pytest.param(PriceType.NEW_FBA, 12, "NEW_FBA", id="sent by Amazon"),
    ],
)
def test_another_price_basis_is_asked_for_and_costs_what_keepa_takes(
    engine: Engine, client: KeepaClient, watched: list[str], price_type: PriceType, tokens_each: int, recorded: str
) -> None:
    done = run(engine, client, price_type=price_type, share_pct=90, stores=(DE, IT))
    assert done.plan is not None
    assert (done.plan.tokens_each, done.checked) == (tokens_each, 10)
    assert one(engine, "SELECT count(*) FROM current_prices WHERE price_type = :name", name=recorded) > 0
    assert one(engine, "SELECT count(*) FROM token_reservations") == 0


def test_the_plan_says_what_fits_and_costs_nothing(engine: Engine, client: KeepaClient, watched: list[str]) -> None:
    plan = plan_scan(engine, SETTINGS)
    assert (plan.products, plan.due, plan.due_tokens, plan.tokens_per_hour, plan.tokens_left) == (5, 5, 25, 360, 720)
    assert one(engine, "SELECT count(*) FROM keepa_calls WHERE tokens_consumed > 0") == 0


def test_a_list_that_cannot_be_paid_stops_nothing_else(engine: Engine, client: KeepaClient, watched: list[str]) -> None:
    # 1 % of the refill are 24 tokens in two hours, a list takes 50.
    done = run(engine, client, lists=((DE, 1),), share_pct=1)
    assert (done.products, done.troubles) == (4, {})
    assert any(note.startswith("bestsellers of 1 in DE: comparing stores has spent its share") for note in done.notes)


def test_what_was_asked_for_long_ago_is_forgotten(engine: Engine) -> None:
    now = now_of(engine)
    with engine.begin() as connection:
        mark_scanned(connection, ["B000000001"], "DE", now=now - timedelta(days=31))
        mark_scanned(connection, ["B000000002"], "DE", now=now - timedelta(days=29))
    maintain(
        engine,
        now=now,
        retention=Retention(events=7, calls=90, ingested=8, dead_letters=90, sightings=90, deals=400, opportunities=400, reports=400),
    )
    assert rows(engine, "SELECT asin FROM scanned_products") == ["B000000002"]


def test_a_request_is_cut_to_what_one_may_cost(engine: Engine, client: KeepaClient, watched: list[str]) -> None:
    done = run_checked(engine, client, lambda request, check: check(request), largest_request=2)
    assert {store: one.requests for store, one in done.stores.items()} == dict.fromkeys(COMPARED, 3)


def test_no_request_takes_more_than_half_of_the_bucket(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    user_id = add_user(engine)
    for asin in simulator.keepa.catalog.asins(0, 47):
        add_watch(engine, user_id, asin=asin)
    asked: list[int] = []

    def counting(request: PlannedRequest, _: Check) -> Checked:
        asked.append(request.tokens)
        release(engine, request.reservation_id)
        return Checked()

    run_checked(engine, client, counting, price_type=PriceType.NEW_FBA, share_pct=100, stores=(DE, IT), max_wait_seconds=0)
    assert max(asked) == 47 * 12 <= 600
