"""What a watch wants, and when a price is worth telling."""

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import WATCHABLE, PriceType

DEFAULT_INTERVAL = timedelta(hours=6)
SHORTEST_INTERVAL = timedelta(minutes=1)
LONGEST_INTERVAL = timedelta(days=30)
DEFAULT_HYSTERESIS_PCT = 2.0
LARGEST_TARGET_MINOR = 1_000_000_000

_ASIN = re.compile(r"[A-Z0-9]{10}")


class WatchInvalid(KeeperError):
    """A watch that cannot be: its text names the field and what it may be."""


@dataclass(frozen=True, slots=True)
class Watch:
    """One user's wish about one price.

    Attributes:
        target: None watches without ever alerting.
        hysteresis_pct: how far above the target the price must have been before a second alert.
    """

    asin: str
    marketplace: Marketplace
    price_type: PriceType = PriceType.NEW
    target: Money | None = None
    interval: timedelta = DEFAULT_INTERVAL
    hysteresis_pct: float = DEFAULT_HYSTERESIS_PCT

    def __post_init__(self) -> None:
        if not _ASIN.fullmatch(self.asin):
            raise WatchInvalid(f"{self.asin!r} is not an ASIN: ten capital letters or digits, like B00OCMRV40")
        if self.price_type not in WATCHABLE:
            raise WatchInvalid(f"{self.price_type} cannot be watched; choose one of {', '.join(WATCHABLE)}")
        if self.target is not None and self.target.currency != self.marketplace.currency:
            raise WatchInvalid(f"the target must be in {self.marketplace.currency}, the currency of {self.marketplace}")
        _check_rule(self.target, self.interval, self.hysteresis_pct)


@dataclass(frozen=True, slots=True)
class WatchChange:
    """What shall be different about a watch. What is None stays as it is.

    Attributes:
        target: another target arms the watch again.
        clears_target: there shall be no target any more.
        interval: a shorter one brings the next check forward.
        is_paused: True: kept, and not checked; False: checked again, from now on.
    """

    target: Money | None = None
    clears_target: bool = False
    interval: timedelta | None = None
    hysteresis_pct: float | None = None
    is_paused: bool | None = None

    def __post_init__(self) -> None:
        if self.clears_target and self.target is not None:
            raise WatchInvalid("either a target or none, not both")
        _check_rule(self.target, self.interval, self.hysteresis_pct)


def _check_rule(target: Money | None, interval: timedelta | None, hysteresis_pct: float | None) -> None:
    if target is not None and not 0 < target.amount_minor <= LARGEST_TARGET_MINOR:
        raise WatchInvalid("the target must be above 0 and at most 10 million")
    if interval is not None and not SHORTEST_INTERVAL <= interval <= LONGEST_INTERVAL:
        raise WatchInvalid("the interval must be from 1 minute to 30 days")
    if hysteresis_pct is not None and not 0 <= hysteresis_pct <= 100:
        raise WatchInvalid("the hysteresis must be from 0 to 100 percent")


class WatchState(StrEnum):
    """Which of a user's watches; a removed one is nobody's any more."""

    ACTIVE = "active"
    PAUSED = "paused"
    ALL = "all"


class Verdict(StrEnum):
    """What a price means for a watch."""

    ALERT = "alert"
    REARM = "rearm"
    NOTHING = "nothing"


def judge(*, amount_minor: int | None, target_minor: int | None, is_armed: bool, hysteresis_pct: float) -> Verdict:
    """Alert once when the price is at or below the target; arm again when it was above it by the hysteresis.

    No offer (None) is no price: it neither alerts nor arms.
    """
    if amount_minor is None or target_minor is None:
        return Verdict.NOTHING
    if is_armed:
        return Verdict.ALERT if amount_minor <= target_minor else Verdict.NOTHING
    return Verdict.REARM if has_rearmed(amount_minor, target_minor, hysteresis_pct) else Verdict.NOTHING


def has_rearmed(amount_minor: int | None, target_minor: int, hysteresis_pct: float) -> bool:
    """Whether a price is above the target by the hysteresis. In whole numbers, so that an edge is an edge; no price is not."""
    if amount_minor is None or amount_minor <= target_minor:
        return False
    return amount_minor * 10_000 >= target_minor * (10_000 + round(hysteresis_pct * 100))
