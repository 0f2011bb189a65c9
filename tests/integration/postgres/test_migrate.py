"""Migrations up and down, partitions, and the schema this code knows."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import open_engine
from keeper.postgres.installation import SCHEMA_REVISION
from keeper.postgres.migrate import SchemaNewer, known_head, migrate

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


def test_a_newer_schema_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaNewer, match="run the newer Keeper"):
        migrate(engine, now=NOW)
