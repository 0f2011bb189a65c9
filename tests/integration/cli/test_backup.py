"""The commands of a backup, on a real database and the simulator."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from keeper.postgres.embedded import EmbeddedServer
from tests.integration.cli.terminal import Terminal
from tests.services.session import ElasticsearchService


@pytest.fixture
def elsewhere(postgres: EmbeddedServer) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"test_{uuid4().hex}"
    postgres.create_database(name)
    yield postgres.libpq_dsn(name)
    postgres.drop_database(name)


def test_a_backup_is_restored_and_keepa_says_the_balance_anew(anna: Terminal, elsewhere: str, tmp_path: Path) -> None:
    anna.ask("watch", "add", "B00OCMRV40", "--target", "49.90")
    balance = anna.ask("tokens", "--refresh")
    made = anna.ask("backup", str(tmp_path / "kept"), "--keep", "3")
    assert (made["manifest"]["source"], made["manifest"]["counts"]["users"], made["removed"]) == ("simulator", 1, [])
    done = anna.ask("restore", made["file"], KEEPER_DATABASE_URL=elsewhere)
    assert (done["held"], done["unreadable_channels"], done["documents"]) == (0, [], {})
    assert anna.ask("watch", "list", KEEPER_DATABASE_URL=elsewhere) == anna.ask("watch", "list")
    assert anna.run("tokens", KEEPER_DATABASE_URL=elsewhere).exit_code == 1
    assert anna.ask("tokens", "--refresh", KEEPER_DATABASE_URL=elsewhere)["refill_per_minute"] == balance["refill_per_minute"]


def test_a_database_of_before_the_audit_log_is_backed_up_all_the_same(anna: Terminal, engine: Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE audit_log")
    done = anna.run("backup", str(tmp_path / "before.dump"))
    assert done.exit_code == 0, done.output
    assert "not noted in the audit log" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"before.dump", "before.dump.json"}


def test_what_is_there_is_dropped_after_a_yes_only(anna: Terminal, tmp_path: Path) -> None:
    made = anna.ask("backup", str(tmp_path / "one.dump"))
    anna.ask("user", "add", "bob")
    refused = anna.run("restore", made["file"])
    assert refused.exit_code == 1
    assert "--replace" in refused.stderr
    aborted = anna.run("restore", made["file"], "--replace", typed="n\n")
    assert aborted.exit_code == 1
    assert len(anna.ask("user", "list")) == 2
    done = anna.run("restore", made["file"], "--replace", typed="y\n")
    assert done.exit_code == 0, done.output
    assert "Restored the backup of" in done.stdout
    assert [user["name"] for user in anna.ask("user", "list")] == ["anna"]


def test_the_indices_are_rebuilt_or_it_is_said_that_they_are_not(
    anna: Terminal, elsewhere: str, elasticsearch: ElasticsearchService, tmp_path: Path
) -> None:
    made = anna.ask("backup", str(tmp_path / "one.dump"))
    settings = {"KEEPER_DATABASE_URL": elsewhere, "KEEPER_ELASTICSEARCH_INDEX_PREFIX": elasticsearch.prefix}
    away = anna.run("restore", made["file"], KEEPER_ELASTICSEARCH_URL="http://127.0.0.1:9", **settings)
    assert away.exit_code == 1
    assert "the database is restored, the indices are not rebuilt" in away.stderr
    done = anna.ask("restore", made["file"], "--replace", "--yes", KEEPER_ELASTICSEARCH_URL=elasticsearch.url, **settings)
    assert done["documents"] == dict.fromkeys(("keeper-prices", "keeper-deals", "keeper-metrics", "products"), 0)
