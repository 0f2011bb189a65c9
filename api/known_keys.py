"""Keys that were shown to be good a moment ago, so that ten requests of one page ask the database once."""

import threading
import time
from collections import OrderedDict

from keeper.accounts import KeyHolder, hash_key

# A key that another process revoked is good for so long here.
_KNOWN_SECONDS = 1.0
_MOST_KEYS = 10_000


class KnownKeys:
    """By hash, for a second. Safe to share between threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._known: OrderedDict[bytes, tuple[float, KeyHolder]] = OrderedDict()

    def recall(self, key: str) -> KeyHolder | None:
        """Whose key it is, where that was found out within the last second."""
        with self._mutex:
            known = self._known.get(hash_key(key))
        return known[1] if known is not None and time.monotonic() - known[0] < _KNOWN_SECONDS else None

    def keep(self, key: str, holder: KeyHolder) -> None:
        """It was found out now."""
        with self._mutex:
            self._known[hash_key(key)] = (time.monotonic(), holder)
            self._known.move_to_end(hash_key(key))
            if len(self._known) > _MOST_KEYS:
                self._known.popitem(last=False)

    def forget(self) -> None:
        """One of them was revoked."""
        with self._mutex:
            self._known.clear()
