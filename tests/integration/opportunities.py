"""Opportunities as the comparison leaves them, put into the table by hand."""

import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, text

from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity import Opportunity
from keeper.domain.price_type import PriceType
from tests.integration.makers import ASIN, NOW

_PLAIN = [one.name for one in fields(Opportunity) if one.name not in ("id", "score_parts")]


def opportunity(
    source: Marketplace = Marketplace.DE,
    target: Marketplace = Marketplace.IT,
    *,
    asin: str = ASIN,
    at: datetime = NOW,
    profit: int | None = 1054,
    **facts: Any,
) -> Opportunity:
    """The golden case: bought for 60.00, sold for 99.99; `profit` None where a part is unknown."""
    is_known = profit is not None
    said: dict[str, Any] = {
        "price_type": PriceType.NEW,
        "source_minor": 6000,
        "target_minor": 9999,
        "source_checked_at": at,
        "target_checked_at": at,
        "margin_minor": 3999,
        "margin_pct": Decimal("66.65"),
        "profit_minor": profit,
        "invested_minor": 5192 if is_known else None,
        "roi_pct": Decimal("20.30") if is_known else None,
        "profit_margin_pct": Decimal("10.54") if is_known else None,
        "unknown_parts": () if is_known else ("FBA fee",),
        "is_stale": False,
        "reckoned_on": date(2026, 11, 20),
        "category": "default",
        "first_seen_at": at,
        "last_seen_at": at,
        "best_margin_minor": 3999,
        "best_profit_minor": profit,
        "best_at": at,
        "score": 50,
        "score_parts": {"profit": 50},
    }
    return Opportunity(asin=asin, source_market=source, target_market=target, **(said | facts))


def add_opportunities(engine: Engine, *opportunities: Opportunity) -> list[int]:
    """Their ids."""
    with engine.begin() as connection:
        return [
            connection.execute(
                text(
                    f"""
                    INSERT INTO opportunities ({", ".join(_PLAIN)}, score_parts, source_currency, target_currency, became_at)
                    VALUES ({", ".join(f":{name}" for name in _PLAIN)}, CAST(:score_parts AS jsonb),
                        :source_currency, :target_currency, :best_at)
                    RETURNING id
                    """
                ),
                {name: _plain(getattr(one, name)) for name in _PLAIN}
                | {"score_parts": json.dumps(dict(one.score_parts))}
                | {"source_currency": one.source_market.currency, "target_currency": one.target_market.currency},
            ).scalar_one()
            for one in opportunities
        ]


def add_comparison(engine: Engine, *, at: datetime = NOW) -> int:
    """A pass that is through. Returns its number."""
    with engine.begin() as connection:
        added: int = connection.execute(
            text("INSERT INTO comparisons (is_full, why, began_at, ended_at) VALUES (true, 'test', :at, :at) RETURNING id"), {"at": at}
        ).scalar_one()
        return added


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
