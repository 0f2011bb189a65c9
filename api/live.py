"""What the routes work with: opened at the first request that needs it, so that the API starts before its database does."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Connection

from api.budget import RequestBudget
from api.kept_answers import KeptAnswers
from api.known_keys import KnownKeys
from keeper.domain.errors import KeeperError, TransientError
from keeper.opportunities import OwnProfits
from keeper.postgres import installation
from keeper.postgres.engine import is_outage
from keeper.relay import relay_all
from keeper.resources import DatabaseUnreachable, Resources, make_resources
from keeper.settings import Settings

# Who asks meanwhile is told the same, so that a database that is away costs one attempt, not one of each thread.
_KNOWN_SECONDS = 1.0
# Of one key in the audit log: whoever is told "no" 600 times a minute does not fill it.
_REFUSALS_NOTED_PER_MINUTE = 10
_RELAY_SECONDS = 20.0
# SQLSTATE: connection exceptions, insufficient resources, the server going down or coming up.

logger = logging.getLogger(__name__)


class PlacesTaken(TransientError):
    """As many requests as there are places for wait for another system."""


class CannotOpen(TransientError):
    """What Keeper works with cannot be opened, for a reason nobody foresaw; the log has it."""


class Live:
    """Settings, and what was made of them. Safe to share between threads.

    Attributes:
        requests: how many requests each key may make; `tries` how many an address that shows none, `refusals` how many are noted of a key
            that may not do what it asks for.
        keys: those that were used a moment ago.
        answers: those of the last minute; `own_profits` what was reckoned for users' own sellers.
        checks: a place in it is needed to ask Keepa.
        waits: a place in it is needed to wait for any other system, so that slow ones leave threads for everybody else.
    """

    def __init__(self, settings: Settings) -> None:
        # A thread holds one connection, and one more while an answer is being kept for a repeated request.
        postgres = settings.postgres.model_copy(
            update={"statement_timeout_seconds": settings.api.statement_timeout_seconds, "pool_size": settings.api.threads + 2}
        )
        self.settings = settings.model_copy(update={"postgres": postgres})
        self.requests = RequestBudget(settings.api.requests_per_minute)
        self.tries = RequestBudget(settings.api.failed_tries_per_minute)
        self.refusals = RequestBudget(_REFUSALS_NOTED_PER_MINUTE)
        self.keys = KnownKeys()
        self.answers = KeptAnswers()
        self.own_profits = OwnProfits()
        self.checks = threading.BoundedSemaphore(max(1, settings.api.threads // 4))
        self.waits = threading.BoundedSemaphore(max(1, settings.api.threads // 4))
        self._relay = ThreadPoolExecutor(1, thread_name_prefix="api-relay")
        self._relays_waiting = threading.BoundedSemaphore(2)
        self._away: tuple[float, DatabaseUnreachable] | None = None
        self._opening = threading.Lock()
        self._resources: Resources | None = None
        self._failure: tuple[float, KeeperError] | None = None

    @property
    def resources(self) -> Resources:
        """Everything.

        Raises:
            KeeperError: it cannot be opened now; says why.
        """
        if self._resources is not None:
            return self._resources
        with self._opening:
            if self._resources is None:
                if self._failure is not None and time.monotonic() - self._failure[0] < _KNOWN_SECONDS:
                    raise self._failure[1]
                try:
                    self._resources = make_resources(self.settings, keepa=False, application_name="keeper api")
                except KeeperError as error:
                    self._failure = (time.monotonic(), error)
                    raise
                except Exception as error:
                    logger.exception("what the API works with cannot be opened")
                    self._failure = (time.monotonic(), CannotOpen(f"{type(error).__name__} while it was opened; the log tells more"))
                    raise self._failure[1] from error
            return self._resources

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction.

        Raises:
            DatabaseUnreachable: it was away a moment ago; every thread would wait for it in vain.
        """
        with self.noting_outage(), self.resources.engine.begin() as connection:
            yield connection

    @contextmanager
    def noting_outage(self) -> Iterator[None]:
        """Remember for a second that the database is away.

        Raises:
            DatabaseUnreachable: see `begin`.
        """
        if self._away is not None and time.monotonic() - self._away[0] < _KNOWN_SECONDS:
            raise self._away[1]
        try:
            yield
        except Exception as error:
            if is_outage(error):
                self._away = (time.monotonic(), DatabaseUnreachable("PostgreSQL does not answer"))
            raise

    @contextmanager
    def place(self, places: threading.BoundedSemaphore) -> Iterator[None]:
        """One of the places among those who wait for another system.

        Raises:
            PlacesTaken: there is none.
        """
        if not places.acquire(blocking=False):
            raise PlacesTaken("as many requests as there are places for are waiting for another system just now")
        try:
            yield
        finally:
            places.release()

    def relay_soon(self) -> None:
        """Deliver what was just recorded, in a thread of its own; one run at a time, and one that follows it, are enough."""
        if self._relays_waiting.acquire(blocking=False):
            self._relay.submit(self._relay_now)

    def _relay_now(self) -> None:
        try:
            resources = self.resources
            relay_all(
                resources.engine,
                resources.sinks(),
                settings=resources.relay_settings,
                longest_seconds=_RELAY_SECONDS,
                circuits=resources.circuits,
            )
        except Exception as error:  # noqa: BLE001  what was recorded waits in the outbox for the relay's service
            logger.warning("events wait in the outbox: %s", type(error).__name__)
        finally:
            self._relays_waiting.release()

    def now(self) -> datetime:
        """Business time."""
        with self.begin() as connection:
            return installation.select_now(connection)

    def close(self) -> None:
        """End every connection."""
        self._relay.shutdown(cancel_futures=True)
        with self._opening:
            if self._resources is not None:
                self._resources.close()
                self._resources = None


async def _live(request: Request) -> Live:
    live: Live = request.app.state.live
    return live


House = Annotated[Live, Depends(_live)]
