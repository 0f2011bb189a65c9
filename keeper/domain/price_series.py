"""A step function over time: each value holds from its minute until the next one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def minute_of(at: datetime) -> int:
    """Whole minutes since 1970-01-01T00:00Z, rounded down. `at` must be aware."""
    if at.tzinfo is None:
        raise ValueError("a datetime without a time zone has no place here")
    return (at - EPOCH) // timedelta(minutes=1)


def time_of(minute: int) -> datetime:
    """The aware UTC datetime of a minute since 1970."""
    return EPOCH + timedelta(minutes=minute)


@dataclass(frozen=True, slots=True)
class PriceSeries:
    """Change points as two columns of the same length, oldest first.

    Attributes:
        minutes: minutes since 1970-01-01T00:00Z, strictly ascending.
        amounts: minor units for prices (landed where shipping is known), else a plain count, rank or rating x 10;
            None from the moment there is no offer or no data.
    """

    minutes: Sequence[int]
    amounts: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.minutes)
