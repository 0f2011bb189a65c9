"""The comparison of stores: `python -m benchmarks.arbitrage` (`--products 100000` for a smaller one, `--profile` for where the time goes).

A million products in five stores, each with a price of new goods, a listing with its facts and texts: 20 million ordered pairs. Prices of
a product differ between stores by 2.5 % (standard deviation), and in a twentieth of the listings by 12 %; so some percent of the pairs
have a gross gap of more than 10 %. A price that changes is drawn anew. Exchange rate, taxes and fees are those of `seeds/`, customs are
filled in, and the seller knows his costs, so that most profits are known.

`ratio_to_bare_pass`: a full pass (`compare(is_full=True)`: every product is read, every pair compared, the true profit of every candidate
reckoned, and what differs from the open opportunities written, in transactions) against the bare pass of the same engine, PostgreSQL read
into numpy: the same columns of the same rows by the same statements (all prices; the facts of the products that are candidates) into the
same arrays, each summed once. PostgreSQL is where the prices are, and numpy holds them in a tenth of the memory that Python's objects
take; polars would have to be carried besides, and read the same way. In turns; medians. The full pass is the one of an installation that
runs: its opportunities stand from the pass before, and 1 % of the prices have changed since. The first pass of all, which writes every
opportunity, is told apart.

`incremental_share_pct`: a pass after 1 % of all prices have changed, by the seconds of the full one: where they are all the prices of 1 %
of the products, as a check of products brings them; `_scattered` where each is of another product, 5 % of all.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from cProfile import Profile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from pstats import Stats
from typing import TypeVar

import numpy as np
from sqlalchemy import Connection, Engine, text

from benchmarks.deals import statement_times
from benchmarks.figures import database, say
from keeper.compare import ROWS_AT_ONCE, Terms, compare
from keeper.domain.borders import parse_borders
from keeper.domain.exchange import ExchangeRates
from keeper.domain.fee_category import FeeCategories, FeeCategoryRule
from keeper.domain.marketplace import COMPARED
from keeper.domain.seller import InboundBand, SellerProfile
from keeper.postgres import comparison
from keeper.postgres.engine import open_engine
from keeper.profit_pass import NONE, Columns, ProfitPass
from keeper.trade_files import read_seed_rates, read_tables

Figure = tuple[str, float, str, str]
Done = TypeVar("Done")

SEEDS = Path(__file__).parents[1] / "seeds"
NOW = datetime(2026, 5, 11, 12, tzinfo=UTC)
ROUNDS = 3
RATIO_GOAL = 4
SHARE_GOAL = 5
SIZES = (10_000, 100_000, 1_000_000)
CATEGORIES = ("default", "electronics", "computer_accessories", "home_products", "clothing", "furniture", "jewellery")
BORDERS = (
    "from_area,to_area,category,customs_pct,clearance,clearance_currency,export_vat_refunded,valid_from,source\n"
    "EU,UK,default,3,1.50,GBP,yes,2021-01-01,benchmark\nUK,EU,default,3,1.50,EUR,yes,2021-01-01,benchmark\n"
)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=SIZES[-1], help="of the largest run; smaller ones are run before it")
    parser.add_argument("--profile", action="store_true", help="where the time goes, by statement and by function; no figures")
    parser.add_argument("--pass-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pass_of:
        print(json.dumps(measure_memory(options.pass_of)))
        return
    if options.profile:
        profile(options.products)
        return
    figures: list[Figure] = []
    seconds_by_size: dict[int, float] = {}
    for size in [one for one in SIZES if one < options.products] + [options.products]:
        with database() as engine:
            found, seconds_by_size[size] = measure_detection(engine, size, is_largest=size == options.products)
            figures += found
    smallest, largest = min(seconds_by_size), max(seconds_by_size)
    per_product = (seconds_by_size[largest] / largest) / (seconds_by_size[smallest] / smallest)
    figures.append((f"seconds_a_product_{largest}_by_{smallest}", per_product, "ratio", "<= 1.5"))
    say("arbitrage", figures)


def make_terms() -> Terms:
    """What is compared by."""
    stores = {store: number for number, store in enumerate(COMPARED)}
    rules = [
        FeeCategoryRule(store, 1000 * (number + 1) + place, category, None, category, "benchmark")
        for store, number in stores.items()
        for place, category in enumerate(CATEGORIES)
    ]
    seller = SellerProfile(
        "DE",
        frozenset({"DE"}),
        True,
        "EUR",
        60,
        20,
        Decimal(2),
        tuple(InboundBand(None, None, grams, cents) for grams, cents in ((250, 60), (1000, 110), (5000, 260), (None, 600))),
    )
    tables = replace(read_tables(SEEDS), borders=parse_borders("benchmark", BORDERS))
    return Terms(seller, tables, ExchangeRates(read_seed_rates(SEEDS)), FeeCategories(tuple(rules)))


# How a store's price differs from the product's.
_SPREAD = "exp(random_normal(0, CASE WHEN random() < 0.05 THEN 0.12 ELSE 0.025 END))"


def fill(engine: Engine, products: int) -> None:
    """Listings and prices, the same in every run."""
    stores = [store.value for store in COMPARED]
    currencies = [store.currency for store in COMPARED]
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        # What their titles are found by in a search takes longer to make than all the rest, and no comparison reads it.
        connection.execute(text("ALTER TABLE products DISABLE TRIGGER USER"))
        connection.execute(text("SELECT setseed(0.5)"))
        connection.execute(
            text(
                """
                CREATE UNLOGGED TABLE base AS
                SELECT n, 'B' || upper(lpad(to_hex(n), 9, '0')) AS asin, exp(random_normal(3.4, 0.9)) AS euros, (n % 7) AS category,
                    (random() * 3000)::int + 50 AS grams
                FROM generate_series(1, :products) AS n
                """
            ),
            {"products": products},
        )
        connection.execute(
            text(
                """
                INSERT INTO products (asin, marketplace, kind, title, brand, model, color, size, root_category_id, category_path, eans,
                    sales_rank, monthly_sold, availability, referral_fee_pct, fba_pick_pack_minor, package_weight_g, package_quantity,
                    first_seen_at, checked_at, changed_at, is_hazardous, is_heat_sensitive, offer_count, sales_rank_drops_30,
                    buy_box_is_amazon)
                SELECT asin, store, 'standard', 'Product ' || n || ' with a title as long as they are, in the words of ' || store
                    || CASE WHEN n % 20 = 0 THEN ', 2er Pack' ELSE '' END,
                    'Brand ' || n % 5000, 'M' || n, (ARRAY['Schwarz', 'Weiß', 'Rot'])[1 + n % 3], (n % 40) || ' cm',
                    1000 * number + category, ARRAY['Root ' || category, 'Node ' || n % 400],
                    ARRAY[lpad((4000000000000 + n)::text, 13, '0')], (random() * 200000)::int,
                    CASE WHEN random() < 0.5 THEN (random() * 300)::int END,
                    (ARRAY['in_stock', 'no_offer', NULL])[1 + (random() * 2.99)::int], 15,
                    CASE WHEN random() < 0.9 THEN 250 + grams / 10 END, grams, 1, :now, :now, :now, random() < 0.03, random() < 0.02,
                    (random() * 25)::int, CASE WHEN random() < 0.8 THEN (random() * 90)::int END, random() < 0.2
                FROM base CROSS JOIN unnest(CAST(:stores AS text[])) WITH ORDINALITY AS s (store, number)
                ORDER BY asin, store
                """
            ),
            {"stores": stores, "now": NOW},
        )
        connection.execute(
            text(
                f"""
                INSERT INTO current_prices (asin, marketplace, price_type, amount_minor, currency, observed_at, checked_at)
                SELECT asin, store, 'NEW', greatest(100, round(100 * euros * CASE currency WHEN 'GBP' THEN 0.8641 ELSE 1 END
                    * {_SPREAD})::int), currency, :now,
                    :now - random() * interval '5 hours'
                FROM base CROSS JOIN unnest(CAST(:stores AS text[]), CAST(:currencies AS text[])) AS s (store, currency)
                ORDER BY asin, store
                """
            ),
            {"stores": stores, "currencies": currencies, "now": NOW},
        )
        connection.execute(text("ALTER TABLE products ENABLE TRIGGER USER"))
    tidy(engine, "products")


def tidy(engine: Engine, *also: str) -> None:
    """As autovacuum and a checkpoint leave the tables: the next writes are of pages that the log has to hold whole."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        for table in (*also, "current_prices", "opportunities", "product_changes"):
            connection.execute(text(f"VACUUM ANALYZE {table}"))
        connection.execute(text("CHECKPOINT"))


def measure_detection(engine: Engine, products: int, *, is_largest: bool) -> tuple[list[Figure], float]:
    """Figures of one size, and the seconds of a full pass."""
    begun = time.perf_counter()
    fill(engine, products)
    print(f"{products} products filled in {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    terms = make_terms()
    first_seconds, first = timed(lambda: compare(engine, now=NOW, terms=terms))
    tidy(engine)
    shares = candidates_by_chunk(engine, terms)
    full: list[float] = []
    bare: list[float] = []
    alone: list[float] = []
    scattered: list[float] = []
    for number in range(ROUNDS):
        at = NOW + timedelta(hours=2 * number + 2)
        bare.append(timed(lambda: bare_pass(engine, terms, shares))[0])
        change_products(engine, products, 2 * number)
        full.append(_timed_pass(engine, terms, at, is_full=True))
        change_products(engine, products, 2 * number + 1)
        alone.append(_timed_pass(engine, terms, at + timedelta(minutes=30)))
        change_prices(engine, products, number)
        scattered.append(_timed_pass(engine, terms, at + timedelta(hours=1)))
    ratio = statistics.median(ours / theirs for ours, theirs in zip(full, bare, strict=True))
    seconds = statistics.median(full)
    name = f"_{products}"
    figures: list[Figure] = [
        (f"ratio_to_bare_pass{name}", ratio, "ratio", f"<= {RATIO_GOAL}" if is_largest else ""),
        (f"full_seconds{name}", seconds, "s", ""),
        (f"bare_seconds{name}", statistics.median(bare), "s", ""),
        (f"first_full_seconds{name}", first_seconds, "s", ""),
        (f"ratio_to_bare_pass_first{name}", first_seconds / statistics.median(bare), "ratio", ""),
        (f"pairs{name}", first.pairs, "pairs", ""),
        (f"candidates_pct{name}", first.opened / first.pairs * 100, "%", ""),
        (f"peak_mb{name}", memory_of_a_pass(engine), "MB", ""),
    ]
    for kind, taken in (("", alone), ("_scattered", scattered)):
        share = statistics.median(part / whole for part, whole in zip(taken, full, strict=True)) * 100
        figures.append((f"incremental_share_pct{kind}{name}", share, "%", f"<= {SHARE_GOAL}" if is_largest else ""))
        figures.append((f"incremental_seconds{kind}{name}", statistics.median(taken), "s", ""))
    figures += pass_figures(engine, terms, name)
    return figures, seconds


def _timed_pass(engine: Engine, terms: Terms, at: datetime, *, is_full: bool = False) -> float:
    """Seconds of a pass."""
    seconds, done = timed(lambda: compare(engine, now=at, terms=terms, is_full=is_full))
    print(f"{seconds:.2f} s: {done.sentence}", file=sys.stderr, flush=True)
    assert done.why == ("asked for" if is_full else "changes")
    return seconds


def timed(work: Callable[[], Done]) -> tuple[float, Done]:
    """Seconds, and what it gave."""
    begun = time.perf_counter()
    done = work()
    return time.perf_counter() - begun, done


def chunks(engine: Engine, terms: Terms) -> Iterator[tuple[Connection, comparison.Prices]]:
    """The walk of a full pass: connection and prices of each transaction."""
    after: str | None = ""
    while after is not None:
        with engine.begin() as connection:
            prices = comparison.read_prices_after(
                connection,
                after,
                rows=ROWS_AT_ONCE,
                price_type=terms.price_type,
                stores=terms.stores,
                checked_since=NOW - terms.price_ends_after,
            )
            yield connection, prices
        after = prices.last


def candidates_by_chunk(engine: Engine, terms: Terms) -> list["comparison.Words"]:
    """Which products' facts a pass reads."""
    ready = make_pass(terms)
    found = []
    for _, prices in chunks(engine, terms):
        candidates = ready.find_candidates(prices.minor, terms.least_margin_pct)
        found.append(prices.asins[np.unique(candidates.products)])
    return found


def bare_pass(engine: Engine, terms: Terms, shares: list["comparison.Words"]) -> int:
    """The same columns read once and summed."""
    total = 0
    for number, (connection, prices) in enumerate(chunks(engine, terms)):
        listings = comparison.read_listings(
            connection,
            shares[number],
            price_type=terms.price_type,
            stores=terms.stores,
            now=NOW,
            checked_since=NOW - terms.price_ends_after,
        )
        total += int(prices.minor.sum()) + sum(int(getattr(listings, column).sum()) & 0xFF for column in listings.__slots__)
    return total


def make_pass(terms: Terms) -> ProfitPass:
    """Ready to reckon."""
    return ProfitPass(terms.stores, terms.categories, seller=terms.seller, tables=terms.tables, rates=terms.rates, on=NOW.date())


def pass_figures(engine: Engine, terms: Terms, name: str) -> list[Figure]:
    """The reckoning alone, of arrays in memory: only what has a gap, and everything."""
    ready = make_pass(terms)
    parts = [prices.minor for _, prices in chunks(engine, terms)]

    def reckon(least: Decimal | None) -> float:
        begun = time.perf_counter()
        for prices in parts:
            shape = prices.shape
            columns = Columns(
                prices, np.ones(shape, np.int64), np.full(shape, NONE), np.full(shape, 320, np.int64), np.full(shape, 500, np.int64)
            )
            candidates = ready.find_candidates(prices, least)
            ready.reckon(candidates, columns)
        return time.perf_counter() - begun

    return [
        (f"reckoning_seconds{name}", min(reckon(terms.least_margin_pct) for _ in range(2)), "s", ""),
        (f"reckoning_of_every_pair_seconds{name}", reckon(None), "s", ""),
    ]


def change_products(engine: Engine, products: int, number: int) -> None:
    """Every price of 1 % of the products, and the note that `record` makes."""
    _change(engine, "n % 100 = :number", products, number)


def change_prices(engine: Engine, products: int, number: int) -> None:
    """1 % of the prices, each of another product."""
    _change(engine, "n % 20 = :number AND s.number - 1 = n / 20 % 5", products, number)


def _change(engine: Engine, where: str, products: int, number: int) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                f"""
                WITH changed AS (
                    UPDATE current_prices c
                    SET amount_minor = greatest(100, round(100 * euros * CASE currency WHEN 'GBP' THEN 0.8641 ELSE 1 END * {_SPREAD})::int)
                    FROM base, unnest(CAST(:stores AS text[])) WITH ORDINALITY AS s (store, number)
                    WHERE {where} AND c.asin = base.asin AND c.marketplace = s.store AND c.price_type = 'NEW'
                    RETURNING c.asin
                )
                INSERT INTO product_changes (asin) SELECT DISTINCT asin FROM changed
                """
            ),
            {"number": number, "stores": [store.value for store in COMPARED]},
        )
        changed = connection.execute(text("SELECT count(*) FROM product_changes")).scalar_one()
        assert changed == products // (100 if "100" in where else 20)
    tidy(engine)


def memory_of_a_pass(engine: Engine) -> float:
    """By how much a process of its own grows at its peak, megabytes."""
    url = engine.url.render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.arbitrage", "--pass-of", url], stdout=subprocess.PIPE, check=True, text=True, timeout=600
    )
    return float(json.loads(done.stdout)["peak_mb"])


def measure_memory(url: str) -> dict[str, float]:
    """In that process: a full pass."""
    engine = open_engine(url, statement_timeout_seconds=600)
    terms = make_terms()
    before = _peak_mb()
    compare(engine, now=NOW + timedelta(hours=8), terms=terms, is_full=True)
    engine.dispose()
    return {"peak_mb": _peak_mb() - before}


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    # getrusage would say the peak of the parent too: it survives exec.
    return next(float(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def profile(products: int) -> None:
    """Where the time of the first and of a later full pass goes."""
    terms = make_terms()
    with database() as engine:
        fill(engine, products)
        for name, hours in (("first", 0), ("again", 2)):
            profiled = Profile()
            with statement_times(engine) as spent:
                profiled.enable()
                seconds, done = timed(partial(compare, engine, now=NOW + timedelta(hours=hours), terms=terms, is_full=True))
                profiled.disable()
            print(f"{name}: {seconds:.2f} s, {done.sentence}", file=sys.stderr)
            for statement, statement_seconds in sorted(spent.items(), key=lambda row: -row[1])[:12]:
                print(f"{statement_seconds:7.2f} s  {statement}", file=sys.stderr)
            Stats(profiled, stream=sys.stderr).sort_stats("tottime").print_stats(22)
            tidy(engine)
        change_products(engine, products, 0)
        with statement_times(engine) as spent:
            _timed_pass(engine, terms, NOW + timedelta(hours=4))
        for statement, statement_seconds in sorted(spent.items(), key=lambda row: -row[1])[:12]:
            print(f"{statement_seconds:7.2f} s  {statement}", file=sys.stderr)


if __name__ == "__main__":
    main()
