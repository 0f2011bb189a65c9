"""The verb `record`: products, prices, alerts, events and their outbox rows in the caller's one transaction."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha1
from uuid import uuid4

from sqlalchemy import Connection

from keeper.domain.events import NAMESPACE, Event, EventKind, raw_event_id
from keeper.domain.price_series import minute_of
from keeper.domain.price_type import PRICES
from keeper.domain.product import Product
from keeper.domain.watch import Verdict, has_rearmed, judge
from keeper.postgres import alerts, prices, product_changes, products, watches
from keeper.postgres.alerts import Candidate
from keeper.postgres.outbox import insert_events
from keeper.postgres.prices import Change
from keeper.postgres.sinks import Routes, lock_routes

LARGEST_BATCH = 2000
_NULL = "\\N"
_PRICE_NAMES = sorted((price_type.value, price_type) for price_type in PRICES)
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one transaction recorded.

    Attributes:
        added: ASIN and marketplace of the products that were not known.
        observations: current prices seen.
        changes: new current prices, first sightings included.
        events: changes that somebody watches.
        history_points: older points offered to the history.
        alerts: alerts made.
        falls: the largest falls among watched changes.
    """

    products: int = 0
    added: frozenset[tuple[str, str]] = frozenset()
    observations: int = 0
    changes: int = 0
    events: int = 0
    history_points: int = 0
    alerts: int = 0
    falls: tuple[Change, ...] = ()


def record(
    connection: Connection,
    answered: Iterable[Product],
    *,
    now: datetime,
    raw: Callable[[str], bytes] | None = None,
    buybox: bool = False,
    falls_kept: int = 10,
    routes: Routes | None = None,
) -> Recorded:
    """Record what Keepa answered. Idempotent: the same products again change nothing but the time of the check.

    Locks each product's row first, in order of ASIN, so concurrent calls on the same products wait for one another and never deadlock.

    Args:
        connection: in a transaction the caller commits.
        answered: at most LARGEST_BATCH products; each marketplace and ASIN once.
        now: business time of the check.
        buybox: whether the request asked for the buy box.
        raw: Keepa's own JSON of a product by its ASIN; None where the products come from elsewhere.
        routes: where this transaction has locked them already.
    """
    batch = sorted(answered, key=lambda product: (product.asin, product.marketplace))
    if not batch:
        return Recorded()
    if len(batch) > LARGEST_BATCH:
        raise ValueError(f"at most {LARGEST_BATCH} products in one transaction, got {len(batch)}")
    if routes is None:
        routes = lock_routes(connection)
    if all(product.is_partial and not product.series and product.stats is None for product in batch):
        # Without a price there is no history, alert, watch or claim to look at.
        added, changed = products.write_seen(connection, batch, now=now)
        # What is new here has no price to compare either.
        product_changes.note_changes(connection, {asin for asin, marketplace in changed if (asin, marketplace) not in added})
        insert_events(connection, _product_events(batch, changed, raw, routes), routes)
        return Recorded(products=len(batch), added=added)
    history_lines: list[str] = []
    products.make_stage(connection)
    prices.make_stages(connection)
    products.stage_products(connection, batch)
    added = products.lock_products(connection, now=now)
    price_lines = (line for product in batch for line in _price_lines(product, history_lines))
    staged = prices.stage_prices(connection, price_lines, history_lines)
    changes, events, near = prices.keep_changes(connection)
    prices.move_current_prices(connection, now=now, staged=staged)
    prices.insert_history(connection)
    changed = products.update_products(connection, now=now)
    product_changes.note_changes(connection, {asin for asin, _ in changed}, looked_at={product.asin for product in batch})
    if events:
        prices.insert_price_events(connection, routes)
    insert_events(connection, _product_events(batch, changed, raw, routes), routes)
    alerted = _raise_alerts(connection, now=now, routes=routes) if near else 0
    watches.reschedule_checked(connection, now=now, buybox=buybox)
    return Recorded(
        products=len(batch),
        added=added,
        observations=staged,
        changes=changes,
        events=events,
        history_points=len(history_lines),
        alerts=alerted,
        falls=tuple(prices.select_largest_falls(connection, falls_kept)) if events and falls_kept else (),
    )


def _product_events(
    batch: Sequence[Product], changed: Collection[tuple[str, str]], raw: Callable[[str], bytes] | None, routes: Routes
) -> list[Event]:
    """What the enrichment hears of: that an ASIN changed; over Kafka Keepa's own answer, null where the change came from elsewhere."""
    events = []
    if EventKind.PRODUCT_UPDATE in routes:
        asins = dict.fromkeys(asin for asin, _ in changed)
        events += [Event.of(uuid4(), EventKind.PRODUCT_UPDATE, asin, {"asin": asin}) for asin in asins]
    if EventKind.RAW_PRODUCT in routes:
        places = set(changed)
        for product in batch:
            if raw is not None:
                body = raw(product.asin).decode(errors="replace")
            elif (product.asin, product.marketplace.value) in places:
                body = "null"
            else:
                continue
            events.append(_raw_event(product, body))
    return events


def _raw_event(product: Product, body: str) -> Event:
    timestamp = f"{product.answered_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    event_id = raw_event_id(product.asin, product.marketplace.value, timestamp)
    return Event(
        event_id,
        EventKind.RAW_PRODUCT,
        product.asin,
        f'{{"asin":"{product.asin}","domain":"{product.marketplace.value.lower()}","event_id":"{event_id}","schema_version":1,'
        f'"timestamp":"{timestamp}","event_type":"raw_product","product":{body}}}',
    )


def _raise_alerts(connection: Connection, *, now: datetime, routes: Routes) -> int:
    candidates = alerts.select_candidates(connection)
    verdicts = [_judge(one) for one in candidates]
    fired = [one for one, verdict in zip(candidates, verdicts, strict=True) if verdict is Verdict.ALERT]
    rearmed = [one.watch_id for one, verdict in zip(candidates, verdicts, strict=True) if verdict is Verdict.REARM]
    alerts.set_armed(connection, rearmed, is_armed=True)
    alerts.set_armed(connection, [one.watch_id for one in fired], is_armed=False)
    return alerts.insert_alerts(connection, fired, now=now, routes=routes)


def _judge(one: Candidate) -> Verdict:
    was_above = not one.is_armed and has_rearmed(one.highest_since_minor, one.target_minor, one.hysteresis_pct)
    verdict = judge(
        amount_minor=one.amount_minor,
        target_minor=one.target_minor,
        is_armed=one.is_armed or was_above,
        hysteresis_pct=one.hysteresis_pct,
    )
    return Verdict.REARM if was_above and verdict is Verdict.NOTHING else verdict


def _price_lines(product: Product, history_lines: list[str]) -> Iterator[str]:
    """COPY lines of every price Keepa gave: the newest point of each type, and the points before it.

    A type whose current value has no history entry gets the product's lastUpdate as its time.
    """
    if not product.kind.has_prices:
        return
    currency = product.marketplace.currency
    answered_minute = minute_of(product.answered_at)
    updated_minute = min(answered_minute, minute_of(product.updated_at)) if product.updated_at else answered_minute
    current = product.stats.current if product.stats else {}
    for name, price_type in _PRICE_NAMES:
        series = product.series.get(price_type)
        minutes: Sequence[int] = ()
        amounts: Sequence[int | None] = ()
        last = -1
        if series is not None:
            minutes, amounts = series.minutes, series.amounts
            last = len(minutes) - 1
            while last >= 0 and minutes[last] > answered_minute:
                last -= 1
            # Keepa repeats a landed price whose parts have changed; a price changes where the sum does.
            while last > 0 and amounts[last - 1] == amounts[last]:
                last -= 1
        if last < 0 and price_type not in current:
            continue
        head = f"{product.asin}\t{product.marketplace.value}\t{name}\t{currency}\t"
        amount = current[price_type] if price_type in current else amounts[last]
        if last >= 0 and amounts[last] == amount:
            minute, prior = minutes[last], last - 1
        else:
            minute, prior = updated_minute, last
            if last >= 0 and minute <= minutes[last]:
                minute = minutes[last] + 1 if minutes[last] < answered_minute else answered_minute
        prior_fields = f"{minutes[prior]}\t{amounts[prior] or _NULL}" if prior >= 0 else "\\N\t\\N"
        yield (
            f"{head}{minute}\t{amount if amount is not None else _NULL}\t{prior_fields}\t"
            f"{_event_id(product.asin, product.marketplace.value, name, minute, amount)}\n"
        )
        # What was seen by the way may be older than what is known: then it is a point of the history and nothing else.
        history_lines.extend(
            f"{head}{minutes[point]}\t{amounts[point] or _NULL}\n"
            for point in range(last + 1 if product.is_partial else prior + 1)
            if point == 0 or amounts[point] != amounts[point - 1]
        )


_NAMESPACE_BYTES = NAMESPACE.bytes


def _event_id(asin: str, marketplace: str, price_type: str, minute: int, amount: int | None) -> str:
    """`domain.events.price_event_id` as 32 hex digits: the same value without the object (a test holds them together)."""
    name = f"{asin}/{marketplace}/{price_type}/{minute * 60}/{amount if amount is not None else ''}"
    digest = sha1(_NAMESPACE_BYTES + name.encode(), usedforsecurity=False).hexdigest()
    return f"{digest[:12]}5{digest[13:16]}{_VARIANT[digest[16]]}{digest[17:32]}"
