"""The one place that sets up how services log: lines for people or JSON objects, with whose work it is and without secrets."""

import json
import logging
import sys
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from keeper.trace import Trace, current

_MASK: Final = "********"
# Whoever sets a secret shorter than that would see its letters masked everywhere.
_SHORTEST_SECRET: Final = 6
_FACTS: Final = ("run_id", "user_id", "asin", "request_id")


class Redaction:
    """Takes secrets out of texts, as they are and as they stand in a URL.

    Args:
        further: takes out what is known by its form only.
    """

    def __init__(self, secrets: Collection[str] = (), further: Callable[[str], str] = str) -> None:
        known = [one for one in secrets if len(one) >= _SHORTEST_SECRET]
        shapes = {*known, *(quote(one, safe="") for one in known), *(quote(one) for one in known)}
        # The longest first, so that no part of one is left by another.
        self._shapes = sorted(shapes, key=len, reverse=True)
        self._further = further

    def __call__(self, text: str) -> str:
        for shape in self._shapes:
            text = text.replace(shape, _MASK)
        return self._further(text)


class TextFormatter(logging.Formatter):
    """A line for people; at its end what is known of whose work it is, of the `facts` that are named."""

    def __init__(
        self, redact: Redaction, pattern: str = "%(asctime)s %(levelname)s %(message)s", *, facts: Collection[str] = _FACTS
    ) -> None:
        super().__init__(pattern)
        self._redact = redact
        self._shown = facts

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The facts stand behind the message, before a traceback."""
        known = _facts(current())
        told = " ".join(f"{name}={value}" for name, value in known.items() if value is not None and name in self._shown)
        return super().formatMessage(record) + (f" [{told}]" if told else "")

    def format(self, record: logging.LogRecord) -> str:
        """Masked as a whole, traceback included."""
        return self._redact(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object on one line: `time`, `level`, `logger`, `message`, `run_id`, `user_id`, `asin`, `request_id`, all always there."""

    def __init__(self, redact: Redaction) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Each text is masked before JSON's escapes could hide a part of a secret."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": self._redact(record.getMessage()),
            **_facts(current()),
        }
        if record.exc_info:
            told["exception"] = self._redact(self.formatException(record.exc_info))
        if record.stack_info:
            told["stack"] = self._redact(self.formatStack(record.stack_info))
        return json.dumps(told, ensure_ascii=False)


class MaskingFormatter(logging.Formatter):
    """What another formatter makes of a record, without secrets."""

    def __init__(self, redact: Redaction, inner: logging.Formatter) -> None:
        super().__init__()
        self._redact = redact
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The traceback included."""
        return self._redact(self._inner.format(record))


def make_formatter(form: str, redact: Redaction) -> logging.Formatter:
    """For `text` or `json`."""
    return JsonFormatter(redact) if form == "json" else TextFormatter(redact)


def set_up(*, level: str, form: str, redact: Redaction) -> None:
    """What this process logs goes to standard error, in this form; nothing changes where somebody has set up logging before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(make_formatter(form, redact))
    logging.basicConfig(level=level, handlers=[handler])


def _facts(trace: Trace) -> dict[str, object]:
    return {name: getattr(trace, name) for name in _FACTS}
