"""The schemas of what is sent, one JSON Schema (2020-12) per topic in `schemas/`. They only grow."""

import json
from importlib.resources import files
from typing import Any, Final

from keeper.kafka.topics import Topic

TOPICS_WITH_SCHEMA: Final = (
    Topic.PRICE_UPDATES,
    Topic.DEAL_UPDATES,
    Topic.RAW_DEALS,
    Topic.RAW_PRODUCTS,
    Topic.ENRICHED_PRODUCTS,
    Topic.ARBITRAGE_ALERTS,
)


def load_schema(topic: Topic) -> dict[str, Any]:
    """The schema of the messages of one of `TOPICS_WITH_SCHEMA`."""
    loaded: dict[str, Any] = json.loads((files("keeper.kafka") / "schemas" / f"{topic}.json").read_text(encoding="utf-8"))
    return loaded
