"""An installation that is migrated carries the new kinds to people's channels, and one that goes back carries them no more."""

from sqlalchemy import Engine

from keeper.domain.events import KINDS, Sink
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import open_engine
from keeper.postgres.migrate import migrate
from keeper.report import ReportSettings, report
from tests.integration.deals import add_deal, add_filter, add_reader
from tests.integration.makers import NOW, rows


def kinds(engine: Engine) -> list[str]:
    found: list[str] = rows(engine, "SELECT unnest(kinds) FROM sinks WHERE name = 'notify' ORDER BY 1")
    return found


def test_migrated_installation_takes_the_new_kinds(postgres: EmbeddedServer, empty_database: str) -> None:
    engine = open_engine(postgres.dsn(empty_database))
    try:
        migrate(engine, now=NOW, target="0004")
        before = kinds(engine)
        migrate(engine, now=NOW)

        assert (before, kinds(engine)) == (["alert"], sorted(kind.value for kind in KINDS[Sink.NOTIFY]))
    finally:
        engine.dispose()


def test_going_back_leaves_no_message_an_older_version_could_not_send(engine: Engine) -> None:
    add_filter(engine, add_reader(engine))
    add_deal(engine)
    report(engine, now=NOW, settings=ReportSettings())
    waiting = rows(engine, "SELECT sink FROM outbox")

    migrate(engine, now=NOW, target="0004")

    assert (waiting, kinds(engine)) == (["notify"], ["alert"])
    assert rows(engine, "SELECT 1 FROM outbox UNION ALL SELECT 1 FROM deliveries") == []
