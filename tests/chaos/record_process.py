"""A recorder to be killed: `python -m tests.chaos.record_process DATABASE CHECKS`. It records the checks of `chaos_checks` in order."""

import sys
from datetime import UTC, datetime, timedelta

from keeper.domain.price_type import PriceType
from keeper.domain.product import Product
from keeper.postgres.engine import open_engine
from keeper.record import record
from tests.integration.makers import product

START = datetime(2026, 11, 1, tzinfo=UTC)
ASINS = [f"B{number:09d}" for number in range(200)]


def chaos_checks(number: int) -> list[list[Product]]:
    """Checks an hour apart; in each every third product has changed, of two price types."""
    checks = []
    points: dict[str, list[tuple[datetime, int | None]]] = {asin: [] for asin in ASINS}
    for step in range(number):
        at = START + timedelta(hours=step)
        for place, asin in enumerate(ASINS):
            if step == 0 or (place + step) % 3 == 0:
                points[asin].append((at - timedelta(minutes=5), 2000 + place + 10 * step))
        checks.append([product({PriceType.NEW: points[asin], PriceType.USED: points[asin]}, asin=asin, at=at) for asin in ASINS])
    return checks


def main(database: str, number: int) -> None:
    """Record them all, each in a transaction of its own."""
    engine = open_engine(database)
    checks = chaos_checks(number)
    print("ready", flush=True)
    for answered in checks:
        with engine.begin() as connection:
            record(connection, answered, now=answered[0].answered_at)
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
