"""Due selection, grouping and batching by 100 for a million watches, against fetching the due rows and grouping them in Python.

A million active watches of twenty users over about 610,000 products in five marketplaces (some watched by many, most by one), a fifth
of them of the buy box; a tenth was last checked days ago or never, so that every kind of request occurs. Once a tenth of them is due,
once all. The budget is unlimited: every due product comes back, in batches. `verb_1200_tokens_seconds` is the whole verb `plan` with
claims and reservations, committed, for a full bucket of 1,200 tokens while all are due.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from sqlalchemy import Connection, Engine, text

from benchmarks.figures import database, say
from keeper.plan import plan
from keeper.postgres.engine import open_engine
from keeper.postgres.watches import DueBatch, select_due_batches
from keeper.tokens import TokenSettings

WATCHES = 1_000_000
BATCH = 100
UNLIMITED = 10**9
ROUNDS = 5
INTERVAL = timedelta(hours=6)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watches", type=int, default=WATCHES, help="of which a tenth is due at first")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--memory-of", choices=["ours", "python"], help="(for itself) one selection in a process of its own")
    parser.add_argument("--now", type=datetime.fromisoformat, default=datetime.now(UTC).replace(microsecond=0))
    parser.add_argument("--until", type=datetime.fromisoformat)
    arguments = parser.parse_args()
    if arguments.memory_of:
        _say_memory(arguments.memory_of, arguments.now, arguments.until)
        return
    now = arguments.now
    with database() as engine:
        fill(engine, arguments.watches, now)
        tenth_python, tenth_ours = pairs(engine, now, now, arguments.rounds)
        all_python, all_ours = pairs(engine, now, now + INTERVAL, arguments.rounds)
        url = engine.url.render_as_string(hide_password=False)
        memory = {whose: median(measure_memory(url, whose, now, now + INTERVAL) for _ in range(3)) for whose in ("ours", "python")}
        verb = [seconds_of_verb(engine, now + INTERVAL) for _ in range(arguments.rounds)]
        with engine.begin() as connection:
            products, batches = describe(connection, now, now + INTERVAL)
            connection.execute(text("ALTER TABLE planned_checks SET (autovacuum_enabled = off)"))
            connection.execute(text("UPDATE planned_checks SET next_check_at = next_check_at + interval '1 microsecond'"))
        _, unvacuumed = pairs(engine, now, now + INTERVAL, 3)
    say(
        "plan",
        [
            ("seconds_100k", median(tenth_ours), "s", "< 0.4"),
            ("seconds_1m", median(all_ours), "s", "< 4"),
            ("peak_mb_1m", memory["ours"], "MB", "< 50"),
            ("ratio_to_python", _ratio(all_python, all_ours), "x", ""),
            ("ratio_to_python_100k", _ratio(tenth_python, tenth_ours), "x", ""),
            ("python_peak_mb_1m", memory["python"], "MB", ""),
            ("seconds_1m_unvacuumed", median(unvacuumed), "s", ""),
            ("verb_1200_tokens_seconds", median(verb), "s", ""),
            ("products_1m", products, "products", ""),
            ("batches_1m", batches, "batches", ""),
        ],
    )


def fill(engine: Engine, watches: int, now: datetime) -> None:
    """The watches in one statement; the same ones every time."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO users (name) SELECT 'user-' || number FROM generate_series(1, 20) AS number"))
        connection.execute(text("SELECT setseed(0.5)"))
        connection.execute(
            text(
                """
                INSERT INTO watched_products (user_id, asin, marketplace, price_type, target_minor, currency)
                SELECT user_id, 'B' || lpad(product::text, 9, '0'), (ARRAY['DE', 'FR', 'IT', 'ES', 'UK'])[1 + market], price_type,
                    4999, 'EUR'
                FROM (
                    SELECT DISTINCT 1 + floor(random() * 20)::int AS user_id, floor(:asins * random() ^ 1.5)::int AS product,
                        floor(random() * 5)::int AS market,
                        CASE WHEN random() < 0.2 THEN 'BUY_BOX_SHIPPING' ELSE 'NEW' END AS price_type
                    FROM generate_series(1, CAST(:watches AS bigint) * 11 / 10)
                ) AS one
                ORDER BY random() LIMIT :watches
                """
            ),
            {"watches": watches, "asins": watches // 5},
        )
        connection.execute(
            text(
                """
                INSERT INTO planned_checks (asin, marketplace, is_buybox, interval_seconds, next_check_at, last_checked_at)
                SELECT asin, marketplace, is_buybox, 21600,
                    CAST(:now AS timestamptz) + CASE WHEN random() < 0.1 THEN -1 ELSE 1 END * random() * CAST(:interval AS interval),
                    CASE WHEN chance < 0.9 THEN CAST(:now AS timestamptz) - interval '6 hours'
                        WHEN chance < 0.95 THEN CAST(:now AS timestamptz) - interval '3 days' END
                FROM (
                    SELECT *, random() AS chance FROM (
                        SELECT DISTINCT asin, marketplace, price_type = 'BUY_BOX_SHIPPING' AS is_buybox FROM watched_products
                    ) AS one
                ) AS placed
                ORDER BY random()
                """
            ),
            {"now": now, "interval": INTERVAL},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def select(connection: Connection, now: datetime, until: datetime) -> list[DueBatch]:
    """Ours."""
    return select_due_batches(
        connection,
        now=now,
        until=until,
        tokens=UNLIMITED,
        plain_tokens=1,
        buybox_tokens=3,
        plain_size=BATCH,
        buybox_size=BATCH,
    )


def select_in_python(connection: Connection, now: datetime, until: datetime) -> list[tuple[str, bool, int, list[str]]]:
    """The plain way: every due row, oldest first, into dicts and lists."""
    rows = connection.execute(
        text(
            """
            SELECT asin, marketplace, is_buybox, last_checked_at FROM planned_checks
            WHERE next_check_at <= :until ORDER BY next_check_at
            """
        ),
        {"until": until},
    ).fetchall()
    day_ago, month_ago = now - timedelta(days=1), now - timedelta(days=30)
    products: dict[tuple[str, str], tuple[bool, int]] = {}
    for asin, marketplace, is_buybox, checked_at in rows:
        days = 365 if checked_at is None or checked_at <= month_ago else 31 if checked_at <= day_ago else 2
        buybox, longest = products.get((asin, marketplace), (False, 0))
        products[asin, marketplace] = (buybox or is_buybox, max(longest, days))
    kinds: dict[tuple[str, bool, int], list[str]] = {}
    for (asin, marketplace), (buybox, days) in products.items():
        kinds.setdefault((marketplace, buybox, days), []).append(asin)
    return [(*kind, asins[start : start + BATCH]) for kind, asins in kinds.items() for start in range(0, len(asins), BATCH)]


def pairs(engine: Engine, now: datetime, until: datetime, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of the plain way and of ours, in turns; both must agree on how many batches there are."""
    python, ours = [], []
    for _ in range(rounds):
        with engine.begin() as connection:
            seconds, theirs = timed(lambda: select_in_python(connection, now, until))
            python.append(seconds)
        with engine.begin() as connection:
            seconds, batches = timed(lambda: select(connection, now, until))
            ours.append(seconds)
        assert len(batches) == len(theirs)
        print(f"{len(batches)} batches: Python {python[-1]:.2f} s, ours {ours[-1]:.2f} s", file=sys.stderr)
    return python, ours


def timed(work: Callable[[], Sequence[object]]) -> tuple[float, Sequence[object]]:
    """Seconds, and what came of it."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def seconds_of_verb(engine: Engine, until: datetime) -> float:
    """The whole verb for a full bucket of 1,200 tokens; what it claimed is given back afterwards."""
    at = datetime.now(UTC)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE token_ledger SET tokens = 1200, refill_per_minute = 20, observed_at = :at, next_refill_at = :next"),
            {"at": at, "next": at + timedelta(minutes=1)},
        )
    started = time.perf_counter()
    with engine.begin() as connection:
        requests = plan(connection, now=until, settings=TokenSettings())
    seconds = time.perf_counter() - started
    assert 1100 <= sum(request.tokens for request in requests) <= 1200
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE check_claims, token_reservations"))
    return seconds


def describe(connection: Connection, now: datetime, until: datetime) -> tuple[int, int]:
    """Products and batches of one selection, which must hold each due product once."""
    batches = select(connection, now, until)
    products = [(asin, batch.marketplace) for batch in batches for asin in batch.asins]
    distinct = connection.execute(
        text("SELECT count(*) FROM (SELECT DISTINCT asin, marketplace FROM watched_products) AS one")
    ).scalar_one()
    assert len(products) == len(set(products)) == distinct
    assert all(len(batch.asins) <= BATCH for batch in batches)
    return len(products), len(batches)


def measure_memory(url: str, whose: str, now: datetime, until: datetime) -> float:
    """By how much a process of its own grows at its peak, megabytes."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plan", "--memory-of", whose, "--now", now.isoformat(), "--until", until.isoformat()],
        input=url,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    return float(json.loads(done.stdout)["peak_mb"])


def _say_memory(whose: str, now: datetime, until: datetime) -> None:
    engine = open_engine(sys.stdin.read(), statement_timeout_seconds=600)
    ways: dict[str, Callable[[Connection, datetime, datetime], Sequence[object]]] = {"ours": select, "python": select_in_python}
    with engine.begin() as connection:
        # Driver, pool and code are there before it counts.
        ways[whose](connection, now, now - 2 * INTERVAL)
        before = _peak_mb()
        found = ways[whose](connection, now, until)
        print(json.dumps({"peak_mb": _peak_mb() - before, "batches": len(found)}))
    engine.dispose()


def _peak_mb() -> float:
    """Peak of this process, everything included: Python's objects, the driver's buffers."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would say the peak of the parent too: it survives exec.
        return next(float(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _ratio(baseline: Sequence[float], ours: Sequence[float]) -> float:
    return median(theirs / own for theirs, own in zip(baseline, ours, strict=True))


if __name__ == "__main__":
    main()
