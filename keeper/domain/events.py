"""What happened, as it goes to the sinks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID, uuid5

NAMESPACE = UUID("6f1c4a52-6f0e-5c0e-9a52-6b6565706572")


class Sink(StrEnum):
    """A system that receives events. A search index being rebuilt is one more, named by `rebuild_sink`."""

    KAFKA = "kafka"
    SEARCH = "search"
    ENRICH = "enrich"
    NOTIFY = "notify"


class EventKind(StrEnum):
    """What an event tells of; it decides which sinks carry it."""

    PRICE_UPDATE = "price_update"
    DEAL_UPDATE = "deal_update"
    RAW_PRODUCT = "raw_product"
    RAW_DEAL = "raw_deal"
    PRODUCT_UPDATE = "product_update"
    KEEPA_CALL = "keepa_call"
    ALERT = "alert"
    DEAL_ALERT = "deal_alert"
    ARBITRAGE_ALERT = "arbitrage_alert"
    OPPORTUNITY_ALERT = "opportunity_alert"
    REPORT = "report"
    TOKENS_FOREIGN = "tokens_foreign"


KINDS: Mapping[Sink, tuple[EventKind, ...]] = {
    Sink.KAFKA: (EventKind.PRICE_UPDATE, EventKind.DEAL_UPDATE, EventKind.RAW_PRODUCT, EventKind.RAW_DEAL, EventKind.ARBITRAGE_ALERT),
    Sink.SEARCH: (EventKind.PRICE_UPDATE, EventKind.DEAL_UPDATE, EventKind.KEEPA_CALL),
    Sink.ENRICH: (EventKind.PRODUCT_UPDATE,),
    Sink.NOTIFY: (EventKind.ALERT, EventKind.DEAL_ALERT, EventKind.OPPORTUNITY_ALERT, EventKind.REPORT),
}


def rebuild_sink(index: str) -> str:
    """The name of the sink that fills `index` while it is rebuilt."""
    return f"{Sink.SEARCH}.{index}"


@dataclass(frozen=True, slots=True)
class Event:
    """One event before it is stored.

    Attributes:
        key: what its order is kept by: ASIN, channel id or call id.
        version: the external version of the search document; 1 for events that never change.
        body: JSON on one line; `Event.of` writes it.
    """

    event_id: UUID
    kind: EventKind
    key: str
    body: str
    version: int = 1

    @classmethod
    def of(cls, event_id: UUID, kind: EventKind, key: str, payload: Mapping[str, Any], version: int = 1) -> "Event":
        """An event whose payload is JSON-ready."""
        return cls(event_id, kind, key, json.dumps(payload, ensure_ascii=False), version)


class OutboxMessage(NamedTuple):
    """One event on its way to one sink; a tuple, because it is made for every message and in a fifth of the time.

    Attributes:
        seq: rises with the order of a key's changes.
        event_id: a UUID.
        body: the event's JSON, as it was stored.
        shard: of its key.
        tries: how often it was tried in vain so far.
        refusals: how many of them the far side said no to; at the others nobody answered.
        failing_seconds: since the first try in vain, on the machine's clock.
        request_id: of the request to the API that it arose from; None for most.
    """

    seq: int
    event_id: str
    kind: EventKind
    key: str
    version: int
    body: str
    shard: int = 0
    tries: int = 0
    refusals: int = 0
    failing_seconds: float = 0.0
    request_id: str | None = None

    @property
    def payload(self) -> Mapping[str, Any]:
        """The body, read anew at each call."""
        decoded: Mapping[str, Any] = json.loads(self.body)
        return decoded


def price_event_id(asin: str, marketplace: str, price_type: str, observed_second: int, amount_minor: int | None) -> UUID:
    """The same for the same observation, so that a rebuild, a copy and a restore agree (RFC 9562, version 5)."""
    return uuid5(NAMESPACE, f"{asin}/{marketplace}/{price_type}/{observed_second}/{amount_minor if amount_minor is not None else ''}")


def revised_event_id(asin: str, revision: int) -> UUID:
    """The same for the same state of a product whose change is nobody's answer, but our own reckoning."""
    return uuid5(NAMESPACE, f"revised/{asin}/{revision}")


def raw_event_id(asin: str, marketplace: str, timestamp: str) -> UUID:
    """The same for the same answer on one product; `timestamp` as the event bears it."""
    return uuid5(NAMESPACE, f"raw/{asin}/{marketplace}/{timestamp}")


def deal_id_of(asin: str, marketplace: str, price_type: str, changed_second: int) -> str:
    """The entity: one deal from the change of price that made it; the id of its document."""
    return f"{asin}-{marketplace}-{price_type}-{changed_second}"


def deal_event_id(deal_id: str, revision: int) -> UUID:
    """The same for the same state of a deal."""
    return uuid5(NAMESPACE, f"deal/{deal_id}/{revision}")


def raw_deal_event_id(asin: str, marketplace: str, price_type: str, looked_second: int) -> UUID:
    """The same for the same row of the feed, as Keepa's last look at the product made it."""
    return uuid5(NAMESPACE, f"rawdeal/{asin}/{marketplace}/{price_type}/{looked_second}")


def report_event_id(report_id: int, channel_id: int) -> UUID:
    """The same for the same report on the same channel; a mail's Message-ID is made of it."""
    return uuid5(NAMESPACE, f"report/{report_id}/{channel_id}")


def deal_alert_event_id(user_id: int, deal_id: str, channel_id: int) -> UUID:
    """The same for the same deal told to the same channel."""
    return uuid5(NAMESPACE, f"deal-alert/{user_id}/{deal_id}/{channel_id}")


def arbitrage_event_id(asin: str, source: str, target: str, first_second: int) -> UUID:
    """The same for the same opportunity: a lane of a product from the moment its gap was first seen."""
    return uuid5(NAMESPACE, f"arbitrage/{asin}/{source}/{target}/{first_second}")


def opportunity_alert_event_id(user_id: int, arbitrage_id: UUID, channel_id: int) -> UUID:
    """The same for the same opportunity told to the same channel."""
    return uuid5(NAMESPACE, f"opportunity-alert/{user_id}/{arbitrage_id}/{channel_id}")


def enriched_event_id(asin: str, revision: int) -> UUID:
    """The same for the same state of a product over all marketplaces."""
    return uuid5(NAMESPACE, f"enriched/{asin}/{revision}")


def foreign_event_id(topic: str, asin: str, marketplace: str, timestamp: str, amount_minor: int | None) -> UUID:
    """For events of others that bear none: a second copy of the same event gets the same."""
    return uuid5(NAMESPACE, f"foreign/{topic}/{asin}/{marketplace}/{timestamp}/{'' if amount_minor is None else amount_minor}")
