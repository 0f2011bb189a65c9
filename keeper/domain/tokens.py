"""What an answer says of Keepa's token bucket, and what is kept of each call."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """The token fields of one answer.

    Attributes:
        at: Keepa's server time.
        tokens_left: balance after the request; may be negative.
        refill_in_seconds: until the next step of the refill.
        refill_per_minute: the plan's rate.
        flow_reduction_per_minute: what trackings on the same key eat.
        tokens_consumed: cost of this request.
    """

    at: datetime
    tokens_left: int
    refill_in_seconds: float
    refill_per_minute: int
    flow_reduction_per_minute: float
    tokens_consumed: int


@dataclass(frozen=True, slots=True)
class KeepaCall:
    """One request to Keepa, answered or failed, as it is counted. Never holds the key.

    Attributes:
        timestamp: Keepa's server time; None where no readable answer came.
        operation: the endpoint ("product", "token").
        tokens_consumed, tokens_left, refill_rate, refill_in: as Keepa said (per minute, milliseconds);
            None where no readable answer came, or the answer was not about this key's bucket.
        response_time_ms: from sending to the last byte, measured here.
        asin_count: how many ASINs were asked.
        domain: the marketplace's letters ("DE"); None for calls that have none.
        error: the error's class and its text, cut short; None on success.
    """

    timestamp: datetime | None
    operation: str
    tokens_consumed: int | None
    tokens_left: int | None
    refill_rate: int | None
    refill_in: int | None
    response_time_ms: int
    asin_count: int
    domain: str | None
    success: bool
    error: str | None = None
