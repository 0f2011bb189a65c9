"""Deals: their document, composed whole. Who writes them comes with the collection."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Engine, text

from keeper.postgres.rebuild import Row

_UNITS = "CASE d.currency WHEN 'JPY' THEN 1 ELSE 100 END"
DEAL_ID = "d.asin || '-' || d.marketplace || '-' || d.price_type || '-' || extract(epoch FROM d.changed_at)::bigint"
# The fields of `deal-updates`: Keeper adds, never removes or retypes one. `d` is collected_deals, `p` its row of products.
DEAL_UPDATE = f"""
    json_build_object(
        'asin', d.asin, 'product_title', p.title,
        'current_price', round(d.amount_minor::numeric / {_UNITS}, 2), 'original_price', round(d.list_price_minor::numeric / {_UNITS}, 2),
        'discount_percent', d.discount_pct, 'rating', (coalesce(d.rating_tenths, p.rating_tenths) / 10.0)::float8,
        'review_count', coalesce(d.review_count, p.review_count), 'sales_rank', coalesce(d.sales_rank, p.sales_rank),
        'domain', lower(d.marketplace), 'timestamp', to_char(d.changed_at, 'YYYY-MM-DD"T"HH24\\:MI\\:SS"Z"'),
        'event_type', 'deal_update', 'event_id', d.event_id, 'schema_version', 1, 'price_type', d.price_type,
        'current_price_minor', d.amount_minor, 'original_price_minor', d.list_price_minor, 'currency', d.currency,
        'deal_id', {DEAL_ID}, 'revision', d.revision, 'description', d.description,
        'category', coalesce(d.category, p.category_path[cardinality(p.category_path)]), 'prime_eligible', d.prime_eligible,
        'brand', p.brand, 'image', p.image_url, 'url', d.url, 'deal_score', d.deal_score,
        'first_seen', to_char(d.first_seen_at, 'YYYY-MM-DD"T"HH24\\:MI\\:SS"Z"'),
        'ended_at', to_char(d.ended_at, 'YYYY-MM-DD"T"HH24\\:MI\\:SS"Z"')
    )
"""


def walk_deals(engine: Engine, *, page: int) -> Iterator[list[Row]]:
    """`keeper-deals`: every deal, those that are over too."""
    after: Sequence[object] = ("", "", "", "-infinity")
    while True:
        with engine.begin() as connection:
            rows = connection.execute(
                text(
                    f"""
                    SELECT d.asin, d.marketplace, d.price_type, d.changed_at, {DEAL_ID} AS deal_id, d.revision, {DEAL_UPDATE}::text AS body
                    FROM collected_deals d LEFT JOIN products p USING (asin, marketplace)
                    WHERE (d.asin, d.marketplace, d.price_type, d.changed_at)
                        > (:asin, :marketplace, :price_type, CAST(:changed_at AS timestamptz))
                    ORDER BY d.asin, d.marketplace, d.price_type, d.changed_at LIMIT :page
                    """
                ),
                {"asin": after[0], "marketplace": after[1], "price_type": after[2], "changed_at": after[3], "page": page},
            ).all()
        if not rows:
            return
        after = rows[-1][:4]
        yield [Row(row.deal_id, row.revision, row.body) for row in rows]
