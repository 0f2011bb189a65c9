"""The one row that says which Keepa this database holds and how its business time runs."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from keeper.domain.errors import KeeperError

# The newest of migrations/versions; Alembic itself is only imported to migrate (a test holds the two together).
SCHEMA_REVISION = "0014"

SIMULATOR = "simulator"
KEEPA = "keepa"


class SourceMismatch(KeeperError):
    """The database holds data of the other Keepa."""


class SchemaMismatch(KeeperError):
    """The database's schema is not the one this code knows."""


class ChannelKeyMismatch(KeeperError):
    """The database's channels were encrypted with a key that is not among those given."""


@dataclass(frozen=True, slots=True)
class ClockNumbers:
    """Business time = anchor_business + speed x (machine time - anchor_machine), in Unix seconds."""

    anchor_machine: float
    anchor_business: float
    speed: float


def check_schema(connection: Connection) -> bool:
    """Whether the database is migrated to what this code knows; False when it is empty or older.

    Raises:
        SchemaMismatch: it is newer.
    """
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
        return False
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    if revision is not None and revision > SCHEMA_REVISION:
        raise SchemaMismatch(
            f"the database is at schema {revision}, this Keeper knows only up to {SCHEMA_REVISION}: "
            "run the newer Keeper, or restore a backup made before its migration"
        )
    return bool(revision == SCHEMA_REVISION)


_NOW = text("SELECT keeper_now()")


def select_now(connection: Connection) -> datetime:
    """Business time."""
    now: datetime = connection.execute(_NOW).scalar_one()
    return now


def select_clock_speed(connection: Connection) -> float:
    """Business seconds in a second of the machine."""
    speed: float = connection.execute(text("SELECT clock_speed FROM installation")).scalar_one()
    return speed


def select_source(connection: Connection) -> str | None:
    """`keepa`, `simulator`, or None before the first use."""
    source: str | None = connection.execute(text("SELECT keepa_source FROM installation")).scalar_one()
    return source


def claim_source(connection: Connection, source: str) -> None:
    """Say which Keepa the data comes from; the first word counts for good.

    Raises:
        SourceMismatch: the database holds data of the other one.
    """
    connection.execute(text("UPDATE installation SET keepa_source = :source WHERE keepa_source IS NULL"), {"source": source})
    known = select_source(connection)
    if known != source:
        asked = "a real Keepa key is set" if source == KEEPA else "no Keepa key is set, so the simulator would be used"
        raise SourceMismatch(
            f"this database holds data of {'the simulator' if known == SIMULATOR else 'the real Keepa'}, but {asked}; "
            "point KEEPER_DATABASE_URL at another database, or change KEEPER_KEEPA_API_KEY"
        )


def lock_clock(connection: Connection) -> ClockNumbers | None:
    """The simulator's clock as this database keeps it, locked; None while it has never been set."""
    row = connection.execute(text("SELECT clock_anchor_machine, clock_anchor_business, clock_speed FROM installation FOR UPDATE")).one()
    numbers = ClockNumbers(*row)
    return None if numbers == ClockNumbers(0, 0, 1) else numbers


def update_clock(connection: Connection, numbers: ClockNumbers) -> None:
    """Set the clock; the database refuses it unless it is a simulator's."""
    connection.execute(
        text("UPDATE installation SET clock_anchor_machine = :machine, clock_anchor_business = :business, clock_speed = :speed"),
        {"machine": numbers.anchor_machine, "business": numbers.anchor_business, "speed": numbers.speed},
    )


def check_channel_key(connection: Connection, fingerprints: list[str]) -> None:
    """The database keeps the fingerprint of the key in use; the first key given is noted once the old one is among those given.

    Raises:
        ChannelKeyMismatch: channels were encrypted with another key.
    """
    known: str | None = connection.execute(text("SELECT channel_key_fingerprint FROM installation")).scalar_one()
    if known == fingerprints[0]:
        return
    if known is not None and known not in fingerprints:
        raise ChannelKeyMismatch(
            f"the channels of this database are encrypted with key {known}, which is not among the keys given ({', '.join(fingerprints)}); "
            "set KEEPER_CHANNELS_KEYS to the right key, or to NEW,OLD to rotate"
        )
    if known is None:
        connection.execute(
            text("UPDATE installation SET channel_key_fingerprint = :first WHERE channel_key_fingerprint IS NULL"),
            {"first": fingerprints[0]},
        )
        check_channel_key(connection, fingerprints)


def set_channel_key(connection: Connection, fingerprint: str) -> None:
    """All channels are encrypted with this key now."""
    connection.execute(text("UPDATE installation SET channel_key_fingerprint = :fingerprint"), {"fingerprint": fingerprint})
