"""The figures behind /metrics, read from the real systems; what they cost; and what they say of one that is down."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from elasticsearch import Elasticsearch
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from sqlalchemy import Engine, text

from keeper.domain.budget import Bucket, Priority
from keeper.domain.events import Sink
from keeper.exporter import FiguresCollector, expose
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.line import Record
from keeper.kafka.producer import Publisher
from keeper.kafka.topics import Topic, TopicSettings, topic_name
from keeper.metrics import DatabaseFigures, Figures, PrefectServer, Sources, measure, measure_database, measure_runs
from keeper.postgres import ledger
from keeper.postgres.engine import open_engine
from keeper.postgres.metrics import DeliveryCount
from keeper.search import indices
from keeper.search.connection import SearchConnection, open_client
from keeper.search.mapping import Alias, alias_name
from tests.integration.makers import add_user, add_watch, plans, product, rows, run_record
from tests.services.session import ElasticsearchService, KafkaService

if TYPE_CHECKING:
    from tests.services import prefect

HOUR = timedelta(hours=1)
NOTHING = Figures({}, {}, None, (), None, None)


def _now() -> datetime:
    return datetime.now(UTC)


def _samples(figures: Figures) -> dict[tuple[str, ...], float]:
    """By name and labels."""
    return {(sample.name, *sample.labels.values()): sample.value for family in expose(figures) for sample in family.samples}


def test_the_budget_is_what_the_ledger_says(engine: Engine) -> None:
    now = _now()
    with engine.begin() as connection:
        ledger.update_bucket(
            connection, Bucket(700, 20, 0.0, now, now + timedelta(seconds=50)), said_at=now, key_fingerprint=None, unexplained_tokens=0
        )
        for tokens, is_granted in ((30, True), (12, True), (5, False)):
            ledger.insert_reservation(
                connection, operation="query", tokens=tokens, priority=Priority.WATCH, is_granted=is_granted, lease_seconds=60
            )
        for at, operation, spent, success in (
            (now - HOUR / 2, "query", 40, True), (now - HOUR / 3, "query", 0, False), (now - HOUR / 4, "deals", 5, True),
            (now - 2 * HOUR, "deals", 500, True),
        ):  # fmt: skip
            connection.execute(
                text(
                    "INSERT INTO keepa_calls (id, called_at, operation, asin_count, tokens_consumed, response_time_ms, success) "
                    "VALUES (gen_random_uuid(), :at, :operation, 1, :spent, 100, :success)"
                ),
                {"at": at, "operation": operation, "spent": spent, "success": success},
            )

    told = _samples(_of(measure_database(engine)))

    assert told["keeper_tokens_balance",] == 700
    assert (told["keeper_tokens_capacity",], told["keeper_tokens_refill_per_minute",]) == (1200, 20)
    assert (told["keeper_tokens_reserved", "granted"], told["keeper_tokens_reserved", "waiting"]) == (42, 5)
    assert (told["keeper_tokens_spent_last_hour", "query"], told["keeper_tokens_spent_last_hour", "deals"]) == (40, 5)
    assert told["keeper_keepa_calls_last_hour", "query", "failure"] == 1


def _of(database: DatabaseFigures) -> Figures:
    return Figures({}, {}, database, (), None, None)


def test_checks_are_due_overdue_and_old_by_class_of_interval(engine: Engine) -> None:
    now = _now()
    user_id = add_user(engine)
    for number, (interval, next_in, checked_ago) in enumerate(
        (
            (6 * HOUR, HOUR, 5 * HOUR),  # on time
            (6 * HOUR, -HOUR, 7 * HOUR),  # due
            (6 * HOUR, -7 * HOUR, 13 * HOUR),  # late by more than its interval
            (timedelta(minutes=5), timedelta(minutes=1), timedelta(minutes=4)),
            (timedelta(days=14), -HOUR, None),  # never checked
        )
    ):
        asin = f"B00000000{number}"
        add_watch(engine, user_id, asin=asin, interval=interval, now=now)
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE planned_checks SET next_check_at = :next_at, last_checked_at = :checked_at WHERE asin = :asin"),
                {"asin": asin, "next_at": now + next_in, "checked_at": checked_ago and now - checked_ago},
            )

    found = {one.interval_seconds: one for one in measure_database(engine).checks}

    assert {name: (one.due, one.overdue) for name, one in found.items()} == {300: (0, 0), 21600: (2, 1), None: (1, 0)}
    assert found[300].oldest_seconds == pytest.approx(240, abs=20)
    assert found[21600].oldest_seconds == pytest.approx(13 * 3600, abs=20)
    assert found[21600].oldest_intervals == pytest.approx(13 / 6, abs=0.01)
    assert (found[None].oldest_seconds, found[None].oldest_intervals) == (None, None)


def test_what_waits_and_what_was_given_up_is_counted_by_sink(engine: Engine) -> None:
    now = _now()
    user_id = add_user(engine, channels=["ntfy://host/topic", "mailto://user:secret@host"])
    add_watch(engine, user_id, 5000, now=now)
    run_record(engine, product([(now - HOUR, 6000), (now, 4500)], at=now))
    with engine.begin() as connection:
        connection.execute(text("UPDATE events SET recorded_at = recorded_at - interval '10 minutes' WHERE kind = 'price_update'"))
        connection.execute(
            text(
                "INSERT INTO dead_letters (sink, key, event_id, kind, version, payload, recorded_at, tries, reason) "
                "SELECT 'kafka', key, event_id, kind, version, payload, recorded_at, 12, 'no' FROM events WHERE kind = 'price_update'"
            )
        )
        connection.execute(text("UPDATE deliveries SET status = 'dead' WHERE id = (SELECT max(id) FROM deliveries)"))

    found = measure_database(engine)
    by_sink = {one.sink: one for one in found.sinks}

    waiting = dict(rows(engine, "SELECT sink, count(*) FROM outbox GROUP BY sink"))
    assert waiting[Sink.KAFKA] > 0
    assert {name: one.messages for name, one in by_sink.items()} == {name: waiting.get(name, 0) for name in by_sink}
    assert 600 <= by_sink[Sink.KAFKA].oldest_seconds < 700
    assert (by_sink[Sink.KAFKA].dead_letters, by_sink[Sink.NOTIFY].dead_letters) == (1, 0)
    assert set(found.deliveries) == {DeliveryCount("mailto", "dead", 1), DeliveryCount("ntfy", "pending", 1)}


def test_no_scrape_reads_a_large_table(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                INSERT INTO planned_checks (asin, marketplace, is_buybox, interval_seconds, next_check_at, last_checked_at)
                SELECT 'B' || lpad(n::text, 9, '0'), 'DE', false, 21600, now() + n * interval '1 second', now()
                FROM generate_series(1, 48000) n;
                INSERT INTO sinks (name, kinds) VALUES ('kafka', '{price_update}') ON CONFLICT DO NOTHING;
                INSERT INTO outbox (sink, shard, key, event_on, event_seq)
                SELECT 'kafka', n & 15, n::text, current_date, n FROM generate_series(1, 48000) n;
                INSERT INTO keepa_calls (id, called_at, operation, asin_count, response_time_ms, success)
                SELECT gen_random_uuid(), now() - n * interval '1 minute', 'query', 1, 100, true FROM generate_series(1, 48000) n;
                INSERT INTO dead_letters (sink, key, event_id, kind, version, payload, recorded_at, tries, reason)
                SELECT 'kafka', n::text, gen_random_uuid(), 'price_update', 1, '{}', now(), 12, '' FROM generate_series(1, 48000) n;
                INSERT INTO users (name) VALUES ('anna');
                INSERT INTO channels (user_id, name, scheme, shown, url_encrypted, key_fingerprint)
                SELECT id, 'c', 'ntfy', '', '', '' FROM users;
                ALTER TABLE deliveries DROP CONSTRAINT deliveries_of_one;
                INSERT INTO deliveries (channel_id, created_at) SELECT channels.id, now() FROM channels, generate_series(1, 48000) n
                """
            )
        )
        for table in ("planned_checks", "outbox", "keepa_calls", "dead_letters", "deliveries"):
            connection.execute(text(f"ANALYZE {table}"))

    def ask(connection: object) -> None:
        # In the transaction of whoever plans it.
        measure_database(engine)

    assert [line for line in plans(engine, ask).splitlines() if "Seq Scan on" in line and any(one in line for one in _LARGE)] == []
    assert {one.sink: one.messages for one in measure_database(engine).sinks}["kafka"] == 40_000


_LARGE = ("planned_checks", "outbox", "keepa_calls", "dead_letters", "deliveries")


def test_a_database_that_is_down_is_told_and_the_rest_as_well() -> None:
    engine = open_engine("postgresql://keeper:hunter2@127.0.0.1:1/keeper", connect_timeout_seconds=2)

    told = _samples(measure(Sources(engine, prefect=PrefectServer("http://127.0.0.1:1/api")), machine_now=_now()))

    assert {name: value for name, value in told.items() if name[0] != "keeper_info"} == {
        ("keeper_system_up", "postgresql"): 0,
        ("keeper_system_up", "prefect"): 0,
    }


def test_two_who_scrape_at_once_cost_one_measurement() -> None:
    measured: list[int] = []
    begun, goes_on = threading.Event(), threading.Event()

    def measure_once() -> Figures:
        measured.append(1)
        begun.set()
        assert goes_on.wait(10)
        return NOTHING

    registry = CollectorRegistry()
    registry.register(FiguresCollector(measure_once, kept_seconds=60))
    scrapers = [threading.Thread(target=generate_latest, args=(registry,)) for _ in range(2)]
    for one_of_them in scrapers:
        one_of_them.start()
    assert begun.wait(10)
    goes_on.set()
    for one_of_them in scrapers:
        one_of_them.join(10)
    generate_latest(registry)

    assert measured == [1]


def test_lag_is_read_of_the_groups_whose_topic_is_there(kafka: KafkaService, engine: Engine) -> None:
    connection = KafkaConnection(kafka.bootstrap_servers, topic_prefix=kafka.prefix, connect_timeout_seconds=10)
    publisher = Publisher(connection, TopicSettings())
    publisher.connect()
    try:
        name = topic_name(connection, Topic.PRICE_UPDATES)
        assert publisher.publish([Record(name, b"B000000001", b"{}", []) for _ in range(3)]) == [None] * 3
    finally:
        publisher.close()

    figures = measure(Sources(engine, kafka=connection), machine_now=_now())

    assert figures.is_up == {"postgresql": True, "kafka": True}
    lags = {one.topic.removeprefix(kafka.prefix): one.messages for one in figures.lags}
    assert lags[Topic.PRICE_UPDATES] == 3


@pytest.fixture
def search(elasticsearch: ElasticsearchService) -> Iterator[tuple[Elasticsearch, SearchConnection]]:
    connection = SearchConnection((elasticsearch.url,), index_prefix=elasticsearch.prefix)
    client = open_client(connection)
    yield client, connection
    client.close()


def test_products_indexed_counts_what_the_index_was_given(search: tuple[Elasticsearch, SearchConnection], engine: Engine) -> None:
    client, connection = search
    before = measure(Sources(engine, search=search), machine_now=_now())
    indices.connect(client, connection)
    for number in (1, 2, 2):
        client.index(index=alias_name(connection, Alias.PRODUCTS), id=str(number), document={"asin": "B000000001"})

    after = measure(Sources(engine, search=search), machine_now=_now())

    assert (before.is_up["elasticsearch"], before.products_indexed) == (True, None)
    assert _samples(after)["products_indexed_total",] == 3


def _posted(server: "prefect.PrefectServer", path: str, body: dict[str, Any]) -> Any:
    answered = httpx.post(server.url + path, json=body, timeout=30)
    answered.raise_for_status()
    return answered.json()


def test_runs_are_counted_by_state_and_ahead(prefect_server: "prefect.PrefectServer") -> None:
    known = measure_runs(PrefectServer(prefect_server.url), machine_now=_now())
    flow_id = _posted(prefect_server, "/flows/", {"name": f"metrics-{uuid4().hex}"})["id"]
    ahead = {"scheduled_time": (_now() + HOUR / 2).isoformat()}
    for state, details in (("COMPLETED", {}), ("CRASHED", {}), ("SCHEDULED", ahead)):
        _posted(prefect_server, "/flow_runs/", {"flow_id": flow_id, "state": {"type": state, "state_details": details}})

    found = measure_runs(PrefectServer(prefect_server.url), machine_now=_now())
    later = measure_runs(PrefectServer(prefect_server.url), machine_now=_now() + 2 * HOUR)

    assert found.by_state.get("Completed", 0) - known.by_state.get("Completed", 0) == 1
    assert found.by_state.get("Crashed", 0) - known.by_state.get("Crashed", 0) == 1
    assert found.ahead - known.ahead == 1
    assert "Completed" not in later.by_state
