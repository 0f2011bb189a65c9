"""Bodies of answers, kept for a minute and bounded in bytes."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

KEPT_SECONDS: Final = 60.0
_MOST_BYTES: Final = 64 * 1024 * 1024
# An answer has a key, too, and people ask much that is answered by little.
_OVERHEAD_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """A body, and when it was made on the machine's clock."""

    body: bytes
    kept_at: float


class KeptAnswers:
    """The last answers. Safe to share between threads."""

    def __init__(
        self, *, seconds: float = KEPT_SECONDS, most_bytes: int = _MOST_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._clock = clock
        self._bytes = 0
        self._kept: OrderedDict[Hashable, KeptAnswer] = OrderedDict()
        self._mutex = threading.Lock()

    def recall(self, key: Hashable) -> KeptAnswer | None:
        """What was kept within the last minute."""
        with self._mutex:
            kept = self._kept.get(key)
            if kept is not None and self._clock() - kept.kept_at >= self._seconds:
                self._forget(key)
                return None
            return kept

    def keep(self, key: Hashable, body: bytes) -> KeptAnswer:
        """In the place of the oldest ones, where there is too much."""
        kept = KeptAnswer(body, self._clock())
        with self._mutex:
            if key in self._kept:
                self._forget(key)
            self._kept[key] = kept
            self._bytes += len(body) + _OVERHEAD_BYTES
            while self._bytes > self._most_bytes:
                self._forget(next(iter(self._kept)))
        return kept

    def _forget(self, key: Hashable) -> None:
        self._bytes -= len(self._kept.pop(key).body) + _OVERHEAD_BYTES
