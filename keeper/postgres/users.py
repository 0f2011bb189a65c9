"""Users, their API keys and their channels."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from keeper.domain.errors import KeeperError


class UserExists(KeeperError):
    """The name is taken."""


class UserUnknown(KeeperError):
    """Nobody has this name."""


class UserMissing(KeeperError):
    """No user has this id."""


class UserNameInvalid(KeeperError):
    """Not a name."""


class KeyUnknown(KeeperError):
    """The user has no API key of that id."""


class ChannelExists(KeeperError):
    """The user has a channel of that name."""


class ChannelUnknown(KeeperError):
    """The user has no channel of that name."""


def insert_user(connection: Connection, name: str, *, role: str = "user") -> int:
    """Add a user.

    Raises:
        UserExists, UserNameInvalid: see there.
    """
    try:
        user_id: int | None = connection.execute(
            text("INSERT INTO users (name, role) VALUES (:name, :role) ON CONFLICT (name) DO NOTHING RETURNING id"),
            {"name": name, "role": role},
        ).scalar_one_or_none()
    except IntegrityError as error:
        raise UserNameInvalid(f"{name!r} is not a name: up to 100 letters, digits and . _ @ + -, the first a letter or digit") from error
    if user_id is None:
        raise UserExists(f"there is a user {name} already")
    return user_id


def find_user(connection: Connection, name: str | None) -> int:
    """A user's id; without a name the only user there is.

    Raises:
        UserUnknown: no such user, or none, or several to choose from.
    """
    if name is not None:
        user_id: int | None = connection.execute(text("SELECT id FROM users WHERE name = :name"), {"name": name}).scalar_one_or_none()
        if user_id is None:
            raise UserUnknown(f"there is no user {name}; `keeper user add {name}` makes one")
        return user_id
    rows = connection.execute(text("SELECT id, name FROM users ORDER BY id LIMIT 11")).all()
    if not rows:
        raise UserUnknown("there is no user yet; `keeper user add NAME` makes one")
    if len(rows) > 1:
        raise UserUnknown(f"say which user with --user: {', '.join(row.name for row in rows[:10])}{' ...' if len(rows) > 10 else ''}")
    return int(rows[0].id)


_USERS = """
    SELECT u.id, u.name, u.role, u.created_at,
        (SELECT count(*) FROM watched_products w WHERE w.user_id = u.id AND w.is_active AND w.removed_at IS NULL),
        (SELECT count(*) FROM channels c WHERE c.user_id = u.id),
        (SELECT count(*) FROM api_keys k WHERE k.user_id = u.id AND k.revoked_at IS NULL
            AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())),
        u.timezone, u.report_hour, u.wants_empty_reports
    FROM users u {condition}
"""


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user with what belongs to them.

    Attributes:
        report_hour: of their own day; None for no report.
        wants_empty_reports: a report on days without deals, too.
    """

    user_id: int
    name: str
    role: str
    created_at: datetime
    watches: int
    channels: int
    api_keys: int
    timezone: str
    report_hour: int | None
    wants_empty_reports: bool


def select_users(connection: Connection) -> list[UserRow]:
    """All users by name, with their active watches, channels and usable API keys."""
    return [UserRow(*row) for row in connection.execute(text(_USERS.format(condition="ORDER BY u.name")))]


def select_users_page(connection: Connection, *, after_id: int = 0, limit: int = 1000) -> list[UserRow]:
    """The same by id, a part of them."""
    condition = "WHERE u.id > :after_id ORDER BY u.id LIMIT :limit"
    return [UserRow(*row) for row in connection.execute(text(_USERS.format(condition=condition)), {"after_id": after_id, "limit": limit})]


def find_name(connection: Connection, user_id: int) -> str:
    """A user's name.

    Raises:
        UserMissing: see there.
    """
    name: str | None = connection.execute(text("SELECT name FROM users WHERE id = :id"), {"id": user_id}).scalar_one_or_none()
    if name is None:
        raise UserMissing(f"there is no user {user_id}")
    return name


def update_role(connection: Connection, user_id: int, role: str) -> bool:
    """What a user may do from their next request on. Returns whether they had another role before.

    Raises:
        UserMissing: see there.
    """
    before: str | None = connection.execute(
        text("SELECT role FROM users WHERE id = :id FOR NO KEY UPDATE"), {"id": user_id}
    ).scalar_one_or_none()
    if before is None:
        raise UserMissing(f"there is no user {user_id}")
    connection.execute(text("UPDATE users SET role = :role WHERE id = :id"), {"id": user_id, "role": role})
    return before != role


def select_user(connection: Connection, user_id: int) -> UserRow:
    """One user.

    Raises:
        UserUnknown: see there.
    """
    row = connection.execute(text(_USERS.format(condition="WHERE u.id = :user_id")), {"user_id": user_id}).one_or_none()
    if row is None:
        raise UserUnknown("this user is gone")
    return UserRow(*row)


def update_reader(connection: Connection, user_id: int, *, timezone: str, report_hour: int | None, wants_empty_reports: bool) -> None:
    """When and where a user reads reports.

    Raises:
        UserUnknown: see there.
    """
    updated = connection.execute(
        text(
            "UPDATE users SET timezone = :timezone, report_hour = :report_hour, wants_empty_reports = :wants_empty_reports "
            "WHERE id = :user_id"
        ),
        {"timezone": timezone, "report_hour": report_hour, "wants_empty_reports": wants_empty_reports, "user_id": user_id},
    )
    if updated.rowcount == 0:
        raise UserUnknown("this user is gone")


def insert_api_key(
    connection: Connection, user_id: int, *, label: str, key_hash: bytes, scope: str, lasts_seconds: float | None = None
) -> int:
    """Store a key's hash. Returns its id."""
    key_id: int = connection.execute(
        text(
            """
            INSERT INTO api_keys (user_id, label, key_hash, scope, expires_at)
            VALUES (:user_id, :label, :key_hash, :scope, clock_timestamp() + make_interval(secs => :lasts_seconds)) RETURNING id
            """
        ),
        {"user_id": user_id, "label": label, "key_hash": key_hash, "scope": scope, "lasts_seconds": lasts_seconds},
    ).scalar_one()
    return key_id


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A usable key and its user.

    Attributes:
        is_use_old: its last use was noted more than a minute ago.
    """

    key_id: int
    scope: str
    user_id: int
    user: str
    role: str
    is_use_old: bool


def find_api_key(connection: Connection, key_hash: bytes) -> FoundKey | None:
    """The key with this hash; None where there is none, or it is revoked or expired."""
    row = connection.execute(
        text(
            """
            SELECT k.id, k.scope, u.id, u.name, u.role, coalesce(k.last_used_at < clock_timestamp() - interval '1 minute', true)
            FROM api_keys k JOIN users u ON u.id = k.user_id
            WHERE k.key_hash = :key_hash AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
            """
        ),
        {"key_hash": key_hash},
    ).one_or_none()
    return None if row is None else FoundKey(*row)


def mark_key_used(connection: Connection, key_id: int) -> None:
    """It was used now."""
    connection.execute(text("UPDATE api_keys SET last_used_at = clock_timestamp() WHERE id = :id"), {"id": key_id})


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key as it is listed; times on the machine's clock."""

    key_id: int
    label: str
    scope: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


def select_api_keys(connection: Connection, user_id: int, *, after_id: int = 0, limit: int = 1000) -> list[KeyRow]:
    """A user's keys by id, revoked ones included."""
    rows = connection.execute(
        text(
            """
            SELECT id, label, scope, created_at, expires_at, last_used_at, revoked_at FROM api_keys
            WHERE user_id = :user_id AND id > :after_id ORDER BY id LIMIT :limit
            """
        ),
        {"user_id": user_id, "after_id": after_id, "limit": limit},
    )
    return [KeyRow(*row) for row in rows]


def revoke_api_keys(connection: Connection, user_id: int) -> list[int]:
    """None of a user's keys is valid any more. Returns the ids of those that were."""
    revoked = connection.execute(
        text("UPDATE api_keys SET revoked_at = clock_timestamp() WHERE user_id = :user_id AND revoked_at IS NULL RETURNING id"),
        {"user_id": user_id},
    )
    return sorted(revoked.scalars())


def revoke_api_key(connection: Connection, user_id: int, key_id: int) -> None:
    """It is valid no more, from the next request on. Again changes nothing.

    Raises:
        KeyUnknown: not a key of this user.
    """
    revoked = connection.execute(
        text("UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = :id AND user_id = :user_id"),
        {"id": key_id, "user_id": user_id},
    )
    if revoked.rowcount == 0:
        raise KeyUnknown(f"there is no such API key {key_id}")


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel, its URL still encrypted."""

    channel_id: int
    user: str
    name: str
    scheme: str
    shown: str
    url_encrypted: str
    created_at: datetime


def insert_channel(
    connection: Connection, user_id: int, *, name: str, scheme: str, shown: str, url_encrypted: str, key_fingerprint: str
) -> int:
    """Add a channel.

    Raises:
        ChannelExists: the name is taken.
    """
    channel_id: int | None = connection.execute(
        text(
            """
            INSERT INTO channels (user_id, name, scheme, shown, url_encrypted, key_fingerprint)
            VALUES (:user_id, :name, :scheme, :shown, :url_encrypted, :key_fingerprint) ON CONFLICT (user_id, name) DO NOTHING RETURNING id
            """
        ),
        {
            "user_id": user_id,
            "name": name,
            "scheme": scheme,
            "shown": shown,
            "url_encrypted": url_encrypted,
            "key_fingerprint": key_fingerprint,
        },
    ).scalar_one_or_none()
    if channel_id is None:
        raise ChannelExists(f"you have a channel {name} already; remove it first or choose another name")
    return channel_id


def select_channels(connection: Connection, *, user_id: int | None = None, after_id: int = 0, limit: int = 1000) -> list[ChannelRow]:
    """Channels of one user or of all, by id."""
    rows = connection.execute(
        text(
            """
            SELECT c.id, u.name, c.name, c.scheme, c.shown, c.url_encrypted, c.created_at FROM channels c JOIN users u ON u.id = c.user_id
            WHERE c.id > :after_id AND (CAST(:user_id AS bigint) IS NULL OR c.user_id = :user_id) ORDER BY c.id LIMIT :limit
            """
        ),
        {"user_id": user_id, "after_id": after_id, "limit": limit},
    )
    return [ChannelRow(*row) for row in rows]


def find_channel(connection: Connection, user_id: int, name: str) -> ChannelRow:
    """A user's channel by name.

    Raises:
        ChannelUnknown: see there.
    """
    for channel in select_channels(connection, user_id=user_id):
        if channel.name == name:
            return channel
    raise ChannelUnknown(f"you have no channel {name}; `keeper channel list` shows them")


def select_channel(connection: Connection, user_id: int, channel_id: int) -> ChannelRow:
    """A user's channel by id.

    Raises:
        ChannelUnknown: see there.
    """
    for channel in select_channels(connection, user_id=user_id, after_id=channel_id - 1, limit=1):
        if channel.channel_id == channel_id:
            return channel
    raise ChannelUnknown(f"you have no channel {channel_id}")


def delete_channel(connection: Connection, channel_id: int) -> None:
    """Remove a channel with its deliveries."""
    connection.execute(text("DELETE FROM channels WHERE id = :id"), {"id": channel_id})


def update_channel_url(connection: Connection, channel_id: int, *, url_encrypted: str, key_fingerprint: str) -> None:
    """The same URL under another key."""
    connection.execute(
        text("UPDATE channels SET url_encrypted = :url_encrypted, key_fingerprint = :key_fingerprint WHERE id = :id"),
        {"id": channel_id, "url_encrypted": url_encrypted, "key_fingerprint": key_fingerprint},
    )
