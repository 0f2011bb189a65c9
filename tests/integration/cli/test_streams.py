"""Events, their sinks and consumers, and search from the command line: on a real Kafka and a real Elasticsearch."""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from sqlalchemy import Engine, text

from deployments.stack import free_port
from keeper.cli_streams import Consumer
from keeper.domain.events import KINDS, Sink
from keeper.postgres.embedded import EmbeddedServer
from keeper.search import indices
from keeper.search.connection import SearchConnection, open_client
from keeper.sinks import switch_on
from tests.integration.cli.terminal import Terminal, lines_of
from tests.services.session import ElasticsearchService, KafkaService
from tests.services.waiting import wait_until

ASIN, OTHER = "B08DG4C63H", "B00OCMRV40"
NOWHERE = {
    "KEEPER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "KEEPER_KAFKA_CONNECT_TIMEOUT_SECONDS": "1",
    "KEEPER_ELASTICSEARCH_URL": "http://127.0.0.1:1",
}


@pytest.fixture
def streams(anna: Terminal, kafka: KafkaService, elasticsearch: ElasticsearchService) -> Terminal:
    """Anna's shell with everything switched on."""
    return Terminal(anna.environment | kafka_settings(kafka) | search_settings(elasticsearch))


@pytest.fixture
def produce(kafka: KafkaService) -> Callable[..., None]:
    """Sends as somebody else would: topic without prefix, values."""

    def send(topic: str, *values: bytes) -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
        for value in values:
            producer.produce(f"{kafka.prefix}{topic}", key=ASIN, value=value)
        assert producer.flush(20) == 0

    return send


def kafka_settings(kafka: KafkaService) -> dict[str, str]:
    return {
        "KEEPER_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KEEPER_KAFKA_TOPIC_PREFIX": kafka.prefix,
        "KEEPER_KAFKA_PARTITIONS": "1",
    }


def search_settings(elasticsearch: ElasticsearchService) -> dict[str, str]:
    return {"KEEPER_ELASTICSEARCH_URL": elasticsearch.url, "KEEPER_ELASTICSEARCH_INDEX_PREFIX": elasticsearch.prefix}


def price(amount: float = 49.99, **fields: Any) -> bytes:
    said = {"asin": ASIN, "product_title": "Fremde Tastatur", "current_price": amount, "domain": "de", "timestamp": "2026-03-20T10:00:00Z"}
    return json.dumps(said | fields).encode()


def by_name(rows: list[dict[str, Any]], name: str = "name") -> dict[str, dict[str, Any]]:
    return {row[name]: row for row in rows}


# --- relaying


def test_a_check_brings_its_events_to_every_system(streams: Terminal) -> None:
    done = streams.ask("check", ASIN)
    assert done["waiting"] == {}
    status = streams.ask("status")
    assert {name: one["messages"] for name, one in by_name(status["sinks"]).items()} == {"notify": 0, "kafka": 0, "search": 0}
    enrichment = by_name(status["groups"], "topic")[f"{streams.environment['KEEPER_KAFKA_TOPIC_PREFIX']}raw.keepa_updates"]
    assert (enrichment["lag"], enrichment["problem"]) == (1, "")


def test_a_check_notes_what_waits_and_does_not_fail(anna: Terminal) -> None:
    result = anna.run("check", ASIN, **NOWHERE)
    assert (result.exit_code, "events wait for kafka: Kafka at 127.0.0.1:1 does not answer" in result.stdout) == (0, True)


def test_a_relay_delivers_to_one_system_while_another_is_down(streams: Terminal) -> None:
    streams.run("check", ASIN, **NOWHERE)
    result = streams.run(
        "relay", "--once", "--json", KEEPER_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", KEEPER_KAFKA_CONNECT_TIMEOUT_SECONDS="1"
    )
    sinks = json.loads(result.stdout)["sinks"]
    assert (result.exit_code, sinks["search"]["delivered"] > 0, "does not answer" in sinks["kafka"]["down"]) == (1, True, True)
    assert streams.ask("relay", "--once")["sinks"]["kafka"]["delivered"] > 0


def test_a_relay_without_readable_channels_says_so_at_its_start(anna: Terminal) -> None:
    result = anna.run("relay", KEEPER_CHANNELS_KEYS="")
    assert (result.exit_code, "KEEPER_CHANNELS_KEYS" in result.stderr) == (1, True)


@pytest.mark.parametrize("command", [["relay"], ["consume", "prices"]], ids=" ".join)
def test_a_service_begins_when_its_database_comes(anna: Terminal, postgres: EmbeddedServer, command: list[str]) -> None:
    name = f"test_{uuid4().hex}"
    later = Terminal(anna.environment | {"KEEPER_DATABASE_URL": postgres.libpq_dsn(name), "KEEPER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    with later.start(*command, "--json") as started:
        assert "does not answer" in lines_of(started.stderr).readline()
        postgres.create_database(name, template="template_keeper")
        assert lines_of(started.stdout).readline().rstrip() in ('{"relay": "listening"}', '{"consume": "reading"}')
        started.send_signal(signal.SIGTERM)
        assert started.wait(30) == 0
    postgres.drop_database(name)


# --- status and sinks


def test_a_status_of_everything_up(streams: Terminal) -> None:
    streams.ask("check", ASIN)
    status = streams.ask("status")
    conditions = {name: one["condition"] for name, one in by_name(status["systems"]).items()}
    assert conditions == {"PostgreSQL": "up", "simulator": "up", "channels": "off", "Kafka": "up", "Elasticsearch": "up"}
    indices = by_name(status["indices"], "alias")
    prefix = streams.environment["KEEPER_ELASTICSEARCH_INDEX_PREFIX"]
    assert indices[f"{prefix}products"]["index"] == f"{prefix}products-v2-000001"
    assert (indices[f"{prefix}products"]["rows"], status["warnings"]) == (1, [])


def test_a_status_shows_tables_to_a_person(streams: Terminal) -> None:
    shown = streams.run("status")
    assert shown.exit_code == 0
    assert [word in shown.stdout for word in ("Elasticsearch", "Consumer group", "enrichment-consumer", "keeper-prices")] == [True] * 4


def test_a_status_of_everything_down_is_still_a_report() -> None:
    nobody = "http://127.0.0.1:1"
    shell = Terminal(NOWHERE | {"KEEPER_DATABASE_URL": "postgresql://me:hushhush@127.0.0.1:1/x", "KEEPER_KEEPA_SIMULATOR_URL": nobody})
    result = shell.run("status", "--json", KEEPER_ELASTICSEARCH_USERNAME="me", KEEPER_ELASTICSEARCH_PASSWORD="hushhush")
    assert (result.exit_code, {one["condition"] for one in json.loads(result.stdout)["systems"]}) == (0, {"down"})
    assert "hushhush" not in result.output


def test_a_status_of_systems_that_take_a_connection_and_say_nothing_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        shell = Terminal(
            {
                "KEEPER_DATABASE_URL": f"postgresql://me@{place}/x",
                "KEEPER_POSTGRES_CONNECT_TIMEOUT_SECONDS": "2",
                "KEEPER_KEEPA_SIMULATOR_URL": f"http://{place}",
                "KEEPER_KEEPA_CONNECT_TIMEOUT_SECONDS": "2",
                "KEEPER_KAFKA_BOOTSTRAP_SERVERS": place,
                "KEEPER_KAFKA_CONNECT_TIMEOUT_SECONDS": "2",
                "KEEPER_ELASTICSEARCH_URL": f"http://{place}",
            }
        )
        # They stay silent until the report is there, so that it comes at all is the claim.
        assert {one["condition"] for one in shell.ask("status")["systems"]} == {"down"}


def test_a_status_without_kafka_and_elasticsearch_says_off(anna: Terminal) -> None:
    systems = by_name(anna.ask("status")["systems"])
    assert (systems["Kafka"]["condition"], systems["Elasticsearch"]["condition"]) == ("off", "off")


def test_a_status_of_a_database_that_is_not_migrated_says_what_to_run(
    shell: Terminal, postgres: EmbeddedServer, empty_database: str
) -> None:
    status = shell.ask("status", KEEPER_DATABASE_URL=postgres.libpq_dsn(empty_database))
    systems = by_name(status["systems"])
    assert (systems["PostgreSQL"]["condition"], systems["channels"]["condition"]) == ("up", "down")
    said = "the database is not migrated to this version of Keeper; run `keeper migrate`"
    assert (systems["channels"]["text"], status["warnings"]) == (f"not known: {said}", [said])


def test_a_large_backlog_is_a_warning(anna: Terminal) -> None:
    anna.run("check", ASIN, OTHER, **NOWHERE)
    (warning, *_) = anna.ask("status", **NOWHERE, KEEPER_RELAY_LARGEST_BACKLOG="1")["warnings"]
    assert "wait for kafka, more than KEEPER_RELAY_LARGEST_BACKLOG" in warning


def test_a_sink_that_nobody_configures_here_is_named(anna: Terminal, engine: Engine) -> None:
    switch_on(engine, "kafka", KINDS[Sink.KAFKA], from_oldest=False)
    anna.ask("check", ASIN)
    status = anna.ask("status")
    kafka = by_name(status["sinks"])["kafka"]
    assert (kafka["is_on"], kafka["is_configured"], kafka["messages"] > 0, kafka["oldest_seconds"] >= 0) == (True, False, True, True)
    assert "`keeper sink off kafka`" in status["warnings"][0]


def test_switching_a_sink_off_says_what_is_dropped_and_asks(anna: Terminal, engine: Engine) -> None:
    anna.ask("sink", "on", "kafka", "--from", "now")
    anna.ask("check", ASIN)
    refused = anna.run("sink", "off", "kafka", typed="n\n")
    assert ("1 messages wait for kafka and would be dropped" in refused.output, len(anna.ask("sink", "list"))) == (True, 2)
    assert anna.ask("sink", "off", "kafka", "--yes") == {"sink": "kafka", "dropped": 1, "advice": None}
    assert [one["name"] for one in anna.ask("sink", "list")] == ["notify"]


@pytest.mark.parametrize(("start", "queued"), [("oldest", 1), ("now", 0)])
def test_a_sink_switched_on_gets_the_kept_events_or_only_new_ones(anna: Terminal, start: str, queued: int) -> None:
    anna.ask("sink", "on", "search", "--from", "now")
    anna.ask("check", ASIN)
    anna.ask("sink", "off", "search", "--yes")
    anna.ask("sink", "on", "search", "--from", start)
    assert (by_name(anna.ask("sink", "list"))["search"]["messages"] >= 1) == bool(queued)


@pytest.mark.parametrize(("name", "is_told"), [("search", True), ("enrich", True), ("kafka", False)])
def test_a_sink_that_leads_to_an_index_says_what_brings_the_products_there_are(anna: Terminal, name: str, is_told: bool) -> None:
    switched = anna.run("sink", "on", name, "--from", "oldest")
    assert (switched.exit_code, "`keeper reindex products`" in switched.stdout.replace("\n", " ")) == (0, is_told)
    assert anna.ask("sink", "on", name, "--from", "oldest")["advice"] is None


def test_switching_kafka_off_says_what_may_be_missing_in_the_index_of_products(anna: Terminal) -> None:
    for name in ("search", "kafka"):
        anna.ask("sink", "on", name, "--from", "now")
    assert "`keeper reindex products`" in anna.ask("sink", "off", "kafka", "--yes")["advice"]
    assert anna.ask("sink", "off", "search", "--yes")["advice"] is None


def test_products_that_searches_miss_are_told_until_they_are_rebuilt(
    anna: Terminal, elasticsearch: ElasticsearchService, engine: Engine
) -> None:
    """Elasticsearch comes after the products, whose events are not kept any more."""
    anna.ask("check", ASIN, OTHER)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM events"))
    late = Terminal(anna.environment | search_settings(elasticsearch))
    place = SearchConnection((elasticsearch.url,), index_prefix=elasticsearch.prefix)
    with open_client(place) as client:
        indices.connect(client, place)

    def told() -> tuple[list[str], list[tuple[str, str]]]:
        return late.ask("status")["warnings"], findings(late.ask("doctor"), "products")

    said = "searches find 0 of 2 products"
    assert told() == ([f"{said}: `keeper reindex products` brings the others from PostgreSQL"], [("note", said)])
    index = f"{elasticsearch.prefix}products-v2-000002"
    switch_on(engine, f"search.{index}", KINDS[Sink.ENRICH], from_oldest=False)
    (rebuilding,), in_doctor = told()
    assert (rebuilding.startswith(f"search.{index} is an index that is being rebuilt"), in_doctor) == (True, [])
    late.ask("reindex", "products")
    assert told() == ([], [])


@pytest.mark.parametrize("name", ["notify", "kafka"])
def test_a_sink_in_use_here_is_not_switched_off(anna: Terminal, name: str) -> None:
    assert anna.run("sink", "off", name, "--yes", **NOWHERE).exit_code == 1


def test_an_unknown_sink_is_not_switched_off(anna: Terminal) -> None:
    assert "there is no sink nobody" in anna.run("sink", "off", "nobody", "--yes").stderr


def test_enrichment_is_not_switched_on_beside_kafka(anna: Terminal) -> None:
    anna.ask("sink", "on", "kafka", "--from", "now")
    assert "twice" in anna.run("sink", "on", "enrich", "--from", "now").stderr


def test_what_enrichment_had_queued_is_worked_off_when_kafka_comes(anna: Terminal, streams: Terminal) -> None:
    without = {"KEEPER_KAFKA_BOOTSTRAP_SERVERS": ""}
    streams.ask("watch", "add", ASIN, **without)
    streams.run("check", **without, KEEPER_ELASTICSEARCH_URL="http://127.0.0.1:1")
    assert by_name(streams.ask("status", **without)["sinks"])["enrich"]["messages"] == 1
    assert streams.ask("relay", "--once")["sinks"]["enrich"]["delivered"] == 1
    assert "enrich" not in by_name(streams.ask("status")["sinks"])


@pytest.fixture
def refused(anna: Terminal, engine: Engine) -> list[dict[str, Any]]:
    """Two dead letters of `search`, which is on, as the command shows them."""
    anna.ask("sink", "on", "search", "--from", "now")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO dead_letters (sink, key, event_id, kind, version, payload, recorded_at, tries, reason) "
                "SELECT 'search', 'B', gen_random_uuid(), 'price_update', 1, '{}', clock_timestamp(), 1, 'mapper_parsing_exception ' || n "
                "FROM generate_series(1, 2) n"
            )
        )
    letters: list[dict[str, Any]] = anna.ask("sink", "dead", "search")
    return letters


def test_what_a_sink_refused_is_shown_and_queued_again(anna: Terminal, refused: list[dict[str, Any]]) -> None:
    assert [(one["key"], one["reason"]) for one in refused] == [("B", "mapper_parsing_exception 1"), ("B", "mapper_parsing_exception 2")]
    assert "mapper_parsing_exception 1" in anna.run("sink", "dead", "search").stdout
    assert anna.ask("sink", "retry", "search", str(refused[0]["id"])) == {"sink": "search", "retried": 1}
    assert anna.ask("sink", "retry", "search", "--all") == {"sink": "search", "retried": 1}
    assert by_name(anna.ask("sink", "list"))["search"]["messages"] == 2
    assert anna.ask("sink", "dead", "search") == []
    assert anna.ask("sink", "retry", "search", "--all") == {"sink": "search", "retried": 0}


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        pytest.param(["search"], 2, "--all", id="nothing named"),
        pytest.param(["search", "--all", "1"], 2, "--all", id="both"),
        pytest.param(["search", "999999"], 1, "keeper sink dead search", id="none of its letters"),
        pytest.param(["notify", "--all"], 1, "keeper alerts retry", id="people's channels"),
        pytest.param(["kafka", "--all"], 1, "keeper sink on kafka", id="a sink that is off"),
    ],
)
def test_a_retry_that_cannot_be_says_what_to_do(
    anna: Terminal, refused: list[dict[str, Any]], arguments: list[str], exit_code: int, said: str
) -> None:
    result = anna.run("sink", "retry", *arguments)
    assert (result.exit_code, said in result.stderr, len(anna.ask("sink", "dead", "search"))) == (exit_code, True, len(refused))


# --- consumers


def test_a_foreign_price_is_recorded_and_what_cannot_be_read_is_a_dead_letter(streams: Terminal, produce: Callable[..., None]) -> None:
    assert streams.ask("consume", "prices", "--once") == {"messages": 0, "dead_letters": 0, "is_complete": True}
    produce("price-updates", price(), b"{nonsense", price(39.99, timestamp="2026-03-21T10:00:00Z"))
    assert streams.ask("consume", "prices", "--once") == {"messages": 3, "dead_letters": 1, "is_complete": True}
    assert [point["amount_minor"] for point in streams.ask("history", ASIN, "--days", "3650")["points"]] == [4999, 3999]
    (letter,) = streams.ask("dlq", "list")
    assert (letter["topic"], letter["source_offset"], letter["value"], letter["key"]) == ("price-updates", 1, "{nonsense", ASIN)


def test_a_dead_letter_is_shown_whole_and_sent_again(streams: Terminal, produce: Callable[..., None]) -> None:
    streams.ask("consume", "prices", "--once")
    produce("price-updates", b"{nonsense \xff")
    streams.ask("consume", "prices", "--once")
    (letter,) = streams.ask("dlq", "list", "price-updates")
    place = f"{letter['partition']}:{letter['offset']}"
    shown = streams.run("dlq", "show", "price-updates.dlq", place).stdout
    assert ("reason: not JSON" in shown, "{nonsense \\xff" in shown) == (True, True)
    assert streams.ask("dlq", "retry", "price-updates", place) == {"retried": 1}
    assert (streams.ask("dlq", "list"), streams.ask("dlq", "retry", "price-updates")) == ([], {"retried": 0})
    assert streams.ask("consume", "prices", "--once")["dead_letters"] == 1


@pytest.mark.parametrize("arguments", [["retry", "nothing"], ["show", "price-updates", "seventeen"]], ids=["topic", "place"])
def test_a_dead_letter_that_is_named_wrongly_is_wrong_use(streams: Terminal, arguments: list[str]) -> None:
    assert streams.run("dlq", *arguments).exit_code == 2


def test_a_foreign_deal_is_watched_for_the_user_of_the_settings(streams: Terminal, produce: Callable[..., None]) -> None:
    for_anna = {"KEEPER_CONSUME_WATCH_USER": "anna"}
    streams.ask("consume", "deals", "--once", **for_anna)
    produce("deal-updates", price(price_type="NEW"))
    assert streams.ask("consume", "deals", "--once", **for_anna)["dead_letters"] == 0
    (watch,) = streams.ask("watch", "list")
    assert (watch["asin"], watch["target_minor"]) == (ASIN, None)


def test_a_watch_user_who_is_unknown_is_an_error_that_names_the_setting(streams: Terminal) -> None:
    result = streams.run("consume", "deals", KEEPER_CONSUME_WATCH_USER="nobody")
    assert (result.exit_code, "KEEPER_CONSUME_WATCH_USER: there is no user nobody" in result.stderr) == (1, True)


@pytest.mark.parametrize("what", Consumer)
def test_a_consumer_without_kafka_says_what_to_set(anna: Terminal, what: Consumer) -> None:
    assert "KEEPER_KAFKA_BOOTSTRAP_SERVERS" in anna.run("consume", what.value).stderr


def test_what_was_checked_is_enriched_and_found(streams: Terminal, elasticsearch: ElasticsearchService) -> None:
    streams.ask("check", ASIN)
    assert streams.ask("consume", "enrich", "--once")["messages"] == 1
    wait_until(lambda: streams.ask("search")["total"] == 1, "the document is not found")
    (hit,) = streams.ask("search")["hits"]
    in_postgres = streams.ask("search", KEEPER_ELASTICSEARCH_URL="")["hits"]
    assert (hit["asin"], hit["title"], hit["price"]) == (ASIN, in_postgres[0]["title"], in_postgres[0]["price"])


def test_a_consumer_works_on_what_comes_and_leaves_on_sigterm(streams: Terminal, produce: Callable[..., None]) -> None:
    streams.ask("consume", "prices", "--once")
    with streams.start("consume", "prices", "--json") as started:
        said = lines_of(started.stdout)
        assert json.loads(said.readline()) == {"consume": "reading"}
        produce("price-updates", price())
        assert json.loads(said.readline()) == {"messages": 1, "dead_letters": 0}
        started.send_signal(signal.SIGTERM)
        assert started.wait(30) == 0
    assert (
        by_name(streams.ask("status")["groups"], "group")[f"{streams.environment['KEEPER_KAFKA_TOPIC_PREFIX']}keeper-consumer-group"]["lag"]
        == 0
    )


def test_a_consumer_waits_for_a_broker_that_is_not_there(anna: Terminal) -> None:
    alone = Terminal(anna.environment | NOWHERE | {"KEEPER_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"})
    with alone.start("consume", "prices", "--json") as started:
        lines_of(started.stdout).readline()
        assert any("does not answer" in line for line in lines_of(started.stderr))
        started.send_signal(signal.SIGTERM)
        assert started.wait(30) == 0


# --- search


def test_an_index_is_built_anew_and_the_old_one_deleted_when_told(streams: Terminal) -> None:
    streams.ask("check", ASIN, OTHER)
    rebuilt = streams.ask("reindex")
    prefix = streams.environment["KEEPER_ELASTICSEARCH_INDEX_PREFIX"]
    products = by_name(rebuilt, "alias")["products"]
    assert (products["old"], products["new"], products["documents"]) == (f"{prefix}products-v2-000001", f"{prefix}products-v2-000002", 2)
    assert by_name(streams.ask("status")["indices"], "alias")[f"{prefix}products"]["old"] == [f"{prefix}products-v2-000001"]
    (again,) = streams.ask("reindex", "products", "--drop-old")
    assert sorted(again["dropped"]) == [f"{prefix}products-v2-000001", f"{prefix}products-v2-000002"]


def test_a_rebuild_without_elasticsearch_says_what_to_set(anna: Terminal) -> None:
    assert "KEEPER_ELASTICSEARCH_URL" in anna.run("reindex").stderr


def test_an_unknown_index_is_wrong_use(anna: Terminal) -> None:
    assert anna.run("reindex", "nothing").exit_code == 2


def test_a_search_in_postgres_narrows_sorts_counts_and_pages(anna: Terminal) -> None:
    anna.ask("check", ASIN, OTHER)
    first = anna.ask("search", "--sort", "price", "--limit", "1", "--facets")
    second = anna.ask("search", "--sort", "price", "--limit", "1", "--facets", "--after", first["next_cursor"])
    hits = first["hits"] + second["hits"]
    assert (first["total"], {hit["asin"] for hit in hits}, second["next_cursor"]) == (2, {ASIN, OTHER}, None)
    assert hits[0]["price"]["amount_minor"] <= hits[1]["price"]["amount_minor"]
    assert "brand" in by_name(first["facets"])
    dearer = f"{hits[1]['price']['amount_minor'] / 100:.2f}"
    assert [hit["asin"] for hit in anna.ask("search", "--price-min", dearer)["hits"]] == [hits[1]["asin"]]


def test_a_search_shows_a_table_and_where_to_go_on(anna: Terminal) -> None:
    anna.ask("check", ASIN, OTHER)
    shown = anna.run("search", "--limit", "1", "--facets").stdout
    assert [word in shown for word in ("ASIN", "2 hits", "--after ", "Brand")] == [True] * 4


def test_a_search_that_finds_nothing_says_so(anna: Terminal) -> None:
    assert "Nothing found." in anna.run("search", "waschmaschine", "--deals").stdout


@pytest.mark.parametrize("arguments", [["--rating", "6"], ["--after", "nonsense"], ["--price-min", "9", "--price-max", "1"]], ids=" ".join)
def test_a_search_that_cannot_be_answered_is_one_line(anna: Terminal, arguments: list[str]) -> None:
    result = anna.run("search", *arguments)
    assert (result.exit_code, result.stderr.startswith("keeper: ")) == (1, True)


# --- doctor


def findings(report: dict[str, Any], about: str) -> list[tuple[str, str]]:
    return [(one["health"], one["text"]) for one in report["findings"] if one["about"] == about]


def test_the_doctor_looks_at_kafka_and_elasticsearch(streams: Terminal) -> None:
    streams.ask("check", ASIN)
    report = streams.ask("doctor")
    ((kafka_health, kafka_text),), ((search_health, search_text),) = findings(report, "kafka"), findings(report, "elasticsearch")
    assert (kafka_health, search_health) == ("good", "good")
    assert ("1 broker" in kafka_text, "9." in search_text) == (True, True)


def test_the_doctor_makes_no_topics_and_names_those_that_are_otherwise(streams: Terminal) -> None:
    assert findings(streams.ask("doctor"), "kafka")[1][0] == "note"
    streams.ask("check", ASIN)
    complaints = findings(streams.ask("doctor", KEEPER_KAFKA_PARTITIONS="2"), "kafka")[1:]
    assert [(health, "partitions is 1, wanted 2" in said) for health, said in complaints] == [("note", True)] * 9


@pytest.mark.parametrize("about", ["kafka", "elasticsearch"])
def test_the_doctor_says_what_does_not_answer(anna: Terminal, about: str) -> None:
    result = anna.run("doctor", "--json", **NOWHERE)
    assert (result.exit_code, [health for health, _ in findings(json.loads(result.stdout), about)]) == (1, ["broken"])


def test_the_doctor_names_messages_that_elasticsearch_refused(anna: Terminal, engine: Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO dead_letters (sink, key, event_id, kind, version, payload, recorded_at, tries, reason) "
                "VALUES ('search', 'B', gen_random_uuid(), 'price_update', 1, '{}', clock_timestamp(), 1, 'mapper_parsing_exception')"
            )
        )
    result = anna.run("doctor", "--json")
    (found,) = [one for one in json.loads(result.stdout)["findings"] if one["about"] == "outbox search"]
    assert (found["health"], "mapper_parsing_exception" in found["text"], "keeper reindex" in found["remedy"]) == ("broken", True, True)
    assert "`keeper sink retry search --all`" in found["remedy"]
