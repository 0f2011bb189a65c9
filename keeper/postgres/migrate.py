"""Brings a database to the schema this code knows, one process at a time."""

from datetime import datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text

from keeper.domain.errors import KeeperError
from keeper.postgres.engine import answering_within
from keeper.postgres.partitions import make_partitions

MIGRATION_LOCK = 0x6B65657065720001


class SchemaNewer(KeeperError):
    """The database was migrated by a newer Keeper."""


class RevisionUnknown(KeeperError):
    """A revision asked for that is not among the migrations."""


class ServerTooOld(KeeperError):
    """A PostgreSQL below 15."""


def migrate(engine: Engine, *, now: datetime, target: str = "head") -> str | None:
    """Migrate up (or down, to a named revision or `base`) under an advisory lock; make the partitions ahead.

    Idempotent; several processes may call it at once.

    Returns:
        The revision now in force, None for `base`.

    Raises:
        SchemaNewer: the database's revision is not known here.
        RevisionUnknown: the target is not.
        ServerTooOld: the server is older than PostgreSQL 15.
    """
    with engine.connect() as connection, answering_within(connection, None):
        version = connection.execute(text("SHOW server_version_num")).scalar_one()
        if int(version) < 150000:
            raise ServerTooOld(f"Keeper needs PostgreSQL 15 or newer, this is {int(version) // 10000}; upgrade the server")
        connection.commit()
        # Another's migration is waited for, and one's own may take its time.
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.commit()
        try:
            revision = _run(connection, target)
            if revision is not None:
                with connection.begin():
                    make_partitions(connection, now=now)
            return revision
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
            connection.execute(text("RESET statement_timeout"))
            connection.commit()


def known_head() -> str:
    """The revision this code was written for."""
    return str(_scripts(_config()).get_current_head())


def database_revision(connection: Connection) -> str | None:
    """The revision the database is at; None before the first migration."""
    return MigrationContext.configure(connection).get_current_revision()


def _run(connection: Connection, target: str) -> str | None:
    config = _config()
    config.attributes["connection"] = connection
    scripts = _scripts(config)
    with connection.begin():
        current = database_revision(connection)
        if current is not None:
            try:
                scripts.get_revision(current)
            except CommandError as error:
                raise SchemaNewer(
                    f"the database is at schema {current}, this Keeper knows only up to {scripts.get_current_head()}: "
                    "run the newer Keeper, or restore a backup made before its migration"
                ) from error
        is_down = target == "base" or (current is not None and target != "head" and current > target)
        try:
            (command.downgrade if is_down else command.upgrade)(config, target)
        except CommandError as error:
            raise RevisionUnknown(
                f"there is no schema revision {target}; give `head`, `base`, or a revision up to {scripts.get_current_head()}"
            ) from error
        return database_revision(connection)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[2] / "migrations").replace("%", "%%"))
    return config


def _scripts(config: Config) -> ScriptDirectory:
    return ScriptDirectory.from_config(config)
