"""Deals: what is known of them, the writes of a collection, and their document, composed whole."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Engine, text

from keeper.domain.deal import DealQuery, DealSighting, DealSource
from keeper.domain.events import EventKind, Sink
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_series import minute_of
from keeper.domain.price_type import PriceType
from keeper.postgres.engine import json_rows
from keeper.postgres.outbox import SHARD_OF_KEY, notify_relays
from keeper.postgres.rebuild import Row
from keeper.postgres.sinks import Routes

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
        'brand', p.brand, 'image', p.image_url, 'url', d.url, 'deal_score', d.deal_score, 'score_parts', d.score_parts,
        'first_seen', to_char(d.first_seen_at, 'YYYY-MM-DD"T"HH24\\:MI\\:SS"Z"'),
        'announced_at', to_char(d.announced_at, 'YYYY-MM-DD"T"HH24\\:MI\\:SS"Z"'),
        'ended_at', to_char(d.ended_at, 'YYYY-MM-DD"T"HH24\\:MI\\:SS"Z"'),
        'source', d.source, 'product_group', d.product_group, 'layout', d.layout, 'sightings', d.sightings,
        'median_90_minor', d.median_90_minor, 'average_90_minor', d.average_90_minor, 'below_median_percent', d.below_median_pct,
        'lowest_year_minor', d.lowest_year_minor, 'lowest_ever_minor', d.lowest_ever_minor, 'is_year_low', d.is_year_low,
        'is_all_time_low', d.is_all_time_low, 'is_list_price_fiction', d.is_list_price_fiction,
        'is_glitch', d.is_glitch, 'glitch_reason', d.glitch_reason
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


# ASIN and marketplace; the key of a deal has the price type and the time of change beside them.
Place = tuple[str, str]
Key = tuple[str, str, str, datetime]


@dataclass(frozen=True, slots=True)
class KnownProduct:
    """What a deal need not say again.

    Attributes:
        is_watched: somebody watches it, so that each of its prices counts.
    """

    is_watched: bool
    title: str | None
    brand: str | None
    image_url: str | None
    category: str | None
    root_category_id: int | None
    rating_tenths: int | None
    review_count: int | None
    sales_rank: int | None


@dataclass(frozen=True, slots=True)
class PastPrices:
    """What the recorded history of one price type says, minor units.

    Attributes:
        known_days: how much of the last 90 days the history covers.
        whole_days: since when it does.
        median_90: time-weighted; None where there was no offer.
        lowest_year, highest_year, lowest_ever: before the present price began; what stood for less than an hour does not count.
    """

    known_days: float
    whole_days: float
    median_90: int | None
    lowest_year: int | None
    highest_year: int | None
    lowest_ever: int | None


class DealRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of `collected_deals`, as it is to be; the names are the columns', and its JSON leaves out what is null."""

    asin: str
    marketplace: Marketplace
    price_type: PriceType
    changed_at: datetime
    amount_minor: int
    list_price_minor: int | None = None
    currency: str
    discount_pct: float | None = None
    first_seen_at: datetime
    last_seen_at: datetime
    ended_at: datetime | None = None
    revision: int
    event_id: UUID
    previous_minor: int | None = None
    rating_tenths: int | None = None
    review_count: int | None = None
    sales_rank: int | None = None
    category: str | None = None
    url: str
    deal_score: float
    source: DealSource
    query: str | None = None
    product_group: str | None = None
    layout: str | None = None
    median_90_minor: int | None = None
    average_90_minor: int | None = None
    below_median_pct: float | None = None
    lowest_year_minor: int | None = None
    lowest_ever_minor: int | None = None
    highest_year_minor: int | None = None
    is_year_low: bool | None = None
    is_all_time_low: bool | None = None
    is_list_price_fiction: bool | None = None
    is_glitch: bool
    glitch_reason: str | None = None
    sightings: int
    looked_at: datetime
    announced_at: datetime | None = None
    score_parts: dict[str, float | None]
    confidence: float
    judged_by: DealSource


_COLUMNS = DealRow.__struct_fields__
_KEY_ARRAYS = "CAST(:asins AS text[]), CAST(:marketplaces AS text[]), CAST(:price_types AS text[]), CAST(:times AS timestamptz[])"
_STAGED = f"unnest({_KEY_ARRAYS}) AS s (asin, marketplace, price_type, changed_at)"
_KEY = ("asin", "marketplace", "price_type", "changed_at")
_KEY_COLUMNS = ", ".join(_KEY)
_MOVED = [name for name in _COLUMNS if name not in (*_KEY, "amount_minor", "currency", "first_seen_at", "source")]


@dataclass(frozen=True, slots=True)
class KnownDeal:
    """A deal that runs, or the same as one that is seen again."""

    asin: str
    marketplace: str
    price_type: str
    changed_at: datetime
    amount_minor: int
    list_price_minor: int | None
    first_seen_at: datetime
    looked_at: datetime | None
    announced_at: datetime | None
    ended_at: datetime | None
    revision: int
    sightings: int
    is_glitch: bool
    deal_score: float | None
    query: str | None
    source: DealSource
    confidence: float | None
    judged_by: DealSource


def select_known_products(connection: Connection, places: Collection[Place]) -> dict[Place, KnownProduct]:
    """Those of the products that are known, by ASIN and marketplace."""
    if not places:
        return {}
    rows = connection.execute(
        text(
            """
            SELECT p.asin, p.marketplace, p.title, p.brand, p.image_url, p.category_path[1] AS category, p.root_category_id,
                p.rating_tenths, p.review_count, p.sales_rank,
                EXISTS (
                    SELECT 1 FROM watched_products w WHERE w.asin = p.asin AND w.marketplace = p.marketplace AND w.is_active
                ) AS is_watched
            FROM unnest(CAST(:asins AS text[]), CAST(:marketplaces AS text[])) AS s (asin, marketplace)
            JOIN products p USING (asin, marketplace)
            """
        ),
        _columns_of(places),
    )
    return {
        (row.asin, row.marketplace): KnownProduct(
            row.is_watched,
            row.title,
            row.brand,
            row.image_url,
            row.category,
            row.root_category_id,
            row.rating_tenths,
            row.review_count,
            row.sales_rank,
        )
        for row in rows
    }


def select_past(connection: Connection, keys: Collection[Key], *, now: datetime) -> dict[tuple[str, str, str], PastPrices]:
    """What the recorded history says, where there is any, by ASIN, marketplace and price type.

    Args:
        keys: with the time from which the present price is.
    """
    if not keys:
        return {}
    rows = connection.execute(
        text(
            f"""
            SELECT s.asin, s.marketplace, s.price_type, past.*
            FROM {_STAGED}
            CROSS JOIN LATERAL (
                WITH points AS (
                    SELECT h.observed_at, h.amount_minor,
                        lead(h.observed_at, 1, CAST(:now AS timestamptz)) OVER (ORDER BY h.observed_at) AS until
                    FROM price_history h
                    WHERE h.asin = s.asin AND h.marketplace = s.marketplace AND h.price_type = s.price_type AND h.observed_at <= :now
                ), recent AS (
                    SELECT amount_minor,
                        extract(epoch FROM until - greatest(observed_at, CAST(:now AS timestamptz) - interval '90 days')) AS seconds
                    FROM points WHERE until > CAST(:now AS timestamptz) - interval '90 days'
                ), ordered AS (
                    SELECT amount_minor, sum(seconds) OVER (ORDER BY amount_minor) AS upto, sum(seconds) OVER () AS whole
                    FROM recent WHERE amount_minor IS NOT NULL
                )
                SELECT (SELECT coalesce(sum(seconds), 0) / 86400 FROM recent)::float8 AS known_days,
                    (SELECT extract(epoch FROM CAST(:now AS timestamptz) - min(observed_at)) / 86400 FROM points)::float8 AS whole_days,
                    (SELECT min(amount_minor) FROM ordered WHERE upto * 2 >= whole) AS median_90,
                    before.lowest_year, before.highest_year, before.lowest_ever
                FROM (
                    SELECT min(amount_minor) AS lowest_ever,
                        min(amount_minor) FILTER (WHERE until > CAST(:now AS timestamptz) - interval '365 days') AS lowest_year,
                        max(amount_minor) FILTER (WHERE until > CAST(:now AS timestamptz) - interval '365 days') AS highest_year
                    -- What stood for less than an hour, nobody could count on; most such prices are faults.
                    FROM points WHERE observed_at < s.changed_at AND until - observed_at >= interval '1 hour'
                ) before
            ) past
            WHERE past.known_days > 0
                -- What has a history has a current price; most of what the feed tells of has neither.
                AND EXISTS (
                    SELECT 1 FROM current_prices c WHERE c.asin = s.asin AND c.marketplace = s.marketplace AND c.price_type = s.price_type
                )
            """
        ),
        _columns_of_keys(keys) | {"now": now},
    )
    return {
        (row.asin, row.marketplace, row.price_type): PastPrices(
            row.known_days, row.whole_days, row.median_90, row.lowest_year, row.highest_year, row.lowest_ever
        )
        for row in rows
    }


def select_deals(connection: Connection, keys: Collection[Key], *, lock: bool = True) -> list[KnownDeal]:
    """The deals of these keys, and those that run on the same price; locked in their order, unless just looked at."""
    if not keys:
        return []
    rows = connection.execute(
        text(
            f"""
            SELECT {", ".join(f"d.{one.name}" for one in fields(KnownDeal))}
            FROM {_STAGED}
            JOIN collected_deals d USING (asin, marketplace, price_type)
            WHERE d.ended_at IS NULL OR d.changed_at = s.changed_at
            ORDER BY d.asin, d.marketplace, d.price_type, d.changed_at {"FOR UPDATE OF d" if lock else ""}
            """
        ),
        _columns_of_keys(keys),
    )
    return [KnownDeal(*row) for row in rows]


def write_deals(connection: Connection, rows: Sequence[DealRow]) -> None:
    """Insert the new ones, move those that are there; each key once."""
    if not rows:
        return
    columns = ", ".join(_COLUMNS)
    connection.execute(
        text(
            f"""
            INSERT INTO collected_deals ({columns})
            SELECT {columns} FROM json_populate_recordset(CAST(NULL AS collected_deals), CAST(:rows AS json)) ORDER BY {_KEY_COLUMNS}
            ON CONFLICT ({_KEY_COLUMNS}) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _MOVED)}
            """
        ),
        {"rows": json_rows(rows)},
    )


def touch_deals(connection: Connection, keys: Collection[Key], looked_at: Sequence[datetime], *, now: datetime) -> None:
    """They were seen again, and nothing of them is another."""
    if keys:
        connection.execute(
            text(
                f"""
                UPDATE collected_deals d SET last_seen_at = greatest(last_seen_at, :now),
                    sightings = sightings + CASE WHEN s.looked_at > d.looked_at THEN 1 ELSE 0 END,
                    looked_at = greatest(d.looked_at, s.looked_at)
                FROM unnest({_KEY_ARRAYS}, CAST(:looked AS timestamptz[])) AS s (asin, marketplace, price_type, changed_at, looked_at)
                WHERE d.asin = s.asin AND d.marketplace = s.marketplace AND d.price_type = s.price_type AND d.changed_at = s.changed_at
                """
            ),
            _columns_of_keys(keys) | {"looked": _array(at.isoformat() for at in looked_at), "now": now},
        )


def insert_sightings(connection: Connection, seen: Collection[tuple[Key, int | None]], *, query: str | None, now: datetime) -> None:
    """Note that these were seen, with their sales ranks."""
    if seen:
        connection.execute(
            text(
                f"""
                INSERT INTO deal_sightings ({_KEY_COLUMNS}, seen_at, query, sales_rank)
                SELECT asin, marketplace, price_type, changed_at, :now, :query, sales_rank
                FROM unnest({_KEY_ARRAYS}, CAST(:ranks AS integer[])) AS s (asin, marketplace, price_type, changed_at, sales_rank)
                ON CONFLICT DO NOTHING
                """
            ),
            _columns_of_keys([key for key, _ in seen])
            | {"ranks": _array("NULL" if rank is None else str(rank) for _, rank in seen), "now": now, "query": query},
        )


def insert_collection(
    connection: Connection,
    *,
    source: DealSource,
    query: str | None,
    seen: int,
    kept: int,
    added: int,
    glitches: int,
    members: int | None = None,
    now: datetime,
) -> None:
    """Note what a page came to, for those who look at the quality of a day.

    Args:
        members: how many of the rows seen are of a product group; None where nobody counted.
    """
    connection.execute(
        text(
            "INSERT INTO deal_collections (collected_at, source, query, seen, kept, added, glitches, members) "
            "VALUES (:now, :source, :query, :seen, :kept, :added, :glitches, :members)"
        ),
        {
            "now": now,
            "source": source.value,
            "query": query,
            "seen": seen,
            "kept": kept,
            "added": added,
            "glitches": glitches,
            "members": members,
        },
    )


def end_deals(connection: Connection, ended: Sequence[tuple[KnownDeal, datetime, UUID]]) -> None:
    """They are over since then; the event id is that of their new revision."""
    if ended:
        connection.execute(
            text(
                f"""
                UPDATE collected_deals d SET ended_at = s.ended_at, event_id = s.event_id, revision = d.revision + 1
                FROM unnest({_KEY_ARRAYS}, CAST(:ends AS timestamptz[]), CAST(:ids AS uuid[]))
                    AS s (asin, marketplace, price_type, changed_at, ended_at, event_id)
                WHERE d.asin = s.asin AND d.marketplace = s.marketplace AND d.price_type = s.price_type AND d.changed_at = s.changed_at
                """
            ),
            _columns_of_keys([(deal.asin, deal.marketplace, deal.price_type, deal.changed_at) for deal, _, _ in ended])
            | {
                "ends": [at for _, at, _ in ended],
                "ids": [event_id for _, _, event_id in ended],
            },
        )


def select_overdue(connection: Connection, *, unseen_since: datetime, limit: int) -> list[tuple[KnownDeal, datetime]]:
    """Deals that run and are over, with when: the price moved on, or nobody has seen them for long.

    A deal of a query is not over for being unseen: its page may not have been paid for. Passes that read its place end it
    (`select_unseen`); else it runs on until it is too old for the query's date range. The query must be asked at all: where no run has
    wanted it for so long, its deals end as those of seeds do.

    Locks them, and leaves those that are being collected right now to the next call: so it never waits with a lock in its hands.
    """
    rows = connection.execute(
        text(
            f"""
            WITH ending AS (
                (SELECT d.asin, d.marketplace, d.price_type, d.changed_at, c.observed_at AS over_at
                 FROM collected_deals d JOIN current_prices c USING (asin, marketplace, price_type)
                 WHERE d.ended_at IS NULL AND c.observed_at > d.changed_at AND c.amount_minor IS DISTINCT FROM d.amount_minor LIMIT :limit)
                UNION ALL
                (SELECT d.asin, d.marketplace, d.price_type, d.changed_at, d.last_seen_at
                 FROM collected_deals d
                 LEFT JOIN deal_queries q ON d.source = :feed AND q.name = d.query AND q.price_type = d.price_type
                 WHERE d.ended_at IS NULL AND d.last_seen_at < :unseen_since AND (q.name IS NULL
                    OR q.wanted_at < :unseen_since OR d.changed_at < :unseen_since - make_interval(days => q.range_days))
                 ORDER BY d.last_seen_at LIMIT :limit)
            ), first AS (
                SELECT asin, marketplace, price_type, changed_at, min(over_at) AS over_at
                FROM ending GROUP BY asin, marketplace, price_type, changed_at
            )
            SELECT {", ".join(f"d.{one.name}" for one in fields(KnownDeal))}, first.over_at
            FROM first JOIN collected_deals d USING (asin, marketplace, price_type, changed_at)
            WHERE d.ended_at IS NULL FOR UPDATE OF d SKIP LOCKED
            """
        ),
        {"unseen_since": unseen_since, "limit": limit, "feed": DealSource.FEED.value},
    )
    return [(KnownDeal(*row[:-1]), row.over_at) for row in rows]


def select_unseen(connection: Connection, query: DealQuery, *, since: datetime) -> list[KnownDeal]:
    """Running deals that this query found, whose places its present pass has read, and that nobody has seen since then.

    Locks them as `select_overdue` does.
    """
    rows = connection.execute(
        text(
            f"""
            SELECT {", ".join(f"d.{one.name}" for one in fields(KnownDeal))} FROM collected_deals d
            JOIN deal_queries q ON q.name = d.query AND q.price_type = d.price_type
            WHERE {_UNSEEN} AND d.changed_at > coalesce(q.reached_at, '-infinity')
            FOR UPDATE OF d SKIP LOCKED
            """
        ),
        _unseen(query, since),
    )
    return [KnownDeal(*row) for row in rows]


def has_unseen(connection: Connection, query: DealQuery, *, since: datetime, until: datetime | None) -> bool:
    """Whether it found running deals that nobody has seen since then, with a change of price up to `until`; None for any."""
    found: bool = connection.execute(
        text(
            f"""
            SELECT EXISTS (
                SELECT 1 FROM collected_deals d
                WHERE {_UNSEEN} AND d.changed_at <= coalesce(CAST(:until AS timestamptz), 'infinity')
            )
            """
        ),
        _unseen(query, since) | {"until": until},
    ).scalar_one()
    return found


_UNSEEN = (
    "d.ended_at IS NULL AND d.last_seen_at < :since AND d.query = :query AND d.price_type = :price_type "
    "AND d.marketplace = :marketplace AND d.source = :feed"
)


def _unseen(query: DealQuery, since: datetime) -> dict[str, Any]:
    return {
        "since": since,
        "query": query.name,
        "price_type": query.price_type.value,
        "marketplace": query.marketplace.value,
        "feed": DealSource.FEED.value,
    }


def select_stale(connection: Connection, asins: Sequence[str], marketplace: str, *, before: datetime) -> list[str]:
    """Those that were last checked before that time: never checked ones first, then by the time; among equals in the order given."""
    rows = connection.execute(
        text(
            """
            SELECT asin FROM (
                SELECT s.asin, s.place, coalesce(c.checked_at, p.checked_at) AS checked_at
                FROM unnest(CAST(:asins AS text[])) WITH ORDINALITY AS s (asin, place)
                LEFT JOIN products p ON p.asin = s.asin AND p.marketplace = :marketplace
                LEFT JOIN LATERAL (
                    SELECT max(c.checked_at) AS checked_at FROM current_prices c WHERE c.asin = s.asin AND c.marketplace = :marketplace
                ) c ON true
            ) seed
            WHERE checked_at IS NULL OR checked_at < :before ORDER BY checked_at NULLS FIRST, place
            """
        ),
        {"asins": list(asins), "marketplace": marketplace, "before": before},
    )
    return [row.asin for row in rows]


def select_seeds_asked(connection: Connection) -> dict[tuple[str, str], datetime]:
    """When the products of a file of seeds were last asked for in a store."""
    rows = connection.execute(text("SELECT name, marketplace, asked_at FROM deal_seeds"))
    return {(row.name, row.marketplace): row.asked_at for row in rows}


def note_seeds_asked(connection: Connection, name: str, marketplace: str, *, now: datetime) -> None:
    """They were just asked for, as far as there were tokens."""
    connection.execute(
        text(
            "INSERT INTO deal_seeds (name, marketplace, asked_at) VALUES (:name, :marketplace, :now) "
            "ON CONFLICT (name, marketplace) DO UPDATE SET asked_at = excluded.asked_at"
        ),
        {"name": name, "marketplace": marketplace, "now": now},
    )


def select_sightings(
    connection: Connection,
    asins: Sequence[str],
    marketplace: Marketplace,
    price_types: Sequence[PriceType],
    *,
    checked_since: datetime,
    now: datetime,
) -> list[DealSighting]:
    """The present prices of these products as sightings, where they were checked since then. Of the past `select_past` tells."""
    rows = connection.execute(
        text(
            """
            SELECT c.asin, c.price_type, c.amount_minor, c.observed_at, c.checked_at, l.amount_minor AS list_price_minor,
                before.amount_minor AS previous_minor, p.title, p.brand, p.image_url, p.root_category_id, p.category_ids,
                p.category_path[1] AS category, p.rating_tenths, p.review_count, p.sales_rank, p.parent_asin, p.keepa_updated_at
            FROM current_prices c
            JOIN products p ON p.asin = c.asin AND p.marketplace = c.marketplace
            LEFT JOIN current_prices l ON l.asin = c.asin AND l.marketplace = c.marketplace AND l.price_type = 'LISTPRICE'
            LEFT JOIN LATERAL (
                SELECT h.amount_minor FROM price_history h
                WHERE h.asin = c.asin AND h.marketplace = c.marketplace AND h.price_type = c.price_type
                    AND h.observed_at < c.observed_at AND h.amount_minor IS NOT NULL
                ORDER BY h.observed_at DESC LIMIT 1
            ) before ON true
            WHERE c.asin = ANY(:asins) AND c.marketplace = :marketplace AND c.price_type = ANY(:price_types)
                AND c.amount_minor IS NOT NULL AND c.observed_at <= :now AND c.checked_at >= :checked_since
            ORDER BY c.asin, c.price_type
            """
        ),
        {
            "asins": list(asins),
            "marketplace": marketplace.value,
            "price_types": [one.value for one in price_types],
            "checked_since": checked_since,
            "now": now,
        },
    )
    return [
        DealSighting(
            asin=row.asin,
            marketplace=marketplace,
            price_type=PriceType(row.price_type),
            changed_minute=minute_of(row.observed_at),
            # Keepa's look, not ours: a second look of ours at the same answer is no second sighting.
            updated_minute=minute_of(row.keepa_updated_at or row.checked_at),
            amount_minor=row.amount_minor,
            title=row.title,
            brand=row.brand,
            image_url=row.image_url,
            previous_minor=row.previous_minor,
            list_price_minor=row.list_price_minor,
            rating_tenths=row.rating_tenths,
            review_count=row.review_count,
            sales_rank=row.sales_rank,
            root_category_id=row.root_category_id,
            category_ids=tuple(row.category_ids or ()),
            category=row.category,
            parent_asin=row.parent_asin,
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class QueryState:
    """Where the passes of a query stand.

    Attributes:
        next_page: where to go on within Keepa's cache time; 0 for the beginning.
        asked_at: None where no answer came yet, nor an error.
        began_at: when the present pass asked for its first page; None where a row of it could not be read.
        full_at: the same of the last full pass.
        newest_at: the latest change of price it has told of.
        mark_at: the same when a pass was last through; what is not later was read by it, or by one before it.
    """

    next_page: int
    asked_at: datetime | None
    began_at: datetime | None
    full_at: datetime | None
    newest_at: datetime | None
    mark_at: datetime | None
    failure: str | None


def select_query(connection: Connection, query: DealQuery) -> QueryState | None:
    """None for one that no run ever wanted."""
    row = connection.execute(
        text(
            "SELECT next_page, asked_at, began_at, full_at, newest_at, mark_at, failure FROM deal_queries "
            "WHERE name = :name AND price_type = :price_type"
        ),
        {"name": query.name, "price_type": query.price_type.value},
    ).one_or_none()
    return None if row is None else QueryState(*row)


def want_queries(connection: Connection, queries: Collection[DealQuery], *, now: datetime) -> None:
    """A run means to ask these, as far as its share goes."""
    for query in sorted(queries, key=lambda one: (one.name, one.price_type)):
        connection.execute(
            text(
                "INSERT INTO deal_queries (name, price_type, wanted_at, range_days) VALUES (:name, :price_type, :now, :range_days) "
                "ON CONFLICT (name, price_type) DO UPDATE SET wanted_at = excluded.wanted_at, range_days = excluded.range_days"
            ),
            {"name": query.name, "price_type": query.price_type.value, "now": now, "range_days": query.date_range.days},
        )


def keep_query(
    connection: Connection,
    query: DealQuery,
    *,
    next_page: int,
    now: datetime,
    began_at: datetime | None,
    full_at: datetime | None,
    reached_at: datetime | None,
    newest_at: datetime | None,
    is_through: bool,
) -> None:
    """A page is kept, and the pass is through with it or not.

    Args:
        reached_at: the pass has read all places of later changes; None where it read the last page.
    """
    connection.execute(
        text(
            """
            INSERT INTO deal_queries AS q
                (name, price_type, next_page, asked_at, wanted_at, range_days, began_at, full_at, reached_at, newest_at, mark_at)
            VALUES (:name, :price_type, :next_page, :now, :now, :range_days, :began_at, :full_at, :reached_at, :newest_at,
                CASE WHEN CAST(:is_through AS boolean) THEN CAST(:newest_at AS timestamptz) END)
            ON CONFLICT (name, price_type) DO UPDATE SET next_page = excluded.next_page, asked_at = excluded.asked_at,
                wanted_at = excluded.wanted_at, range_days = excluded.range_days, began_at = excluded.began_at,
                full_at = excluded.full_at, reached_at = excluded.reached_at, newest_at = greatest(q.newest_at, excluded.newest_at),
                mark_at = CASE WHEN CAST(:is_through AS boolean) THEN greatest(q.newest_at, excluded.newest_at) ELSE q.mark_at END,
                failure = NULL
            """
        ),
        {
            "name": query.name,
            "price_type": query.price_type.value,
            "next_page": next_page,
            "now": now,
            "range_days": query.date_range.days,
            "began_at": began_at,
            "full_at": full_at,
            "reached_at": reached_at,
            "newest_at": newest_at,
            "is_through": is_through,
        },
    )


def stop_query(connection: Connection, query: DealQuery, *, next_page: int, now: datetime, failure: str | None) -> None:
    """A pass ends before it is through; where it goes on, and why it failed where it did. Without a failure nothing was asked."""
    connection.execute(
        text(
            """
            INSERT INTO deal_queries AS q (name, price_type, next_page, asked_at, failure)
            VALUES (:name, :price_type, :next_page, :asked_at, :failure)
            ON CONFLICT (name, price_type) DO UPDATE SET next_page = excluded.next_page, failure = excluded.failure,
                asked_at = coalesce(excluded.asked_at, q.asked_at)
            """
        ),
        {
            "name": query.name,
            "price_type": query.price_type.value,
            "next_page": next_page,
            "asked_at": now if failure else None,
            "failure": failure,
        },
    )


@dataclass(frozen=True, slots=True)
class BestDeal:
    """A deal as a list of the best shows it."""

    asin: str
    marketplace: str
    price_type: str
    title: str | None
    amount_minor: int
    list_price_minor: int | None
    currency: str
    discount_pct: float | None
    below_median_pct: float | None
    deal_score: float
    is_year_low: bool | None
    is_all_time_low: bool | None
    url: str


_BEST = """
    SELECT * FROM (
        SELECT DISTINCT ON (d.asin, d.marketplace)
            d.asin, d.marketplace, d.price_type, p.title, d.amount_minor, d.list_price_minor, d.currency, d.discount_pct::float8,
            d.below_median_pct::float8, d.deal_score, d.is_year_low, d.is_all_time_low, d.url
        FROM {source} LEFT JOIN products p ON p.asin = d.asin AND p.marketplace = d.marketplace
        ORDER BY d.asin, d.marketplace, d.deal_score DESC
    ) best
    ORDER BY deal_score DESC, asin LIMIT :limit
"""


def select_best(connection: Connection, keys: Collection[Key], *, limit: int) -> list[BestDeal]:
    """Of these deals the best, best first; of each product one."""
    source = f"{_STAGED} JOIN collected_deals d USING (asin, marketplace, price_type, changed_at)"
    return [BestDeal(*row) for row in connection.execute(text(_BEST.format(source=source)), _columns_of_keys(keys) | {"limit": limit})]


def select_best_running(connection: Connection, *, limit: int) -> list[BestDeal]:
    """The same of all that run and may be told."""
    source = (
        "(SELECT * FROM collected_deals WHERE ended_at IS NULL AND announced_at IS NOT NULL "
        "ORDER BY coalesce(deal_score, -1000) DESC LIMIT :limit * 10) d"
    )
    return [BestDeal(*row) for row in connection.execute(text(_BEST.format(source=source)), {"limit": limit})]


def delete_old_sightings(connection: Connection, *, before: datetime) -> int:
    """Forget when and where deals were seen before that time. Returns how many rows."""
    return connection.execute(text("DELETE FROM deal_sightings WHERE seen_at < :before"), {"before": before}).rowcount


def delete_over(connection: Connection, *, before: datetime, limit: int, routes: Routes) -> int:
    """Forget deals that ended before that time, and take them out of the index. Returns how many; what is being collected stays.

    Kafka is told nothing: its consumers have heard that they ended.
    """
    sinks = [sink for sink in routes.get(EventKind.DEAL_UPDATE, ()) if sink != Sink.KAFKA]
    count: int = connection.execute(
        text(
            f"""
            WITH gone AS (
                DELETE FROM collected_deals WHERE ({_KEY_COLUMNS}) IN (
                    SELECT {_KEY_COLUMNS} FROM collected_deals WHERE ended_at < :before
                    ORDER BY ended_at LIMIT :limit FOR UPDATE SKIP LOCKED
                ) RETURNING {_KEY_COLUMNS}, revision
            ), told AS (
                INSERT INTO events (event_id, kind, key, version, payload)
                SELECT gen_random_uuid(), :kind, d.asin, d.revision + 1, json_build_object('deal_id', {DEAL_ID}, 'deleted', true)
                FROM gone d WHERE cardinality(CAST(:sinks AS text[])) > 0
                RETURNING key, recorded_on, seq
            ), queued AS (
                INSERT INTO outbox (sink, shard, key, event_on, event_seq)
                SELECT sink, {SHARD_OF_KEY.format(key="key")}, key, recorded_on, seq
                FROM told CROSS JOIN unnest(CAST(:sinks AS text[])) AS sink ORDER BY seq
            )
            SELECT count(*) FROM gone
            """
        ),
        {"before": before, "limit": limit, "kind": EventKind.DEAL_UPDATE.value, "sinks": sinks},
    ).scalar_one()
    if count and sinks:
        notify_relays(connection)
    return count


def insert_deal_events(connection: Connection, event_ids: Collection[UUID], routes: Routes) -> None:
    """An event for each of these states, with an outbox row for each sink of the kind.

    What may be a glitch goes to the index, where it is marked, and not to Kafka, whose consumers tell people.
    """
    sinks = list(routes.get(EventKind.DEAL_UPDATE, ()))
    if not event_ids or not sinks:
        return
    connection.execute(
        text(
            f"""
            WITH added AS (
                INSERT INTO events (event_id, kind, key, version, payload)
                SELECT d.event_id, :kind, d.asin, d.revision, {DEAL_UPDATE}
                FROM collected_deals d LEFT JOIN products p USING (asin, marketplace)
                WHERE d.event_id = ANY(:ids) ORDER BY d.asin, d.marketplace, d.price_type, d.changed_at
                RETURNING event_id, key, recorded_on, seq
            )
            INSERT INTO outbox (sink, shard, key, event_on, event_seq)
            SELECT sink, {SHARD_OF_KEY.format(key="key")}, key, recorded_on, seq
            FROM added JOIN collected_deals d USING (event_id) CROSS JOIN unnest(CAST(:sinks AS text[])) AS sink
            WHERE sink <> :kafka OR d.announced_at IS NOT NULL ORDER BY seq
            """
        ),
        {"kind": EventKind.DEAL_UPDATE.value, "ids": list(event_ids), "sinks": sinks, "kafka": Sink.KAFKA.value},
    )
    notify_relays(connection)


def _columns_of(places: Collection[Place]) -> dict[str, Any]:
    return {"asins": _array(asin for asin, _ in places), "marketplaces": _array(str(marketplace) for _, marketplace in places)}


def _columns_of_keys(keys: Collection[Key]) -> dict[str, Any]:
    return _columns_of([key[:2] for key in keys]) | {
        "price_types": _array(str(key[2]) for key in keys),
        "times": _array(key[3].isoformat() for key in keys),
    }


def _array(plain: Iterable[str]) -> str:
    """As PostgreSQL writes an array of words without signs: the driver takes longer for its own than the server for the whole statement."""
    return "{" + ",".join(plain) + "}"
