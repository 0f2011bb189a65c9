"""What is looked at in all stores to be compared: which products, and when each was last asked for where."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from keeper.domain.product import ProductKind

# The order in which products are wanted, where there are more than may be compared.
WATCHED, OPEN, DEALS, LISTS = range(4)
SOURCES = ("watched", "open opportunities", "deals", "lists")

_WANTED = """
    SELECT asin, min(source) AS source, min(place) AS place FROM (
        SELECT DISTINCT asin, 0 AS source, 0::bigint AS place FROM watched_products WHERE is_active
        UNION ALL
        SELECT DISTINCT asin, 1, 0 FROM opportunities WHERE closed_at IS NULL
        UNION ALL
        SELECT DISTINCT asin, 2, 0 FROM collected_deals WHERE last_seen_at >= :deals_since AND marketplace = ANY(:stores)
        UNION ALL
        SELECT asin, 3, place FROM unnest(CAST(:listed AS text[])) WITH ORDINALITY AS l (asin, place)
    ) every GROUP BY asin ORDER BY 2, 3, 1 LIMIT :most
"""


@dataclass(frozen=True, slots=True)
class DueProduct:
    """A product to be asked for.

    Attributes:
        source: the first of SOURCES it is wanted by.
        stores: where it is due, in the order the stores were named.
        seen_at: when it was last asked for or its price seen, where that is longest ago; None where it never was. Its turn goes by it.
        checked_at: when Keepa last answered, where that is longest ago; None where it never did. So far its history is known.
    """

    asin: str
    source: int
    stores: tuple[str, ...]
    seen_at: datetime | None
    checked_at: datetime | None


def count_wanted(
    connection: Connection, *, stores: Collection[str], listed: Sequence[str], deals_since: datetime, most: int
) -> dict[str, int]:
    """How many products are compared, by the first source that wants them."""
    rows = connection.execute(
        text(f"SELECT source, count(*) FROM ({_WANTED}) wanted GROUP BY source ORDER BY source"),
        {"stores": list(stores), "listed": list(listed), "deals_since": deals_since, "most": most},
    )
    return {SOURCES[source]: count for source, count in rows}


def select_due(
    connection: Connection,
    *,
    stores: Sequence[str],
    price_type: str,
    listed: Sequence[str],
    deals_since: datetime,
    most: int,
    seen_before: datetime,
    absent_before: datetime,
) -> list[DueProduct]:
    """The compared products that are due in some store: those never seen there first, then by when that was.

    Args:
        price_type: whose check counts; another one may not have asked for it.
        listed: of lists, the best first.
        seen_before: what was seen since is not due.
        absent_before: a product the store does not have is due only after a check before that.
    """
    rows = connection.execute(
        text(
            f"""
            SELECT asin, source, array_agg(store ORDER BY store_place) AS stores,
                nullif(min(coalesce(seen_at, '-infinity')), '-infinity') AS seen_at,
                nullif(min(coalesce(checked_at, '-infinity')), '-infinity') AS checked_at
            FROM (
                SELECT w.asin, w.source, w.place, m.store, m.store_place, greatest(c.checked_at, s.scanned_at) AS seen_at,
                    p.kind = 'invalid' AND p.checked_at >= :absent_before AS is_absent,
                    -- What was asked for in vain is not known; a price seen by the way is one point, and a check of another type none.
                    CASE WHEN c.checked_at IS NOT NULL OR p.kind = ANY(:without_prices) THEN least(c.checked_at, p.checked_at) END
                        AS checked_at
                FROM ({_WANTED}) w
                CROSS JOIN unnest(CAST(:stores AS text[])) WITH ORDINALITY AS m (store, store_place)
                LEFT JOIN products p ON p.asin = w.asin AND p.marketplace = m.store
                LEFT JOIN current_prices c ON c.asin = w.asin AND c.marketplace = m.store AND c.price_type = :price_type
                LEFT JOIN scanned_products s ON s.asin = w.asin AND s.marketplace = m.store
            ) seen
            WHERE (seen_at IS NULL OR seen_at < :seen_before) AND is_absent IS NOT TRUE
            GROUP BY asin, source, place ORDER BY seen_at NULLS FIRST, source, place, asin
            """
        ),
        {
            "stores": list(stores),
            "price_type": price_type,
            "listed": list(listed),
            "deals_since": deals_since,
            "most": most,
            "seen_before": seen_before,
            "absent_before": absent_before,
            "without_prices": [kind.value for kind in ProductKind if not kind.has_prices],
        },
    )
    return [DueProduct(row.asin, row.source, tuple(row.stores), row.seen_at, row.checked_at) for row in rows]


def mark_scanned(connection: Connection, asins: Sequence[str], marketplace: str, *, now: datetime) -> None:
    """They were asked for; what came of it, their prices tell."""
    connection.execute(
        text(
            """
            INSERT INTO scanned_products (asin, marketplace, scanned_at)
            SELECT DISTINCT asin, :marketplace, CAST(:now AS timestamptz) FROM unnest(CAST(:asins AS text[])) AS asin ORDER BY asin
            ON CONFLICT (asin, marketplace) DO UPDATE SET scanned_at = greatest(scanned_products.scanned_at, excluded.scanned_at)
            """
        ),
        {"asins": list(asins), "marketplace": marketplace, "now": now},
    )


def delete_old(connection: Connection, *, before: datetime) -> int:
    """Forget what was last asked for before: it is wanted no more, or due anyway. Returns how much went."""
    return connection.execute(text("DELETE FROM scanned_products WHERE scanned_at < :before"), {"before": before}).rowcount
