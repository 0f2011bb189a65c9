"""How many requests a key may make in a minute."""

import time
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from keeper.domain.errors import TransientError


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of it.

    Attributes:
        reset_seconds: until the oldest counted request falls out of the minute, whole seconds, at least 1.
    """

    limit: int
    remaining: int
    reset_seconds: int


class TooManyRequests(TransientError):
    """The minute's requests are used up."""

    def __init__(self, allowance: Allowance) -> None:
        super().__init__(
            f"more than {allowance.limit} requests within a minute; wait {allowance.reset_seconds} s, "
            "or ask for more at once: pages hold up to 1,000 rows, an import 10,000"
        )
        self.allowance = allowance
        self.wait_seconds = float(allowance.reset_seconds)


class RequestBudget:
    """Counts in this process, over a moving minute. Safe to share between threads."""

    def __init__(self, per_minute: int) -> None:
        self._limit = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def spend(self, who: str) -> Allowance:
        """Count one request.

        Raises:
            TooManyRequests: it is one too many.
        """
        is_granted = self._limiter.hit(self._limit, who)
        allowance = self.look(who)
        if not is_granted:
            raise TooManyRequests(allowance)
        return allowance

    def look(self, who: str) -> Allowance:
        """What is left, without counting."""
        window = self._limiter.get_window_stats(self._limit, who)
        left_seconds = window.reset_time - time.time()  # noqa: TID251  the library tells it by the machine's clock
        return Allowance(self._limit.amount, max(0, window.remaining), max(1, round(left_seconds + 0.5)))
