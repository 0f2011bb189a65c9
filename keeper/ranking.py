"""The verb that ranks: the bestseller score of every product in every store."""

import logging
from datetime import datetime
from typing import Final

from sqlalchemy import Engine

from keeper.postgres import rankings

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 20_000


def rank_products(engine: Engine, *, now: datetime) -> int:
    """Make all scores what the facts say, in short transactions. Idempotent. Returns how many are others than before."""
    changed = 0
    after: str | None = ""
    while after is not None:
        with engine.begin() as connection:
            share = rankings.rank_after(connection, after, limit=_AT_ONCE, now=now)
        changed += share.changed
        after = share.last
    logger.info("%d products ranked anew", changed)
    return changed
