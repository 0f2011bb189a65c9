"""Backup and restore, from one real server to another."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from keeper.backup import (
    BackupUnusable,
    DatabaseInUse,
    DatabaseNotEmpty,
    NothingToBackUp,
    Restored,
    ServerOlder,
    backup,
    read_manifest,
    restore,
)
from keeper.domain.events import KINDS, Sink
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.consumer import TopicConsumer
from keeper.kafka.producer import KafkaSink
from keeper.kafka.topics import Group, Topic, TopicSettings
from keeper.notify.channels import ChannelCipher, make_key
from keeper.notify.sender import ChannelSender
from keeper.postgres.backup import REVISIONS_RAISED
from keeper.postgres.embedded import EmbeddedServer, temporary_server
from keeper.postgres.engine import open_engine
from keeper.postgres.installation import KEEPA, SCHEMA_REVISION, SIMULATOR, SchemaMismatch, SourceMismatch, claim_source
from keeper.postgres.ledger import insert_reservation, lock_ledger, read_ledger
from keeper.postgres.outbox import retry_dead_alerts
from keeper.postgres.programs import DUMP, ProgramFailed, Programs, ProgramTooOld
from keeper.relay import AlertSink, RelaySettings, relay
from keeper.sinks import switch_off, switch_on
from tests.integration.kafka.sending import read
from tests.integration.makers import CIPHER, add_user, add_watch, ago, history, one, product, rows, run_record
from tests.integration.schema_catalog import schema_of
from tests.services.mail import MailServer
from tests.services.session import KafkaService
from tests.services.waiting import wait_until

# What a restore moves, raises or forgets on purpose.
_TOUCHED = ("outbox", "dead_letters", "token_ledger", "token_reservations", "check_claims", "idempotent_requests")


@pytest.fixture(scope="module")
def other_server() -> Iterator[EmbeddedServer]:
    """A second cluster, with a password."""
    with temporary_server(tcp_port=0, settings={"max_prepared_transactions": "1"}) as server:
        yield server


@pytest.fixture(scope="module")
def kept(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A backup of a database with one user, for those who only read it."""
    postgres.create_database("kept", template="template_keeper")
    engine = open_engine(postgres.dsn("kept"))
    add_user(engine, channels=["mailto://127.0.0.1/anna@example.net"])
    with engine.begin() as connection:
        claim_source(connection, SIMULATOR)
    yield backup(engine, programs_for(engine, postgres), tmp_path_factory.mktemp("kept")).path
    engine.dispose()
    postgres.drop_database("kept")


@pytest.fixture
def elsewhere(other_server: EmbeddedServer) -> Iterator[Engine]:
    """An empty database on it."""
    other_server.create_database("elsewhere")
    engine = open_engine(other_server.dsn("elsewhere"))
    yield engine
    engine.dispose()
    other_server.drop_database("elsewhere")


def programs_for(engine: Engine, server: EmbeddedServer) -> Programs:
    return Programs(server.program(DUMP).parent, engine)


@dataclass(frozen=True)
class House:
    """A database with a person whose channel is a mailbox, and PostgreSQL's programs."""

    engine: Engine
    programs: Programs
    folder: Path
    mail: MailServer

    def back_up(self) -> Path:
        return backup(self.engine, self.programs, self.folder).path

    def restore(self, path: Path, engine: Engine, **options: Any) -> Restored:
        chosen: dict[str, Any] = {"source": SIMULATOR, "cipher": CIPHER} | options
        return restore(engine, Programs(self.programs.folder, engine), path, **chosen)

    def price(self, amount: int, *, minutes: float) -> None:
        """The price of so many minutes ago, found then."""
        at = ago(minutes=minutes)
        run_record(self.engine, product([(at, amount)], at=at))

    def relay(self, engine: Engine) -> int:
        """How many mails went out."""
        sink = AlertSink(engine, ChannelSender(allowed_schemes=("mailto",)), CIPHER)
        return relay(engine, sink, settings=RelaySettings(), longest_seconds=30).delivered


@pytest.fixture
def house(engine: Engine, postgres: EmbeddedServer, tmp_path: Path) -> Iterator[House]:
    with MailServer() as mail:
        user_id = add_user(engine, channels=[f"mailto://127.0.0.1:{mail.port}/anna@example.net?from=keeper@example.org"])
        add_watch(engine, user_id, 5000)
        with engine.begin() as connection:
            claim_source(connection, SIMULATOR)
        made = House(engine, programs_for(engine, postgres), tmp_path, mail)
        made.price(6000, minutes=90)
        made.price(4900, minutes=80)
        yield made


def everything_of(engine: Engine) -> Mapping[str, list[str]]:
    """Every row of every table but those a restore touches, without revisions."""
    tables = rows(engine, "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1")
    return {
        table: sorted(json.dumps(row, sort_keys=True) for row in rows(engine, f"SELECT to_jsonb(one) - 'revision' FROM {table} one"))
        for table in tables
        if table not in _TOUCHED
    }


def test_another_server_holds_the_same_rows_and_the_same_schema(house: House, elsewhere: Engine) -> None:
    assert house.relay(house.engine) == 1
    with house.engine.begin() as connection:
        lock_ledger(connection)
        insert_reservation(connection, operation="product", tokens=5, priority=1, is_granted=True, lease_seconds=3600)  # type: ignore[arg-type]
    done = house.restore(house.back_up(), elsewhere)
    assert everything_of(elsewhere) == everything_of(house.engine)
    assert history(elsewhere) == history(house.engine) == [(ago(minutes=90), 6000), (ago(minutes=80), 4900)]
    assert schema_of(elsewhere) == schema_of(house.engine)
    assert done.manifest.counts == {table: one(house.engine, f"SELECT count(*) FROM {table}") for table in done.manifest.counts}
    assert (done.revision, done.unreadable_channels, done.replaced) == (SCHEMA_REVISION, (), False)
    with elsewhere.begin() as connection:
        ledger = read_ledger(connection)
    assert (ledger.bucket, ledger.reservations) == (None, ())


def test_no_alert_is_sent_twice_and_one_that_waited_is_held_until_it_is_asked_for(house: House, elsewhere: Engine) -> None:
    assert house.relay(house.engine) == 1
    house.price(6000, minutes=70)
    house.price(4800, minutes=60)
    path = house.back_up()
    # Delivered after the backup: nobody who restores it can know.
    assert house.relay(house.engine) == 1
    done = house.restore(path, elsewhere)
    assert (done.held, done.queued) == (1, 0)
    assert house.relay(elsewhere) == 0
    assert len(house.mail.messages) == 2
    assert rows(elsewhere, "SELECT status FROM deliveries ORDER BY id") == ["delivered", "dead"]
    assert "may have been sent since" in one(elsewhere, "SELECT reason FROM dead_letters")
    with elsewhere.begin() as connection:
        assert retry_dead_alerts(connection, None) == 1
    assert house.relay(elsewhere) == 1
    # The far side can tell that it is the same.
    first, second = (mail["Message-ID"] for mail in house.mail.messages[1:])
    assert first == second


def test_what_waited_goes_out_where_that_is_wanted(house: House, elsewhere: Engine) -> None:
    done = house.restore(house.back_up(), elsewhere, is_sending=True)
    assert (done.held, done.queued) == (0, 1)
    assert house.relay(elsewhere) == 1


def test_other_sinks_keep_what_waited_but_a_rebuild_that_was_under_way_is_forgotten(house: House, elsewhere: Engine) -> None:
    with house.engine.begin() as connection:
        connection.execute(text("INSERT INTO sinks (name, kinds) VALUES ('search.products-v1-000002', '{product_update}')"))
        connection.execute(
            text(
                "INSERT INTO outbox (sink, shard, key, event_on, event_seq) "
                "SELECT 'search.products-v1-000002', 0, key, recorded_on, seq FROM events"
            )
        )
    waiting = "SELECT sink, count(*) FROM outbox WHERE sink IN ('kafka', 'search') GROUP BY sink ORDER BY sink"
    done = house.restore(house.back_up(), elsewhere)
    assert rows(elsewhere, waiting) == rows(house.engine, waiting)
    assert done.sinks == ("kafka", "search")
    assert one(elsewhere, "SELECT count(*) FROM outbox WHERE sink LIKE 'search.%'") == 0


def test_no_number_or_revision_comes_back(house: House, elsewhere: Engine) -> None:
    path = house.back_up()
    reports = (
        "INSERT INTO deal_reports (user_id, report_date, deal_count, content, created_at) "
        "SELECT id, current_date, 0, '{}', now() FROM users RETURNING id"
    )
    with house.engine.begin() as connection:
        after_backup = connection.execute(text(reports)).scalar_one()
    house.restore(path, elsewhere)
    with elsewhere.begin() as connection:
        assert connection.execute(text(reports)).scalar_one() > after_backup + 500
    assert one(elsewhere, "SELECT revision FROM products") > REVISIONS_RAISED


@pytest.mark.parametrize("cipher", [ChannelCipher([make_key()]), None], ids=["another key", "no key"])
def test_channels_that_the_present_key_does_not_open_are_named(
    kept: Path, elsewhere: Engine, postgres: EmbeddedServer, cipher: ChannelCipher | None
) -> None:
    done = restore(elsewhere, programs_for(elsewhere, postgres), kept, source=SIMULATOR, cipher=cipher)
    assert done.unreadable_channels == ("anna/c0",)


def test_an_older_schema_is_brought_up(house: House, elsewhere: Engine, postgres: EmbeddedServer, empty_database: str) -> None:
    from keeper.postgres.migrate import migrate

    older = open_engine(postgres.dsn(empty_database))
    try:
        migrate(older, now=ago(), target="0001")
        with older.begin() as connection:
            connection.execute(text("INSERT INTO users (name) VALUES ('anna')"))
        path = backup(older, Programs(house.programs.folder, older), house.folder / "old.dump").path
    finally:
        older.dispose()
    done = house.restore(path, elsewhere)
    assert (done.manifest.schema_revision, done.revision) == ("0001", SCHEMA_REVISION)
    assert schema_of(elsewhere) == schema_of(house.engine)
    assert one(elsewhere, "SELECT name FROM users") == "anna"


def _alter(path: Path, **said: object) -> None:
    beside = path.with_name(f"{path.name}.json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | said))


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        pytest.param({"schema_revision": "9999"}, SchemaMismatch, "restore it with Keeper", id="newer schema"),
        pytest.param({"source": KEEPA}, SourceMismatch, "holds data of the real Keepa", id="other Keepa"),
        pytest.param({"server_major": 99}, ServerOlder, "PostgreSQL 99 or newer", id="newer server"),
        pytest.param({"program_major": 99}, ProgramTooOld, "KEEPER_POSTGRES_BIN", id="newer programs"),
        pytest.param({"format": 2}, BackupUnusable, "use the newer Keeper", id="another form"),
        pytest.param({"size_bytes": 1}, BackupUnusable, "not as it was written", id="another file"),
        pytest.param({"counts": {"users": 2}}, ProgramFailed, "users has not the 2 rows", id="rows that are not there"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    kept: Path, elsewhere: Engine, postgres: EmbeddedServer, tmp_path: Path, said: dict[str, object], error: type[Exception], words: str
) -> None:
    path = tmp_path / kept.name
    for name in (kept.name, f"{kept.name}.json"):
        shutil.copyfile(kept.with_name(name), path.with_name(name))
    _alter(path, **said)
    with pytest.raises(error, match=words):
        restore(elsewhere, programs_for(elsewhere, postgres), path, source=SIMULATOR, cipher=CIPHER)
    assert rows(elsewhere, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []


def test_a_restore_that_fails_leaves_what_it_was_to_replace(house: House) -> None:
    path = house.back_up()
    house.price(4700, minutes=50)
    before, schema = everything_of(house.engine), schema_of(house.engine)
    with pytest.raises(DatabaseNotEmpty, match="--replace"):
        house.restore(path, house.engine)
    _alter(path, counts={"users": 2})
    with pytest.raises(ProgramFailed, match="nothing was changed"):
        house.restore(path, house.engine, is_replacing=True)
    assert (everything_of(house.engine), schema_of(house.engine)) == (before, schema)


def test_nobody_else_may_be_connected(house: House) -> None:
    path = house.back_up()
    other = open_engine(house.engine.url.render_as_string(hide_password=False), application_name="keeper relay")
    try:
        with other.connect(), pytest.raises(DatabaseInUse, match="keeper relay"):
            house.restore(path, house.engine, is_replacing=True)
    finally:
        other.dispose()


def test_tables_that_are_not_keepers_are_never_dropped(kept: Path, elsewhere: Engine, postgres: EmbeddedServer) -> None:
    with elsewhere.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (id integer)"))
    with pytest.raises(DatabaseNotEmpty, match="not Keeper's"):
        restore(elsewhere, programs_for(elsewhere, postgres), kept, source=SIMULATOR, cipher=CIPHER, is_replacing=True)


def test_a_database_without_a_schema_has_nothing_to_back_up(elsewhere: Engine, postgres: EmbeddedServer, tmp_path: Path) -> None:
    with pytest.raises(NothingToBackUp):
        backup(elsewhere, programs_for(elsewhere, postgres), tmp_path)


def test_programs_older_than_the_server_are_refused(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / DUMP).write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 14.9'\n")
    (tmp_path / DUMP).chmod(0o755)
    with pytest.raises(ProgramTooOld, match="set KEEPER_POSTGRES_BIN to the bin folder of PostgreSQL"):
        backup(engine, Programs(tmp_path, engine), tmp_path)


def test_a_folder_keeps_the_newest_of_its_own_kind(house: House) -> None:
    other = house.folder / "keeper-keepa-20200101T000000000000Z.dump"
    other.touch()
    other.with_name(f"{other.name}.json").touch()
    first, second = house.back_up(), house.back_up()
    done = backup(house.engine, house.programs, house.folder, keep=2)
    assert done.removed == (first,)
    assert {path.name for path in house.folder.glob("*.dump*")} == {
        f"{path.name}{ending}" for path in (other, second, done.path) for ending in ("", ".json")
    }
    assert {path.stat().st_mode & 0o777 for path in (done.path, done.path.with_name(f"{done.path.name}.json"))} == {0o600}
    with pytest.raises(BackupUnusable, match="there already"):
        backup(house.engine, house.programs, second)


def test_a_new_kafka_gets_the_kept_events_of_a_restored_database(house: House, elsewhere: Engine, kafka: KafkaService) -> None:
    def published(engine: Engine, prefix: str) -> list[tuple[bytes | None, bytes | None, object]]:
        connection = KafkaConnection(kafka.bootstrap_servers, topic_prefix=f"{kafka.prefix}{prefix}", connect_timeout_seconds=10)
        with closing(KafkaSink(connection, TopicSettings())) as sink:
            assert relay(engine, sink, settings=RelaySettings(), longest_seconds=30).delivered == 2
        with closing(TopicConsumer(connection, Topic.PRICE_UPDATES, Group.PRICES, TopicSettings())) as consumer:
            return [(one.key, one.value, dict(one.headers)["event_id"]) for one in read(consumer, 2)]

    before = published(house.engine, "old-")
    house.restore(house.back_up(), elsewhere)
    switch_off(elsewhere, "kafka")
    switch_on(elsewhere, "kafka", KINDS[Sink.KAFKA], from_oldest=True)
    assert published(elsewhere, "new-") == before


def test_a_killed_backup_leaves_nothing_that_looks_whole_and_its_program_is_told_no_secret(
    kept: Path, elsewhere: Engine, other_server: EmbeddedServer, tmp_path: Path
) -> None:
    programs = programs_for(elsewhere, other_server)
    restore(elsewhere, programs, kept, source=SIMULATOR, cipher=CIPHER)
    folder = tmp_path / "kept"
    url = other_server.libpq_dsn("elsewhere")
    password = elsewhere.url.password or "none"
    environment = os.environ | {"KEEPER_DATABASE_URL": url, "KEEPER_DATA": str(tmp_path), "KEEPER_CHANNELS_KEYS": make_key()}
    with elsewhere.begin() as connection:
        # pg_dump waits for this table, with a part of the file written; before it nobody reads it.
        connection.execute(text("LOCK TABLE exchange_rates IN ACCESS EXCLUSIVE MODE"))
        with subprocess.Popen([sys.executable, "-m", "keeper", "backup", folder], env=environment, stderr=subprocess.PIPE) as started:
            wait_until(lambda: _dumping(started.pid) is not None, "pg_dump has not started", longest_seconds=90)
            child = _dumping(started.pid)
            told = Path(f"/proc/{child}/cmdline").read_text()
            surroundings = Path(f"/proc/{child}/environ").read_text()
            started.send_signal(signal.SIGKILL)
    assert password not in told
    assert "KEEPER_" not in surroundings
    left = [path.name for path in folder.iterdir()]
    assert len(left) == 1
    assert left[0].endswith(".keeper-partial")
    done = backup(elsewhere, programs, folder)
    assert sorted(folder.iterdir()) == [done.path, done.path.with_name(f"{done.path.name}.json")]
    shutil.copyfile(done.path, folder / "alone.dump")
    with pytest.raises(BackupUnusable, match="A backup is both files"):
        read_manifest(folder / "alone.dump")


def test_a_killed_restore_leaves_what_it_was_to_replace(
    kept: Path, elsewhere: Engine, other_server: EmbeddedServer, tmp_path: Path
) -> None:
    restore(elsewhere, programs_for(elsewhere, other_server), kept, source=SIMULATOR, cipher=CIPHER)
    with elsewhere.begin() as connection:
        connection.execute(text("INSERT INTO users (name) VALUES ('bernd')"))
    before = everything_of(elsewhere)
    with elsewhere.begin() as connection:
        # Nobody is connected for it, and it keeps the restore from dropping this table.
        connection.execute(text("LOCK TABLE users IN ROW EXCLUSIVE MODE"))
        connection.execute(text("SELECT pg_current_xact_id()"))
        connection.execute(text("PREPARE TRANSACTION 'in_the_way'"))
    elsewhere.dispose()
    environment = os.environ | {"KEEPER_DATABASE_URL": other_server.libpq_dsn("elsewhere"), "KEEPER_DATA": str(tmp_path)}
    watcher = open_engine(other_server.dsn("postgres"))
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = 'elsewhere' AND wait_event_type = 'Lock'"
    connected = "SELECT pid FROM pg_stat_activity WHERE datname = 'elsewhere' AND backend_type = 'client backend'"
    command = [sys.executable, "-m", "keeper", "restore", str(kept), "--replace", "--yes"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as started:
        wait_until(lambda: bool(rows(watcher, waiting)), "the restore does not wait", longest_seconds=90)
        started.kill()
    with elsewhere.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ROLLBACK PREPARED 'in_the_way'"))
    elsewhere.dispose()
    wait_until(lambda: not rows(watcher, connected), "the restore has not ended", longest_seconds=90)
    watcher.dispose()
    assert everything_of(elsewhere) == before


def _dumping(parent: int) -> int | None:
    """The pg_dump that a process has started."""
    with suppress(OSError):
        for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            if b"--snapshot" in Path(f"/proc/{word}/cmdline").read_bytes():
                return int(word)
    return None
