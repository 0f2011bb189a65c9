"""Sellers of products: what each check of them has found, and of which products they are asked for next."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from keeper.domain.seller_offer import SellerOffer
from keeper.postgres.engine import json_rows

# Older checks of a product are forgotten with its next one.
_KEPT: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class DueOffers:
    """A product whose sellers are asked for."""

    asin: str
    marketplace: str


@dataclass(frozen=True, slots=True)
class OffersSeen:
    """Who sold a product in a store when it was last asked, the cheapest first."""

    marketplace: str
    checked_at: datetime
    offers: tuple[SellerOffer, ...]


def insert_offers(connection: Connection, marketplace: str, found: Mapping[str, Sequence[SellerOffer]], *, now: datetime) -> None:
    """Keep what a check has found of these products, those that nobody sells too. Idempotent."""
    asins = {"asins": sorted(found), "marketplace": marketplace, "now": now}
    connection.execute(
        text(
            """
            INSERT INTO offer_checks (asin, marketplace, checked_at)
            SELECT asin, :marketplace, :now FROM unnest(CAST(:asins AS text[])) AS asin ORDER BY asin
            ON CONFLICT (asin, marketplace) DO UPDATE SET checked_at = greatest(offer_checks.checked_at, excluded.checked_at)
            """
        ),
        asins,
    )
    connection.execute(
        text("DELETE FROM offers_history WHERE asin = ANY(CAST(:asins AS text[])) AND marketplace = :marketplace AND checked_at < :before"),
        asins | {"before": now - _KEPT},
    )
    connection.execute(
        text(
            """
            INSERT INTO offers_history (asin, marketplace, checked_at, seller_id, price_minor, is_amazon, is_fba, buy_box_pct)
            SELECT asin, :marketplace, :now, seller_id, price_minor, is_amazon, is_fba, buy_box_pct
            FROM json_to_recordset(CAST(:rows AS json)) AS s
                (asin text, seller_id text, price_minor integer, is_amazon boolean, is_fba boolean, buy_box_pct numeric)
            ORDER BY asin, seller_id
            ON CONFLICT DO NOTHING
            """
        ),
        asins | {"rows": json_rows([{"asin": asin} | asdict(one) for asin, some in found.items() for one in some])},
    )


def select_due_offers(
    connection: Connection, *, least_roi_pct: float, checked_before: datetime, marketplaces: Sequence[str], limit: int
) -> list[DueOffers]:
    """Products of opportunities that survive the filters, in the store they are sold in, the best score first.

    They are there, surely the same article, not stale, and leave a known profit and return; nobody has asked for their sellers lately.
    """
    rows = connection.execute(
        text(
            """
            SELECT o.asin, o.target_market FROM opportunities o
            LEFT JOIN offer_checks c ON c.asin = o.asin AND c.marketplace = o.target_market
            WHERE o.closed_at IS NULL AND cardinality(o.doubts) = 0 AND NOT o.is_stale AND o.profit_minor > 0 AND o.roi_pct >= :least_roi
                AND o.target_market = ANY(CAST(:marketplaces AS text[])) AND coalesce(c.checked_at < :checked_before, true)
            GROUP BY o.asin, o.target_market ORDER BY max(o.score) DESC, o.asin, o.target_market LIMIT :limit
            """
        ),
        {"least_roi": least_roi_pct, "checked_before": checked_before, "marketplaces": list(marketplaces), "limit": limit},
    )
    return [DueOffers(*row) for row in rows]


def select_offers(connection: Connection, asin: str) -> list[OffersSeen]:
    """Who sold a product when it was last asked, by store; those nobody has asked for are left out."""
    rows = connection.execute(
        text(
            """
            SELECT c.marketplace, c.checked_at, h.seller_id, h.price_minor, h.is_amazon, h.is_fba, h.buy_box_pct::float8
            FROM offer_checks c LEFT JOIN offers_history h USING (asin, marketplace, checked_at)
            WHERE c.asin = :asin ORDER BY c.marketplace, h.price_minor NULLS LAST, h.buy_box_pct DESC NULLS LAST, h.seller_id
            """
        ),
        {"asin": asin},
    )
    found: dict[tuple[str, datetime], list[SellerOffer]] = {}
    for marketplace, checked_at, *offer in rows:
        some = found.setdefault((marketplace, checked_at), [])
        if offer[0] is not None:
            some.append(SellerOffer(*offer))
    return [OffersSeen(marketplace, checked_at, tuple(some)) for (marketplace, checked_at), some in found.items()]
