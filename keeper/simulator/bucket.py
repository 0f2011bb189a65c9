"""Counts the tokens of one key as Keepa does.

Rules (Keepa API docs, plans and tokens): the bucket holds an hour of refill, a request runs while the balance is above zero
whatever it will cost, the balance may go negative, and the refill comes in one step a minute.
"""

import math
import threading
from dataclasses import dataclass

REFILL_SECONDS = 60
CAPACITY_MINUTES = 60


@dataclass(frozen=True, slots=True)
class Balance:
    """What every answer says about the key's tokens.

    Attributes:
        tokens_left: Balance, may be negative.
        refill_in_ms: Simulated milliseconds to the next refill.
        refill_per_minute: Tokens per simulated minute before the reduction.
        flow_reduction: Tokens per minute that trackings eat.
    """

    tokens_left: int
    refill_in_ms: int
    refill_per_minute: int
    flow_reduction: float

    @property
    def admits(self) -> bool:
        """Whether a request that arrives now runs."""
        return self.tokens_left > 0


class TokenBucket:
    """The tokens of one key on the simulated clock. Thread-safe; `now` is simulated Unix seconds."""

    def __init__(self, refill_per_minute: int, *, now: float, tokens: int | None = None) -> None:
        """Makes a bucket whose refill steps come every 60 simulated seconds from `now` on.

        Args:
            refill_per_minute: Tokens per simulated minute.
            now: Simulated Unix seconds.
            tokens: Balance to start with; None means full.
        """
        self._lock = threading.Lock()
        self._refill_per_minute = refill_per_minute
        self._flow_reduction = 0.0
        self._foreign_per_minute = 0.0
        self._tokens = float(self.capacity if tokens is None else tokens)
        self._stepped_at = now

    @property
    def capacity(self) -> int:
        """Most tokens the bucket holds."""
        return self._refill_per_minute * CAPACITY_MINUTES

    def read(self, now: float) -> Balance:
        """Returns the balance at `now`."""
        with self._lock:
            return self._read(now)

    def take(self, tokens: int, now: float) -> Balance:
        """Takes the cost of a request that has run, below zero if need be, and returns what is left."""
        with self._lock:
            self._refill(now)
            self._tokens -= tokens
            return self._read(now)

    def put(self, tokens: int, now: float) -> Balance:
        """Sets the balance (at most the capacity) without moving the refill steps."""
        with self._lock:
            self._refill(now)
            self._tokens = min(float(tokens), float(self.capacity))
            return self._read(now)

    def change(
        self,
        now: float,
        *,
        refill_per_minute: int | None = None,
        flow_reduction: float | None = None,
        foreign_per_minute: float | None = None,
    ) -> Balance:
        """Changes the plan's rate, the trackings' reduction or a foreign spender's rate from `now` on; None leaves one as it is."""
        with self._lock:
            self._refill(now)
            if refill_per_minute is not None:
                self._refill_per_minute = refill_per_minute
            if flow_reduction is not None:
                self._flow_reduction = flow_reduction
            if foreign_per_minute is not None:
                self._foreign_per_minute = foreign_per_minute
            self._tokens = min(self._tokens, float(self.capacity))
            return self._read(now)

    def set_back(self, now: float) -> None:
        """Counts the steps from `now` on where the clock was set back; nothing is taken away."""
        with self._lock:
            self._stepped_at = min(self._stepped_at, now)

    def _refill(self, now: float) -> None:
        if now < self._stepped_at:
            # Another thread was faster; a step it has counted is not counted again.
            return
        steps = int((now - self._stepped_at) // REFILL_SECONDS)
        if steps:
            gain = max(0.0, self._refill_per_minute - self._flow_reduction) - self._foreign_per_minute
            self._tokens = min(float(self.capacity), self._tokens + steps * gain)
            self._stepped_at += steps * REFILL_SECONDS

    def _read(self, now: float) -> Balance:
        self._refill(now)
        refill_in_ms = math.ceil((self._stepped_at + REFILL_SECONDS - now) * 1000)
        return Balance(math.floor(self._tokens), min(REFILL_SECONDS * 1000, refill_in_ms), self._refill_per_minute, self._flow_reduction)
