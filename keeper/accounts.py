"""The verbs around people: a user with a first API key, and the channels alerts go to."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection

from keeper.notify.channels import ChannelCipher, check_channel_url, mask_url, scheme_of
from keeper.postgres import installation, users


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user just made.

    Attributes:
        shown_key: the API key, which is kept nowhere: only its hash is stored.
    """

    user_id: int
    shown_key: str


def add_user(connection: Connection, name: str) -> NewUser:
    """Make a user and a first API key of 256 random bits.

    Raises:
        UserExists, UserNameInvalid: see there.
    """
    user_id = users.insert_user(connection, name)
    key = f"keeper_{secrets.token_urlsafe(32)}"
    users.insert_api_key(connection, user_id, label="first", key_hash=hash_key(key), scope="write")
    return NewUser(user_id, key)


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
