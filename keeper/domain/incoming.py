"""What comes in from Kafka: bytes that anybody may have produced become values, or a reason why not.

Keeper's own events are recognised by their ids, which follow from what they tell; they bring nothing new. A foreign event without a
marketplace's own currency, with a time to come, or of a schema that is not known, is refused, never guessed at. A field that is `null` is
missing.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, Overflow
from typing import Any
from uuid import UUID

from keeper.domain.errors import KeeperError
from keeper.domain.events import deal_event_id, foreign_event_id, price_event_id, raw_event_id
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import minor_digits
from keeper.domain.price_type import PriceType

_ASIN = re.compile(r"[A-Z0-9]{10}")
_MARKETPLACES = {one.value.lower(): one for one in Marketplace}
_OLDEST = datetime(2000, 1, 1, tzinfo=UTC)
# Clocks of others differ; more than this is no time something was seen at.
_AHEAD = timedelta(minutes=10)
_MOST_MINOR = 2**31 - 1
_LONGEST_TITLE = 2000
_LONGEST_REASON = 300
_KNOWN_SCHEMA = 1
_CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), " ")


class MessageUnreadable(KeeperError):
    """A message that is no event of its topic; the text is the reason."""


@dataclass(frozen=True, slots=True)
class IncomingPrice:
    """A price somebody saw.

    Attributes:
        amount_minor: None: there is no offer.
        list_price_minor: what a deal is measured against; None where not said.
        is_own: Keeper produced it itself.
    """

    event_id: UUID
    asin: str
    marketplace: Marketplace
    price_type: PriceType
    observed_at: datetime
    amount_minor: int | None
    title: str | None
    is_own: bool
    list_price_minor: int | None = None


@dataclass(frozen=True, slots=True)
class IncomingProduct:
    """Keepa's own answer on a product, or word that its rows changed.

    Attributes:
        raw: Keepa's JSON of the product; None where there is nothing to record: word of a change only, or Keeper's own.
    """

    event_id: UUID
    asin: str
    marketplace: Marketplace
    answered_at: datetime
    raw: bytes | None
    is_own: bool


def decode_price(value: bytes, *, topic: str, now: datetime) -> IncomingPrice:
    """An event of `price-updates`.

    Raises:
        MessageUnreadable: says which field, and why.
    """
    fields = _fields(value)
    asin, marketplace, timestamp, observed_at = _place(fields, now)
    price_type = _price_type(fields)
    amount = _amount(fields, "current_price", marketplace)
    event_id = _event_id(fields)
    own_id = price_event_id(asin, marketplace.value, price_type.value, int(observed_at.timestamp()), amount)
    return IncomingPrice(
        event_id or foreign_event_id(topic, asin, marketplace.value, timestamp, amount),
        asin,
        marketplace,
        price_type,
        observed_at,
        amount,
        _title(fields),
        is_own=event_id == own_id,
    )


def decode_deal(value: bytes, *, topic: str, now: datetime) -> IncomingPrice:
    """An event of `deal-updates`. Word that a deal was deleted brings no price, whoever sends it: it is passed over as Keeper's own are.

    Raises:
        MessageUnreadable: says which field, and why.
    """
    fields = _fields(value)
    asin, marketplace, timestamp, observed_at = _place(fields, now)
    price_type = _price_type(fields)
    amount = _amount(fields, "current_price", marketplace)
    event_id = _event_id(fields)
    deal_id, revision = fields.get("deal_id"), fields.get("revision")
    is_own = isinstance(deal_id, str) and type(revision) is int and event_id == deal_event_id(deal_id, revision)
    return IncomingPrice(
        event_id or foreign_event_id(topic, asin, marketplace.value, timestamp, amount),
        asin,
        marketplace,
        price_type,
        observed_at,
        amount,
        _title(fields),
        is_own=is_own or fields.get("deleted") is True,
        list_price_minor=_amount(fields, "original_price", marketplace),
    )


def decode_raw(value: bytes, *, topic: str, now: datetime) -> IncomingProduct:
    """An event of `raw.keepa_updates`: Keeper's own shape, or a bare product as Keepa answers it.

    Raises:
        MessageUnreadable: says which field, and why.
    """
    fields = _fields(value, parse_float=float)
    if "product" not in fields and "domainId" in fields:
        raise MessageUnreadable("a bare product says neither its marketplace nor its time; wrap it as {asin, domain, timestamp, product}")
    asin, marketplace, timestamp, answered_at = _place(fields, now)
    product = fields.get("product")
    if product is not None and not isinstance(product, dict):
        raise MessageUnreadable(f"product must be an object or null, is {_name(product)}")
    event_id = _event_id(fields)
    is_own = event_id == raw_event_id(asin, marketplace.value, timestamp)
    return IncomingProduct(
        event_id or foreign_event_id(topic, asin, marketplace.value, timestamp, None),
        asin,
        marketplace,
        answered_at,
        None if product is None or is_own else json.dumps(product, ensure_ascii=False).encode(errors="replace"),
        is_own=is_own,
    )


def _fields(value: bytes, *, parse_float: Callable[[str], Any] = Decimal) -> Mapping[str, Any]:
    try:
        fields = json.loads(value, parse_float=parse_float, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MessageUnreadable(f"not JSON: {str(error)[:_LONGEST_REASON]}") from None
    except InvalidOperation:
        raise MessageUnreadable("it holds a number beyond any that can be read") from None
    if not isinstance(fields, dict):
        raise MessageUnreadable(f"must be an object, is {_name(fields)}")
    version = fields.get("schema_version")
    if version is None:
        version = _KNOWN_SCHEMA
    if type(version) is not int or not 1 <= version <= _KNOWN_SCHEMA:
        raise MessageUnreadable(f"schema_version {_shown(version)} is not known; this Keeper knows {_KNOWN_SCHEMA}")
    return fields


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _place(fields: Mapping[str, Any], now: datetime) -> tuple[str, Marketplace, str, datetime]:
    asin, domain, timestamp = fields.get("asin"), fields.get("domain"), fields.get("timestamp")
    if not isinstance(asin, str) or not _ASIN.fullmatch(asin):
        raise MessageUnreadable(f"asin must be ten capital letters or digits, is {_shown(asin)}")
    marketplace = _MARKETPLACES.get(domain.lower()) if isinstance(domain, str) else None
    if marketplace is None:
        raise MessageUnreadable(f"domain must be one of {', '.join(_MARKETPLACES)}, is {_shown(domain)}")
    currency = fields.get("currency")
    if currency is not None and currency != marketplace.currency:
        raise MessageUnreadable(f"currency of {marketplace} is {marketplace.currency}, not {_shown(currency)}")
    if not isinstance(timestamp, str):
        raise MessageUnreadable(f"timestamp must be text like 2026-02-20T12:30:00Z, is {_shown(timestamp)}")
    try:
        at = datetime.fromisoformat(timestamp)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise MessageUnreadable(f"timestamp must be like 2026-02-20T12:30:00Z, is {_shown(timestamp)}") from None
    if not _OLDEST <= at <= now + _AHEAD:
        raise MessageUnreadable(f"timestamp {_shown(timestamp)} is not between the year 2000 and now")
    return asin, marketplace, timestamp, at


def _price_type(fields: Mapping[str, Any]) -> PriceType:
    name = fields.get("price_type")
    try:
        price_type = PriceType.NEW if name is None else PriceType(name)
    except ValueError:
        price_type = PriceType.SALES
    if not price_type.is_price:
        raise MessageUnreadable(f"price_type {_shown(name)} is no price")
    return price_type


def _amount(fields: Mapping[str, Any], name: str, marketplace: Marketplace) -> int | None:
    """Minor units; the exact field where there is one, else whole units, half up. None: no price."""
    minor = fields.get(f"{name}_minor")
    if minor is not None:
        if type(minor) is not int:
            raise MessageUnreadable(f"{name}_minor must be a whole number, is {_shown(minor)}")
        amount = minor
    else:
        whole = fields.get(name)
        if whole is None:
            return None
        if isinstance(whole, bool) or not isinstance(whole, int | Decimal):
            raise MessageUnreadable(f"{name} must be a number, is {_shown(whole)}")
        try:
            amount = int(Decimal(whole).scaleb(minor_digits(marketplace.currency)).quantize(Decimal(1), ROUND_HALF_UP))
        except (InvalidOperation, Overflow, ValueError):
            raise MessageUnreadable(f"{name} {_shown(whole)} is too large") from None
    if amount > _MOST_MINOR:
        raise MessageUnreadable(f"{name} {_shown(amount)} is too large")
    return amount if amount > 0 else None


def _title(fields: Mapping[str, Any]) -> str | None:
    title = fields.get("product_title")
    if title is None:
        return None
    if not isinstance(title, str):
        raise MessageUnreadable(f"product_title must be text, is {_name(title)}")
    return title.translate(_CONTROLS).encode(errors="replace").decode().strip()[:_LONGEST_TITLE] or None


def _event_id(fields: Mapping[str, Any]) -> UUID | None:
    event_id = fields.get("event_id")
    if event_id is None:
        return None
    try:
        return UUID(event_id)
    except (ValueError, AttributeError, TypeError):
        raise MessageUnreadable(f"event_id must be a UUID, is {_shown(event_id)}") from None


def _name(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}.get(type(value), "a number")


def _shown(value: Any) -> str:
    return repr(value)[:60] if isinstance(value, str) else str(value)[:60] if isinstance(value, int | Decimal) else _name(value)
