"""The one row that says which Keepa this is, how its time runs, and which key opens its channels."""

import time

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from keeper.postgres import installation
from keeper.postgres.installation import KEEPA, SIMULATOR, ChannelKeyMismatch, ClockNumbers, SchemaMismatch, SourceMismatch
from tests.integration.makers import one


@pytest.mark.parametrize(("first", "second"), [(KEEPA, SIMULATOR), (SIMULATOR, KEEPA)])
def test_a_database_holds_one_keepas_data_for_good(engine: Engine, first: str, second: str) -> None:
    with engine.begin() as connection:
        installation.claim_source(connection, first)
        installation.claim_source(connection, first)
    with pytest.raises(SourceMismatch, match="point KEEPER_DATABASE_URL"), engine.begin() as connection:
        installation.claim_source(connection, second)
    with engine.begin() as connection:
        assert installation.select_source(connection) == first


def test_only_a_simulators_clock_can_be_moved(engine: Engine) -> None:
    with engine.begin() as connection:
        installation.claim_source(connection, KEEPA)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        installation.update_clock(connection, ClockNumbers(0.0, 0.0, 10.0))


def test_business_time_follows_the_numbers(engine: Engine) -> None:
    with engine.begin() as connection:
        installation.claim_source(connection, SIMULATOR)
        machine = time.time()
        installation.update_clock(connection, ClockNumbers(machine, 2_000_000_000.0, 100.0))
        now = installation.select_now(connection).timestamp()
        passed = time.time() - machine
    assert 2_000_000_000 <= now <= 2_000_000_000 + 100 * passed + 0.01


def test_an_unset_clock_is_none(engine: Engine) -> None:
    with engine.begin() as connection:
        assert installation.lock_clock(connection) is None


def test_an_empty_database_has_no_schema_yet(engine: Engine) -> None:
    with engine.begin() as connection:
        assert installation.check_schema(connection)
        connection.execute(text("DROP TABLE alembic_version"))
        assert not installation.check_schema(connection)


def test_a_newer_schema_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(SchemaMismatch, match="newer Keeper"):
            installation.check_schema(connection)


@pytest.mark.parametrize(
    ("known", "given", "kept"),
    [
        pytest.param(None, ["new"], "new", id="the first key is noted"),
        pytest.param("old", ["old"], "old", id="the same key"),
        pytest.param("old", ["new", "old"], "old", id="rotation begins, the channels are still the old key's"),
    ],
)
def test_a_key_that_opens_the_channels_is_taken(engine: Engine, known: str | None, given: list[str], kept: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE installation SET channel_key_fingerprint = :known"), {"known": known})
        installation.check_channel_key(connection, given)
    assert one(engine, "SELECT channel_key_fingerprint FROM installation") == kept


def test_a_key_that_opens_no_channel_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        installation.check_channel_key(connection, ["old"])
        with pytest.raises(ChannelKeyMismatch, match="encrypted with key old, which is not among"):
            installation.check_channel_key(connection, ["new"])


def test_there_is_one_row_only(engine: Engine) -> None:
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text("INSERT INTO installation DEFAULT VALUES"))
