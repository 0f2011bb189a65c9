"""Breaks answers on request, so that a client's every failure path can be driven through a real socket.

| Kind | What the client sees | Tokens |
|---|---|---|
| `429` | status 429, `refillIn` above zero | none |
| `500`, `503` | that status with an error object | none |
| `402` | status 402 | none |
| `400` | status 400, `invalidParameter`, the real token fields | none |
| `invalid_key` | status 400 with all token fields 0, as for a wrong key | none |
| `in_body_error` | status 200 with `error` and without payload | none |
| `slow` | the right answer after `seconds` of machine time | as without |
| `cut_off` | half of the announced bytes, then the end of the connection | as without |
| `dropped` | the connection ends without an answer | as without |
| `broken_gzip` | a body that says gzip and is not | as without |
| `wrong_json` | a complete body that is not JSON | as without |
| `missing_asin` | the answer lacks one product (`asin`, else the first) | as without, the missing one is not charged |
| `extra_fields` | unknown fields in envelope, products, stats and deals | as without |
| `deal_holes` | the first rows of a page of deals are broken, each in another way: null, no prices, unknown fields and longer arrays, \
-2 and 0 where a price should be, markup in the title | as without |
"""

import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STATUS_FAULTS: Mapping[str, int] = {"429": 429, "500": 500, "503": 503, "402": 402, "400": 400, "invalid_key": 400, "in_body_error": 200}
ANSWER_FAULTS = frozenset({"slow", "cut_off", "dropped", "broken_gzip", "wrong_json", "missing_asin", "extra_fields", "deal_holes"})
KINDS = frozenset(STATUS_FAULTS) | ANSWER_FAULTS
MAX_SLOW_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break one answer.

    Attributes:
        kind: One of `KINDS`.
        seconds: Machine seconds to wait (`slow` only).
        asin: The product to leave out (`missing_asin` only); None means the first.
    """

    kind: str
    seconds: float = 1.0
    asin: str | None = None

    def __post_init__(self) -> None:
        """Refuses unknown kinds and waits beyond five minutes.

        Raises:
            ValueError: The kind is unknown or the wait out of range.
        """
        if self.kind not in KINDS:
            raise ValueError(f"fault kind must be one of {', '.join(sorted(KINDS))}")
        if not 0 <= self.seconds <= MAX_SLOW_SECONDS:
            raise ValueError(f"seconds must be between 0 and {MAX_SLOW_SECONDS:g}")


@dataclass(slots=True)
class _Plan:
    fault: Fault
    left: int | None
    share: float
    path: str | None
    random: random.Random


class FaultPlan:
    """The faults ordered for coming requests. Thread-safe; the oldest order that applies wins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: list[_Plan] = []

    def order(self, fault: Fault, *, count: int | None = None, share: float = 1.0, seed: int = 0, path: str | None = None) -> None:
        """Orders a fault for the next requests.

        Args:
            fault: What to do to them.
            count: How many requests to break; None means until cleared.
            share: Probability (0 to 1) that a request is broken, drawn from a generator of its own.
            seed: Seed of that generator.
            path: Only requests of this path; None means every one.

        Raises:
            ValueError: `count` is below 1 or `share` outside 0 to 1.
        """
        if count is not None and count < 1:
            raise ValueError("next must be at least 1")
        if not 0 <= share <= 1:
            raise ValueError("share must be between 0 and 1")
        with self._lock:
            self._plans.append(_Plan(fault, count, share, path, random.Random(seed)))

    def clear(self) -> None:
        """Forgets every order."""
        with self._lock:
            self._plans.clear()

    def draw(self, path: str) -> Fault | None:
        """Returns the fault for a request that has just arrived, None for a good answer."""
        with self._lock:
            for plan in self._plans:
                if plan.path not in (None, path):
                    continue
                if plan.share < 1 and plan.random.random() >= plan.share:
                    continue
                if plan.left is not None:
                    plan.left -= 1
                    if plan.left == 0:
                        self._plans.remove(plan)
                return plan.fault
        return None

    def list_orders(self) -> list[dict[str, Any]]:
        """Returns what is ordered, as JSON values."""
        with self._lock:
            return [
                {"kind": plan.fault.kind, "next": plan.left, "share": plan.share, "path": plan.path, "seconds": plan.fault.seconds}
                for plan in self._plans
            ]


def parse_fault(text: str) -> Fault:
    """Returns the fault that a header like `slow; seconds=2` or `503` asks for.

    Raises:
        ValueError: The text names no known fault.
    """
    kind, *options = (part.strip() for part in text.split(";"))
    named = dict(option.split("=", 1) for option in options if "=" in option)
    return Fault(kind, float(named.get("seconds", 1.0)), named.get("asin"))
