"""The verbs around people: a user and their API keys, and the channels alerts go to."""

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from sqlalchemy import Connection

from keeper.domain.access import Role, Scope
from keeper.domain.errors import KeeperError
from keeper.domain.report import read_timezone
from keeper.notify.channels import ChannelCipher, check_channel_url, mask_url, scheme_of
from keeper.postgres import installation, users

_KEY = re.compile(r"keeper_[A-Za-z0-9_-]{43}")


class KeyRefused(KeeperError):
    """Not an API key, or one that is not valid any more. Its text says neither which nor whose."""


class ScopeMissing(KeeperError):
    """The key may not do that."""

    def __init__(self, needed: Scope, given: Scope) -> None:
        super().__init__(f"this needs a key of scope {needed}, yours has {given}; make another one with `POST /api/v1/api-keys`")
        self.needed = needed


class ScopeTooWide(KeeperError):
    """A key cannot make one that may do more than itself."""


class OwnRole(KeeperError):
    """An admin who would be none any more by their own request: there might be no other."""


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user just made.

    Attributes:
        shown_key: the API key, which is kept nowhere: only its hash is stored.
    """

    user_id: int
    shown_key: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """An API key just made.

    Attributes:
        shown_key: kept nowhere: only its hash is stored.
    """

    key_id: int
    shown_key: str


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Whose key it is.

    Attributes:
        key_id: None where another proof than an API key was shown.
        scope: what it may do today: not more than the role of its user.
    """

    key_id: int | None
    user_id: int
    user: str
    role: Role
    scope: Scope


def add_user(connection: Connection, name: str, *, is_admin: bool = False) -> NewUser:
    """Make a user and a first API key of 256 random bits.

    Raises:
        UserExists, UserNameInvalid: see there.
    """
    role = Role.ADMIN if is_admin else Role.USER
    user_id = users.insert_user(connection, name, role=role.value)
    key = add_api_key(connection, user_id, label="first", scope=role.widest)
    return NewUser(user_id, key.shown_key)


@dataclass(frozen=True, slots=True)
class ReaderChange:
    """What of a user's reports is to be another; None leaves a thing as it is.

    Attributes:
        timezone: by its name in the IANA database.
        report_hour: 0 to 23, of the user's own day.
        is_without_reports: no reports any more, whatever hour is said.
        wants_empty_reports: reports on days without deals, too.
    """

    timezone: str | None = None
    report_hour: int | None = None
    is_without_reports: bool = False
    wants_empty_reports: bool | None = None


def change_reader(connection: Connection, user_id: int, change: ReaderChange) -> users.UserRow:
    """Change when and where a user reads reports. Returns the user as they are now.

    Raises:
        TimezoneUnknown, UserUnknown: see there.
        ValueError: an hour that no day has.
    """
    known = users.select_user(connection, user_id)
    if change.timezone is not None:
        read_timezone(change.timezone)
    if change.report_hour is not None and not 0 <= change.report_hour <= 23:
        raise ValueError(f"{change.report_hour} is no hour of a day")
    hour = known.report_hour if change.report_hour is None else change.report_hour
    users.update_reader(
        connection,
        user_id,
        timezone=known.timezone if change.timezone is None else change.timezone,
        report_hour=None if change.is_without_reports else hour,
        wants_empty_reports=known.wants_empty_reports if change.wants_empty_reports is None else change.wants_empty_reports,
    )
    return users.select_user(connection, user_id)


def add_api_key(connection: Connection, user_id: int, *, label: str, scope: Scope, lasts: timedelta | None = None) -> NewKey:
    """Make another key of 256 random bits.

    Args:
        lasts: None for good, or until it is revoked.

    Raises:
        UserUnknown: see there.
        ScopeTooWide: the user's role does not allow it.
    """
    role = Role(users.select_user(connection, user_id).role)
    if scope.within(role) is not scope:
        raise ScopeTooWide(f"a user of role {role} cannot have a key of scope {scope}; `keeper user role NAME admin` makes an admin")
    key = f"keeper_{secrets.token_urlsafe(32)}"
    lasts_seconds = lasts.total_seconds() if lasts is not None else None
    key_id = users.insert_api_key(connection, user_id, label=label, key_hash=hash_key(key), scope=scope.value, lasts_seconds=lasts_seconds)
    return NewKey(key_id, key)


def change_role(connection: Connection, user_id: int, role: Role, *, by_user_id: int | None = None) -> bool:
    """Make somebody an admin, or an admin a user, from their next request on; their keys of scope `admin` then write only.

    Args:
        by_user_id: None on the command line.

    Returns:
        Whether they had another role before.

    Raises:
        OwnRole, UserMissing: see there.
    """
    if user_id == by_user_id and role is not Role.ADMIN:
        raise OwnRole("you would not be an admin any more")
    return users.update_role(connection, user_id, role.value)


def authenticate(connection: Connection, key: str) -> KeyHolder:
    """Who holds this key. Notes that it was used, at most once a minute.

    It is found by its hash, of which nobody can choose a part: how long that takes says nothing of the key.

    Raises:
        KeyRefused: nobody.
    """
    found = users.find_api_key(connection, hash_key(key)) if _KEY.fullmatch(key) else None
    if found is None:
        raise KeyRefused("the API key is unknown, revoked or expired; `keeper user add NAME` or `POST /api/v1/api-keys` makes one")
    if found.is_use_old:
        users.mark_key_used(connection, found.key_id)
    role = Role(found.role)
    return KeyHolder(found.key_id, found.user_id, found.user, role, Scope(found.scope).within(role))


def mask_keys(text: str) -> str:
    """A text without the API keys in it."""
    return _KEY.sub("keeper_********", text)


def hash_key(key: str) -> bytes:
    """What is stored of an API key. A fast hash is enough for 256 random bits."""
    return sha256(key.encode()).digest()


def add_channel(connection: Connection, cipher: ChannelCipher, user_id: int, *, name: str, url: str, schemes: Collection[str]) -> int:
    """Check, encrypt and store a channel's URL. Returns its id.

    Raises:
        ChannelUrlRefused, ChannelExists: see there.
    """
    accepted = check_channel_url(url, schemes)
    return users.insert_channel(
        connection,
        user_id,
        name=name,
        scheme=scheme_of(accepted) or "",
        shown=mask_url(accepted),
        url_encrypted=cipher.encrypt(accepted),
        key_fingerprint=cipher.fingerprint,
    )


def rotate_channels(connection: Connection, cipher: ChannelCipher) -> int:
    """Encrypt every channel with the first key, so that the others can be taken off the list. Returns how many.

    Raises:
        ChannelKeyWrong: a channel that none of the keys opens; nothing is changed.
    """
    channels = users.select_channels(connection, limit=1_000_000)
    for channel in channels:
        users.update_channel_url(
            connection, channel.channel_id, url_encrypted=cipher.rotate(channel.url_encrypted), key_fingerprint=cipher.fingerprint
        )
    installation.set_channel_key(connection, cipher.fingerprint)
    return len(channels)
