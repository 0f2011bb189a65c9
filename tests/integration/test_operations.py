"""The operations report: each section by itself, and what fails stops no other."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from api.app import create_app
from keeper.domain.deal import DealSource
from keeper.domain.events import Sink
from keeper.domain.operations import OperationsReport, Section, decode_operations, encode_operations, write_markdown
from keeper.notify.report import compose_operations as compose_message
from keeper.operations import FailedRun, RunsUnknown, compose_operations, keep_operations
from keeper.postgres.deals import insert_collection
from keeper.postgres.embedded import EmbeddedServer
from keeper.resources import make_resources
from keeper.settings import Settings
from keeper.simulator.server import Simulator
from tests.integration.deals import add_deal, add_reader
from tests.integration.makers import NOW, ago, rows
from tests.services.api import serve
from tests.services.session import ElasticsearchService, KafkaService


@pytest.fixture
def settings(postgres: EmbeddedServer, database: str, simulator: Simulator, tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {"data": tmp_path / "data", "database_url": postgres.libpq_dsn(database), "keepa": {"simulator_url": simulator.url}}
    )


def section(report: OperationsReport, title: str) -> Section:
    (found,) = [one for one in report.sections if one.title == title]
    return found


def fact(report: OperationsReport, title: str, name: str) -> str:
    return dict(section(report, title).facts)[name]


def test_deals_of_the_last_day_are_told_with_their_quality(settings: Settings, engine: Engine) -> None:
    for number, score in enumerate((90.0, 60.0, 30.0)):
        add_deal(engine, number, score=score)
    with engine.begin() as connection:
        for at, seen, kept in ((ago(hours=1), 150, 12), (ago(hours=5), 50, 8), (ago(hours=25), 999, 999)):
            connection.execute(
                text("INSERT INTO deal_collections VALUES (:at, 'feed', 'q', :seen, :kept, 3, 1)"), {"at": at, "seen": seen, "kept": kept}
            )

    report = compose_operations(settings, engine, now=NOW)

    assert fact(report, "Deals", "from feed") == "6 new of 200 seen in 2 pages; 2 suspected glitches; median score 60"


def test_share_of_product_groups_is_of_the_rows_seen_or_of_the_deals_found(settings: Settings, engine: Engine) -> None:
    for number in range(4):
        add_deal(engine, number)
    with engine.begin() as connection:
        connection.execute(text("UPDATE collected_deals SET product_group = 'keyboards' WHERE asin = 'B0DEAL0000'"))
        insert_collection(connection, source=DealSource.FEED, query="q", seen=150, kept=140, added=4, glitches=0, now=ago(hours=2))
    uncounted = compose_operations(settings, engine, now=NOW)
    with engine.begin() as connection:
        insert_collection(
            connection, source=DealSource.FEED, query="q", seen=100, kept=90, added=0, glitches=0, members=5, now=ago(hours=1)
        )
    counted = compose_operations(settings, engine, now=NOW)

    found = [fact(report, "Deals", "of a product group, feed") for report in (uncounted, counted)]
    assert found == ["25.0 % (1 of 4)", "5.0 % (5 of 100)"]


def test_day_without_deals_and_without_reports_is_a_warning(settings: Settings, engine: Engine) -> None:
    add_reader(engine)
    report = compose_operations(settings, engine, now=NOW)

    assert "Deals: no deals were collected; does deal-collection run?" in report.warnings
    assert "Told to people: no report was made in a day; does reports/hourly run?" in report.warnings


def test_tokens_are_told_by_operation_against_the_refill(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE token_ledger SET refill_per_minute = 10"))
        for operation, tokens, success in (("product", 100, True), ("product", 20, False), ("deal", 24, True)):
            connection.execute(
                text(
                    "INSERT INTO keepa_calls (id, called_at, operation, asin_count, tokens_consumed, response_time_ms, success) "
                    "VALUES (:id, :at, :operation, 1, :tokens, 50, :success)"
                ),
                {"id": uuid4(), "at": ago(hours=3), "operation": operation, "tokens": tokens, "success": success},
            )

    report = compose_operations(settings, engine, now=NOW)

    assert fact(report, "Tokens", "product") == "120 tokens in 2 calls, 1 failed; median 50 ms"
    assert fact(report, "Tokens", "refill used") == "1.0 % (144 of 14,400)"
    assert section(report, "Tokens").warnings == ("1 calls to Keepa failed",)


def test_failures_are_told(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        for died in ("1 hour", "2 days"):
            connection.exec_driver_sql(
                "INSERT INTO dead_letters (sink, key, event_id, kind, version, payload, recorded_at, tries, reason, died_at) SELECT "
                f"'kafka', 'B', gen_random_uuid(), 'price_update', 1, '{{}}', died, 1, 'too large', died "
                f"FROM (SELECT clock_timestamp() - interval '{died}' AS died) AS dead"
            )
        for name, asked_at in (("de", ago(hours=30)), ("removed", ago(days=3))):
            connection.execute(
                text("INSERT INTO deal_queries (name, price_type, asked_at, failure) VALUES (:name, 'NEW', :asked_at, 'no answer')"),
                {"name": name, "asked_at": asked_at},
            )

    report = compose_operations(settings, engine, now=NOW)

    assert fact(report, "Failures", "dead letters of kafka") == "1"
    assert fact(report, "Failures", "query de NEW") == "no answer"
    assert section(report, "Failures").warnings == ("1 messages to kafka were given up", "1 queries of the feed failed")


def test_section_that_fails_says_so_and_stops_no_other(settings: Settings, engine: Engine) -> None:
    def fail() -> Sequence[FailedRun]:
        raise ZeroDivisionError("password=hunter2")

    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE deal_collections")
    report = compose_operations(settings, engine, now=NOW, ask_runs=fail)

    assert section(report, "Deals").failure == "ProgrammingError while asking; the log has more"
    assert section(report, "Flow runs").failure == "ZeroDivisionError while asking; the log has more"
    assert [one.title for one in report.sections if one.failure] == ["Deals", "Flow runs"]
    assert len(report.sections) == 9
    assert "hunter2" not in write_markdown(report)


def test_flow_runs_that_failed_are_told_or_why_they_are_not_known(settings: Settings, engine: Engine) -> None:
    def unknown() -> Sequence[FailedRun]:
        raise RunsUnknown("Prefect does not say")

    told = compose_operations(settings, engine, now=NOW, ask_runs=lambda: [FailedRun("delivery", "Crashed", "killed")])
    silent = compose_operations(settings, engine, now=NOW, ask_runs=unknown)
    without = compose_operations(settings, engine, now=NOW)

    assert section(told, "Flow runs").facts == (("delivery", "Crashed: killed"),)
    assert section(silent, "Flow runs").failure == "Prefect does not say"
    assert fact(without, "Flow runs", "not asked") == "this is no flow run"


def test_answer_time_of_the_api_is_asked_of_itself(settings: Settings, engine: Engine) -> None:
    with serve(create_app(settings)) as url:
        asked = settings.model_copy(update={"reports": settings.reports.model_copy(update={"api_url": url, "api_asks": 3})})
        report = compose_operations(asked, engine, now=NOW)

    assert fact(report, "API", "answer time").endswith(" ms of 3")


def test_api_that_does_not_answer_or_is_not_named_is_told(settings: Settings, engine: Engine) -> None:
    asked = settings.model_copy(update={"reports": settings.reports.model_copy(update={"api_url": "http://127.0.0.1:9"})})

    assert section(compose_operations(asked, engine, now=NOW), "API").failure == "it does not answer (ConnectError)"
    assert fact(compose_operations(settings, engine, now=NOW), "API", "not asked") == "KEEPER_REPORTS_API_URL is unset"


def test_report_is_sent_to_administrators_once_on_their_day(settings: Settings, engine: Engine) -> None:
    for name in ("root", "anna"):
        add_reader(engine, name, timezone="Pacific/Kiritimati")
    with engine.begin() as connection:
        connection.execute(text("UPDATE users SET role = 'admin' WHERE name = 'root'"))
    report = compose_operations(settings, engine, now=NOW)

    kept = [keep_operations(engine, report, now=NOW + timedelta(hours=hours)).deliveries for hours in (0, 1, 24)]

    assert kept == [1, 0, 1]
    assert rows(engine, "SELECT kind, report_date::text FROM deal_reports ORDER BY id") == [
        ("operations", "2026-11-21"), ("operations", "2026-11-22"),
    ]  # fmt: skip


def test_kept_report_is_read_as_it_was_written_and_told_in_every_form(settings: Settings, engine: Engine) -> None:
    report = compose_operations(settings, engine, now=NOW)

    assert decode_operations(encode_operations(report)) == report
    message = compose_message(report)
    for one in report.sections:
        assert one.title in message.text
        assert one.title in message.html
    assert len(message.chat) < 1900


def test_real_kafka_and_elasticsearch_are_counted(
    settings: Settings, engine: Engine, kafka: KafkaService, elasticsearch: ElasticsearchService
) -> None:
    asked = settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"bootstrap_servers": kafka.bootstrap_servers, "topic_prefix": kafka.prefix}),
            "elasticsearch": settings.elasticsearch.model_copy(update={"url": (elasticsearch.url,), "index_prefix": elasticsearch.prefix}),
        }
    )
    resources = make_resources(asked, keepa=False)
    try:
        for sink in resources.sinks():
            if sink.name in (Sink.KAFKA, Sink.SEARCH):
                sink.connect()
        report = compose_operations(asked, engine, now=NOW)
    finally:
        resources.close()

    assert fact(report, "Kafka", f"{kafka.prefix}deal-updates") == "0 messages"
    assert fact(report, "Elasticsearch against PostgreSQL", f"{elasticsearch.prefix}keeper-deals") == "0 documents, 0 rows"


def test_systems_that_are_down_are_told(settings: Settings, engine: Engine) -> None:
    asked = settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:9", "connect_timeout_seconds": 1}),
            "elasticsearch": settings.elasticsearch.model_copy(update={"url": ("http://127.0.0.1:9",), "timeout_seconds": 1}),
        }
    )

    report = compose_operations(asked, engine, now=NOW)

    assert any("Kafka" in warning and "127.0.0.1:9" in warning for warning in report.warnings)
    assert "127.0.0.1:9" in fact(report, "Elasticsearch against PostgreSQL", "not asked")
