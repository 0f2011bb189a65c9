"""The verb `collect` on a real database: what becomes a deal, an event, an observation, and what changes nothing."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import Engine

from keeper.collect import Collected, collect, end_deals
from keeper.domain.deal import DealSighting, DealSource
from keeper.domain.events import Sink, deal_event_id
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import minute_of
from keeper.domain.price_type import PriceType
from keeper.domain.product_group import parse_group
from keeper.kafka.schema import load_schema
from keeper.kafka.topics import Topic
from keeper.maintain import Retention, maintain
from keeper.postgres.deals import walk_deals
from keeper.record import LARGEST_BATCH
from tests.integration.makers import ALL_SINKS, ASIN, NOW, add_user, add_watch, ago, history, one, product, rows, run_record, use_sinks

GROUP = parse_group(
    "keyboards",
    'name = "keyboards"\nlabel = "Keyboards"\nthreshold = 10\nagainst_after_pct = 25\n[for.de]\n"*tastatur*" = 10\n'
    '[brands]\n"Cherry" = 2\n[layouts]\nqwertz = ["qwertz"]\n',
)
CHANGED, LOOKED = ago(hours=2), ago(hours=1)
DEAL = "SELECT amount_minor, list_price_minor, discount_pct::float8, currency, sightings, revision, ended_at FROM collected_deals"


def sighting(amount: int = 3999, *, asin: str = ASIN, changed: datetime = CHANGED, looked: datetime = LOOKED, **facts: Any) -> DealSighting:
    """A fall from 79.99 EUR, seen in the feed."""
    said: dict[str, Any] = {
        "title": "Cherry Tastatur QWERTZ",
        "previous_minor": 7999,
        "list_price_minor": 8999,
        "averages_minor": {31: 7900, 90: 7950},
        "current": {PriceType.NEW: amount, PriceType.AMAZON: None, PriceType.COUNT_NEW: 4},
        "current_since": {PriceType.NEW: minute_of(changed), PriceType.AMAZON: minute_of(ago(days=9))},
    }
    return DealSighting(
        asin, Marketplace.DE, facts.pop("price_type", PriceType.NEW), minute_of(changed), minute_of(looked), amount, **said | facts
    )


def run_collect(engine: Engine, *seen: DealSighting, now: datetime = NOW, **options: Any) -> Collected:
    """The verb in a transaction of its own."""
    with engine.begin() as connection:
        return collect(connection, seen, now=now, **{"source": DealSource.FEED, "query": "de"} | options)


def validator(topic: Topic) -> Draft202012Validator:
    return Draft202012Validator(load_schema(topic), format_checker=Draft202012Validator.FORMAT_CHECKER)


def deal_events(engine: Engine) -> list[dict[str, Any]]:
    return rows(engine, "SELECT payload FROM events WHERE kind = 'deal_update' ORDER BY seq")


def test_a_deal_is_kept_with_its_discount_of_the_list_price(engine: Engine) -> None:
    done = run_collect(engine, sighting(3999))
    assert (done.kept, done.added, done.again) == (1, 1, 0)
    assert rows(engine, DEAL) == [(3999, 8999, 55.56, "EUR", 1, 1, None)]


def test_a_deal_is_compared_with_the_recorded_median_and_lows(engine: Engine) -> None:
    run_record(engine, product([(ago(days=300), 3500), (ago(days=250), 9900), (ago(days=80), 6000), (ago(hours=3), 6100)]))
    run_collect(engine, sighting(3999))
    found = one(
        engine, "SELECT median_90_minor, lowest_year_minor, highest_year_minor, lowest_ever_minor, is_year_low FROM collected_deals"
    )
    assert found == (6000, 3500, 9900, None, False), "nobody knows the lowest of all time from a year of history"


def test_what_does_not_belong_to_the_group_leaves_no_trace(engine: Engine) -> None:
    done = run_collect(engine, sighting(title="Raclette 2 Meuuh"), groups=[GROUP])
    assert (done.seen, done.kept) == (1, 0)
    assert rows(engine, "SELECT 1 FROM products UNION ALL SELECT 1 FROM collected_deals UNION ALL SELECT 1 FROM deal_sightings") == []


def test_the_group_tells_brand_and_layout_where_keepa_says_neither(engine: Engine) -> None:
    run_collect(engine, sighting(), groups=[GROUP])
    assert one(engine, "SELECT brand FROM products") == "Cherry"
    assert one(engine, "SELECT product_group, layout FROM collected_deals") == ("keyboards", "qwertz")


def test_what_keepa_said_of_the_product_outlives_what_the_feed_says(engine: Engine) -> None:
    run_record(engine, product(title="Cherry KC 1000 Tastatur", brand="CHERRY GmbH", image_urls=("https://m.example/a.jpg",)))
    run_collect(engine, sighting(image_url="https://m.example/b.jpg"), groups=[GROUP])
    assert one(engine, "SELECT title, brand, image_url FROM products") == (
        "Cherry KC 1000 Tastatur",
        "CHERRY GmbH",
        "https://m.example/a.jpg",
    )


def test_what_keepa_says_with_signs_a_database_cannot_hold_is_kept_without_them(engine: Engine) -> None:
    run_collect(engine, sighting(title='Cherry\x00 \\u0000 "Tastatur"\t,{}', category="Computer\x00"))
    assert one(engine, "SELECT title FROM products") == 'Cherry \\u0000 "Tastatur"\t,{}'
    assert one(engine, "SELECT category FROM collected_deals") == "Computer"


def test_known_and_new_products_of_one_page_are_told_apart(engine: Engine) -> None:
    run_record(engine, product([(ago(days=80), 6000)], title="Cherry KC 1000 Tastatur", brand="CHERRY GmbH"))
    run_collect(engine, sighting(sales_rank=7, looked=NOW), sighting(asin="B000000002", sales_rank=8))
    assert rows(engine, "SELECT asin, brand, sales_rank, revision FROM products ORDER BY asin") == [
        ("B000000002", None, 8, 1),
        (ASIN, "CHERRY GmbH", 7, 3),
    ]
    assert rows(engine, "SELECT asin, median_90_minor FROM collected_deals ORDER BY asin") == [("B000000002", None), (ASIN, 6000)]


def test_what_the_deal_does_not_tell_of_the_product_is_taken_from_what_is_known(engine: Engine) -> None:
    run_record(engine, product(rating_tenths=46, review_count=812, sales_rank=1200))
    run_collect(engine, sighting(sales_rank=900))
    assert one(engine, "SELECT rating_tenths, review_count, sales_rank FROM collected_deals") == (46, 812, 900)


def test_the_same_deal_twice_is_one_deal_and_one_event(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    for hour in range(3):
        done = run_collect(engine, sighting(), now=NOW + timedelta(hours=hour))
    assert (done.added, done.changed, done.again) == (0, 0, 1)
    assert one(engine, "SELECT sightings, revision, last_seen_at FROM collected_deals") == (1, 1, NOW + timedelta(hours=2))
    assert len(deal_events(engine)) == 1
    assert one(engine, "SELECT count(*) FROM deal_sightings") == 3


def test_a_later_look_of_keepas_is_another_sighting(engine: Engine) -> None:
    run_collect(engine, sighting())
    run_collect(engine, sighting(looked=NOW + timedelta(minutes=30)), now=NOW + timedelta(hours=1))
    assert one(engine, "SELECT sightings FROM collected_deals") == 2


def test_the_same_deal_on_two_pages_of_one_call_counts_once(engine: Engine) -> None:
    assert run_collect(engine, sighting(), sighting(looked=NOW)).kept == 1
    assert one(engine, "SELECT looked_at FROM collected_deals") == NOW


def test_a_lower_price_ends_the_deal_before_it(engine: Engine) -> None:
    run_collect(engine, sighting(3999, changed=ago(hours=5)))
    done = run_collect(engine, sighting(3499, changed=ago(hours=1), looked=NOW))
    assert (done.added, done.ended) == (1, 1)
    assert rows(engine, "SELECT amount_minor, ended_at, revision FROM collected_deals ORDER BY changed_at") == [
        (3999, ago(hours=1), 2),
        (3499, None, 1),
    ]


def test_a_page_older_than_what_is_known_brings_nothing_back(engine: Engine) -> None:
    run_collect(engine, sighting(3499, changed=ago(hours=1), looked=NOW))
    done = run_collect(engine, sighting(3999, changed=ago(hours=5)))
    assert (done.added, done.again, done.ended) == (0, 0, 0)
    assert rows(engine, "SELECT amount_minor FROM collected_deals") == [3499]


def test_every_event_is_as_the_schema_says_and_bears_the_id_of_its_revision(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    run_collect(
        engine, sighting(3999, changed=ago(hours=5)), sighting(asin="B000000002", title=None, list_price_minor=None, averages_minor={})
    )
    run_collect(engine, sighting(3499, changed=ago(hours=1), looked=NOW))
    told = deal_events(engine)
    for event in told:
        validator(Topic.DEAL_UPDATES).validate(event)
        assert event["event_id"] == str(deal_event_id(event["deal_id"], event["revision"]))
    assert [(event["asin"], event["revision"], event["ended_at"] is not None) for event in told] == [
        ("B000000002", 1, False),
        (ASIN, 1, False),
        (ASIN, 2, True),
        (ASIN, 1, False),
    ]
    assert told[1]["score_parts"]["below_median"] > 0


def test_the_event_is_what_a_rebuild_of_the_index_makes(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    run_collect(engine, sighting())
    [[document]] = walk_deals(engine, page=10)
    assert json.loads(document.body) == deal_events(engine)[0]


def test_a_watched_product_gets_an_observation_for_no_token(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    add_watch(engine, add_user(engine), 4500)
    run_record(engine, product([(ago(days=3), 7999)], at=ago(hours=6)))
    run_collect(engine, sighting(3999))
    assert history(engine)[-1] == (ago(hours=2), 3999)
    assert one(engine, "SELECT amount_minor FROM price_alerts") == 3999


def test_a_product_nobody_watches_gets_no_prices(engine: Engine) -> None:
    run_collect(engine, sighting())
    assert rows(engine, "SELECT 1 FROM current_prices UNION ALL SELECT 1 FROM price_history") == []
    assert one(engine, "SELECT title FROM products") == "Cherry Tastatur QWERTZ"


GLITCH: dict[str, Any] = {"averages_minor": {31: 249000, 90: 249000}, "previous_minor": 249000, "list_price_minor": 249000}


def test_a_suspected_glitch_is_kept_and_marked_and_told_to_nobody(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    done = run_collect(engine, sighting(3000, **GLITCH))
    assert (done.added, done.glitches, done.announced) == (1, 1, ())
    assert one(engine, "SELECT is_glitch, announced_at FROM collected_deals") == (True, None)
    assert rows(engine, "SELECT DISTINCT sink FROM outbox JOIN events ON seq = event_seq WHERE kind = 'deal_update'") == [Sink.SEARCH.value]


def test_a_glitch_that_keepa_sees_again_is_announced(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    run_collect(engine, sighting(3000, **GLITCH))
    run_collect(engine, sighting(3000, **GLITCH), now=NOW + timedelta(hours=1))
    assert one(engine, "SELECT announced_at FROM collected_deals") is None, "the same look again is no second sighting"
    done = run_collect(engine, sighting(3000, looked=NOW + timedelta(hours=1), **GLITCH), now=NOW + timedelta(hours=2))
    assert len(done.announced) == 1
    told = rows(engine, "SELECT sink FROM outbox JOIN events ON seq = event_seq WHERE kind = 'deal_update' ORDER BY seq, sink")
    assert told == [Sink.SEARCH, Sink.KAFKA, Sink.SEARCH]


def test_raw_rows_are_events_for_what_is_new(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    for _ in range(2):
        run_collect(engine, sighting(), raw=lambda asin: b'{"asin":"%s","new field":1}' % asin.encode())
    [event] = rows(engine, "SELECT payload FROM events WHERE kind = 'raw_deal'")
    validator(Topic.RAW_DEALS).validate(event)
    assert event["deal"] == {"asin": ASIN, "new field": 1}


def test_a_deal_ends_when_its_price_moved_on(engine: Engine) -> None:
    add_watch(engine, add_user(engine))
    run_collect(engine, sighting(3999, changed=ago(hours=5)))
    run_record(engine, product([(ago(hours=5), 3999), (ago(hours=1), 7999)]))
    with engine.begin() as connection:
        assert end_deals(connection, now=NOW, ends_after=timedelta(days=2)) == 1
    assert one(engine, "SELECT ended_at, revision FROM collected_deals") == (ago(hours=1), 2)


def test_a_deal_ends_when_nobody_has_seen_it_for_long_and_runs_again_when_somebody_does(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    run_collect(engine, sighting())
    later = NOW + timedelta(days=3)
    with engine.begin() as connection:
        assert end_deals(connection, now=later, ends_after=timedelta(days=2)) == 1
    assert one(engine, "SELECT ended_at FROM collected_deals") == NOW
    run_collect(engine, sighting(looked=later), now=later)
    assert one(engine, "SELECT ended_at, revision FROM collected_deals") == (None, 3)
    assert [event["ended_at"] is None for event in deal_events(engine)] == [True, False, True]


def test_a_price_that_fell_too_little_is_no_deal(engine: Engine) -> None:
    done = run_collect(engine, sighting(7999), least_fall_pct=15)
    assert (done.kept, done.added) == (0, 0)
    assert rows(engine, "SELECT 1 FROM collected_deals UNION ALL SELECT 1 FROM deal_sightings") == []


def test_what_belongs_to_no_group_is_kept_without_one_where_the_source_is_trusted(engine: Engine) -> None:
    run_collect(engine, sighting(title="Raclette"), groups=[GROUP], only_groups=False)
    assert one(engine, "SELECT product_group FROM collected_deals") is None


def test_old_sightings_are_forgotten_and_the_deal_stays(engine: Engine) -> None:
    for days in (100, 80):
        run_collect(engine, sighting(changed=ago(days=101), looked=ago(days=101)), now=ago(days=days))
    maintain(
        engine,
        now=NOW,
        retention=Retention(events=7, calls=90, ingested=8, dead_letters=90, sightings=90, deals=400, opportunities=400, reports=400),
    )
    assert rows(engine, "SELECT seen_at FROM deal_sightings") == [ago(days=80)]
    assert one(engine, "SELECT count(*) FROM collected_deals") == 1


def test_a_deal_is_forgotten_so_long_after_its_end_and_taken_out_of_the_index(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    for number, days in enumerate((40, 20)):
        run_collect(engine, sighting(asin=f"B00000000{number}", changed=ago(days=60), looked=ago(days=60)), now=ago(days=60))
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE collected_deals SET ended_at = %(at)s WHERE asin = %(asin)s", {"at": ago(days=days), "asin": f"B00000000{number}"}
            )
    run_collect(engine, sighting(asin="B000000009", changed=ago(days=60), looked=ago(days=60)), now=ago(days=60))
    retention = Retention(events=7, calls=90, ingested=8, dead_letters=90, sightings=90, deals=30, opportunities=400, reports=400)
    done = maintain(engine, now=NOW, retention=retention)
    assert done.deals_forgotten == 1
    assert rows(engine, "SELECT asin FROM collected_deals ORDER BY asin") == ["B000000001", "B000000009"]
    told = [(event, sink) for event, sink in deletions(engine) if event["deal_id"].startswith("B000000000-DE-NEW-")]
    assert [sink for _, sink in told] == [Sink.SEARCH.value]


def deletions(engine: Engine) -> list[tuple[dict[str, Any], str]]:
    """Events that take a deal out of the index, each with a sink that hears of it."""
    query = "SELECT e.payload::jsonb, o.sink FROM events e JOIN outbox o ON o.event_seq = e.seq WHERE e.payload->>'deleted' = 'true'"
    with engine.begin() as connection:
        return [(row[0], row[1]) for row in connection.exec_driver_sql(query)]


def test_collections_of_the_same_page_at_once_are_one(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    seen = [sighting(asin=f"B{number:09d}") for number in range(60)]
    start = threading.Barrier(4)

    def run(turn: int) -> Collected:
        start.wait(timeout=30)
        return run_collect(engine, *(seen if turn % 2 else reversed(seen)))

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(run, range(4)))
    assert sum(one_run.added for one_run in done) == 60
    assert len(deal_events(engine)) == 60


def test_two_sources_that_know_different_facts_take_no_word_back(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    feed = sighting(rating_tenths=46, review_count=900, sales_rank=200, sales_rank_drops_90=80)
    seed = sighting(rating_tenths=46, review_count=900, sales_rank=200, averages_minor={}, median_90_minor=4500)
    seen = []
    for turn in range(3):
        run_collect(engine, seed, source=DealSource.SEEDS, query="mine.csv", now=NOW + timedelta(hours=turn))
        done = run_collect(engine, feed, now=NOW + timedelta(hours=turn, minutes=1))
        seen.append(one(engine, "SELECT revision, judged_by, deal_score FROM collected_deals"))
    assert (done.changed, done.is_news) == (0, False)
    assert seen == [seen[0]] * 3


def test_an_older_price_does_not_come_back_beside_the_newer(engine: Engine) -> None:
    older, newer = sighting(3999, changed=ago(hours=5)), sighting(3499, changed=ago(hours=1), looked=NOW)
    for page in (older, newer, older):
        run_collect(engine, page)
    assert rows(engine, "SELECT amount_minor FROM collected_deals WHERE ended_at IS NULL") == [3499]


def test_an_old_look_does_not_open_what_ended_since(engine: Engine) -> None:
    run_collect(engine, sighting(3999, changed=ago(hours=5), looked=ago(hours=4)))
    add_watch(engine, add_user(engine))
    run_record(engine, product([(ago(hours=5), 3999), (ago(hours=1), 7999)]))
    with engine.begin() as connection:
        end_deals(connection, now=NOW, ends_after=timedelta(days=2))
    run_collect(engine, sighting(3999, changed=ago(hours=5), looked=ago(hours=2)))
    assert one(engine, "SELECT ended_at, revision FROM collected_deals") == (ago(hours=1), 2)


def test_a_suspected_glitch_on_a_watched_product_alerts_nobody_until_it_is_seen_twice(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    add_watch(engine, add_user(engine), 200000)
    run_record(engine, product([(ago(days=80), 249000)], at=ago(hours=6)))
    run_collect(engine, sighting(3000, **GLITCH))
    assert rows(engine, "SELECT 1 FROM price_alerts UNION ALL SELECT 1 FROM price_history WHERE amount_minor = 3000") == []
    run_collect(engine, sighting(3000, looked=NOW, **GLITCH))
    assert one(engine, "SELECT amount_minor FROM price_alerts") == 3000


def test_a_price_that_stood_for_minutes_is_no_low_of_the_year(engine: Engine) -> None:
    points: Any = [(ago(days=350), 5000), (ago(days=90), 12), (ago(days=90) + timedelta(minutes=50), 5000), (ago(days=20), 4500)]
    run_record(engine, product(points))
    run_collect(engine, sighting(3999))
    assert one(engine, "SELECT lowest_year_minor, is_year_low FROM collected_deals") == (4500, True)


def test_what_a_history_of_months_knows_is_no_low_of_a_year(engine: Engine) -> None:
    run_record(engine, product([(ago(days=200), 5000), (ago(days=20), 4500)]))
    run_collect(engine, sighting(3999))
    assert one(engine, "SELECT is_year_low, is_all_time_low FROM collected_deals") == (None, None)


def test_a_deal_that_turns_out_a_glitch_is_told_no_more_until_it_is_seen_twice(engine: Engine) -> None:
    run_collect(engine, sighting(3000, list_price_minor=None, averages_minor={}, previous_minor=None))
    assert one(engine, "SELECT is_glitch, announced_at FROM collected_deals") == (False, NOW)
    run_collect(engine, sighting(3000, **GLITCH))
    assert one(engine, "SELECT is_glitch, announced_at FROM collected_deals") == (True, None)


def test_the_ordinary_price_of_a_seed_below_a_list_price_nobody_asked_is_no_deal(engine: Engine) -> None:
    run_record(engine, product([(ago(days=200), 5000)]))
    ordinary = sighting(5000, changed=ago(days=200), list_price_minor=9900, averages_minor={})
    done = run_collect(engine, ordinary, source=DealSource.SEEDS, least_fall_pct=10)
    assert (done.kept, rows(engine, "SELECT 1 FROM collected_deals")) == (0, [])


def test_a_seed_whose_price_became_ordinary_is_over(engine: Engine) -> None:
    run_collect(engine, sighting(5000, median_90_minor=7000), source=DealSource.SEEDS, least_fall_pct=10)
    later = NOW + timedelta(days=60)
    run_collect(engine, sighting(5000, looked=later, median_90_minor=5000), source=DealSource.SEEDS, least_fall_pct=10, now=later)
    assert one(engine, "SELECT ended_at FROM collected_deals") == later


def test_a_change_that_lies_ahead_is_not_believed(engine: Engine) -> None:
    run_collect(engine, sighting(1999, changed=NOW + timedelta(days=300)), sighting(3999))
    assert rows(engine, "SELECT amount_minor FROM collected_deals") == [3999]


def test_more_than_one_transaction_holds_are_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="at most"):
        run_collect(engine, *[sighting()] * (LARGEST_BATCH + 1))
