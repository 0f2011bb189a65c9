"""A product over all its marketplaces, composed whole: the document of the index `products` and of `products.enriched`."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from keeper.domain.events import Event, EventKind, revised_event_id
from keeper.domain.price_type import PriceType
from keeper.postgres.outbox import insert_events
from keeper.postgres.sinks import Routes

STATISTICS_DAYS = 90

# Whose words a product bears where marketplaces differ: in this order.
_ORDER = "array_position(ARRAY['DE','UK','US','FR','IT','ES','CA','MX','BR','IN','JP'], p.marketplace)"


@dataclass(frozen=True, slots=True)
class ProductDocument:
    """One product over all marketplaces.

    Attributes:
        revision: rises with every change; the document's version.
        changed_at: when it last rose.
        body: JSON on one line.
    """

    asin: str
    revision: int
    changed_at: datetime
    body: str


def select_documents(connection: Connection, asins: Collection[str]) -> list[ProductDocument]:
    """The documents of these ASINs, by ASIN; unknown ones are left out.

    `current_prices` is the price of new goods, in minor units by marketplace; what is one word or number for all is that of the first
    marketplace that has one; `statistics` looks at the 90 days before its last change,
    so that the same revision is always the same document.

    The best opportunity of a product is what its lane leaves, the unknown last, then the gap; one that may not be the same article is none.
    Its fields are null where there is none. `is_active` is the product's, `opportunity_is_active` the opportunity's.
    """
    rows = connection.execute(
        text(
            f"""
            WITH place AS (
                SELECT p.asin, p.marketplace, p.title, p.brand, p.category_path, p.category_ids, p.sales_rank, p.rating_tenths,
                    p.review_count, p.image_url, p.kind, p.first_seen_at, p.changed_at, p.revision, {_ORDER} AS turn,
                    current.amount_minor, list.amount_minor AS list_minor
                FROM products p
                LEFT JOIN LATERAL (
                    SELECT c.amount_minor FROM current_prices c
                    WHERE c.asin = p.asin AND c.marketplace = p.marketplace AND c.price_type IN ('NEW', 'AMAZON', 'BUY_BOX_SHIPPING')
                        AND c.amount_minor IS NOT NULL
                    ORDER BY array_position(ARRAY['NEW', 'AMAZON', 'BUY_BOX_SHIPPING'], c.price_type) LIMIT 1
                ) current ON true
                LEFT JOIN current_prices list
                    ON list.asin = p.asin AND list.marketplace = p.marketplace AND list.price_type = 'LISTPRICE'
                WHERE p.asin = ANY(:asins)
            ), point AS (
                SELECT place.asin, place.marketplace, h.amount_minor,
                    greatest(h.observed_at, place.changed_at - make_interval(days => :days)) AS start_at,
                    lead(h.observed_at, 1, greatest(place.changed_at, h.observed_at))
                        OVER (PARTITION BY h.asin, h.marketplace ORDER BY h.observed_at) AS end_at
                FROM place JOIN price_history h
                    ON h.asin = place.asin AND h.marketplace = place.marketplace AND h.price_type = 'NEW'
                    AND h.observed_at >= coalesce((
                        SELECT max(f.observed_at) FROM price_history f
                        WHERE f.asin = place.asin AND f.marketplace = place.marketplace AND f.price_type = 'NEW'
                            AND f.observed_at <= place.changed_at - make_interval(days => :days)
                    ), place.changed_at - make_interval(days => :days))
            ), statistic AS (
                SELECT asin, marketplace, json_build_object(
                    'minimum', min(amount_minor), 'maximum', max(amount_minor), 'average', round(
                        sum(amount_minor * extract(epoch FROM end_at - start_at))
                        / nullif(sum(extract(epoch FROM end_at - start_at)) FILTER (WHERE amount_minor IS NOT NULL), 0)
                    ), 'changes', count(*) - 1
                ) AS figures
                FROM point GROUP BY asin, marketplace HAVING count(amount_minor) > 0
            ), best AS (
                SELECT DISTINCT ON (o.asin) o.asin, o.source_market, o.target_market, o.source_minor, o.target_minor, o.margin_minor,
                    o.margin_pct, o.profit_minor, o.roi_pct, o.profit_margin_pct
                FROM opportunities o WHERE o.asin = ANY(:asins) AND o.closed_at IS NULL AND cardinality(o.doubts) = 0
                ORDER BY o.asin, o.profit_minor DESC NULLS LAST, o.margin_minor DESC, o.id
            )
            SELECT asin, sum(revision)::bigint AS revision, max(changed_at) AS changed_at, json_build_object(
                'asin', asin,
                'title', (array_agg(title ORDER BY turn) FILTER (WHERE title IS NOT NULL))[1],
                'brand', (array_agg(brand ORDER BY turn) FILTER (WHERE brand IS NOT NULL))[1],
                'current_prices', coalesce(
                    json_object_agg(marketplace, amount_minor ORDER BY turn) FILTER (WHERE amount_minor IS NOT NULL), '{{}}'
                ),
                'list_prices', coalesce(
                    json_object_agg(marketplace, list_minor ORDER BY turn) FILTER (WHERE list_minor IS NOT NULL), '{{}}'
                ),
                'discount_percent', coalesce(
                    json_object_agg(marketplace, round((list_minor - amount_minor) * 100.0 / list_minor, 2) ORDER BY turn)
                        FILTER (WHERE amount_minor < list_minor), '{{}}'
                ),
                'category', (array_agg(category_path[cardinality(category_path)] ORDER BY turn)
                    FILTER (WHERE cardinality(category_path) > 0))[1],
                'category_path', (array_agg(to_json(category_path) ORDER BY turn) FILTER (WHERE cardinality(category_path) > 0))[1],
                'category_ids', (array_agg(to_json(category_ids::text[]) ORDER BY turn) FILTER (WHERE cardinality(category_ids) > 0))[1],
                'sales_rank', (array_agg(sales_rank ORDER BY turn) FILTER (WHERE sales_rank > 0))[1],
                'sales_ranks', coalesce(json_object_agg(marketplace, sales_rank ORDER BY turn) FILTER (WHERE sales_rank > 0), '{{}}'),
                'rating', (array_agg(rating_tenths / 10.0 ORDER BY turn) FILTER (WHERE rating_tenths IS NOT NULL))[1]::float8,
                'review_count', (array_agg(review_count ORDER BY turn) FILTER (WHERE review_count IS NOT NULL))[1],
                'image', (array_agg(image_url ORDER BY turn) FILTER (WHERE image_url IS NOT NULL))[1],
                'statistics', coalesce(json_object_agg(marketplace, figures ORDER BY turn) FILTER (WHERE figures IS NOT NULL), '{{}}'),
                'first_seen', to_char(min(first_seen_at), 'YYYY-MM-DD"T"HH24\\:MI\\:SS"Z"'),
                'last_updated', to_char(max(changed_at), 'YYYY-MM-DD"T"HH24\\:MI\\:SS"Z"'),
                'is_active', bool_or(kind NOT IN ('inaccessible', 'invalid')),
                'source_market', best.source_market, 'target_market', best.target_market,
                'source_price', best.source_minor, 'target_price', best.target_minor,
                'margin', best.margin_minor, 'margin_percentage', best.margin_pct,
                'profit_minor', best.profit_minor, 'roi_pct', best.roi_pct, 'profit_margin_pct', best.profit_margin_pct,
                'opportunity_is_active', best.asin IS NOT NULL,
                'revision', sum(revision)::bigint,
                'schema_version', 1
            )::text AS body
            FROM place LEFT JOIN statistic USING (asin, marketplace) LEFT JOIN best USING (asin)
            GROUP BY asin, best.asin, best.source_market, best.target_market, best.source_minor, best.target_minor, best.margin_minor,
                best.margin_pct, best.profit_minor, best.roi_pct, best.profit_margin_pct
            ORDER BY asin
            """
        ),
        {"asins": list(asins), "days": STATISTICS_DAYS},
    )
    return [ProductDocument(row.asin, row.revision, row.changed_at, row.body.replace("\n", " ")) for row in rows]


@dataclass(frozen=True, slots=True)
class MarketRow:
    """A product in one store; what is not known is None.

    Attributes:
        category_path: from the root of the store's tree down.
        amount_minor: the price of the kind asked for, else of another kind of new goods, which `price_type` names.
        price_checked_at: when that was last looked at.
        lowest_year_minor: the least it was within a year.
    """

    marketplace: str
    title: str | None
    brand: str | None
    image_url: str | None
    category_path: Sequence[str] | None
    amount_minor: int | None
    price_type: str | None
    price_checked_at: datetime | None
    checked_at: datetime
    sales_rank: int | None
    sales_rank_drops_30: int | None
    rating_tenths: int | None
    review_count: int | None
    monthly_sold: int | None
    offer_count: int | None
    buy_box_is_amazon: bool | None
    buy_box_is_fba: bool | None
    is_hazardous: bool | None
    is_heat_sensitive: bool | None
    return_rate: str | None
    coupon_minor: int | None
    coupon_pct: int | None
    lightning_ends_at: datetime | None
    fba_pick_pack_minor: int | None
    package_weight_g: int | None
    lowest_year_minor: int | None


def select_markets(connection: Connection, asin: str, *, price_type: PriceType, now: datetime) -> list[MarketRow]:
    """A product in each store it is known in, those first whose words it bears; none where it is unknown."""
    rows = connection.execute(
        text(
            f"""
            SELECT p.marketplace, p.title, p.brand, p.image_url, p.category_path, current.amount_minor, current.price_type,
                current.checked_at AS price_checked_at, p.checked_at, p.sales_rank, p.sales_rank_drops_30, p.rating_tenths, p.review_count,
                p.monthly_sold, p.offer_count, p.buy_box_is_amazon, p.buy_box_is_fba, p.is_hazardous, p.is_heat_sensitive, p.return_rate,
                p.coupon_minor, p.coupon_pct, p.lightning_ends_at, p.fba_pick_pack_minor, p.package_weight_g, least(
                    (SELECT min(h.amount_minor) FROM price_history h
                     WHERE h.asin = p.asin AND h.marketplace = p.marketplace AND h.price_type = current.price_type
                        AND h.observed_at > :year_ago AND h.observed_at <= :now),
                    (SELECT h.amount_minor FROM price_history h
                     WHERE h.asin = p.asin AND h.marketplace = p.marketplace AND h.price_type = current.price_type
                        AND h.observed_at <= :year_ago ORDER BY h.observed_at DESC LIMIT 1)
                )
            FROM products p
            LEFT JOIN LATERAL (
                SELECT c.amount_minor, c.price_type, c.checked_at FROM current_prices c
                WHERE c.asin = p.asin AND c.marketplace = p.marketplace AND c.price_type = ANY(CAST(:types AS text[]))
                    AND c.amount_minor IS NOT NULL
                ORDER BY array_position(CAST(:types AS text[]), c.price_type) LIMIT 1
            ) current ON true
            WHERE p.asin = :asin ORDER BY {_ORDER}
            """
        ),
        {"asin": asin, "types": _types(price_type), "now": now, "year_ago": now - timedelta(days=365)},
    )
    return [MarketRow(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class ProductRow:
    """A product over all its stores, in short.

    Attributes:
        current_prices: of new goods, in minor units by store; stores without an offer are left out.
    """

    asin: str
    title: str | None
    brand: str | None
    image_url: str | None
    category: str | None
    current_prices: Mapping[str, int]
    sales_rank: int | None
    rating_tenths: int | None
    review_count: int | None
    first_seen_at: datetime
    changed_at: datetime


def select_products(connection: Connection, *, after: str, limit: int, price_type: PriceType) -> list[ProductRow]:
    """The next products by ASIN."""
    asins = select_asins(connection, after=after, limit=limit)
    rows = connection.execute(
        text(
            f"""
            SELECT p.asin,
                (array_agg(p.title ORDER BY {_ORDER}) FILTER (WHERE p.title IS NOT NULL))[1] AS title,
                (array_agg(p.brand ORDER BY {_ORDER}) FILTER (WHERE p.brand IS NOT NULL))[1] AS brand,
                (array_agg(p.image_url ORDER BY {_ORDER}) FILTER (WHERE p.image_url IS NOT NULL))[1] AS image_url,
                (array_agg(p.category_path[cardinality(p.category_path)] ORDER BY {_ORDER})
                    FILTER (WHERE cardinality(p.category_path) > 0))[1] AS category,
                coalesce(json_object_agg(p.marketplace, current.amount_minor ORDER BY {_ORDER})
                    FILTER (WHERE current.amount_minor IS NOT NULL), '{{}}') AS current_prices,
                (array_agg(p.sales_rank ORDER BY {_ORDER}) FILTER (WHERE p.sales_rank > 0))[1] AS sales_rank,
                (array_agg(p.rating_tenths ORDER BY {_ORDER}) FILTER (WHERE p.rating_tenths IS NOT NULL))[1] AS rating_tenths,
                (array_agg(p.review_count ORDER BY {_ORDER}) FILTER (WHERE p.review_count IS NOT NULL))[1] AS review_count,
                min(p.first_seen_at) AS first_seen_at, max(p.changed_at) AS changed_at
            FROM products p
            LEFT JOIN LATERAL (
                SELECT c.amount_minor FROM current_prices c
                WHERE c.asin = p.asin AND c.marketplace = p.marketplace AND c.price_type = ANY(CAST(:types AS text[]))
                    AND c.amount_minor IS NOT NULL
                ORDER BY array_position(CAST(:types AS text[]), c.price_type) LIMIT 1
            ) current ON true
            WHERE p.asin = ANY(CAST(:asins AS text[])) GROUP BY p.asin ORDER BY p.asin
            """
        ),
        {"asins": list(asins), "types": _types(price_type)},
    )
    return [ProductRow(*row) for row in rows]


def _types(price_type: PriceType) -> list[str]:
    return list(dict.fromkeys([price_type.value, "NEW", "AMAZON", "BUY_BOX_SHIPPING"]))


def raise_revisions(connection: Connection, asins: Collection[str], *, now: datetime, routes: Routes) -> int:
    """The best opportunities of these products are others than before: their documents are newer ones, which the enrichment hears of.

    One row of each product stands for it, that of the first marketplace by name. The rows are locked in the order of `record`, so that both
    wait for one another and never deadlock. ASINs that are unknown are passed over.

    Args:
        connection: in the transaction that changes the opportunities.
        routes: of `sinks.lock_routes` in this transaction.

    Returns:
        How many documents are newer.
    """
    if not asins:
        return 0
    rows = connection.execute(
        text(
            """
            WITH first AS (
                SELECT p.asin, p.marketplace FROM unnest(CAST(:asins AS text[])) AS changed (asin)
                CROSS JOIN LATERAL (
                    SELECT asin, marketplace FROM products WHERE products.asin = changed.asin ORDER BY marketplace LIMIT 1
                ) p
                GROUP BY p.asin, p.marketplace
            ), locked AS (
                SELECT p.asin, p.marketplace FROM products p JOIN first USING (asin, marketplace)
                ORDER BY p.asin, p.marketplace FOR NO KEY UPDATE OF p
            )
            UPDATE products p SET revision = p.revision + 1, changed_at = greatest(p.changed_at, :now)
            FROM locked WHERE p.asin = locked.asin AND p.marketplace = locked.marketplace
            RETURNING p.asin, p.marketplace, p.revision
            """
        ),
        {"asins": "{" + ",".join(asins) + "}", "now": now},
    ).all()
    insert_events(connection, [event for row in sorted(rows) for event in _revised(row, now, routes)], routes)
    return len(rows)


def _revised(row: Sequence[Any], now: datetime, routes: Routes) -> Iterator[Event]:
    """What the enrichment hears of: without Kafka the ASIN, over Kafka an answer that is none of Keepa's."""
    asin, marketplace, revision = row
    event_id = revised_event_id(asin, revision)
    if EventKind.PRODUCT_UPDATE in routes:
        yield Event.of(event_id, EventKind.PRODUCT_UPDATE, asin, {"asin": asin})
    if EventKind.RAW_PRODUCT in routes:
        told = {"asin": asin, "domain": marketplace.lower(), "event_id": str(event_id), "schema_version": 1}
        told |= {"timestamp": f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}", "event_type": "raw_product", "product": None}
        yield Event.of(event_id, EventKind.RAW_PRODUCT, asin, told)


def select_asins(connection: Connection, *, after: str, limit: int) -> Sequence[str]:
    """The next ASINs in order, for a walk over all products."""
    query = text("SELECT DISTINCT asin FROM products WHERE asin > :after ORDER BY asin LIMIT :limit")
    return connection.execute(query, {"after": after, "limit": limit}).scalars().all()
