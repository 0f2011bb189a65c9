"""Deals for tests, as the collection leaves them."""

import json
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text

from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.postgres.deal_filters import DealKey
from tests.integration.makers import ASIN, NOW


def add_deal(
    engine: Engine,
    *,
    asin: str = ASIN,
    marketplace: Marketplace = Marketplace.DE,
    price_type: PriceType = PriceType.NEW,
    changed_at: datetime = NOW - timedelta(hours=2),
    announced_at: datetime | None = NOW - timedelta(hours=1),
    amount_minor: int = 4999,
    title: str | None = "Leise Tastatur",
    brand: str | None = "Cherry",
    category_path: tuple[str, ...] = ("Computer & Zubehör", "Tastaturen"),
    **facts: Any,
) -> DealKey:
    """One deal and its product; `facts` are columns of collected_deals."""
    deal = {
        "asin": asin, "marketplace": marketplace.value, "price_type": price_type.value, "changed_at": changed_at,
        "announced_at": announced_at, "amount_minor": amount_minor, "currency": marketplace.currency, "category": category_path[-1],
        "first_seen_at": changed_at, "last_seen_at": NOW, "url": f"https://{marketplace.host}/dp/{asin}", "source": "feed",
    } | facts  # fmt: skip
    if isinstance(deal.get("score_parts"), dict):
        deal["score_parts"] = json.dumps(deal["score_parts"])
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                INSERT INTO products (asin, marketplace, kind, title, brand, category_path, category_ids, first_seen_at, checked_at,
                    changed_at)
                VALUES (:asin, :marketplace, 'standard', :title, :brand, :path, :ids, :now, :now, :now) ON CONFLICT DO NOTHING
                """
            ),
            {"asin": asin, "marketplace": marketplace.value, "title": title, "brand": brand, "path": list(category_path),
             "ids": [340843031 + number for number in range(len(category_path))], "now": changed_at},
        )  # fmt: skip
        connection.execute(
            text(f"INSERT INTO collected_deals ({', '.join(deal)}) VALUES ({', '.join(f':{name}' for name in deal)})"),
            deal,
        )
    return DealKey(asin, marketplace.value, price_type.value, changed_at)
