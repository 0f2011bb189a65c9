"""The watchdog: each trouble is caused for real, seen, told once by mail, and told to be over once."""

import json
import logging
import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from sqlalchemy import Engine

from keeper.domain.events import Event, EventKind, Sink
from keeper.domain.watchdog import Followed, Trouble, merge
from keeper.kafka.topics import Topic, TopicSettings, ensure
from keeper.notify.channels import ChannelCipher, make_key
from keeper.postgres import installation, ledger, outbox, watches
from keeper.postgres import watchdog as database
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.installation import ClockNumbers
from keeper.relay import relay
from keeper.resources import kafka_connection, make_resources
from keeper.settings import Settings
from keeper.watchdog import CHECKS, Round, look, watch
from tests.integration.cli.terminal import Terminal
from tests.integration.makers import ASIN, add_user, add_watch, plans, product, rows, run_record, use_sinks
from tests.services.mail import MailServer
from tests.services.session import ElasticsearchService, KafkaService

if TYPE_CHECKING:
    from tests.services.prefect import PrefectServer

PASSWORD = "s3cret-of-the-operator"
KEY = make_key()


def machine_now() -> datetime:
    return datetime.now(UTC)


def changed(settings: Settings, **groups: dict[str, Any]) -> Settings:
    """The same with some settings of some groups others."""
    return settings.model_copy(update={name: getattr(settings, name).model_copy(update=values) for name, values in groups.items()})


@pytest.fixture
def settings(postgres: EmbeddedServer, database: str, tmp_path: Path) -> Settings:
    """Nobody else's systems; an end is told at once."""
    return Settings.model_validate(
        {
            "data": tmp_path / "data",
            "database_url": postgres.libpq_dsn(database),
            "channels": {"keys": KEY, "schemes": ("mailto",)},
            "watchdog": {"calm_minutes": 0, "timeout_seconds": 3, "disk_free_pct": 0},
        }
    )


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


def plain_url(mail: MailServer, name: str = "ops") -> str:
    return f"mailto://127.0.0.1:{mail.port}/{name}@example.org?from=keeper@example.org"


def told_by(settings: Settings, mail: MailServer) -> Settings:
    return changed(settings, watchdog={"apprise_urls": SecretStr(plain_url(mail))})


def seen_by(settings: Settings, check: str, *, now: datetime | None = None) -> list[Trouble]:
    """The troubles of one check."""
    return [trouble for one in look(settings, now=now or machine_now()) if one.check == check for trouble in one.troubles]


def titles(done: Round) -> list[str]:
    return [one.title for one in done.troubles]


def subjects(mail: MailServer) -> list[str]:
    return [str(one["Subject"]) for one in mail.messages]


# --- each trouble


def test_overdue_checks_are_a_trouble_by_interval(settings: Settings, engine: Engine) -> None:
    anna, now = add_user(engine), machine_now()
    add_watch(engine, anna, now=now - timedelta(hours=2), interval=timedelta(hours=1))
    add_watch(engine, anna, asin="B0QUIET001", now=now - timedelta(hours=2), interval=timedelta(hours=6))

    [trouble] = seen_by(settings, "prices")

    assert trouble.about == "every 1 h"
    assert trouble.text.startswith("1 products that are to be checked every 1 h are overdue, the first for 2 h")


def test_a_jump_of_the_simulators_clock_is_no_trouble(settings: Settings, engine: Engine) -> None:
    add_watch(engine, add_user(engine), now=machine_now(), interval=timedelta(hours=1))
    with engine.begin() as connection:
        installation.claim_source(connection, installation.SIMULATOR)
        machine = machine_now().timestamp()
        installation.update_clock(connection, ClockNumbers(machine, machine + 3 * 86400, 1))

    assert [trouble for name in ("prices", "clock") for trouble in seen_by(settings, name)] == []


def test_checks_that_bring_nothing_are_a_trouble(settings: Settings, engine: Engine) -> None:
    anna, now = add_user(engine), machine_now()
    asins = [f"B0ASKED{number:03d}" for number in range(10)]

    def fail(failed: list[str]) -> None:
        with engine.begin() as connection:
            watches.postpone_failed(connection, failed, "DE", failure="Keepa answered 503", now=now, wait=timedelta(minutes=30))

    # One of one is somebody's slip of the pen.
    add_watch(engine, anna, asin=asins[0], now=now + timedelta(hours=1))
    fail(asins[:1])
    of_one = seen_by(settings, "failing")
    for asin in asins[1:]:
        add_watch(engine, anna, asin=asin, now=now + timedelta(hours=1))
    fail(asins[:7])
    [trouble] = seen_by(settings, "failing")

    assert of_one == []
    assert trouble.text == "7 of the 10 products due next failed at their last check, most often: Keepa answered 503"


def test_the_canary_must_be_watched_and_fresh(settings: Settings, engine: Engine) -> None:
    asked, now = changed(settings, watchdog={"canary": f"{ASIN}:DE"}), machine_now()
    [unwatched] = seen_by(asked, "canary")
    add_watch(engine, add_user(engine), now=now, interval=timedelta(hours=1))
    run_record(engine, product([(now, 4990)], at=now))
    fresh = seen_by(asked, "canary")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE current_prices SET checked_at = checked_at - interval '3 hours'")
    [stale] = seen_by(asked, "canary")

    assert unwatched.text == f"the canary {ASIN}:DE is watched by nobody"
    assert fresh == []
    assert stale.text == f"the price of {ASIN}:DE is 3 h old, its interval is 1 h"


def test_runs_are_looked_for_at_prefect_and_its_silence_is_told(settings: Settings, prefect_server: "PrefectServer") -> None:
    asked = changed(settings, prefect={"api_url": prefect_server.url})
    prefect = changed(settings, prefect={"api_url": "http://ops:hunter2@127.0.0.1:9/api"})
    with prefect_server.client() as client:
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)
        [none] = seen_by(asked, "runs")
        flow_id = client.create_flow_from_name("watched")
        deployment_id = client.create_deployment(flow_id, "watched", tags=["keeper"])
        for at in (machine_now() - timedelta(hours=1), machine_now() + timedelta(minutes=5)):
            body = {"state": {"type": "SCHEDULED", "state_details": {"scheduled_time": at.isoformat()}}}
            client.request("POST", "/deployments/{id}/create_flow_run", path_params={"id": deployment_id}, json=body).raise_for_status()
        [late] = seen_by(asked, "runs")
        client.delete_deployment(deployment_id)
    [silent] = seen_by(prefect, "runs")

    assert (none.about, none.text) == ("ahead", "no run of Keeper's deployments is scheduled for the next 15 minutes")
    assert (late.about, late.text) == ("late", "1 runs are scheduled for the next 15 minutes, 1 wait for a worker for more than 15 minutes")
    assert silent.text == "Prefect's API at 127.0.0.1:9 does not answer as it should (ConnectError)"


def test_a_trouble_that_two_folders_saw_begin_is_kept_as_one(engine: Engine) -> None:
    now = machine_now()
    trouble = Trouble("runs", "", "nobody answers", "start it")
    later = Followed(trouble, now - timedelta(minutes=5), now, told=frozenset({"channel:1"}))
    earlier = Followed(trouble, now - timedelta(minutes=9), now, told=frozenset({"channel:2"}))
    with engine.begin() as connection:
        database.save_troubles(connection, [later])
        database.save_troubles(connection, merge([later], [earlier]))
        [kept] = database.select_troubles(connection)

    assert (kept.opened_at, kept.told) == (earlier.opened_at, frozenset({"channel:1", "channel:2"}))


def add_waiting_price(engine: Engine) -> None:
    """An event that waits for Kafka for an hour."""
    use_sinks(engine, [Sink.KAFKA, Sink.NOTIFY])
    add_watch(engine, add_user(engine), now=machine_now())
    now = machine_now()
    run_record(engine, product([(now, 4990)], at=now), sinks=frozenset({Sink.KAFKA, Sink.NOTIFY}))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE events SET recorded_at = recorded_at - interval '1 hour'")


def test_messages_that_wait_long_or_are_many_are_a_trouble_of_their_sink(settings: Settings, engine: Engine) -> None:
    add_waiting_price(engine)
    many = changed(settings, watchdog={"outbox_minutes": 10_000})
    many = many.model_copy(update={"relay": settings.relay.model_copy(update={"largest_backlog": 0})})

    [old], [large] = seen_by(settings, "outbox"), seen_by(many, "outbox")

    assert (old.about, old.text) == ("kafka", "1 messages wait for kafka, the first for 1 h")
    assert large.text.startswith("more than 0 messages wait for kafka")


def test_what_was_given_up_is_a_trouble_of_its_sink_with_what_to_do(settings: Settings, engine: Engine) -> None:
    add_waiting_price(engine)
    [(shard, seq)] = rows(engine, "SELECT shard, event_seq FROM outbox")
    with engine.begin() as connection:
        outbox.bury_message(connection, "kafka", shard, seq, reason="too large")

    [trouble] = seen_by(settings, "dead letters")

    assert (trouble.about, trouble.text) == ("kafka", "1 messages to kafka were given up")
    assert "keeper sink retry kafka --all" in trouble.remedy


def test_an_api_that_does_not_answer_or_not_well_is_a_trouble(settings: Settings, tmp_path: Path) -> None:
    own, key = make_certificate(tmp_path, "own", days=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    with serving() as (good, asked), serving(context=context) as (secured, _), serving(status=500) as (ill, _):
        found = [seen_by(changed(settings, reports={"api_url": url}), "api") for url in (f"{good}/", secured, ill)]
    gone = seen_by(changed(settings, reports={"api_url": good}), "api")

    assert (found[:2], asked) == ([[], []], ["/health"])
    assert [one.text for one in [*found[2], *gone]] == [
        f"the REST API at {ill.removeprefix('http://')} answers with status 500",
        f"the REST API at {good.removeprefix('http://')} does not answer (ConnectError)",
    ]
    assert seen_by(settings, "api") == []


def test_each_of_the_first_channels_that_gave_up_is_a_trouble_of_its_own_and_the_rest_are_one(settings: Settings, engine: Engine) -> None:
    def bury(channel_id: int) -> None:
        with engine.begin() as connection:
            event = Event.of(uuid4(), EventKind.ALERT, str(channel_id), {})
            outbox.insert_events(connection, [event], {EventKind.ALERT: [Sink.NOTIFY]})
            [(shard, seq)] = connection.exec_driver_sql("SELECT shard, event_seq FROM outbox").all()
            outbox.bury_message(connection, "notify", shard, seq, reason="refused")

    told = []
    for channel_id in (14, 11, 11, 12, 13, 10):
        bury(channel_id)
        told.append([one.about for one in seen_by(settings, "dead letters")])

    first = ["channel 14", "channel 11", "channel 12"]
    assert told == [first[:1], first[:2], first[:2], first, [*first, "notify"], [*first, "notify"]]
    assert [one.text for one in seen_by(settings, "dead letters")][1::2] == [
        "2 messages to channel 11 were given up", "2 messages to notify were given up in other channels",
    ]  # fmt: skip
    # None of them alone is many, all together are.
    [together] = seen_by(changed(settings, watchdog={"dead_letters": 3}), "dead letters")
    assert (together.about, together.text) == ("notify", "6 messages to notify were given up")


def test_old_messages_that_no_consumer_took_are_a_trouble_of_their_group(settings: Settings, kafka: KafkaService) -> None:
    asked = changed(settings, kafka={"bootstrap_servers": kafka.bootstrap_servers, "topic_prefix": kafka.prefix})
    down = changed(settings, kafka={"bootstrap_servers": "127.0.0.1:9", "connect_timeout_seconds": 1})
    connection = kafka_connection(asked)
    ensure(connection, TopicSettings())
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for topic, minutes in ((Topic.PRICE_UPDATES, 60), (Topic.PRICE_UPDATES, 0), (Topic.DEAL_UPDATES, 0), (Topic.DEAD_PRICE_UPDATES, 60)):
        sent_at = machine_now() - timedelta(minutes=minutes)
        producer.produce(f"{kafka.prefix}{topic}", b"{}", key=b"B", timestamp=round(sent_at.timestamp() * 1000))
    producer.flush(10)

    [lag], [dead], [silent] = seen_by(asked, "lag"), seen_by(asked, "dead letters"), seen_by(down, "lag")

    assert lag.about == f"{kafka.prefix}keeper-consumer-group"
    assert lag.text.startswith(f"1 messages of {kafka.prefix}price-updates have waited")
    assert dead.about == f"{kafka.prefix}price-updates.dlq"
    assert "127.0.0.1:9" in silent.text


def set_ledger(engine: Engine, *, tokens: int, refill: int) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE token_ledger SET tokens = {tokens}, refill_per_minute = {refill}, observed_at = clock_timestamp(), "
            "next_refill_at = clock_timestamp() + interval '1 minute', said_at = clock_timestamp()"
        )


def test_tokens_that_are_gone_or_will_be_short_are_troubles(settings: Settings, engine: Engine) -> None:
    anna = add_user(engine)
    for number in range(30):
        add_watch(engine, anna, asin=f"B0TOKEN{number:03}", now=machine_now() + timedelta(seconds=30), interval=timedelta(minutes=1))
    set_ledger(engine, tokens=1200, refill=20)
    [short] = seen_by(settings, "tokens")
    set_ledger(engine, tokens=0, refill=60)
    [gone] = seen_by(settings, "tokens")
    set_ledger(engine, tokens=3600, refill=60)

    assert short.about == "forecast"
    assert short.text.endswith("the watches ask for 30.0, 0.0 were spent a minute in the last hour; they will be short in 2 h")
    assert gone.about == "balance"
    assert seen_by(settings, "tokens") == []


def test_an_index_that_lacks_documents_is_a_trouble_until_it_is_complete(
    settings: Settings, engine: Engine, elasticsearch: ElasticsearchService
) -> None:
    asked = changed(settings, elasticsearch={"url": (elasticsearch.url,), "index_prefix": elasticsearch.prefix})
    resources = make_resources(asked, keepa=False)
    try:
        anna, now = add_user(engine), machine_now()
        for number in range(3):
            add_watch(engine, anna, asin=f"B0INDEX{number:03}", now=now)
        run_record(
            engine,
            *(product([(now, 4990)], asin=f"B0INDEX{number:03}", at=now) for number in range(3)),
            sinks=frozenset({Sink.SEARCH, Sink.NOTIFY, Sink.ENRICH}),
        )
        for sink in resources.sinks():
            if sink.name in (Sink.SEARCH, Sink.ENRICH):
                sink.connect()
                relay(engine, sink, settings=resources.relay_settings, longest_seconds=30)
        client = resources.search_client()
        client.indices.refresh(index=f"{elasticsearch.prefix}*")
        complete = seen_by(asked, "documents")
        client.delete_by_query(index=f"{elasticsearch.prefix}keeper-prices", query={"term": {"asin": "B0INDEX001"}}, refresh=True)
        [lacking] = seen_by(asked, "documents")
    finally:
        resources.close()
    down = changed(settings, elasticsearch={"url": ("http://127.0.0.1:9",), "timeout_seconds": 1})
    [silent] = seen_by(down, "documents")

    assert complete == []
    assert lacking.about == f"{elasticsearch.prefix}keeper-prices"
    assert "holds 2 documents, PostgreSQL 3 rows, over 3 products: 1 documents are missing" in lacking.text
    assert lacking.remedy == "`keeper reindex keeper-prices` builds it anew from PostgreSQL"
    assert "127.0.0.1:9" in silent.text


def test_two_schedulers_and_a_foreign_spender_are_troubles(settings: Settings, engine: Engine) -> None:
    first, second = uuid4(), uuid4()
    watch(settings, now=machine_now(), scheduler=(first, "Prefect at old:4200"))
    alone = seen_by(settings, "scheduler")
    watch(settings, now=machine_now(), scheduler=(second, "Prefect at new:4200"))
    with engine.begin() as connection:
        ledger.add_foreign_tokens(connection, 77, now=machine_now())
    two, foreign = seen_by(settings, "scheduler")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE schedulers SET seen_at = seen_at - interval '21 minutes'")

    assert alone == []
    assert two.text.startswith("2 schedulers run Keeper's jobs on this database")
    assert "Prefect at old:4200" in two.text
    assert foreign.text.startswith("somebody else spends tokens of this key: 77 so far")
    assert [one.about for one in seen_by(settings, "scheduler")] == ["tokens"]


def test_a_full_disk_is_a_trouble(settings: Settings, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    free_pct = 100 * usage.free / usage.total
    full = changed(settings, watchdog={"disk_free_pct": min(100.0, free_pct + 5), "disks": (str(tmp_path / "not" / "there"),)})

    assert [one.about for one in seen_by(full, "disk")] == [str((tmp_path / "data").resolve()), str(tmp_path / "not" / "there")]
    assert seen_by(settings, "disk") == []


def test_a_machine_whose_clock_is_wrong_is_a_trouble(settings: Settings) -> None:
    [trouble] = seen_by(settings, "clock", now=machine_now() - timedelta(minutes=10))
    assert trouble.text.startswith("the database's clock is 600.")
    assert seen_by(settings, "clock") == []


def make_certificate(folder: Path, name: str, *, days: float) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(machine_now() - timedelta(days=30))
        .not_valid_after(machine_now() + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return certificate, private


def test_certificates_that_expire_are_troubles_in_files_and_at_servers(settings: Settings, tmp_path: Path) -> None:
    good, _ = make_certificate(tmp_path, "good", days=90.5)
    soon, _ = make_certificate(tmp_path, "soon", days=3.5)
    expired, key = make_certificate(tmp_path, "expired", days=-2.5)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(expired, key)
    with serving(context=context) as (url, _):
        words = (str(good), str(soon), url, str(tmp_path / "gone.pem"), "https://127.0.0.1:9")
        asked = changed(settings, watchdog={"certificates": words}, kafka={"ca_file": soon})
        found = {one.about: one.text for one in seen_by(asked, "certificates")}

    assert list(found) == [str(soon), url.removeprefix("https://"), str(tmp_path / "gone.pem"), "127.0.0.1:9"]
    assert "expires in 3.5 days" in found[str(soon)]
    assert "expired" in found[url.removeprefix("https://")]
    assert "cannot be read (FileNotFoundError)" in found[str(tmp_path / "gone.pem")]


def test_partitions_that_are_missing_and_rows_that_had_none_are_troubles(settings: Settings, engine: Engine) -> None:
    good = seen_by(settings, "partitions")
    with engine.begin() as connection:
        today = connection.exec_driver_sql("SELECT to_char(current_date, 'YYYYMMDD'), to_char(current_date + 1, 'YYYYMMDD')").one()
        for day in today:
            connection.exec_driver_sql(f"DROP TABLE events_{day}")
        connection.exec_driver_sql("INSERT INTO events (event_id, kind, key, payload) VALUES (gen_random_uuid(), 'alert', 'k', '{}')")

    ahead, astray = seen_by(settings, "partitions")

    assert good == []
    assert ahead.text == f"missing for the next 2 days: events_{today[0]}, events_{today[1]}"
    assert astray.about == "events"


def test_that_nobody_would_be_told_is_a_trouble(settings: Settings, engine: Engine, mail: MailServer) -> None:
    assert [one.text for one in seen_by(settings, "channels")] == ["nobody is told of any trouble"]
    assert seen_by(told_by(settings, mail), "channels") == []
    add_operator(engine, mail)
    assert seen_by(settings, "channels") == []


def test_a_check_that_fails_itself_is_a_trouble_and_stops_no_other(
    settings: Settings, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE check_claims, planned_checks CASCADE")
    seen = look(settings, now=machine_now())

    foul = [one for one in seen if one.is_foul]
    assert [one.check for one in foul] == ["prices", "failing", "tokens"][: len(foul)]
    assert foul[0].troubles[0].title == "watchdog: prices"
    assert "ProgrammingError" in foul[0].text
    assert len(seen) == len(CHECKS)
    assert any("the check prices failed" in record.message for record in caplog.records)


# --- telling


def add_operator(engine: Engine, mail: MailServer) -> None:
    """An administrator with a channel to the mail server."""
    add_user(
        engine, "root", channels=[f"mailto://127.0.0.1:{mail.port}/root@example.org?from=keeper@example.org"], cipher=ChannelCipher([KEY])
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE users SET role = 'admin' WHERE name = 'root'")


def test_a_trouble_is_told_once_to_operators_and_settings_and_its_end_once(settings: Settings, engine: Engine, mail: MailServer) -> None:
    add_operator(engine, mail)
    asked = told_by(settings, mail)
    add_user(
        engine, "anna", channels=[f"mailto://127.0.0.1:{mail.port}/anna@example.org?from=keeper@example.org"], cipher=ChannelCipher([KEY])
    )
    with engine.begin() as connection:
        ledger.add_foreign_tokens(connection, 77, now=machine_now())
    rounds = [watch(asked, now=machine_now()) for _ in range(3)]
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE token_ledger SET foreign_seen_at = NULL")
    rounds += [watch(asked, now=machine_now()) for _ in range(3)]

    assert [titles(done) for done in rounds] == [["scheduler: tokens"]] * 3 + [[]] * 3
    assert [(len(done.opened), len(done.ended), done.told) for done in rounds] == [(1, 0, 2), *[(0, 0, 0)] * 2, (0, 1, 2), *[(0, 0, 0)] * 2]
    assert sorted((one.recipients[0], str(one.mail["Subject"])) for one in mail.delivered) == [
        ("ops@example.org", "Keeper: scheduler: tokens is over"), ("ops@example.org", "Keeper: trouble with scheduler: tokens"),
        ("root@example.org", "Keeper: scheduler: tokens is over"), ("root@example.org", "Keeper: trouble with scheduler: tokens"),
    ]  # fmt: skip
    body = mail.messages[0].get_body(("plain",))
    assert body is not None
    assert "What to do: find the other program" in body.get_content()


def test_a_channel_that_refuses_is_told_later_and_delays_no_other(settings: Settings, engine: Engine, mail: MailServer) -> None:
    with MailServer(mode="refuse_later") as broken, engine.begin() as connection:
        ledger.add_foreign_tokens(connection, 77, now=machine_now())
        connection.commit()
        urls = ",".join(plain_url(one) for one in (broken, mail))
        asked = changed(settings, watchdog={"apprise_urls": SecretStr(urls)})
        alone = watch(told_by(settings, broken), now=machine_now())
        first = watch(asked, now=machine_now())
        broken.mode = "accept"
        second, third = (watch(asked, now=machine_now()) for _ in range(2))
        told = len(broken.messages), len(mail.messages)

    assert [(done.told, len(done.untold)) for done in (first, second, third)] == [(1, 1), (1, 0), (0, 0)]
    assert "451 4.7.1 greylisted" in first.untold[0]
    # Nobody knew of it before the other channel was there.
    assert (alone.is_heard, first.is_heard) == (False, True)
    assert told == (1, 1)


def test_a_database_that_is_down_is_told_once_and_once_when_it_is_back(
    settings: Settings, engine: Engine, mail: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    asked = told_by(settings, mail)
    down = asked.model_copy(update={"database_url": SecretStr(f"postgresql://keeper:{PASSWORD}@127.0.0.1:9/keeper")})
    add_waiting_price(engine)
    rounds = [watch(one, now=machine_now()) for one in (asked, down, down, asked, asked)]

    assert [titles(done) for done in rounds] == [["outbox: kafka"], ["database"], ["database"], ["outbox: kafka"], ["outbox: kafka"]]
    assert subjects(mail) == ["Keeper: trouble with outbox: kafka", "Keeper: trouble with database", "Keeper: database is over"]
    kept = (asked.data / "watchdog.json").read_text()
    assert "url:" in kept
    for said in (caplog.text, kept, repr(rounds)):
        assert PASSWORD not in said
    assert "example.org" not in kept


def test_two_watchdogs_at_once_tell_once(settings: Settings, engine: Engine, mail: MailServer) -> None:
    add_waiting_price(engine)
    asked = told_by(settings, mail)
    done: list[Round] = []
    both = [threading.Thread(target=lambda: done.append(watch(asked, now=machine_now()))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()

    assert len(done) == 2
    assert subjects(mail) == ["Keeper: trouble with outbox: kafka"]


# --- the heartbeat


@contextmanager
def serving(*, status: int = 200, context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """A real HTTP server and what it was asked for."""
    asked: list[str] = []

    class Taker(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass

    with Server(("127.0.0.1", 0), Taker) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_the_heartbeat_is_sent_after_a_whole_round_only_and_never_logged(
    settings: Settings, engine: Engine, mail: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving() as (url, asked):
        beating = changed(told_by(settings, mail), watchdog={"heartbeat_url": SecretStr(f"{url}/ping/{PASSWORD}?m=1")})
        whole = watch(beating, now=machine_now())
        down = watch(beating.model_copy(update={"database_url": SecretStr("postgresql://keeper@127.0.0.1:9/keeper")}), now=machine_now())
        mail.mode = "refuse"
        add_waiting_price(engine)
        untold = watch(beating, now=machine_now())
    gone = watch(beating, now=machine_now())

    assert (whole.heartbeat, asked) == ("sent", [f"/ping/{PASSWORD}?m=1"])
    assert down.heartbeat == untold.heartbeat == "not sent: the round was not whole"
    assert "not sent" in gone.heartbeat
    assert PASSWORD not in caplog.text


def test_a_heartbeat_that_nobody_takes_is_no_end_of_the_round(settings: Settings, mail: MailServer) -> None:
    with serving(status=500) as (url, _):
        broken = watch(changed(told_by(settings, mail), watchdog={"heartbeat_url": SecretStr(url)}), now=machine_now())
    silent = watch(changed(told_by(settings, mail), watchdog={"heartbeat_url": SecretStr(url)}), now=machine_now())

    assert (broken.heartbeat, silent.heartbeat) == ("failed (status 500)", "failed (ConnectionRefusedError)")


# --- what it costs, and how it is asked


def test_every_question_goes_by_an_index_however_much_there_is(engine: Engine) -> None:
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO planned_checks SELECT 'B' || lpad(n::text, 9, '0'), 'DE', false, 3600, now() + make_interval(secs => n - 5000) "
            "FROM generate_series(1, 50000) n",
            "INSERT INTO products (asin, marketplace, kind, first_seen_at, checked_at, changed_at) "
            "SELECT 'B' || lpad(n::text, 9, '0'), 'DE', 'STANDARD', now(), now(), now() FROM generate_series(1, 30000) n",
            "INSERT INTO price_history (asin, marketplace, price_type, observed_at, amount_minor, currency) "
            "SELECT 'B' || lpad(n::text, 9, '0'), 'DE', 'NEW', now() - interval '1 hour', 4990, 'EUR' FROM generate_series(1, 30000) n",
            "INSERT INTO outbox (sink, shard, key, event_on, event_seq) SELECT 'kafka', mod(n, 16), n::text, current_date, n "
            "FROM generate_series(1, 50000) n",
            "ANALYZE planned_checks, products, price_history, outbox",
        ):
            connection.exec_driver_sql(statement)
    now = machine_now()
    plan = plans(
        engine,
        lambda connection: (
            database.select_late(connection, before=now),
            database.select_due_next(connection, now=now),
            database.find_canary(connection, ASIN, "DE"),
            database.select_demand(connection, now=now, plain_tokens=1, buybox_tokens=3),
            database.select_queues(connection, most=1000),
            database.select_sample(connection, start="B000020000", limit=100),
            database.count_documents(connection, "price_history", [ASIN], since=None),
            database.count_documents(connection, "products", [ASIN], since=None),
        ),
    )

    # A partition without rows costs nothing, however it is read.
    for table in ("planned_checks", "products", f"price_history_{now - timedelta(hours=1):%Y%m}", "outbox"):
        assert table in plan
        assert f"Seq Scan on {table}" not in plan


@pytest.fixture
def shell(settings: Settings) -> Terminal:
    assert settings.database_url is not None
    return Terminal(
        {
            "KEEPER_DATA": str(settings.data),
            "KEEPER_DATABASE_URL": settings.database_url.get_secret_value(),
            "KEEPER_CHANNELS_KEYS": KEY,
            "KEEPER_CHANNELS_SCHEMES": "mailto",
            "KEEPER_WATCHDOG_DISK_FREE_PCT": "0",
        }
    )


def test_the_command_ends_with_1_on_trouble_and_tells(shell: Terminal, engine: Engine, mail: MailServer) -> None:
    url = {"KEEPER_WATCHDOG_APPRISE_URLS": plain_url(mail)}
    good = shell.run("watchdog", **url)
    add_waiting_price(engine)
    bad = shell.run("watchdog", "--json", **url)

    assert (good.exit_code, bad.exit_code) == (0, 1), good.output
    assert [one["about"] for one in json.loads(bad.stdout)["troubles"]] == ["kafka"]
    assert json.loads(bad.stdout)["told"] == 1
    assert subjects(mail) == ["Keeper: trouble with outbox: kafka"]


def test_explain_says_of_each_check_what_it_looks_at_its_settings_and_what_to_do_and_tells_nobody(
    shell: Terminal, engine: Engine, mail: MailServer
) -> None:
    add_operator(engine, mail)
    add_waiting_price(engine)
    url = {"KEEPER_WATCHDOG_APPRISE_URLS": f"{plain_url(mail)}&pass={PASSWORD}"}
    said, told = shell.run("watchdog", "--explain", **url), shell.run("watchdog", "--explain", "--json", **url)

    checks = {one["check"]: one for one in json.loads(told.stdout)["checks"]}
    assert list(checks) == [check.name for check in CHECKS]
    assert checks["outbox"]["settings"] == {"KEEPER_WATCHDOG_OUTBOX_MINUTES": 15}
    assert checks["outbox"]["sees"] == "waiting: 1 for kafka"
    assert all(one["looks_at"] and one["what_to_do"] for one in checks.values())
    assert "KEEPER_WATCHDOG_OUTBOX_MINUTES=15" in said.stdout
    assert (said.exit_code, told.exit_code, mail.delivered) == (1, 1, [])
    assert PASSWORD not in said.output + told.output
