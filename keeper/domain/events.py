"""What happened, as it goes to the sinks."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid5

NAMESPACE = UUID("6f1c4a52-6f0e-5c0e-9a52-6b6565706572")


class Sink(StrEnum):
    """A system that receives events."""

    KAFKA = "kafka"
    SEARCH = "search"
    NOTIFY = "notify"


class EventKind(StrEnum):
    """What an event tells of; it decides which sinks carry it."""

    PRICE_UPDATE = "price_update"
    KEEPA_CALL = "keepa_call"
    ALERT = "alert"
    TOKENS_FOREIGN = "tokens_foreign"


ROUTES: Mapping[EventKind, tuple[Sink, ...]] = {
    EventKind.PRICE_UPDATE: (Sink.KAFKA, Sink.SEARCH),
    EventKind.KEEPA_CALL: (Sink.SEARCH,),
    EventKind.ALERT: (Sink.NOTIFY,),
    EventKind.TOKENS_FOREIGN: (),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One event before it is stored.

    Attributes:
        key: what its order is kept by: ASIN, channel id or call id.
        version: the external version of the search document; 1 for events that never change.
        payload: JSON-ready.
    """

    event_id: UUID
    kind: EventKind
    key: str
    payload: Mapping[str, Any]
    version: int = 1


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """One event on its way to one sink.

    Attributes:
        id: rises with the order of a key's changes.
        tries: how often it was tried in vain so far.
        refusals: how many of them the far side said no to; at the others nobody answered.
        failing_seconds: since the first try in vain, on the machine's clock.
    """

    id: int
    event_id: UUID
    kind: EventKind
    key: str
    version: int
    payload: Mapping[str, Any]
    tries: int
    refusals: int = 0
    failing_seconds: float = 0.0


def price_event_id(asin: str, marketplace: str, price_type: str, observed_second: int, amount_minor: int | None) -> UUID:
    """The same for the same observation, so that a rebuild, a copy and a restore agree (RFC 9562, version 5)."""
    return uuid5(NAMESPACE, f"{asin}/{marketplace}/{price_type}/{observed_second}/{amount_minor if amount_minor is not None else ''}")
