"""The verb `audit`: note who did what that concerns others. Targets are ids and names; a secret or a body is never one."""

import getpass
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from keeper.postgres import audit

_LONGEST_TARGET = 200

logger = logging.getLogger(__name__)


class Action(StrEnum):
    """What is noted."""

    USER_ADD = "user.add"
    USER_SET = "user.set"
    USER_ROLE = "user.role"
    KEY_ADD = "key.add"
    KEY_REVOKE = "key.revoke"
    CHANNEL_ADD = "channel.add"
    CHANNEL_REMOVE = "channel.remove"
    CHANNEL_TEST = "channel.test"
    CHANNEL_ROTATE = "channel.rotate"
    SELLER_SET = "seller.set"
    DEAL_POST = "deal.post"
    ALERT_RETRY = "alert.retry"
    SINK_ON = "sink.on"
    SINK_OFF = "sink.off"
    SINK_RETRY = "sink.retry"
    DEAD_LETTER_RETRY = "dead-letter.retry"
    REINDEX = "reindex"
    RUN_START = "run.start"
    CLOCK_MOVE = "clock.move"
    MIGRATE = "migrate"
    BACKUP = "backup"
    RESTORE = "restore"
    ADMIN_REQUEST = "admin.request"


class Outcome(StrEnum):
    """How it went: REFUSED was not begun, because who asked may not."""

    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"


class Via(StrEnum):
    """The way in."""

    API = "api"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it.

    Attributes:
        name: the user's; of a command the account of the operating system.
        user_id, key_id, request_id: of a request to the API.
    """

    via: Via
    name: str
    user_id: int | None = None
    key_id: int | None = None
    request_id: str = ""


def operator() -> Actor:
    """Who runs this process: a command asks for no key, because whoever runs it has the database's password."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number that has no name.
        name = str(os.getuid())
    return Actor(Via.COMMAND, name)


def note(connection: Connection, actor: Actor, action: Action, target: str, outcome: Outcome = Outcome.DONE) -> None:
    """Note it, in the transaction of what is done where that has one."""
    audit.insert_entry(
        connection,
        via=actor.via.value,
        actor=actor.name,
        user_id=actor.user_id,
        key_id=actor.key_id,
        action=action.value,
        target=target[:_LONGEST_TARGET],
        outcome=outcome.value,
        request_id=actor.request_id,
    )


@contextmanager
def noting(engine: Engine, actor: Actor, action: Action, target: str) -> Iterator[None]:
    """Note at its end how something went that has no transaction of its own."""
    try:
        yield
    except Exception:
        try:
            with engine.begin() as connection:
                note(connection, actor, action, target, Outcome.FAILED)
        except SQLAlchemyError:
            # Why it failed is what whoever asked must hear, and it may be the same.
            logger.warning("%s of %s by %s failed, and the database does not take that down", action, target[:_LONGEST_TARGET], actor.name)
        raise
    with engine.begin() as connection:
        note(connection, actor, action, target)
