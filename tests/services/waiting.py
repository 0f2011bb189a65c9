"""Wait for a condition, with a bound."""

import time
from collections.abc import Callable

_POLL_SECONDS = 0.05


def wait_until(is_true: Callable[[], bool], complaint: str, *, longest_seconds: float = 30) -> None:
    """Return as soon as the condition holds.

    Raises:
        AssertionError: it did not in time.
    """
    deadline = time.monotonic() + longest_seconds
    while not is_true():
        assert time.monotonic() < deadline, f"{complaint} ({longest_seconds:.0f} s)"
        time.sleep(_POLL_SECONDS)
