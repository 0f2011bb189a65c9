"""A collection on a real database: pages until nothing is new, within a share of the tokens; the seeds; what fails stops nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from keeper import collection
from keeper.collect import Collected
from keeper.collection import (
    CACHE_TIME,
    BudgetSpent,
    CollectSettings,
    Gathered,
    collect_all,
    end_overdue,
    keep_page,
    share_of,
    walk_query,
)
from keeper.domain.budget import Priority
from keeper.domain.deal import PAGE_SIZE, DealQuery, DealSighting
from keeper.domain.deal_files import parse_seeds
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import minute_of
from keeper.domain.price_type import PriceType
from keeper.domain.product_group import parse_group
from keeper.domain.tokens import TokenStatus
from keeper.keepa.answer import DealAnswer
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import RequestRejected
from keeper.plan import plan_products
from keeper.postgres.installation import SIMULATOR, claim_source, select_now
from keeper.resources import SIMULATOR_KEY, agree_on_clock
from keeper.simulator.faults import Fault
from keeper.simulator.server import Simulator
from keeper.tokens import TokenSettings, learn_bucket, reserve
from tests.integration.makers import add_user, add_watch, one, rows

QUERY = DealQuery("keyboards-de", Marketplace.DE, group="keyboards", words=("tastatur",))
GROUP = parse_group(
    "keyboards", 'name = "keyboards"\nlabel = "Keyboards"\nthreshold = 10\nagainst_after_pct = 25\n[for.de]\n"*tastatur*" = 10\n'
)
SETTINGS = CollectSettings(
    share_pct=25, least_fall_pct=1, seeds_fresh_for=timedelta(minutes=50), ends_after=timedelta(hours=48), max_wait_seconds=0
)


def now_of(engine: Engine) -> datetime:
    with engine.begin() as connection:
        return select_now(connection)


def page_of(first: int, count: int, at: datetime, *, title: str = "Tastatur") -> DealAnswer:
    """Rows as the feed has them: newest first, a minute apart."""
    sightings = [
        DealSighting(
            f"B{number:09d}", Marketplace.DE, PriceType.NEW, minute_of(at) - number, minute_of(at), 3999, title, averages_minor={90: 7999}
        )
        for number in range(first, first + count)
    ]
    tokens = TokenStatus(at, 1000, 30.0, 20, 0.0, 5)
    raw: Mapping[str, Any] = {seen.asin: b"{}" for seen in sightings}
    return DealAnswer("deal", Marketplace.DE, 0, tokens, 200, 0.1, b"", tuple(sightings), raw, count, False)


class Feed:
    """A feed of so many rows, and what was asked of it."""

    def __init__(self, engine: Engine, count: int, *, title: str = "Tastatur") -> None:
        self.engine = engine
        self.count = count
        self.title = title
        self.began = now_of(engine)
        self.asked: list[int] = []
        self.tokens_left = 10**6
        self.broken: Exception | None = None
        self.gone: set[int] = set()
        self.slow: list[int] = []
        self.unreadable: dict[str | int, str] = {}

    def fetch(self, _query: DealQuery, page: int) -> DealAnswer:
        if self.tokens_left < 5:
            raise BudgetSpent("the share is spent")
        if self.broken is not None:
            raise self.broken
        self.tokens_left -= 5
        self.asked.append(page)
        if page in self.slow:
            self.slow.remove(page)
            wait(self.engine, CACHE_TIME.total_seconds() + 1)
        first = page * PAGE_SIZE
        answer = page_of(first, max(0, min(PAGE_SIZE, self.count - first)), self.began, title=self.title)
        gone = {f"B{number:09d}" for number in self.gone}
        left = tuple(seen for seen in answer.sightings if seen.asin not in gone)
        return replace(answer, sightings=left, unreadable=self.unreadable if page == 0 else {})

    def walk(self, *, most_pages: int = 67) -> Gathered:
        """One pass. What it asked is in `asked`."""
        gathered, self.asked = Gathered(), []
        try:
            walk_query(self.engine, QUERY, fetch_page=self.fetch, keep=self._keep, gathered=gathered, most_pages=most_pages)
        except BudgetSpent:
            gathered.notes["spent"] = None
        return gathered

    def _keep(self, query: DealQuery, page: int, answer: DealAnswer) -> tuple[Collected, int | None]:
        return keep_page(self.engine, query, page, answer, groups=[GROUP], full_pass_every=timedelta(hours=12))


def wait(engine: Engine, seconds: float) -> None:
    """So much later, as far as the query and its deals know."""
    earlier = "- make_interval(secs => :seconds)"
    rows(
        engine,
        f"UPDATE deal_queries SET asked_at = asked_at {earlier}, full_at = full_at {earlier}, wanted_at = wanted_at {earlier}, "
        f"began_at = began_at {earlier} RETURNING 1",
        seconds=seconds,
    )
    rows(engine, f"UPDATE collected_deals SET last_seen_at = last_seen_at {earlier} RETURNING 1", seconds=seconds)


def test_pages_are_asked_until_one_is_not_full(engine: Engine) -> None:
    feed = Feed(engine, 2 * PAGE_SIZE + 20)
    done = feed.walk()
    assert feed.asked == [0, 1, 2]
    assert (done.pages, done.tokens, done.added) == (3, 15, 2 * PAGE_SIZE + 20)


def test_a_later_pass_stops_at_the_first_page_with_nothing_new(engine: Engine) -> None:
    feed = Feed(engine, 4 * PAGE_SIZE)
    feed.walk()
    wait(engine, 3600)
    assert feed.walk().added == 0
    assert feed.asked == [0]


def test_pages_without_a_keyboard_are_no_end_while_they_are_new(engine: Engine) -> None:
    feed = Feed(engine, 3 * PAGE_SIZE + 1, title="Raclette")
    assert feed.walk().kept == 0
    assert feed.asked == [0, 1, 2, 3]
    wait(engine, 3600)
    feed.walk()
    assert feed.asked == [0]


def test_a_pass_that_runs_out_of_tokens_goes_on_within_keepas_cache_time(engine: Engine) -> None:
    feed = Feed(engine, 3 * PAGE_SIZE)
    feed.tokens_left = 10
    assert feed.walk().added == 2 * PAGE_SIZE
    feed.tokens_left = 1000
    wait(engine, CACHE_TIME.total_seconds() - 30)
    assert feed.walk().added == PAGE_SIZE
    assert feed.asked == [2, 3]


def test_a_pass_that_waited_longer_than_keepa_keeps_its_answer_begins_anew(engine: Engine) -> None:
    feed = Feed(engine, 3 * PAGE_SIZE - 1)
    feed.slow = [1]
    assert feed.walk().added == 3 * PAGE_SIZE - 1
    assert feed.asked == [0, 1, 0, 1, 2]


def test_a_pass_that_is_torn_apart_again_and_again_is_left_to_the_next_run(engine: Engine) -> None:
    feed = Feed(engine, 3 * PAGE_SIZE - 1)
    feed.slow = [1, 1, 1, 1]
    assert [note for note in feed.walk().notes if "too slowly" in note]
    assert feed.asked == [0, 1, 0, 1, 0, 1]
    feed.slow = []
    feed.walk()
    assert feed.asked == [0, 1, 2]


def test_a_torn_pass_ends_nothing(engine: Engine) -> None:
    feed = Feed(engine, 2 * PAGE_SIZE - 1)
    feed.walk()
    wait(engine, 13 * 3600)
    feed.slow, feed.gone = [1] * 3, {PAGE_SIZE + 7}
    assert feed.walk().ended == 0
    assert feed.walk().ended == 1


def test_later_it_begins_at_the_newest_again(engine: Engine) -> None:
    feed = Feed(engine, 3 * PAGE_SIZE)
    feed.tokens_left = 10
    feed.walk()
    feed.tokens_left = 1000
    wait(engine, CACHE_TIME.total_seconds() + 1)
    feed.walk()
    assert feed.asked[0] == 0


def test_what_lies_behind_an_interrupted_pass_is_reached_over_known_rows(engine: Engine) -> None:
    feed = Feed(engine, 4 * PAGE_SIZE + 1)
    feed.tokens_left = 10
    feed.walk()
    wait(engine, 3600)
    feed.tokens_left = 5
    assert (feed.walk().added, feed.asked) == (0, [0])
    wait(engine, 3600)
    feed.tokens_left = 1000
    assert (feed.walk().added, feed.asked) == (2 * PAGE_SIZE + 1, [0, 1, 2, 3, 4])
    wait(engine, 3600)
    feed.walk()
    assert feed.asked == [0]


@pytest.mark.parametrize("title", ["Tastatur", "Raclette"], ids=["kept", "left-out"])
def test_a_person_who_asked_for_one_page_cuts_nothing_off(engine: Engine, title: str) -> None:
    feed = Feed(engine, 2 * PAGE_SIZE + 1, title=title)
    feed.walk(most_pages=1)
    wait(engine, 3600)
    feed.walk()
    assert feed.asked == [0, 1, 2]


def test_a_pass_that_fails_is_made_good_by_the_next(engine: Engine) -> None:
    feed = Feed(engine, 2 * PAGE_SIZE + 1)
    feed.walk(most_pages=1)
    facts: dict[str, Any] = {"endpoint": "deal", "marketplace": Marketplace.DE, "asin_count": 0, "elapsed_seconds": 0.1}
    feed.broken = RequestRejected("not now", **facts)
    feed.walk()
    feed.broken = None
    assert feed.walk().added == PAGE_SIZE + 1


def test_new_deals_before_known_ones_are_found_and_the_pass_ends_behind_them(engine: Engine) -> None:
    feed = Feed(engine, 3 * PAGE_SIZE)
    feed.walk()
    wait(engine, 3600)
    feed.began += timedelta(minutes=20)
    done = feed.walk()
    assert feed.asked[:1] == [0]
    assert done.added > 0


def test_what_a_feed_that_was_read_whole_tells_of_no_more_is_over(engine: Engine) -> None:
    feed = Feed(engine, 3)
    feed.walk()
    wait(engine, 3600)
    feed.count = 2
    assert feed.walk().ended == 1
    assert rows(engine, "SELECT asin FROM collected_deals WHERE ended_at IS NOT NULL") == ["B000000002"]


def test_what_lies_behind_the_last_page_that_was_read_is_not_over(engine: Engine) -> None:
    feed = Feed(engine, 2 * PAGE_SIZE + 5)
    feed.walk()
    wait(engine, 3600)
    assert (feed.walk().ended, feed.asked) == (0, [0])


def test_a_full_pass_sees_every_running_deal_again(engine: Engine) -> None:
    feed = Feed(engine, 2 * PAGE_SIZE + 5)
    feed.walk()
    wait(engine, 13 * 3600)
    assert (feed.walk().ended, feed.asked) == (0, [0, 1, 2])
    assert end_overdue(engine, ends_after=timedelta(hours=12)) == 0
    wait(engine, 3600)
    feed.walk()
    assert feed.asked == [0]


def test_a_full_pass_ends_behind_the_last_deal_it_knows(engine: Engine) -> None:
    feed = Feed(engine, 3 * PAGE_SIZE)
    feed.walk()
    rows(engine, "UPDATE collected_deals SET ended_at = last_seen_at WHERE asin >= :asin RETURNING 1", asin=f"B{PAGE_SIZE + 7:09d}")
    wait(engine, 13 * 3600)
    feed.gone = set(range(PAGE_SIZE + 7, 3 * PAGE_SIZE))
    feed.count = 10 * PAGE_SIZE
    feed.walk()
    assert feed.asked == [0, 1]


def test_a_full_pass_ends_what_is_on_its_pages_no_more(engine: Engine) -> None:
    feed = Feed(engine, 3 * PAGE_SIZE)
    feed.walk()
    wait(engine, 13 * 3600)
    feed.gone = {7, PAGE_SIZE + 7}
    assert feed.walk().ended == 2
    assert rows(engine, "SELECT asin FROM collected_deals WHERE ended_at IS NOT NULL ORDER BY 1") == ["B000000007", "B000000157"]


def test_a_deal_whose_page_could_not_be_paid_for_is_not_over(engine: Engine) -> None:
    feed = Feed(engine, 3 * PAGE_SIZE)
    feed.walk()
    wait(engine, 30 * 3600)
    feed.gone = {7, PAGE_SIZE + 7}
    feed.tokens_left = 10
    assert feed.walk().ended == 1
    assert end_overdue(engine, ends_after=timedelta(hours=24)) == 0
    assert rows(engine, "SELECT asin FROM collected_deals WHERE ended_at IS NOT NULL") == ["B000000007"]


def test_an_unseen_deal_is_over_when_it_is_too_old_for_its_query(engine: Engine) -> None:
    feed = Feed(engine, 2 * PAGE_SIZE)
    feed.walk()
    wait(engine, 30 * 3600)
    feed.walk(most_pages=1)
    rows(engine, "UPDATE collected_deals SET changed_at = changed_at - interval '9 days' WHERE asin = 'B000000299' RETURNING 1")
    assert end_overdue(engine, ends_after=timedelta(hours=24)) == 1
    assert rows(engine, "SELECT asin FROM collected_deals WHERE ended_at IS NOT NULL") == ["B000000299"]


def test_deals_of_a_query_that_nobody_asks_any_more_are_over(engine: Engine) -> None:
    Feed(engine, 3).walk()
    wait(engine, 25 * 3600)
    assert end_overdue(engine, ends_after=timedelta(hours=24)) == 3


def test_a_pass_with_a_row_that_nobody_can_read_ends_nothing(engine: Engine) -> None:
    feed = Feed(engine, 2 * PAGE_SIZE - 1)
    feed.walk()
    wait(engine, 13 * 3600)
    feed.gone, feed.unreadable = {7}, {7: "no price"}
    assert feed.walk().ended == 0


def test_a_deal_of_another_query_is_not_ended_by_this_one(engine: Engine) -> None:
    feed = Feed(engine, 2)
    feed.walk()
    rows(engine, "UPDATE collected_deals SET query = 'other' RETURNING 1")
    wait(engine, 3600)
    feed.count = 0
    assert feed.walk().ended == 0


def test_a_query_that_fails_begins_anew_and_says_why(engine: Engine) -> None:
    feed = Feed(engine, PAGE_SIZE)
    facts: dict[str, Any] = {"endpoint": "deal", "marketplace": Marketplace.DE, "asin_count": 0, "elapsed_seconds": 0.1}
    feed.broken = RequestRejected("Keepa refused the request: no such category", **facts)
    done = feed.walk()
    assert list(done.troubles) == ["keyboards-de NEW: Keepa refused the request: no such category"]
    assert one(engine, "SELECT next_page, failure FROM deal_queries") == (0, "Keepa refused the request: no such category")
    feed.broken = None
    assert not feed.walk().troubles
    assert one(engine, "SELECT failure FROM deal_queries") is None


@pytest.fixture
def client(simulator: Simulator, engine: Engine) -> Iterator[KeepaClient]:
    with KeepaClient(SIMULATOR_KEY, base_url=simulator.url) as opened:
        with engine.begin() as connection:
            claim_source(connection, SIMULATOR)
        agree_on_clock(engine, simulator.url)
        learn_bucket(engine, opened)
        yield opened


def run_all(engine: Engine, client: KeepaClient, **options: Any) -> Gathered:
    said: dict[str, Any] = {"seeds": [], "queries": [], "groups": [GROUP], "settings": SETTINGS, "token_settings": TokenSettings()}
    return collect_all(engine, client, **said | options)


def test_the_feed_of_a_simulated_keepa_becomes_deals(engine: Engine, client: KeepaClient) -> None:
    done = run_all(engine, client, queries=[DealQuery("all-de", Marketplace.DE)])
    assert done.added == one(engine, "SELECT count(*) FROM collected_deals") > 0
    assert done.tokens == 5 * done.pages
    assert not done.troubles


def test_seeds_are_checked_and_judged_by_their_recorded_prices(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    asins = rows_of(simulator, 20)
    done = run_all(engine, client, seeds=[(parse_seeds("mine.csv", "asin\n" + "\n".join(asins)), Marketplace.DE)])
    assert (done.tokens, done.added) == (20, one(engine, "SELECT count(*) FROM collected_deals"))
    assert done.added > 0
    assert one(engine, "SELECT count(*) FROM collected_deals WHERE median_90_minor IS NULL") == 0
    assert rows(engine, "SELECT DISTINCT source, query FROM collected_deals") == [("seeds", "mine.csv")]


def test_seeds_that_were_checked_lately_cost_nothing(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    seeds = [(parse_seeds("mine.csv", "\n".join(rows_of(simulator, 5))), Marketplace.DE)]
    run_all(engine, client, seeds=seeds)
    assert run_all(engine, client, seeds=seeds).tokens == 0


def test_a_seed_that_could_not_be_checked_for_hours_is_not_seen(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    seeds = [(parse_seeds("mine.csv", "\n".join(rows_of(simulator, 10))), Marketplace.DE)]
    assert run_all(engine, client, seeds=seeds).kept > 0
    rows(engine, "UPDATE current_prices SET checked_at = checked_at - interval '4 hours' RETURNING 1")
    simulator.keepa.faults.order(Fault("503"), path="/product")
    done = run_all(engine, client, seeds=seeds)
    assert (done.kept, len(done.troubles)) == (0, 1)


def test_bad_lines_of_a_seed_file_are_named_and_the_rest_counts(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    [asin] = rows_of(simulator, 1)
    seeds = parse_seeds("mine.csv", f"title,asin\nfine,{asin}\nbroken,hello\n")
    done = run_all(engine, client, seeds=[(seeds, Marketplace.DE)])
    assert done.tokens == 1
    assert [note for note in done.notes if "mine.csv, line 3" in note]


def test_collecting_spends_its_share_of_the_hour_and_no_more(engine: Engine, client: KeepaClient) -> None:
    settings = CollectSettings(1.0, 1, timedelta(minutes=50), timedelta(hours=48), 0)
    queries = [DealQuery(f"q{number}", Marketplace.DE, words=(f"word{number}",)) for number in range(5)]
    done = run_all(engine, client, queries=queries, settings=settings)
    with engine.begin() as connection:
        share = share_of(connection, share_pct=1.0, now=select_now(connection))
    assert (done.tokens, share.tokens, share.left) == (10, 12, 2)
    assert [note for note in done.notes if "KEEPER_DEALS_SHARE_PCT" in note]


def test_a_plan_that_breaks_off_gives_everything_back(
    engine: Engine, client: KeepaClient, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Any] = []

    def plan_once(*arguments: Any, **options: Any) -> Any:
        if planned:
            raise RuntimeError("no connection")
        planned.append(plan_products(*arguments, **options))
        return planned[0]

    monkeypatch.setattr(collection, "plan_products", plan_once)
    monkeypatch.setattr(collection, "MAX_ASINS", 10)
    with pytest.raises(RuntimeError, match="no connection"):
        run_all(engine, client, seeds=[(parse_seeds("mine.csv", "\n".join(rows_of(simulator, 20))), Marketplace.DE)])
    assert len(planned) == 1
    assert rows(engine, "SELECT 1 FROM token_reservations") == []
    assert rows(engine, "SELECT 1 FROM check_claims") == []


def test_every_seed_has_its_turn(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    asins = rows_of(simulator, 20)
    seeds = [(parse_seeds(f"{name}.csv", "\n".join(some)), Marketplace.DE) for name, some in (("a", asins[:15]), ("b", asins[15:]))]
    for _ in range(2):
        assert run_all(engine, client, seeds=seeds, settings=replace(SETTINGS, share_pct=1.0)).tokens == 12
        for statement in (
            "UPDATE keepa_calls SET called_at = called_at - interval '2 hours' RETURNING 1",
            "UPDATE current_prices SET checked_at = checked_at - interval '2 hours' RETURNING 1",
            "UPDATE products SET checked_at = checked_at - interval '2 hours' RETURNING 1",
        ):
            rows(engine, statement)
    assert one(engine, "SELECT count(*) FROM products WHERE checked_at IS NOT NULL") >= 17
    run_all(engine, client, seeds=seeds, settings=replace(SETTINGS, share_pct=1.0))
    assert one(engine, "SELECT count(*) FROM products WHERE checked_at IS NOT NULL") == 20


def test_every_query_has_its_turn(engine: Engine, client: KeepaClient) -> None:
    queries = [DealQuery(f"q{number}", Marketplace.DE, words=(f"word{number}",)) for number in range(4)]
    for _ in range(2):
        run_all(engine, client, queries=queries, settings=replace(SETTINGS, share_pct=1.0))
        rows(engine, "UPDATE keepa_calls SET called_at = called_at - interval '2 hours' RETURNING 1")
        wait(engine, 3600)
    assert rows(engine, "SELECT name FROM deal_queries WHERE asked_at IS NOT NULL ORDER BY 1") == ["q0", "q1", "q2", "q3"]


def test_a_query_without_tokens_is_still_wanted(engine: Engine, client: KeepaClient) -> None:
    run_all(engine, client, queries=[DealQuery("q", Marketplace.DE)], settings=replace(SETTINGS, share_pct=0.01))
    assert one(engine, "SELECT asked_at, wanted_at IS NOT NULL FROM deal_queries") == (None, True)


def test_seeds_spend_of_the_same_share(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    settings = replace(SETTINGS, share_pct=1.0)
    seeds = [(parse_seeds("mine.csv", "\n".join(rows_of(simulator, 20))), Marketplace.DE)]
    queries = [DealQuery(f"q{number}", Marketplace.DE, words=(f"word{number}",)) for number in range(5)]
    done = run_all(engine, client, seeds=seeds, queries=queries, settings=settings)
    assert (done.tokens, done.pages) == (11, 1)
    assert rows(engine, "SELECT operation, reserved_for, tokens_consumed FROM keepa_calls WHERE operation <> 'token' ORDER BY 1") == [
        ("deal", "deal", 5),
        ("product", "seeds", 6),
    ]
    assert run_all(engine, client, seeds=seeds, settings=settings).tokens == 1
    assert run_all(engine, client, seeds=seeds, settings=settings).tokens == 0


def test_what_another_collection_has_reserved_counts(engine: Engine, client: KeepaClient) -> None:
    reserve(engine, operation="seeds", tokens=6, priority=Priority.COLLECTION, max_wait_seconds=0, settings=TokenSettings(user_share_pct=1))
    queries = [DealQuery(f"q{number}", Marketplace.DE, words=(f"word{number}",)) for number in range(5)]
    assert run_all(engine, client, queries=queries, settings=replace(SETTINGS, share_pct=1.0)).tokens == 5


def test_a_page_with_holes_costs_its_rows_only(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    whole = run_all(engine, client, queries=[DealQuery("a", Marketplace.DE)])
    simulator.keepa.faults.order(Fault("deal_holes"), path="/deal", count=1)
    torn = run_all(engine, client, queries=[DealQuery("b", Marketplace.DE)])
    assert torn.pages >= 1
    assert 0 < torn.kept < whole.kept or torn.notes


def test_a_keepa_that_is_down_fails_the_query_and_nothing_is_lost(engine: Engine, client: KeepaClient, simulator: Simulator) -> None:
    simulator.keepa.faults.order(Fault("503"), path="/deal", count=1)
    done = run_all(engine, client, queries=[DealQuery("a", Marketplace.DE), DealQuery("b", Marketplace.DE)])
    assert len(done.troubles) == 1
    assert done.added > 0


def test_a_watched_product_in_the_feed_is_observed_without_a_token_of_its_own(engine: Engine, client: KeepaClient) -> None:
    run_all(engine, client, queries=[DealQuery("all-de", Marketplace.DE)])
    asin = rows(engine, "SELECT asin FROM collected_deals ORDER BY asin LIMIT 1")[0]
    add_watch(engine, add_user(engine), asin=asin)
    rows(engine, "DELETE FROM deal_queries RETURNING 1")
    run_all(engine, client, queries=[DealQuery("again-de", Marketplace.DE)])
    assert rows(engine, "SELECT 1 FROM current_prices WHERE asin = :asin AND price_type = 'NEW'", asin=asin) == [1]
    assert rows(engine, "SELECT 1 FROM keepa_calls WHERE operation = 'product'") == []


def rows_of(simulator: Simulator, count: int) -> list[str]:
    return simulator.keepa.catalog.asins(0, count)
