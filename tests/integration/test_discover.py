"""Discovery on a real database: where candidates come from, what they cost, and how a catalog grows within its share."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from keeper.collection import share_of
from keeper.discover import Discovered, DiscoverSettings, ListUnderWay, bestsellers, discover_all, fetch_list, plan_candidates
from keeper.domain.discovery import DiscoveryQuery, Selection
from keeper.domain.marketplace import Marketplace
from keeper.domain.product_group import parse_group
from keeper.keepa.answer import AsinAnswer
from keeper.keepa.client import KeepaClient
from keeper.postgres.installation import SIMULATOR, claim_source, select_now
from keeper.postgres.jobs import hold_job
from keeper.resources import SIMULATOR_KEY, agree_on_clock, jump_clock
from keeper.simulator.faults import Fault
from keeper.simulator.server import Simulator
from keeper.tokens import TokenSettings, learn_bucket
from tests.integration.makers import one, product, rows, run_record
from tests.integration.test_collect import run_collect, sighting

GROUP = parse_group(
    "keyboards", 'name = "keyboards"\nlabel = "Keyboards"\nthreshold = 10\nagainst_after_pct = 25\n[for.de]\n"*tastatur*" = 10\n'
)
NOBODY = parse_group("nobody", 'name = "nobody"\nlabel = "Nobody"\nthreshold = 10\nagainst_after_pct = 25\n[for.de]\n"unobtainium" = 10\n')
SETTINGS = DiscoverSettings(most_products=10_000, share_pct=10, most_per_run=5_000, deal_age=timedelta(days=30), max_wait_seconds=0)
TOKENS = TokenSettings()
FINDER = DiscoveryQuery("all-de", Marketplace.DE, selection=Selection(rank_from=1, most=50))


@pytest.fixture
def open_client(engine: Engine) -> Iterator[Callable[[Simulator], KeepaClient]]:
    """A client of a simulator whose clock and bucket the database knows."""
    opened: list[KeepaClient] = []

    def make(simulator: Simulator) -> KeepaClient:
        client = KeepaClient(SIMULATOR_KEY, base_url=simulator.url)
        opened.append(client)
        with engine.begin() as connection:
            claim_source(connection, SIMULATOR)
        agree_on_clock(engine, simulator.url)
        learn_bucket(engine, client)
        return client

    yield make
    for client in opened:
        client.close()


@pytest.fixture
def client(simulator: Simulator, open_client: Callable[[Simulator], KeepaClient]) -> KeepaClient:
    return open_client(simulator)


def run(engine: Engine, client: KeepaClient, *queries: DiscoveryQuery, **options: Any) -> Discovered:
    """One run; options are the settings that differ."""
    groups = options.pop("groups", [GROUP, NOBODY])
    return discover_all(
        engine,
        client,
        queries=queries,
        marketplaces=[Marketplace.DE],
        groups=groups,
        settings=replace(SETTINGS, **options),
        token_settings=TOKENS,
    )


def spent(engine: Engine, operation: str) -> int:
    return int(one(engine, "SELECT coalesce(sum(tokens_consumed), 0) FROM keepa_calls WHERE operation = :operation", operation=operation))


def catalog(engine: Engine) -> int:
    return int(one(engine, "SELECT count(DISTINCT (asin, marketplace)) FROM current_prices"))


def root_of(simulator: Simulator) -> int:
    """A category of the simulator that has a list."""
    with KeepaClient(SIMULATOR_KEY, base_url=simulator.url) as asking:
        return next(one.category_id for one in asking.fetch_categories(Marketplace.DE).categories if one.product_count)


def test_what_the_finder_knows_joins_the_catalog_with_prices_and_a_history(engine: Engine, client: KeepaClient) -> None:
    done = run(engine, client, FINDER)
    assert done.added == done.catalog == catalog(engine) > 20
    assert done.tokens == 11 + done.added + done.failed
    assert one(engine, "SELECT count(*) FROM price_history") > 10 * done.added
    assert not done.troubles


def test_a_second_run_pays_for_nothing_again(engine: Engine, client: KeepaClient) -> None:
    run(engine, client, FINDER)
    again = run(engine, client, FINDER)
    assert (again.tokens, again.added, again.candidates, again.waiting) == (0, 0, 0, 0)


def test_products_of_deals_are_candidates_for_no_token(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    known, seen = simulator.keepa.catalog.asins(0, 2)
    with engine.begin() as connection:
        now = select_now(connection)
    looked: dict[str, Any] = {"changed": now - timedelta(hours=2), "looked": now}
    run_record(engine, product([(now - timedelta(days=3), 5000)], asin=known, at=now))
    run_collect(engine, sighting(asin=known, **looked), sighting(asin=seen, **looked), now=now)
    done = run(engine, client)
    assert (done.candidates, done.added, done.tokens) == (1, 1, 1)
    assert rows(engine, "SELECT asin, source FROM candidates") == [(seen, "deals")]


def test_deals_that_were_seen_long_ago_bring_nothing(engine: Engine, client: KeepaClient) -> None:
    with engine.begin() as connection:
        now = select_now(connection) - timedelta(days=31)
    run_collect(engine, sighting(changed=now - timedelta(hours=2), looked=now), now=now)
    assert run(engine, client).candidates == 0


def test_strangers_are_left_out_and_not_asked_for_again_for_90_days(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    query = replace(FINDER, group="nobody")
    done = run(engine, client, query)
    assert (done.added, catalog(engine)) == (0, 0)
    assert done.strangers > 20
    assert one(engine, "SELECT count(*) FROM check_claims") == 0
    jump_clock(engine, simulator.url, seconds=89 * 86400)
    assert run(engine, client, query).strangers == 0
    jump_clock(engine, simulator.url, seconds=2 * 86400)
    assert run(engine, client, query).strangers == done.strangers


def test_a_list_of_bestsellers_is_paid_once_a_day(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    category_id = root_of(simulator)

    def ask() -> tuple[str, ...]:
        return bestsellers(
            engine,
            Marketplace.DE,
            category_id,
            fetch_list=lambda store, some: fetch_list(engine, client, store, some, settings=TOKENS, max_wait_seconds=0),
            max_age=timedelta(0),
        )

    first = ask()
    assert first
    jump_clock(engine, simulator.url, seconds=23 * 3600)
    assert ask() == first
    assert spent(engine, "bestsellers") == 50
    jump_clock(engine, simulator.url, seconds=2 * 3600)
    ask()
    assert spent(engine, "bestsellers") == 100


def test_many_who_ask_for_a_list_at_once_pay_for_it_once(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    category_id = root_of(simulator)
    simulator.keepa.faults.order(Fault("slow", seconds=0.5), path="/bestsellers", count=8)

    def fetch(store: Marketplace, some: int) -> AsinAnswer:
        return fetch_list(engine, client, store, some, settings=TOKENS, max_wait_seconds=5)

    def ask(_: int) -> str:
        try:
            return str(len(bestsellers(engine, Marketplace.DE, category_id, fetch_list=fetch)))
        except ListUnderWay:
            return "under way"

    with ThreadPoolExecutor(max_workers=4) as pool:
        said = set(pool.map(ask, range(4)))
    assert "under way" in said
    assert spent(engine, "bestsellers") == 50


def test_lists_are_not_asked_while_enough_candidates_wait(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    query = replace(FINDER, bestsellers=(root_of(simulator),))
    run(engine, client, FINDER, most_per_run=5)
    run(engine, client, query, most_per_run=5)
    assert spent(engine, "bestsellers") == 0


def test_a_list_that_fails_stops_nothing_else(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    category_id = root_of(simulator)
    simulator.keepa.faults.order(Fault("503"), path="/bestsellers", count=1)
    done = run(engine, client, replace(FINDER, bestsellers=(category_id,)))
    assert [trouble for trouble in done.troubles if f"all-de: bestsellers of {category_id}" in trouble]
    assert done.added > 0
    assert one(engine, "SELECT count(*) FROM token_reservations") == 0


def test_a_fetch_that_fails_is_tried_again_a_day_later(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    simulator.keepa.faults.order(Fault("503"), path="/product", count=1)
    failed = run(engine, client, FINDER)
    assert (failed.added, len(failed.troubles)) == (0, 1)
    assert one(engine, "SELECT count(*) FROM check_claims") == 0
    assert run(engine, client).added == 0
    jump_clock(engine, simulator.url, seconds=25 * 3600)
    assert run(engine, client).added > 20


def test_a_share_too_small_for_a_list_is_told(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    done = run(engine, client, replace(FINDER, bestsellers=(root_of(simulator),)), share_pct=1)
    assert done.tokens <= 12
    assert [note for note in done.notes if "takes 50 tokens, and 12 are left of the share of 12 an hour" in note]


def test_what_discovering_pays_for_lists_takes_nothing_from_the_share_of_deals(engine: Engine, client: KeepaClient) -> None:
    run(engine, client, FINDER)
    with engine.begin() as connection:
        share = share_of(connection, share_pct=25, now=select_now(connection))
    assert share.left == share.tokens == 300


def test_two_at_once_fetch_each_candidate_once(engine: Engine, client: KeepaClient) -> None:
    run(engine, client, FINDER, most_per_run=1)
    with ThreadPoolExecutor(max_workers=2) as pool:
        requests = list(pool.map(lambda _: plan_candidates(engine, most=30, settings=TOKENS, max_wait_seconds=0), range(2)))
    asked = [asin for request in requests if request is not None for asin in request.asins]
    assert len(asked) == len(set(asked)) > 0


def test_the_job_is_held_by_one(engine: Engine) -> None:
    with hold_job(engine, "discovery") as is_mine, hold_job(engine, "discovery") as is_also_mine:
        assert (is_mine, is_also_mine) == (True, False)


def test_a_catalog_grows_to_its_number_hour_by_hour_within_the_share(
    engine: Engine, open_client: Callable[[Simulator], KeepaClient]
) -> None:
    with Simulator(products=12_000, listed=12_000, refill_per_minute=50) as simulator:
        client = open_client(simulator)
        query = DiscoveryQuery("many-de", Marketplace.DE, selection=Selection(rank_from=1, most=5_000))
        share, sizes = 300, []
        for _ in range(4):
            before = spent(engine, "product") + spent(engine, "query")
            done = run(engine, client, query, most_products=1_000)
            assert spent(engine, "product") + spent(engine, "query") - before == done.tokens <= share
            assert not done.troubles
            sizes.append(catalog(engine))
            assert run(engine, client, query, most_products=1_000).tokens == 0
            jump_clock(engine, simulator.url, seconds=3601)
    assert sizes == sorted(sizes)
    assert sizes[0] > 200
    assert sizes[-1] == 1_000
    assert spent(engine, "query") == 60


def test_a_keepa_that_refuses_the_finder_is_told(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    simulator.keepa.faults.order(Fault("400"), path="/query", count=1)
    done = run(engine, client, FINDER)
    assert [trouble for trouble in done.troubles if trouble.startswith("all-de: finder: ")]
