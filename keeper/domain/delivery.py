"""What becomes of events on their way to a sink."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from keeper.domain.errors import TransientError
from keeper.domain.events import OutboxMessage


class SinkDown(TransientError):
    """The whole sink cannot be reached: no message is refused, no try is counted."""


class Outcome(NamedTuple):
    """What became of one message; a tuple for the same reason as the message.

    Attributes:
        refusal: None when the sink acknowledged it.
        receipt: what the far side said on acknowledgement.
        retry_after_seconds: how long the far side asked to wait.
        is_final: no further try can help.
        is_unreachable: nobody answered, or the answer was `later`: no refusal is counted.
    """

    message: OutboxMessage
    refusal: str | None = None
    receipt: str = ""
    retry_after_seconds: float | None = None
    is_final: bool = False
    is_unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """How long a relay may deliver.

    Attributes:
        is_over: once true nothing more is sent; what is under way is finished.
        is_lost: once true another relay may have the shard: what is under way and not yet sent is dropped, nothing more is acknowledged.
    """

    is_over: Callable[[], bool]
    is_lost: Callable[[], bool]
