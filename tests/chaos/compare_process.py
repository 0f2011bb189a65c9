"""A comparison to be killed: `python -m tests.chaos.compare_process DATABASE`. It compares until nothing is left to be looked at."""

import sys
import time
from datetime import timedelta

from sqlalchemy import Engine

from keeper import compare as verb
from keeper.compare import Compared, ComparisonRunning, compare
from keeper.postgres.engine import open_engine
from tests.integration.makers import NOW, product, run_record
from tests.integration.test_compare import ROOT, TERMS

ASINS = [f"B{number:09d}" for number in range(60)]
PASSES = 3
# What a killed server process has not noticed yet, it notices soon.
PATIENCE_SECONDS = 30


def see_prices(engine: Engine, step: int) -> None:
    """All prices of a step, which differ from those of the one before."""
    at = NOW + timedelta(minutes=step)
    answered = [
        product([(at, 2000 + 100 * ((place + step * number) % 17))], asin=asin, marketplace=store, at=at, root_category_id=ROOT)
        for place, asin in enumerate(ASINS)
        for number, store in enumerate(TERMS.stores, 1)
    ]
    run_record(engine, *answered, sinks=frozenset())


def compare_in_small_steps(engine: Engine, *, is_full: bool) -> Compared:
    """In many transactions; after a kill the other's lock is waited for."""
    verb.ROWS_AT_ONCE = 40  # type: ignore[misc]
    verb.PRODUCTS_AT_ONCE = 5  # type: ignore[misc]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return compare(engine, now=NOW + timedelta(hours=1), terms=TERMS, is_full=is_full)
        except ComparisonRunning:
            if time.monotonic() > deadline:
                raise
            # The server has not noticed yet that the one before was killed.
            time.sleep(0.05)


def main(database: str) -> None:
    """Full and incremental, in turns."""
    engine = open_engine(database)
    print("ready", flush=True)
    for number in range(PASSES):
        compare_in_small_steps(engine, is_full=number % 2 == 1)
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1])
