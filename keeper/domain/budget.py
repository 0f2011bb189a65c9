"""Keepa's token bucket as Keeper counts it: what is there, who goes first, when a request can be paid.

Keepa refills in one step a minute and holds an hour of refill (Keepa API documentation, "Plans and tokens"). A request runs
while the balance is above zero; Keeper is stricter and sends only what the balance covers, so that requests in flight at the
same time can never push one another below zero.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum
from math import ceil, floor

_MINUTE = timedelta(minutes=1)


class Priority(IntEnum):
    """Who goes first when tokens are short: lower goes first."""

    USER = 0
    WATCH = 1
    COLLECTION = 2
    BACKGROUND = 3


@dataclass(frozen=True, slots=True)
class Bucket:
    """What Keepa last said of the bucket.

    Attributes:
        observed_at: Keepa's time of that answer.
        next_refill_at: when the next step of the refill comes.
        flow_reduction_per_minute: what trackings on the same key eat of the refill.
    """

    tokens: int
    refill_per_minute: int
    flow_reduction_per_minute: float
    observed_at: datetime
    next_refill_at: datetime

    @property
    def capacity(self) -> int:
        """Unused tokens expire after 60 minutes."""
        return self.refill_per_minute * 60

    @property
    def net_per_minute(self) -> float:
        """The refill one can count on."""
        return max(self.refill_per_minute - self.flow_reduction_per_minute, 0.0)

    def tokens_at(self, now: datetime) -> int:
        """The balance if nobody spends."""
        if now < self.next_refill_at:
            return self.tokens
        steps = (now - self.next_refill_at) // _MINUTE + 1
        return max(self.tokens, min(self.capacity, self.tokens + floor(steps * self.net_per_minute)))

    def next_step_at(self, now: datetime) -> datetime:
        """When the next step of the refill comes."""
        if now < self.next_refill_at:
            return self.next_refill_at
        return self.next_refill_at + ((now - self.next_refill_at) // _MINUTE + 1) * _MINUTE

    def payable_at(self, tokens: int, now: datetime) -> datetime | None:
        """When the balance reaches `tokens` if nobody spends; `now` if it does already; None if it never will."""
        if self.tokens_at(now) >= tokens:
            return now
        if self.net_per_minute <= 0 or tokens > self.capacity:
            return None
        missing = tokens - self.tokens
        steps = ceil(missing / self.net_per_minute)
        while floor(steps * self.net_per_minute) < missing:
            steps += 1  # the quotient was rounded down
        return max(now, self.next_refill_at + (steps - 1) * _MINUTE)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Tokens set aside for one request.

    Attributes:
        id: rises with time; earlier goes first within a priority.
        is_granted: the request may be on its way; otherwise it waits for its turn.
    """

    id: int
    tokens: int
    priority: Priority
    is_granted: bool


def tokens_ahead(mine: Reservation, others: Iterable[Reservation]) -> int:
    """Tokens that are spent before `mine` may run: all granted, and the waiting ones that go first."""
    return sum(
        other.tokens
        for other in others
        if other.id != mine.id and (other.is_granted or (other.priority, other.id) < (mine.priority, mine.id))
    )


def floor_of(priority: Priority, bucket: Bucket, user_share_pct: float) -> int:
    """Tokens a request of this priority leaves in the bucket, so that a user's own check never waits for a background job."""
    return 0 if priority is Priority.USER else floor(bucket.capacity * user_share_pct / 100)


def spendable(bucket: Bucket, others: Iterable[Reservation], priority: Priority, user_share_pct: float, now: datetime) -> int:
    """Tokens a new request of this priority could have at once, never below zero."""
    taken = sum(other.tokens for other in others)
    return max(0, bucket.tokens_at(now) - taken - floor_of(priority, bucket, user_share_pct))


def unexplained(bucket: Bucket, observed: Bucket, consumed: int, others: Iterable[Reservation], carried: int) -> int:
    """Tokens gone that no request of ours can have spent, at least zero.

    Args:
        bucket: the observation before.
        observed: the new one, later than `bucket`.
        consumed: cost of the request that brought it.
        others: reservations that may have been spent in between.
        carried: what was unexplained before and still below the limit of doubt.
    """
    if observed.tokens + consumed >= observed.capacity:
        return 0  # the bucket was full: what was in doubt was a step of the refill counted too early
    # The plan or the trackings may have changed at any moment in between: the lesser of the two refills is certain.
    least = replace(
        bucket,
        refill_per_minute=min(bucket.refill_per_minute, observed.refill_per_minute),
        flow_reduction_per_minute=max(bucket.flow_reduction_per_minute, observed.flow_reduction_per_minute),
    )
    expected = min(least.tokens_at(observed.observed_at), max(observed.capacity, 0))
    spent_at_most = consumed + sum(other.tokens for other in others if other.is_granted)
    return max(0, carried + expected - spent_at_most - observed.tokens)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What becomes of the balance. Minutes are None where it never comes to that.

    Attributes:
        minutes_until_full: if nobody spends; 0 where it is full.
        minutes_until_empty_as_planned: if all watches are checked as they ask for, and nothing else is spent.
        minutes_until_empty_as_spent: at the pace of the last hour.
        planned_per_minute: tokens the watches need.
        spent_per_minute: tokens of the last hour.
        needed_pct: share of the refill the watches need; None where nothing refills.
        watches_fit: whether the refill carries all watches for good.
    """

    minutes_until_full: float | None
    minutes_until_empty_as_planned: float | None
    minutes_until_empty_as_spent: float | None
    planned_per_minute: float
    spent_per_minute: float
    needed_pct: float | None
    watches_fit: bool


def forecast(bucket: Bucket, *, now: datetime, reserved: int, planned_per_minute: float, spent_per_minute: float) -> Forecast:
    """When the bucket is full, and when it is empty at two paces, counted as if the refill came evenly.

    Args:
        reserved: tokens of requests on their way, which count as spent for the times until it is empty.
    """
    net = bucket.net_per_minute
    full_at = bucket.payable_at(bucket.capacity, now)
    left = max(0, bucket.tokens_at(now) - reserved)
    return Forecast(
        minutes_until_full=None if full_at is None else (full_at - now) / _MINUTE,
        minutes_until_empty_as_planned=_minutes_until_empty(left, planned_per_minute - net),
        minutes_until_empty_as_spent=_minutes_until_empty(left, spent_per_minute - net),
        planned_per_minute=planned_per_minute,
        spent_per_minute=spent_per_minute,
        needed_pct=100 * planned_per_minute / net if net > 0 else None,
        watches_fit=planned_per_minute <= net,
    )


def _minutes_until_empty(tokens: int, loss_per_minute: float) -> float | None:
    return tokens / loss_per_minute if loss_per_minute > 0 else None
