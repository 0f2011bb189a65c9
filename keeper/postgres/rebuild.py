"""Documents of the search indices as PostgreSQL knows them, in pages by key: what a rebuild copies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from keeper.postgres.catalog import select_asins, select_documents
from keeper.postgres.prices import PRICE_UPDATE_OF


@dataclass(frozen=True, slots=True)
class Row:
    """One document.

    Attributes:
        body: JSON on one line.
    """

    id: str
    version: int
    body: str


def walk_prices(engine: Engine, *, page: int, since: datetime | None = None) -> Iterator[list[Row]]:
    """`keeper-prices`: exactly the observations that had an event.

    Args:
        since: observations from then on; None for all.
    """
    after: Sequence[object] = ("", "", "", "-infinity")
    while True:
        with engine.begin() as connection:
            rows = connection.execute(
                text(
                    f"""
                    SELECT change.asin, change.marketplace, change.price_type, change.observed_at, change.event_id, change.event_version,
                        {PRICE_UPDATE_OF}::text AS body
                    FROM (
                        SELECT * FROM price_history h
                        WHERE event_id IS NOT NULL AND (asin, marketplace, price_type, observed_at)
                            > (:asin, :marketplace, :price_type, CAST(:observed_at AS timestamptz))
                            AND (CAST(:since AS timestamptz) IS NULL OR observed_at >= :since)
                        ORDER BY asin, marketplace, price_type, observed_at LIMIT :page
                    ) change JOIN products p USING (asin, marketplace)
                    ORDER BY change.asin, change.marketplace, change.price_type, change.observed_at
                    """
                ),
                {"asin": after[0], "marketplace": after[1], "price_type": after[2], "observed_at": after[3], "since": since, "page": page},
            ).all()
        if not rows:
            return
        after = rows[-1][:4]
        yield [Row(str(row.event_id), row.event_version, row.body) for row in rows]


def walk_metrics(engine: Engine, *, page: int, since: datetime | None = None) -> Iterator[list[Row]]:
    """`keeper-metrics`: the calls to Keepa.

    Args:
        since: calls from then on; None for all.
    """
    after: Sequence[object] = ("-infinity", "00000000-0000-0000-0000-000000000000")
    while True:
        with engine.begin() as connection:
            rows = connection.execute(
                text(
                    """
                    SELECT called_at, id, json_build_object(
                        'timestamp', to_char(called_at, 'YYYY-MM-DD"T"HH24\\:MI\\:SS.MS"Z"'), 'operation', operation,
                        'tokens_consumed', tokens_consumed, 'tokens_left', tokens_left, 'refill_rate', refill_per_minute,
                        'refill_in', refill_in_ms, 'response_time_ms', response_time_ms, 'asin_count', asin_count, 'domain', marketplace,
                        'success', success, 'error', error, 'event_id', id, 'schema_version', 1
                    )::text AS body
                    FROM keepa_calls WHERE (called_at, id) > (CAST(:called_at AS timestamptz), CAST(:id AS uuid))
                        AND (CAST(:since AS timestamptz) IS NULL OR called_at >= :since)
                    ORDER BY called_at, id LIMIT :page
                    """
                ),
                {"called_at": after[0], "id": after[1], "since": since, "page": page},
            ).all()
        if not rows:
            return
        after = rows[-1][:2]
        yield [Row(str(row.id), 1, row.body) for row in rows]


def walk_products(engine: Engine, *, page: int) -> Iterator[list[Row]]:
    """`products`: one document per ASIN."""
    after = ""
    while True:
        with engine.begin() as connection:
            asins = select_asins(connection, after=after, limit=page)
            documents = select_documents(connection, asins)
        if not asins:
            return
        after = asins[-1]
        yield [Row(one.asin, one.revision, one.body) for one in documents]


def count_rows(connection: Connection, table: str, *, since: datetime | None = None) -> int:
    """How many documents there should be: of `price_history`, `keepa_calls`, `products` or `collected_deals`."""
    queries = {
        "price_history": "SELECT count(*) FROM price_history WHERE event_id IS NOT NULL "
        "AND (CAST(:since AS timestamptz) IS NULL OR observed_at >= :since)",
        "keepa_calls": "SELECT count(*) FROM keepa_calls WHERE CAST(:since AS timestamptz) IS NULL OR called_at >= :since",
        "products": "SELECT count(DISTINCT asin) FROM products WHERE CAST(:since AS timestamptz) IS NULL",
        "collected_deals": "SELECT count(*) FROM collected_deals WHERE CAST(:since AS timestamptz) IS NULL",
    }
    counted: int = connection.execute(text(queries[table]), {"since": since}).scalar_one()
    return counted
