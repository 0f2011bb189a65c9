"""The verb `record` against a bare COPY of every row it leaves behind, and against a loop of single-row ORM inserts.

100,000 observations over 10,000 ASINs, half of them changed prices of watched price types; sinks `kafka` and `search` are switched on
with nothing behind them, so each change leaves an event and two thin outbox rows.
"""

import argparse
import random
import re
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from sqlalchemy import Engine, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.figures import database, say
from keeper.domain.events import EventKind, Sink
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_series import PriceSeries, minute_of
from keeper.domain.price_type import PriceType
from keeper.domain.product import Product, ProductKind, ProductStats
from keeper.domain.watch import Watch
from keeper.postgres.engine import driver_of
from keeper.postgres.watches import insert_watches
from keeper.record import LARGEST_BATCH, record
from keeper.sinks import switch_on

PRICE_TYPES = [
    PriceType.NEW, PriceType.AMAZON, PriceType.USED, PriceType.REFURBISHED, PriceType.COLLECTIBLE,
    PriceType.LIGHTNING_DEAL, PriceType.PRIME_EXCL, PriceType.LISTPRICE, PriceType.NEW_FBA, PriceType.WAREHOUSE,
]  # fmt: skip
WATCHED = PRICE_TYPES[:5]
# Every row the verb inserts or rewrites, with the primary keys of their tables.
LEFT_BEHIND = ("price_history", "current_prices", "events", "outbox", "planned_checks", "products")


def answers(asins: list[str], at: datetime, seed: int, changed: bool) -> list[Product]:
    """A check of every ASIN: ten price types each; the watched half moved where `changed`."""
    minute = minute_of(at)
    base = random.Random(1)
    found = []
    for asin in asins:
        series, current = {}, {}
        for price_type in PRICE_TYPES:
            old = base.randrange(1000, 90000)
            moved = changed and price_type in WATCHED
            amount = old + seed if moved else old
            current[price_type] = amount
            series[price_type] = PriceSeries(
                (minute - 2,) if moved else (minute_of(at - timedelta(days=30)) // 100000 * 100000,), (amount,)
            )
        stats = ProductStats(current, {}, {}, {}, {}, {}, {}, {})
        found.append(
            Product(
                asin=asin, marketplace=Marketplace.DE, kind=ProductKind.STANDARD, answered_at=at, updated_at=at,
                title=f"Cherry KC 1000 Tastatur, QWERTZ, kabelgebunden, flaches Design {asin}", brand="CHERRY",
                category_ids=(340843031,), category_path=("Computer & Zubehör", "Tastaturen"), eans=("4025112081200",),
                sales_rank=1200, series=series, stats=stats,
            )
        )  # fmt: skip
    return found


def fill(engine: Engine, asins: list[str], at: datetime) -> None:
    """A user who watches five price types of every ASIN, and a first check of everything."""
    with engine.begin() as connection:
        user_id = connection.execute(text("INSERT INTO users (name) VALUES ('bench') RETURNING id")).scalar_one()
        for start in range(0, len(asins), 1000):
            insert_watches(
                connection,
                user_id,
                [Watch(asin, Marketplace.DE, kind, Money(500, "EUR")) for asin in asins[start : start + 1000] for kind in WATCHED],
                now=at,
            )
    for sink in (Sink.KAFKA, Sink.SEARCH):
        switch_on(engine, sink.value, [EventKind.PRICE_UPDATE], from_oldest=False)
    run_verb(engine, answers(asins, at, 1, changed=False), at)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def run_verb(engine: Engine, products: list[Product], at: datetime, workers: int = 1) -> float:
    """Seconds for the whole verb, committed."""

    def work(share: list[Product]) -> None:
        for start in range(0, len(share), LARGEST_BATCH):
            with engine.begin() as connection:
                record(connection, share[start : start + LARGEST_BATCH], now=at)

    started = time.perf_counter()
    if workers == 1:
        work(products)
    else:
        size = -(-len(products) // workers)
        threads = [threading.Thread(target=work, args=(products[n * size : (n + 1) * size],)) for n in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return time.perf_counter() - started


def rows_left(engine: Engine, at: datetime) -> dict[str, bytes]:
    """Every row the last run left behind, as COPY text."""
    conditions = {
        "price_history": "event_id IS NOT NULL AND observed_at >= '" + (at - timedelta(minutes=3)).isoformat() + "'",
        "current_prices": "true",
        "planned_checks": "true",
        "products": "true",
        "events": "true",
        "outbox": "true",
    }
    left = {}
    with engine.connect() as connection, driver_of(connection).cursor() as cursor:
        for table in LEFT_BEHIND:
            with cursor.copy(f"COPY (SELECT * FROM {table} WHERE {conditions[table]}) TO STDOUT") as copy:
                left[table] = b"".join(bytes(chunk) for chunk in copy)
    return left


def run_copy(engine: Engine, left: dict[str, bytes]) -> float:
    """Seconds for a bare COPY of the same rows into empty tables with the same keys, committed."""
    with engine.begin() as connection:
        for table in left:
            connection.execute(text(f"DROP TABLE IF EXISTS bare_{table}"))
            connection.execute(text(f"CREATE TABLE bare_{table} (LIKE {table})"))
            key = connection.execute(
                text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'p' AND conrelid = CAST(:t AS regclass)"),
                {"t": table},
            ).scalar_one()
            connection.execute(text(f"ALTER TABLE bare_{table} ADD {key}"))
    started = time.perf_counter()
    with engine.begin() as connection, driver_of(connection).cursor() as cursor:
        for table, rows in left.items():
            with cursor.copy(f"COPY bare_{table} FROM STDIN") as copy:
                copy.write(rows)
    return time.perf_counter() - started


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    __tablename__ = "bare_orm"
    id: Mapped[int] = mapped_column(primary_key=True)
    asin: Mapped[str]
    marketplace: Mapped[str]
    price_type: Mapped[str]
    amount_minor: Mapped[int]
    observed_at: Mapped[datetime]


def run_orm(engine: Engine, at: datetime, rows: int) -> float:
    """Seconds per observation of the reference's way: one ORM object and one commit each."""
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS bare_orm"))
        connection.execute(
            text(
                "CREATE TABLE bare_orm (id serial PRIMARY KEY, asin text, marketplace text, price_type text, "
                "amount_minor int, observed_at timestamptz)"
            )
        )
    started = time.perf_counter()
    with Session(engine) as session:
        for number in range(rows):
            session.add(_Row(asin=f"B{number:09d}", marketplace="DE", price_type="NEW", amount_minor=4999, observed_at=at))
            session.commit()
    return (time.perf_counter() - started) / rows


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asins", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="where the time goes, by statement")
    arguments = parser.parse_args()
    asins = [f"B{number:09d}" for number in range(arguments.asins)]
    at = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=1)
    observations = arguments.asins * len(PRICE_TYPES)
    ratios: list[float] = []
    ratios_two: list[float] = []
    rates: list[float] = []
    with database() as engine:
        fill(engine, asins, at)
        for pair in range(arguments.pairs):
            for workers, kept in ((1, ratios), (2, ratios_two)):
                at += timedelta(minutes=10)
                with engine.begin() as connection:
                    connection.execute(text("TRUNCATE outbox, events"))
                products = answers(asins, at, 100 + pair * 2 + workers, changed=True)
                if arguments.profile:
                    _profile(engine, products, at)
                    continue
                verb = run_verb(engine, products, at, workers)
                left = rows_left(engine, at)
                assert left["events"].count(b"\n") == observations // 2 and left["outbox"].count(b"\n") == observations
                assert left["price_history"].count(b"\n") == observations // 2
                bare = run_copy(engine, left)
                kept.append(bare / verb)
                if workers == 1:
                    rates.append(observations / verb)
                print(
                    f"pair {pair + 1}, {workers} transactions: verb {verb:.2f} s, bare COPY {bare:.2f} s, ratio {bare / verb:.3f}",
                    file=sys.stderr,
                )
        orm = [run_orm(engine, at, 2000) for _ in range(3)] if not arguments.profile else [1.0]
    if not arguments.profile:
        say(
            "record",
            [
                ("ratio_to_copy", median(ratios), "x", ">= 0.25, aim 0.4"),
                ("ratio_to_copy_two_transactions", median(ratios_two), "x", "none"),
                ("ratio_to_orm_loop", median(rates) * median(orm), "x", ">= 20"),
                ("observations_per_second", median(rates), "1/s", "none"),
            ],
        )


def _profile(engine: Engine, products: list[Product], at: datetime) -> None:

    spent: dict[str, float] = {}

    @event.listens_for(engine, "before_cursor_execute")
    def before(*given: Any) -> None:
        given[4].started = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def after(*given: Any) -> None:
        name = re.sub(r"\s+", " ", given[2]).strip()[:110]
        spent[name] = spent.get(name, 0) + time.perf_counter() - given[4].started

    total = run_verb(engine, products, at)
    event.remove(engine, "before_cursor_execute", before)
    event.remove(engine, "after_cursor_execute", after)
    for name, seconds in sorted(spent.items(), key=lambda row: -row[1]):
        print(f"{seconds:6.2f} s  {name}", file=sys.stderr)
    print(f"{total - sum(spent.values()):6.2f} s  Python and COPY; {total:.2f} s in all", file=sys.stderr)


if __name__ == "__main__":
    main()
