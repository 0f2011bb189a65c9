"""Keeps what Apprise and its HTTP client log to itself: their lines hold tokens and passwords.

Apprise says why a message failed only in its log, so a send collects the lines of its own thread;
everybody else's handlers see none of them, at any level.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_APPRISE = logging.getLogger("apprise")
# These name the whole path of a request, and with it the token of a bot or webhook.
_HTTP = tuple(logging.getLogger(name) for name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry", "requests"))


@dataclass(slots=True)
class CapturedLog:
    """What one call into Apprise said. Unmasked: never to be shown as it is.

    Attributes:
        lines: all messages, debug included, oldest first.
        warnings: those of level warning or above.
        errors: exceptions that were being handled when a line was written, oldest first.
    """

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    outer_error: BaseException | None = None

    def __repr__(self) -> str:
        return f"CapturedLog({len(self.lines)} lines)"


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.local = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        captured: CapturedLog | None = getattr(self.local, "captured", None)
        if captured is None:
            return
        text = record.getMessage()
        captured.lines.append(text)
        if record.levelno >= logging.WARNING:
            captured.warnings.append(text)
        # Apprise logs inside its except blocks without exc_info; the exception itself tells more than its words.
        error = sys.exc_info()[1]
        if error is not None and error is not captured.outer_error and error not in captured.errors:
            captured.errors.append(error)


_COLLECTOR = _Collector()


def _is_foreign(_record: logging.LogRecord) -> bool:
    return getattr(_COLLECTOR.local, "captured", None) is None


@contextmanager
def captured_log() -> Iterator[CapturedLog]:
    """Collects what Apprise logs in this thread and lets nothing of it out, nor of the HTTP requests it makes."""
    _contain()
    captured = CapturedLog(outer_error=sys.exc_info()[1])
    before = getattr(_COLLECTOR.local, "captured", None)
    _COLLECTOR.local.captured = captured
    try:
        yield captured
    finally:
        _COLLECTOR.local.captured = before


def _contain() -> None:
    """Idempotent, and done before each call because a logging configuration loaded later may undo it."""
    _APPRISE.disabled = False
    _APPRISE.propagate = False
    _APPRISE.setLevel(logging.DEBUG)
    for foreign in [handler for handler in _APPRISE.handlers if handler is not _COLLECTOR]:
        _APPRISE.removeHandler(foreign)
    _APPRISE.addHandler(_COLLECTOR)
    for logger in _HTTP:
        logger.addFilter(_is_foreign)
