"""Keepa's token bucket: what an answer says of it, what a request can cost, when it can be paid."""

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
