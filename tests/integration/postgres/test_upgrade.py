"""A database of the first schema, with what it held, brought to the newest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from keeper.domain.events import KINDS, Sink
from keeper.notify.sender import ChannelSender
from keeper.postgres.backup import COUNTED, count_rows
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import driver_of, open_engine
from keeper.postgres.installation import SCHEMA_REVISION
from keeper.postgres.migrate import migrate
from keeper.record import record
from keeper.relay import AlertSink, RelaySettings, relay
from tests.integration.makers import CIPHER, NOW, ago, history, one, product, rows
from tests.integration.schema_catalog import schema_of
from tests.services.mail import MailServer

FIRST = "0001"
DATA = Path(__file__).with_name("first_schema.sql")
# Another table has its name since 0005; nothing had written it.
MADE_ANEW = frozenset({"deal_reports"})


@dataclass(frozen=True)
class Upgrade:
    """A database that was migrated once, to be copied.

    Attributes:
        mail: anna's mailbox.
        before, after: rows by table.
    """

    database: str
    mail: MailServer
    before: Mapping[str, int]
    after: Mapping[str, int]


@pytest.fixture(scope="module")
def upgrade(postgres: EmbeddedServer) -> Iterator[Upgrade]:
    name = "template_upgraded"
    postgres.create_database(name)
    engine = open_engine(postgres.dsn(name))
    with MailServer() as mail:
        migrate(engine, now=datetime.now(UTC), target=FIRST)
        url = f"mailto://127.0.0.1:{mail.port}/anna@example.net?from=keeper@example.org"
        script = DATA.read_text().replace("{channel}", CIPHER.encrypt(url)).replace("{fingerprint}", CIPHER.fingerprint)
        with engine.begin() as connection:
            driver_of(connection).execute(script.encode())
            before = count_rows(connection)
        assert migrate(engine, now=datetime.now(UTC)) == SCHEMA_REVISION
        with engine.begin() as connection:
            after = count_rows(connection)
        # Nobody may be connected to what is copied.
        engine.dispose()
        yield Upgrade(name, mail, before, after)
    postgres.drop_database(name)


@pytest.fixture
def upgraded(upgrade: Upgrade, postgres: EmbeddedServer) -> Iterator[Engine]:
    """A copy."""
    name = f"test_{uuid4().hex}"
    postgres.create_database(name, template=upgrade.database)
    opened = open_engine(postgres.dsn(name))
    yield opened
    opened.dispose()
    postgres.drop_database(name)


def test_every_row_is_there_afterwards(upgrade: Upgrade) -> None:
    assert [table for table, count in upgrade.before.items() if count == 0] == []
    assert upgrade.after == dict.fromkeys(COUNTED, 0) | dict(upgrade.before) | dict.fromkeys(MADE_ANEW, 0)


def test_it_is_the_schema_of_a_fresh_database(upgraded: Engine, engine: Engine) -> None:
    assert schema_of(upgraded) == schema_of(engine)


def test_watches_keep_their_state_and_their_turn(upgraded: Engine) -> None:
    watches = "SELECT target_minor, is_active, is_armed, removed_at IS NULL FROM watched_products ORDER BY id"
    assert rows(upgraded, watches) == [
        (5000, True, True, True),
        (5500, True, False, True),
        (None, True, True, True),
        (1000, False, True, False),
    ]
    plans = (
        "SELECT asin, is_buybox, interval_seconds, next_check_at, last_checked_at, last_failure FROM planned_checks "
        "ORDER BY asin, is_buybox, interval_seconds"
    )

    def at(hour: int, minute: int) -> datetime:
        return datetime(2026, 11, 20, hour, minute, tzinfo=UTC)

    assert rows(upgraded, plans) == [
        ("B000000001", False, 3600, at(12, 0), at(11, 5), "late"),
        ("B000000001", True, 3600, at(12, 10), None, None),
    ]


def test_prices_are_what_they_were(upgraded: Engine) -> None:
    def at(year: int, month: int, day: int) -> datetime:
        return datetime(year, month, day, 9, tzinfo=UTC)

    assert history(upgraded, asin="B000000001") == [
        (at(2024, 1, 5), 7999),
        (at(2026, 10, 1), 5999),
        (at(2026, 11, 1), None),
        (at(2026, 11, 10), None),
        (at(2026, 11, 20), 5400),
    ]
    events = "SELECT event_id::text, previous_minor, target_minor FROM price_history WHERE event_id IS NOT NULL ORDER BY observed_at"
    assert [(row[0][-1], *row[1:]) for row in rows(upgraded, events)] == [("1", 7999, 5000), ("2", 5999, 5000), ("3", None, 5000)]
    assert rows(upgraded, "SELECT marketplace, revision, changed_at FROM products WHERE asin = 'B000000001' ORDER BY 1") == [
        ("DE", 17, datetime(2026, 11, 20, 11, tzinfo=UTC)),
        ("UK", 3, datetime(2026, 11, 20, 11, tzinfo=UTC)),
    ]


def test_titles_can_be_searched(upgraded: Engine) -> None:
    found = "SELECT marketplace FROM product_texts WHERE words @@ to_tsquery('keeper_german', keeper_fold('Büro'))"
    assert rows(upgraded, found) == ["DE"]


def test_deals_are_those_that_somebody_posted(upgraded: Engine) -> None:
    deals = "SELECT amount_minor, source, sightings, is_glitch, ended_at IS NULL FROM collected_deals ORDER BY asin"
    assert rows(upgraded, deals) == [(5400, "posted", 1, False, True), (900, "posted", 1, False, False)]


def test_the_alert_that_waited_is_sent_once_and_the_one_that_was_sent_is_not(upgraded: Engine, upgrade: Upgrade) -> None:
    assert set(one(upgraded, "SELECT kinds FROM sinks")) == {kind.value for kind in KINDS[Sink.NOTIFY]}
    sink = AlertSink(upgraded, ChannelSender(allowed_schemes=("mailto",)), CIPHER)
    assert [relay(upgraded, sink, settings=RelaySettings(), longest_seconds=30).delivered for _ in range(2)] == [1, 0]
    assert [mail["Subject"] for mail in upgrade.mail.messages] == ["48.90 €: Cherry MX Tastatur für Büro"]
    assert rows(upgraded, "SELECT status FROM deliveries ORDER BY id") == ["delivered", "delivered"]
    assert rows(upgraded, "SELECT sink FROM outbox") == ["kafka"]


def test_a_new_price_finds_the_watch_that_is_armed(upgraded: Engine) -> None:
    with upgraded.begin() as connection:
        answer = product([(ago(minutes=5), 4950)], asin="B000000001", at=NOW)
        assert record(connection, [answer], now=NOW).alerts == 1
        assert connection.execute(text("SELECT user_id, previous_minor FROM price_alerts ORDER BY id DESC LIMIT 1")).one() == (1, 5400)
