"""Every system Keeper works with: up, down or off, and since when."""

import threading
import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from api.access import Reader
from api.problems import problems
from api.schemas import Answer
from keeper import status as systems
from keeper.settings import Settings
from keeper.status import Condition, SystemStatus

router = APIRouter(tags=["health"])

# A look asks every system; who asks within so long is told the same.
_KNOWN_SECONDS = 5.0


class System(Answer):
    """One system."""

    name: str = Field(examples=["Kafka"])
    condition: Condition
    text: str = Field(description="Where it is and in which version, or why it is not; without passwords")
    since: datetime = Field(description="Since when this process has seen it so, by the machine's clock")
    last_error: str | None = Field(description="Why it was last down, as far as this process has seen it; without passwords")
    last_error_at: datetime | None


class WaitingFor(Answer):
    """What waits for one system that receives events."""

    name: str = Field(examples=["kafka"])
    is_on: bool
    messages: int
    postponed: int = Field(description="Of these, those that wait for another try")
    oldest_seconds: float | None
    dead_letters: int


class Reading(Answer):
    """How far one consumer group is."""

    group: str
    topic: str
    lag: int | None
    problem: str


class Index(Answer):
    """What one search index holds, against the rows it is made of."""

    alias: str
    documents: int
    rows: int | None
    problem: str


class HouseStatus(Answer):
    """Everything."""

    source: str = Field(description="Which Keepa the prices come from: `keepa` or `simulator`")
    looked_at: datetime
    systems: list[System]
    waiting: list[WaitingFor]
    consumers: list[Reading]
    indices: list[Index]
    warnings: list[str]


class Lookout:
    """The last look, and since when each system is as it is. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._looking = threading.Lock()
        self._seen_at = 0.0
        self._seen: HouseStatus | None = None
        self._since: dict[str, tuple[Condition, datetime]] = {}
        self._errors: dict[str, tuple[str, datetime]] = {}

    def look(self) -> HouseStatus:
        """Look, unless that was done a moment ago. Who comes meanwhile is told what was seen before, where something was."""
        seen = self._seen
        if seen is not None and time.monotonic() - self._seen_at <= _KNOWN_SECONDS:
            return seen
        if not self._looking.acquire(blocking=seen is None):
            assert seen is not None  # noqa: S101  else it is waited for
            return seen
        try:
            if self._seen is None or self._seen is seen:
                self._seen = self._look()
                self._seen_at = time.monotonic()
            return self._seen
        finally:
            self._looking.release()

    def _look(self) -> HouseStatus:
        found = systems.look(self._settings)
        now = datetime.now(UTC)  # noqa: TID251  an outage lasts on the machine's clock
        for one in found.systems:
            known = self._since.get(one.name)
            if known is None or known[0] is not one.condition:
                self._since[one.name] = (one.condition, now)
            if one.condition is Condition.DOWN:
                self._errors[one.name] = (one.text, now)
        return HouseStatus(
            source="simulator" if self._settings.is_simulated else "keepa",
            looked_at=now,
            systems=[self._shown(one) for one in found.systems],
            waiting=[
                WaitingFor(
                    name=one.name,
                    is_on=one.is_on,
                    messages=one.messages,
                    postponed=one.postponed,
                    oldest_seconds=one.oldest_seconds,
                    dead_letters=one.dead_letters,
                )
                for one in found.sinks
            ],
            consumers=[Reading(group=one.group, topic=one.topic, lag=one.lag, problem=one.problem) for one in found.groups],
            indices=[Index(alias=one.alias, documents=one.documents, rows=one.rows, problem=one.problem) for one in found.indices],
            warnings=found.warnings,
        )

    def _shown(self, one: SystemStatus) -> System:
        error, error_at = self._errors.get(one.name, (None, None))
        return System(
            name=one.name,
            condition=one.condition,
            text=one.text,
            since=self._since[one.name][1],
            last_error=error,
            last_error_at=error_at,
        )


async def _lookout(request: Request) -> Lookout:
    lookout: Lookout = request.app.state.lookout
    return lookout


@router.get("/status", responses=problems())
def get_status(_: Reader, lookout: Annotated[Lookout, Depends(_lookout)]) -> HouseStatus:
    """How each system is, what waits for it, how far the consumers are, what the indices hold."""
    return lookout.look()
