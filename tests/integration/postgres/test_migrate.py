"""Migrations up and down, partitions, and the schema this code knows."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import open_engine
from keeper.postgres.installation import SCHEMA_REVISION
from keeper.postgres.migrate import MIGRATION_LOCK, SchemaNewer, known_head, migrate

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_the_constant_is_the_newest_migration() -> None:
    assert known_head() == SCHEMA_REVISION


def test_down_leaves_nothing_and_up_comes_back(postgres: EmbeddedServer, empty_database: str) -> None:
    engine = open_engine(postgres.dsn(empty_database))
    query = text(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relname NOT LIKE 'alembic%' AND relkind IN ('r', 'p', 'S')"
    )
    try:
        assert migrate(engine, now=NOW) == SCHEMA_REVISION
        with engine.begin() as connection:
            made = connection.execute(query).scalar_one()
        assert migrate(engine, now=NOW, target="base") is None
        with engine.begin() as connection:
            assert connection.execute(query).scalar_one() == 0
        assert migrate(engine, now=NOW) == SCHEMA_REVISION
        with engine.begin() as connection:
            assert connection.execute(query).scalar_one() == made
    finally:
        engine.dispose()


def test_a_removed_watch_stays_removed_and_a_paused_one_is_one_for_the_older_schema(postgres: EmbeddedServer, empty_database: str) -> None:
    engine = open_engine(postgres.dsn(empty_database))
    state = text("SELECT asin, is_active, removed_at IS NULL FROM watched_products ORDER BY asin")
    try:
        migrate(engine, now=NOW, target="0003")
        with engine.begin() as connection:
            connection.execute(
                text(
                    "WITH anna AS (INSERT INTO users (name) VALUES ('anna') RETURNING id) "
                    "INSERT INTO watched_products (user_id, asin, marketplace, currency, is_active) "
                    "SELECT id, asin, 'DE', 'EUR', is_active FROM anna, (VALUES ('B000000001', true), ('B000000002', false), "
                    "('B000000002', false), ('B000000003', true)) AS w (asin, is_active)"
                )
            )
        migrate(engine, now=NOW)
        with engine.begin() as connection:
            assert [tuple(row) for row in connection.execute(state)] == [
                ("B000000001", True, True),
                ("B000000002", False, False),
                ("B000000002", False, False),
                ("B000000003", True, True),
            ]
            connection.execute(text("UPDATE watched_products SET is_active = false WHERE asin = 'B000000003'"))
        migrate(engine, now=NOW, target="0003")
        migrate(engine, now=NOW)
        with engine.begin() as connection:
            assert [tuple(row)[1:] for row in connection.execute(state)] == [(True, True), (False, False), (False, False), (False, False)]
    finally:
        engine.dispose()


def test_a_newer_schema_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaNewer, match="run the newer Keeper"):
        migrate(engine, now=NOW)


def test_two_that_migrate_an_empty_database_at_once_both_end_well(postgres: EmbeddedServer, empty_database: str) -> None:
    start = threading.Barrier(2)

    def work() -> str | None:
        engine = open_engine(postgres.dsn(empty_database))
        try:
            start.wait(10)
            return migrate(engine, now=NOW)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(work) for _ in range(2)]
        assert [one.result(60) for one in both] == [SCHEMA_REVISION] * 2


def test_who_waits_for_anothers_migration_is_not_timed_out(postgres: EmbeddedServer, empty_database: str) -> None:
    holder, waiter = open_engine(postgres.dsn(empty_database)), open_engine(postgres.dsn(empty_database), statement_timeout_seconds=0.3)
    has_waited = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
        "AND clock_timestamp() - query_start > interval '1 second'"
    )
    try:
        with ThreadPoolExecutor(1) as pool, holder.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
            waiting = pool.submit(migrate, waiter, now=NOW)
            while not waiting.done() and not connection.execute(has_waited).scalar_one():
                pass
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
            assert waiting.result(60) == SCHEMA_REVISION
        with waiter.connect() as connection:
            assert connection.execute(text("SHOW statement_timeout")).scalar_one() == "300ms"
    finally:
        holder.dispose()
        waiter.dispose()
