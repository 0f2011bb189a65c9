"""Deals, filters and readers, as the tests of reports need them."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, text

from keeper.domain.deal_filter import DealFilter, write_rules
from keeper.postgres.deals import Key
from tests.integration.makers import NOW, add_user

_DEAL = """
    INSERT INTO collected_deals (asin, marketplace, price_type, changed_at, amount_minor, list_price_minor, currency, discount_pct,
        first_seen_at, last_seen_at, ended_at, event_id, url, deal_score, source, median_90_minor, below_median_pct, lowest_year_minor,
        is_year_low, is_all_time_low, is_list_price_fiction, sightings, announced_at, rating_tenths, review_count)
    VALUES (:asin, 'DE', 'NEW', :changed_at, :amount, 12900, 'EUR', 45.81, :changed_at, :changed_at, :ended_at, :event_id, NULL, :score,
        'feed', 9990, 30.03, 6490, false, false, false, 1, :announced_at, 46, 1847)
"""


def asin_of(number: int) -> str:
    """The ASIN of the deal of this number."""
    return f"B0DEAL{number:04d}"


def add_deal(
    engine: Engine,
    number: int = 0,
    *,
    price: int = 6990,
    score: float | None = None,
    changed_at: datetime = NOW - timedelta(hours=2),
    announced_at: datetime | None = NOW - timedelta(hours=2),
    ended_at: datetime | None = None,
    title: str | None = None,
) -> Key:
    """A deal in the German store, with its product; the lower the number, the better."""
    asin = asin_of(number)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO products (asin, marketplace, kind, title, brand, image_url, first_seen_at, checked_at, changed_at) "
                "VALUES (:asin, 'DE', 'STANDARD', :title, 'Keychron', :image, :at, :at, :at) ON CONFLICT DO NOTHING"
            ),
            {
                "asin": asin,
                "title": title or f"Keychron K{number} mechanische Tastatur",
                "image": f"https://m.media-amazon.com/images/I/61deal{number}.jpg",
                "at": changed_at,
            },
        )
        connection.execute(
            text(_DEAL),
            {
                "asin": asin,
                "changed_at": changed_at,
                "amount": price,
                "ended_at": ended_at,
                "event_id": uuid4(),
                "score": 90.0 - number if score is None else score,
                "announced_at": announced_at,
            },
        )
    return asin, "DE", "NEW", changed_at


def end_deal(engine: Engine, key: Key, *, at: datetime) -> None:
    """It is over."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE collected_deals SET ended_at = :at WHERE asin = :asin AND changed_at = :changed_at"),
            {"at": at, "asin": key[0], "changed_at": key[3]},
        )


def add_filter(
    engine: Engine, user_id: int, name: str = "All", wanted: DealFilter | None = None, *, is_instant: bool = False, rules: Any = None
) -> int:
    """A filter of a user's; without conditions it wants every deal."""
    with engine.begin() as connection:
        filter_id: int = connection.execute(
            text(
                "INSERT INTO deal_filters (user_id, name, rules, is_instant) "
                "VALUES (:user_id, :name, CAST(:rules AS jsonb), :is_instant) RETURNING id"
            ),
            {
                "user_id": user_id,
                "name": name,
                "rules": json.dumps(write_rules(wanted or DealFilter()) if rules is None else rules),
                "is_instant": is_instant,
            },
        ).scalar_one()
    return filter_id


def add_reader(
    engine: Engine,
    name: str = "anna",
    *,
    channels: Sequence[str] = ("mailto://127.0.0.1:9/anna@example.net?from=keeper@example.org",),
    timezone: str = "Europe/Berlin",
    hour: int | None = 7,
    wants_empty: bool = False,
    **rest: Any,
) -> int:
    """A user with channels, as `add_user` makes them, and a time for reports."""
    user_id = add_user(engine, name, channels=channels, **rest)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE users SET timezone = :timezone, report_hour = :hour, wants_empty_reports = :wants_empty WHERE id = :user_id"),
            {"timezone": timezone, "hour": hour, "wants_empty": wants_empty, "user_id": user_id},
        )
    return user_id
