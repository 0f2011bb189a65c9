"""What the routes work with: opened at the first request that needs it, so that the API starts before its database does."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Connection

from api.budget import RequestBudget
from api.known_keys import KnownKeys
from keeper.domain.errors import KeeperError, TransientError
from keeper.postgres import installation
from keeper.resources import Resources, make_resources
from keeper.settings import Settings

# Who asks meanwhile is told the same, so that a database that is away costs one attempt, not one of each thread.
_KNOWN_SECONDS = 1.0


class ChecksBusy(TransientError):
    """As many checks as there are places for are under way."""


class Live:
    """Settings, and what was made of them. Safe to share between threads.

    Attributes:
        requests: how many requests each key may make.
        keys: those that were used a moment ago.
        checks: a place in it is needed to ask Keepa, so that slow checks leave threads for everybody else.
    """

    def __init__(self, settings: Settings) -> None:
        # A thread holds one connection, and one more while an answer is being kept for a repeated request.
        postgres = settings.postgres.model_copy(
            update={"statement_timeout_seconds": settings.api.statement_timeout_seconds, "pool_size": settings.api.threads + 2}
        )
        self.settings = settings.model_copy(update={"postgres": postgres})
        self.requests = RequestBudget(settings.api.requests_per_minute)
        self.keys = KnownKeys()
        self.checks = threading.BoundedSemaphore(max(1, settings.api.threads // 4))
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
            return self._resources

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction."""
        with self.resources.engine.begin() as connection:
            yield connection

    def now(self) -> datetime:
        """Business time."""
        with self.begin() as connection:
            return installation.select_now(connection)

    def close(self) -> None:
        """End every connection."""
        with self._opening:
            if self._resources is not None:
                self._resources.close()
                self._resources = None


async def _live(request: Request) -> Live:
    live: Live = request.app.state.live
    return live


House = Annotated[Live, Depends(_live)]
