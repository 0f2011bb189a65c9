"""Products, watches, channels and looks at tables, as the tests of the database need them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, event, text

from keeper.domain.events import KINDS, EventKind, Sink
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_series import PriceSeries, minute_of
from keeper.domain.price_type import PriceType
from keeper.domain.product import Product, ProductKind, ProductStats
from keeper.domain.watch import DEFAULT_HYSTERESIS_PCT, DEFAULT_INTERVAL, Watch
from keeper.notify.channels import ChannelCipher, make_key, mask_url, scheme_of
from keeper.postgres.sinks import delete_sink, insert_sink, lock_sinks, select_sinks
from keeper.postgres.users import insert_channel, insert_user
from keeper.postgres.watches import insert_watch
from keeper.record import Recorded, record

ASIN = "B07W6JG6Z7"
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ALL_SINKS = frozenset({Sink.KAFKA, Sink.SEARCH, Sink.NOTIFY})
CIPHER = ChannelCipher([make_key()])

Points = Sequence[tuple[datetime, int | None]]
_NOT_SAID: Any = object()


def ago(**parts: float) -> datetime:
    """Some time before NOW."""
    return NOW - timedelta(**parts)


def product(
    points: Points | Mapping[PriceType, Points] = (),
    *,
    asin: str = ASIN,
    marketplace: Marketplace = Marketplace.DE,
    at: datetime = NOW,
    kind: ProductKind = ProductKind.STANDARD,
    current: int | Mapping[PriceType, int | None] | None = _NOT_SAID,
    **facts: Any,
) -> Product:
    """What Keepa answered at `at`: points of NEW, or of several types; `current` where the statistics say so."""
    by_type = points if isinstance(points, Mapping) else {PriceType.NEW: points}
    series = {kind_: PriceSeries([minute_of(when) for when, _ in some], [amount for _, amount in some]) for kind_, some in by_type.items()}
    stats = None
    if current is not _NOT_SAID:
        stats = ProductStats(current if isinstance(current, Mapping) else {PriceType.NEW: current}, {}, {}, {}, {}, {}, {}, {})
    said: dict[str, Any] = {"updated_at": at, "title": "Tastatur"} | facts
    return Product(asin, marketplace, kind, at, **said, series=series, stats=stats)


def add_user(engine: Engine, name: str = "anna", *, channels: Sequence[str] = (), cipher: ChannelCipher = CIPHER) -> int:
    """A user with channels to these URLs, named c0, c1 and so on."""
    with engine.begin() as connection:
        user_id = insert_user(connection, name)
        for number, url in enumerate(channels):
            insert_channel(
                connection,
                user_id,
                name=f"c{number}",
                scheme=scheme_of(url) or "",
                shown=mask_url(url),
                url_encrypted=cipher.encrypt(url),
                key_fingerprint=cipher.fingerprint,
            )
    return user_id


def add_watch(
    engine: Engine,
    user_id: int,
    target: int | None = None,
    *,
    asin: str = ASIN,
    marketplace: Marketplace = Marketplace.DE,
    price_type: PriceType = PriceType.NEW,
    interval: timedelta = DEFAULT_INTERVAL,
    hysteresis_pct: float = DEFAULT_HYSTERESIS_PCT,
    now: datetime = NOW,
) -> int:
    """A watch; its first check is due at `now`."""
    money = None if target is None else Money(target, marketplace.currency)
    watch = Watch(asin, marketplace, price_type, money, interval, hysteresis_pct)
    with engine.begin() as connection:
        return insert_watch(connection, user_id, watch, now=now).watch_id


def run_record(engine: Engine, *answered: Product, sinks: frozenset[Sink] = ALL_SINKS, buybox: bool = False) -> Recorded:
    """The verb in a transaction of its own; the check's time is that of the latest answer."""
    use_sinks(engine, sinks)
    with engine.begin() as connection:
        return record(connection, answered, now=max(one.answered_at for one in answered), buybox=buybox)


def use_sinks(engine: Engine, sinks: Collection[Sink], *, without: Collection[EventKind] = (EventKind.RAW_PRODUCT,)) -> None:
    """These and no others receive events from now on; Keepa's own answers only where asked for, as they would stand beside each event."""
    with engine.begin() as connection:
        lock_sinks(connection)
        for known in select_sinks(connection):
            if known.name not in sinks:
                delete_sink(connection, known.name)
        for sink in sinks:
            insert_sink(connection, sink.value, set(KINDS[sink]) - set(without), from_oldest=False)


def rows(engine: Engine, query: str, **parameters: Any) -> list[Any]:
    """What a query finds; single columns as plain values."""
    with engine.begin() as connection:
        found = connection.execute(text(query), parameters)
        return [row[0] if len(row) == 1 else tuple(row) for row in found]


def one(engine: Engine, query: str, **parameters: Any) -> Any:
    """The only row of a query."""
    [row] = rows(engine, query, **parameters)
    return row


def history(engine: Engine, price_type: PriceType = PriceType.NEW, *, asin: str = ASIN) -> list[tuple[datetime, int | None]]:
    """The change points kept of a series, oldest first."""
    return rows(
        engine,
        "SELECT observed_at, amount_minor FROM price_history WHERE asin = :asin AND price_type = :kind ORDER BY observed_at",
        asin=asin,
        kind=price_type.value,
    )


def price_events(engine: Engine) -> list[dict[str, Any]]:
    """The payloads of price updates in order."""
    return rows(engine, "SELECT payload FROM events WHERE kind = 'price_update' ORDER BY seq")


def plans(engine: Engine, ask: Callable[[Connection], object]) -> str:
    """How the database goes about every query of `ask`."""
    asked: list[tuple[str, Any]] = []

    def keep(connection: Connection, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        asked.append((statement, parameters))

    with engine.begin() as connection:
        event.listen(engine, "before_cursor_execute", keep)
        try:
            ask(connection)
        finally:
            event.remove(engine, "before_cursor_execute", keep)
        queries = [(statement, values) for statement, values in asked if statement.split(None, 1)[0] in _PLANNED]
        return "\n".join(line for statement, values in queries for (line,) in connection.exec_driver_sql(f"EXPLAIN {statement}", values))


_PLANNED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"})


TABLES = (
    "products", "current_prices", "price_history", "watched_products", "price_alerts", "deliveries", "events", "outbox", "dead_letters",
    "check_claims", "planned_checks",
)  # fmt: skip


def everything(engine: Engine) -> dict[str, list[str]]:
    """Every row of every table that `record` writes, as text."""
    return {table: sorted(rows(engine, f"SELECT {table}::text FROM {table}")) for table in TABLES}
