"""Tells the simulator's time: real time, faster, or moved ahead."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

KEEPA_EPOCH_MINUTES = 21_564_000
MIN_SPEED = 1.0
MAX_SPEED = 10_000.0


@dataclass(frozen=True, slots=True)
class Anchors:
    """Three numbers that give the simulated time as a pure function of the machine's time.

    Whoever keeps the same three numbers (Keeper's database does) computes the same time.

    Attributes:
        machine: A moment on the machine's clock, Unix seconds.
        simulated: What the simulated clock shows at that moment, Unix seconds.
        speed: Simulated seconds per machine second.
    """

    machine: float
    simulated: float
    speed: float

    def at(self, machine_now: float) -> float:
        """Returns the simulated time in Unix seconds at the machine's time `machine_now`."""
        return self.simulated + self.speed * (machine_now - self.machine)


class SimulatedClock:
    """A clock that can run at 1 to 10,000 times real time and jump forward. Thread-safe."""

    def __init__(self, start_at: float | None = None, speed: float = 1.0, machine_now: Callable[[], float] = time.time) -> None:
        """Starts the clock.

        Args:
            start_at: Simulated Unix seconds to start at; None means the machine's time.
            speed: Simulated seconds per machine second.
            machine_now: Where the machine's Unix time comes from.
        """
        self._machine_now = machine_now
        self._lock = threading.Lock()
        machine = machine_now()
        self._anchors = Anchors(machine, machine if start_at is None else start_at, _checked_speed(speed))

    @property
    def anchors(self) -> Anchors:
        """The three numbers in force."""
        return self._anchors

    def now(self) -> float:
        """Returns the simulated Unix seconds."""
        return self._anchors.at(self._machine_now())

    def jump(self, seconds: float) -> Anchors:
        """Moves the clock forward by `seconds` of simulated time and returns the new anchors.

        Raises:
            ValueError: `seconds` is negative; time does not run backwards.
        """
        if not seconds >= 0:
            raise ValueError("seconds must not be negative")
        with self._lock:
            machine = self._machine_now()
            self._anchors = Anchors(machine, self._anchors.at(machine) + seconds, self._anchors.speed)
            return self._anchors

    def run_at(self, speed: float) -> Anchors:
        """Changes the speed from this moment on and returns the new anchors.

        Raises:
            ValueError: `speed` is outside 1 to 10,000.
        """
        with self._lock:
            machine = self._machine_now()
            self._anchors = Anchors(machine, self._anchors.at(machine), _checked_speed(speed))
            return self._anchors

    def set_anchors(self, anchors: Anchors) -> Anchors:
        """Takes over anchors that someone else keeps; the only way to set the clock back.

        Raises:
            ValueError: The speed is outside 1 to 10,000.
        """
        _checked_speed(anchors.speed)
        with self._lock:
            self._anchors = anchors
            return self._anchors


def keepa_minute(unix_seconds: float) -> int:
    """Returns the Keepa minute a moment falls into (Keepa API docs, `KeepaTime`: minutes since 2011-01-01)."""
    return int(unix_seconds // 60) - KEEPA_EPOCH_MINUTES


def unix_seconds(minute: float) -> float:
    """Returns the Unix seconds at which a Keepa minute begins."""
    return (minute + KEEPA_EPOCH_MINUTES) * 60.0


def _checked_speed(speed: float) -> float:
    if not MIN_SPEED <= speed <= MAX_SPEED:
        raise ValueError(f"speed must be between {MIN_SPEED:g} and {MAX_SPEED:g}")
    return float(speed)
