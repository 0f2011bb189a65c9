"""What commands share: their options, how they show things, how they end."""

import json
import logging
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.wording import WordsUnclear

if TYPE_CHECKING:
    from keeper.resources import Resources
    from keeper.settings import Settings

T = TypeVar("T")

PEOPLE, MARKET, HOUSE, STREAMS = "People", "Prices", "Running it", "Events and search"
TITLE_LENGTH = 44
_LONGEST_WAIT_SECONDS = 30.0

Json = Annotated[bool, typer.Option("--json", help="One JSON document for a program; errors too, on standard error")]
Market = Annotated[Marketplace, typer.Option("--marketplace", "-m", case_sensitive=False, help="The Amazon store")]

logger = logging.getLogger(__name__)


class CommandFailed(KeeperError):
    """A command did what it could, and that was not all of it."""


class NothingKnown(KeeperError):
    """What was asked for is not there."""


def reading(read: Callable[[str], T]) -> Callable[[str], T]:
    """The domain's reading of a text, for the command line."""

    def read_argument(text: str) -> T:
        try:
            return read(text)
        except WordsUnclear as error:
            raise typer.BadParameter(str(error)) from None

    return read_argument


def make_group(text: str) -> typer.Typer:
    """A command with subcommands."""
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]})


@contextmanager
def open_resources(*, keepa: bool = False) -> "Iterator[Resources]":
    """Everything a command needs."""
    from keeper.resources import open_resources as open_all

    with open_all(keepa=keepa, application_name="keeper command") as resources:
        yield resources


@contextmanager
def await_resources(stop: threading.Event) -> "Iterator[Resources]":
    """The same for a service: a database that does not answer yet is waited for, with growing pauses.

    Raises:
        typer.Exit: `stop` was set meanwhile.
    """
    from keeper.resources import DatabaseUnreachable
    from keeper.resources import open_resources as open_all

    losses = 0
    with ExitStack() as opened:
        resources = None
        while resources is None:
            try:
                resources = opened.enter_context(open_all(keepa=False, application_name="keeper service"))
            except DatabaseUnreachable as error:
                losses += 1
                pause_seconds = min(_LONGEST_WAIT_SECONDS, 0.5 * 2.0 ** min(losses, 10)) * random.uniform(0.5, 1.0)
                logger.warning("%s; trying again in %.0f s", error, pause_seconds)
                if stop.wait(pause_seconds):
                    raise typer.Exit from None
        yield resources


def read_settings() -> "Settings":
    """The effective settings."""
    from keeper.settings import read_settings as read_all

    return read_all()


def log_to_stderr(settings: "Settings") -> None:
    """As services do."""
    from keeper.accounts import mask_keys
    from keeper.logs import Redaction, set_up
    from keeper.settings import list_secrets

    set_up(level=settings.log_level, form=settings.log_format, redact=Redaction(list_secrets(settings), mask_keys))


def end_by_signal() -> threading.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the program the hard way."""
    ended = threading.Event()

    def end(number: int, _frame: object) -> None:
        ended.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    return ended


def show_json(value: object) -> None:
    """One document on one line."""
    print(json.dumps(value, default=_jsonable, ensure_ascii=False))


def show_money(amount_minor: int | None, currency: str) -> str:
    """A dash for no price."""
    return "–" if amount_minor is None else str(Money(amount_minor, currency))


def _jsonable(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)
