"""A process that spends tokens as fast as the ledger lets it: `python -m tests.integration.spender DATABASE KEEPA KEY SECONDS SEED`."""

import json
import random
import sys
import time
from uuid import uuid4

import httpx

from keeper.domain.budget import Priority
from keeper.domain.marketplace import Marketplace
from keeper.fetch import fetch
from keeper.keepa.client import KeepaClient
from keeper.plan import PlannedRequest
from keeper.postgres.engine import open_engine
from keeper.tokens import TokenSettings, reserve


def main(database: str, keepa: str, key: str, seconds: float, seed: int) -> None:
    """Spend, then print what was spent."""
    draw = random.Random(seed)
    asins = httpx.get(f"{keepa}/_simulator/products", timeout=10).json()["asins"]
    engine = open_engine(database)
    requests = tokens = 0
    end = time.monotonic() + seconds
    with KeepaClient(key, base_url=keepa) as client:
        while time.monotonic() < end:
            count = draw.choice([1, 1, 2, 5, 20, 47])
            priority = draw.choice([Priority.USER, Priority.WATCH, Priority.BACKGROUND])
            reservation_id = reserve(
                engine, operation="product", tokens=count, priority=priority, max_wait_seconds=60, settings=TokenSettings()
            )
            request = PlannedRequest(uuid4(), reservation_id, Marketplace.DE, tuple(asins[:count]), False, 2, count)
            tokens += fetch(engine, client, request).tokens.tokens_consumed
            requests += 1
    engine.dispose()
    print(json.dumps({"requests": requests, "tokens": tokens}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5]))
