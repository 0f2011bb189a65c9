"""The verbs `ingest_*`: what others produced to Kafka, recorded once. Keeper's own events bring nothing new and are passed over.

Idempotent by event id, whatever is delivered twice. A message that cannot be read, or that the database has no place for, is rejected with
the reason; it costs no other its recording.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar
from uuid import UUID

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, IntegrityError

from keeper.domain.incoming import IncomingPrice, IncomingProduct, MessageUnreadable, decode_deal, decode_price, decode_raw
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import PriceSeries, minute_of
from keeper.domain.price_type import WATCHABLE, PriceType
from keeper.domain.product import Product, ProductKind
from keeper.domain.watch import Watch
from keeper.keepa.wire import NotAnAnswer, decode_raw_product
from keeper.postgres import ingested
from keeper.postgres.watches import insert_watches
from keeper.record import record

_REFUSALS = (DataError, IntegrityError, psycopg.DataError, psycopg.IntegrityError)
_AT_ONCE = 1000


class Message(Protocol):
    """What is read of a message of Kafka."""

    @property
    def topic(self) -> str: ...

    @property
    def value(self) -> bytes | None: ...


M = TypeVar("M", bound=Message)
D = TypeVar("D", IncomingPrice, IncomingProduct)


@dataclass(slots=True)
class Ingested(Generic[M]):
    """What one batch brought.

    Attributes:
        own: Keeper's own events, or copies of what was ingested before.
        rejected: what can never be recorded, with the reason.
        read: every message that could be read, with its ASIN, in order; own ones too.
    """

    recorded: int = 0
    own: int = 0
    rejected: list[tuple[M, str]] = field(default_factory=list)
    read: list[tuple[M, str]] = field(default_factory=list)


def ingest_prices(engine: Engine, messages: Sequence[M], *, now: datetime) -> Ingested[M]:
    """Record the foreign events of `price-updates`; whether one is worth an alert, `record` decides as for any price."""
    return _ingest(engine, messages, decode_price, _record_prices, now=now)


def ingest_deals(engine: Engine, messages: Sequence[M], *, now: datetime, watch_user_id: int | None) -> Ingested[M]:
    """Record the foreign events of `deal-updates`: each deal is a product and an observation of its price.

    Args:
        watch_user_id: the user for whom each such product is watched, without a target, so that it cannot alert; None for nobody.
    """

    def record_deals(connection: Connection, deals: Sequence[IncomingPrice], now: datetime) -> None:
        _record_prices(connection, deals, now)
        if watch_user_id is not None:
            wanted = {(one.asin, one.marketplace, one.price_type) for one in deals if one.price_type in WATCHABLE}
            insert_watches(connection, watch_user_id, [Watch(*place, None) for place in sorted(wanted)], now=now)

    def decode(value: bytes, *, topic: str, now: datetime) -> IncomingPrice:
        deal = decode_deal(value, topic=topic, now=now)
        if deal.amount_minor is None:
            raise MessageUnreadable("a deal without a price")
        return deal

    return _ingest(engine, messages, decode, record_deals, now=now)


def ingest_raw(engine: Engine, messages: Sequence[M], *, now: datetime) -> Ingested[M]:
    """Record the foreign answers of `raw.keepa_updates`, as if Keepa had been asked."""

    def decode(value: bytes, *, topic: str, now: datetime) -> IncomingProduct:
        product = decode_raw(value, topic=topic, now=now)
        if not product.is_own and product.raw is not None:
            _product_of(product)
        return product

    return _ingest(engine, messages, decode, _record_products, now=now)


def _ingest(
    engine: Engine,
    messages: Sequence[M],
    decode: Callable[..., D],
    record_some: Callable[[Connection, Sequence[D], datetime], None],
    *,
    now: datetime,
) -> Ingested[M]:
    done: Ingested[M] = Ingested()
    foreign: dict[UUID, tuple[M, D]] = {}
    for message in messages:
        try:
            if message.value is None:
                raise MessageUnreadable("it has no value")
            event = decode(message.value or b"", topic=message.topic, now=now)
        except MessageUnreadable as error:
            done.rejected.append((message, str(error)))
            continue
        done.read.append((message, event.asin))
        if event.is_own or event.event_id in foreign:
            done.own += 1
        else:
            foreign[event.event_id] = message, event
    waiting = list(foreign.values())
    for start in range(0, len(waiting), _AT_ONCE):
        share = waiting[start : start + _AT_ONCE]
        try:
            new = _record_new(engine, [event for _, event in share], share[0][0].topic, record_some, now)
            done.recorded += new
            done.own += len(share) - new
        except _REFUSALS:
            for message, event in share:
                try:
                    done.recorded += _record_new(engine, [event], message.topic, record_some, now)
                except _REFUSALS as error:
                    done.rejected.append((message, f"the database has no place for it ({type(error).__name__})"))
    return done


def _record_new(
    engine: Engine, events: Sequence[D], topic: str, record_some: Callable[[Connection, Sequence[D], datetime], None], now: datetime
) -> int:
    """Record those that were not ingested before, in one transaction. Returns how many."""
    with engine.begin() as connection:
        new = ingested.insert_ids(connection, [event.event_id for event in events], topic)
        fresh = [event for event in events if event.event_id in new]
        if fresh:
            record_some(connection, fresh, now)
    return len(fresh)


def _record_prices(connection: Connection, prices: Sequence[IncomingPrice], now: datetime) -> None:
    points: dict[tuple[str, Marketplace], dict[PriceType, dict[int, int | None]]] = {}
    titles: dict[tuple[str, Marketplace], str | None] = {}
    for one in prices:
        place = one.asin, one.marketplace
        minute = minute_of(min(one.observed_at, now))
        series = points.setdefault(place, {})
        series.setdefault(one.price_type, {})[minute] = one.amount_minor
        if one.list_price_minor is not None:
            series.setdefault(PriceType.LISTPRICE, {})[minute] = one.list_price_minor
        titles[place] = one.title or titles.get(place)
    seen = [
        Product(
            asin=asin,
            marketplace=marketplace,
            kind=ProductKind.STANDARD,
            answered_at=now,
            title=titles[asin, marketplace],
            series={price_type: _series(of_type) for price_type, of_type in by_type.items()},
            is_partial=True,
        )
        for (asin, marketplace), by_type in points.items()
    ]
    record(connection, seen, now=now)


def _series(points: dict[int, int | None]) -> PriceSeries:
    minutes = sorted(points)
    return PriceSeries(tuple(minutes), tuple(points[minute] for minute in minutes))


def _record_products(connection: Connection, answers: Iterable[IncomingProduct], now: datetime) -> None:
    newest: dict[tuple[str, Marketplace], IncomingProduct] = {}
    for one in sorted(answers, key=lambda answer: answer.answered_at):
        if one.raw is not None:
            newest[one.asin, one.marketplace] = one
    record(connection, [_product_of(one) for one in newest.values()], now=now)


def _product_of(one: IncomingProduct) -> Product:
    try:
        return decode_raw_product(one.raw or b"", one.asin, one.marketplace, one.answered_at)
    except NotAnAnswer as error:
        raise MessageUnreadable(f"product: {error}") from error
