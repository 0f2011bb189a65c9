"""Whose work this is: the facts that every log line of it bears, and the id by which an API's request is found in what it set off."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
# How a run on demand is told whose request it is.
_TAG: Final = "request:"


@dataclass(slots=True)
class Trace:
    """What is known; None for what is not. Facts may be added as they become known.

    Attributes:
        request_id: as the API has answered it.
        run_id: of Prefect's flow run.
        is_kept: events that arise are to bear the request's id; off for requests that only read.
    """

    request_id: str | None = None
    run_id: str | None = None
    user_id: int | None = None
    asin: str | None = None
    is_kept: bool = True


_current: ContextVar[Trace | None] = ContextVar("keeper_trace", default=None)
_NOBODYS: Final = Trace()
_outer: list[Callable[[], Trace | None]] = []


def current() -> Trace:
    """That of this request or run; one without any facts where there is none."""
    trace = _current.get()
    if trace is None and _outer:
        trace = _outer[0]()
    return trace or _NOBODYS


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    """What is done within is this trace's."""
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)


def note(*, user_id: int | None = None, asin: str | None = None) -> None:
    """One more fact of the request under way, also for whoever began it; nothing where none is."""
    trace = _current.get()
    if trace is not None:
        trace.user_id = trace.user_id if user_id is None else user_id
        trace.asin = trace.asin if asin is None else asin


def look_to(outer: Callable[[], Trace | None]) -> None:
    """Ask this for the trace wherever none was begun: how Prefect's runs are known without Prefect here."""
    _outer[:] = [outer]


def is_request_id(text: str) -> bool:
    """Whether somebody else's id may be taken over into logs, tags and headers."""
    return _REQUEST_ID.fullmatch(text) is not None


def tag_of(request_id: str) -> str:
    """As a run bears it."""
    return _TAG + request_id


def read_tag(tag: str) -> str | None:
    """The request's id; None where the tag is another, or no id of ours."""
    request_id = tag.removeprefix(_TAG)
    return request_id if tag.startswith(_TAG) and is_request_id(request_id) else None
