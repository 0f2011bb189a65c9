"""Filters of deals, and the one place that says which deal a filter matches.

A filter is read by its rules before it is asked for, so that what this Keeper cannot read is told and never passed over. However many
filters and users there are, their matches cost the same few statements.
"""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from keeper.domain.deal_filter import MOST_FILTERS, DealFilter, DealFilterInvalid, read_rules, terms_of, write_rules
from keeper.domain.errors import KeeperError

_LARGEST_ID: Final = 2**63 - 1
# The deals of a day, with the words of their titles, are gone through once for each filter: in memory, for the rest of the transaction.
_MEMORY = "64MB"
# Filters times deals that one statement compares. A second is enough for some 2.5 million of them, so that it takes about 20.
_PAIRS_AT_ONCE = 50_000_000


class FilterUnknown(KeeperError):
    """The user has no filter of that id."""


class DealUnknown(KeeperError):
    """There is no such deal."""


class FilterExists(KeeperError):
    """The user has a filter of that name."""


class TooManyFilters(KeeperError):
    """The user has as many filters as there may be."""


@dataclass(frozen=True, slots=True)
class FilterRow:
    """A filter as it is kept.

    Attributes:
        rules: as somebody wrote them; `read_rules` makes a DealFilter of them, or says why not.
    """

    filter_id: int
    user_id: int
    name: str
    rules: Any
    is_active: bool
    is_instant: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AskedFilter:
    """A filter whose matches are wanted; one that is not kept has ids of the caller's choice."""

    filter_id: int
    user_id: int
    name: str
    wanted: DealFilter


@dataclass(frozen=True, slots=True)
class BrokenFilter:
    """A kept filter that cannot be read, and why."""

    filter_id: int
    user_id: int
    name: str
    problem: str


@dataclass(frozen=True, slots=True)
class DealKey:
    """What makes a deal the same deal."""

    asin: str
    marketplace: str
    price_type: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class FoundDeal:
    """A deal as it stands, and what is known of its product. Amounts are in minor units of `currency`; None means nobody knows."""

    asin: str
    marketplace: str
    price_type: str
    changed_at: datetime
    deal_id: str
    event_id: str | None
    title: str | None
    brand: str | None
    category: str | None
    image_url: str | None
    url: str | None
    currency: str
    amount_minor: int
    previous_minor: int | None
    list_price_minor: int | None
    discount_pct: float | None
    median_90_minor: int | None
    average_90_minor: int | None
    below_median_pct: float | None
    lowest_year_minor: int | None
    lowest_ever_minor: int | None
    highest_year_minor: int | None
    is_year_low: bool | None
    is_all_time_low: bool | None
    is_list_price_fiction: bool | None
    is_glitch: bool
    rating_tenths: int | None
    review_count: int | None
    sales_rank: int | None
    prime_eligible: bool | None
    product_group: str | None
    layout: str | None
    deal_score: float | None
    score_parts: Any
    source: str
    sightings: int
    first_seen_at: datetime
    last_seen_at: datetime
    announced_at: datetime | None
    ended_at: datetime | None
    revision: int

    @property
    def key(self) -> DealKey:
        """What makes it the same deal."""
        return DealKey(self.asin, self.marketplace, self.price_type, self.changed_at)


@dataclass(frozen=True, slots=True)
class Match:
    """A deal that a filter wants; several filters share one `deal`.

    Attributes:
        rank: from 1, the best score or the newest first.
    """

    filter_id: int
    user_id: int
    rank: int
    deal: FoundDeal


_DEAL_ID = "d.asin || '-' || d.marketplace || '-' || d.price_type || '-' || extract(epoch FROM d.changed_at)::bigint"
DEAL_COLUMNS: Final = f"""
    d.asin, d.marketplace, d.price_type, d.changed_at, {_DEAL_ID} AS deal_id, d.event_id::text, p.title, p.brand,
    coalesce(d.category, p.category_path[cardinality(p.category_path)]) AS category, p.image_url, d.url, d.currency, d.amount_minor,
    d.previous_minor, d.list_price_minor, d.discount_pct::float8, d.median_90_minor, d.average_90_minor, d.below_median_pct::float8,
    d.lowest_year_minor, d.lowest_ever_minor, d.highest_year_minor, d.is_year_low, d.is_all_time_low, d.is_list_price_fiction,
    d.is_glitch, coalesce(d.rating_tenths, p.rating_tenths) AS rating_tenths, coalesce(d.review_count, p.review_count) AS review_count,
    coalesce(d.sales_rank, p.sales_rank) AS sales_rank, d.prime_eligible, d.product_group, d.layout, d.deal_score, d.score_parts,
    d.source, d.sightings, d.first_seen_at, d.last_seen_at, d.announced_at, d.ended_at, d.revision
"""

# Each condition of each filter, words last because they cost most. `f` is the filter, `d` the deal; both have what is not said as a value
# outside of every range, so that one comparison says it.
_MATCHES = """
    d.amount_minor BETWEEN f.price_from AND f.price_to
    AND d.score >= f.score_from AND d.discount >= f.discount_from AND d.discount <= f.discount_to
    AND d.below_median >= f.below_median_from AND d.rating_tenths >= f.rating_from AND d.review_count >= f.reviews_from
    AND d.sales_rank <= f.rank_to
    AND (f.marketplaces IS NULL OR d.marketplace = ANY(f.marketplaces))
    AND (f.price_types IS NULL OR d.price_type = ANY(f.price_types))
    AND (f.product_group IS NULL OR d.product_group = f.product_group)
    AND (f.layouts IS NULL OR d.layout = ANY(f.layouts))
    AND (f.brands IS NULL OR d.brand = ANY(f.brands))
    AND (f.categories IS NULL OR d.categories && f.categories)
    AND (f.words IS NULL OR d.words @@ f.words)
    AND (f.not_words IS NULL OR NOT d.words @@ f.not_words)
"""
_FILTERS = """
    filters AS MATERIALIZED (
        SELECT asked.id, coalesce(price_from, 0) AS price_from, coalesce(price_to, 2147483647) AS price_to,
            coalesce(score_from, '-infinity') AS score_from, coalesce(discount_from, '-infinity') AS discount_from,
            coalesce(discount_to, 'infinity') AS discount_to, coalesce(below_median_from, '-infinity') AS below_median_from,
            coalesce(rating_from * 10, -2) AS rating_from, coalesce(reviews_from, -2) AS reviews_from,
            coalesce(rank_to, 2147483647) AS rank_to, marketplaces, price_types, product_group, layouts,
            (SELECT array_agg(lower(said)) FROM unnest(asked.brands) said) AS brands,
            (SELECT array_agg(lower(said)) FROM unnest(asked.categories) said) AS categories,
            (
                SELECT string_agg('(' || query::text || ')', ' & ')::tsquery
                FROM unnest(asked.words) said, phraseto_tsquery('keeper_german', keeper_fold(said)) query WHERE numnode(query) > 0
            ) AS words,
            (
                SELECT string_agg('(' || query::text || ')', ' | ')::tsquery
                FROM unnest(asked.not_words) said, phraseto_tsquery('keeper_german', keeper_fold(said)) query WHERE numnode(query) > 0
            ) AS not_words
        FROM jsonb_to_recordset(CAST(:filters AS jsonb)) AS asked (
            id integer, price_from integer, price_to integer, score_from float8, discount_from float8, discount_to float8,
            below_median_from float8, rating_from float8, reviews_from integer, rank_to integer, marketplaces text[], price_types text[],
            product_group text, layouts text[], brands text[], categories text[], words text[], not_words text[])
    )
"""
# In the order they are told, which PostgreSQL 17 and newer know of: the first deals that match are the best.
_DEALS = """
    deals AS MATERIALIZED (
        SELECT d.amount_minor, coalesce(d.deal_score, '-infinity') AS score, coalesce(d.discount_pct, -1)::float8 AS discount,
            coalesce(d.below_median_pct, -1000)::float8 AS below_median,
            coalesce(d.rating_tenths, p.rating_tenths, -2)::float8 AS rating_tenths,
            coalesce(d.review_count, p.review_count, -2) AS review_count, coalesce(d.sales_rank, p.sales_rank, 2147483647) AS sales_rank,
            d.marketplace, d.price_type, d.product_group, d.layout, lower(p.brand) AS brand, d.asin, d.changed_at, d.announced_at,
            CASE WHEN :with_categories THEN ARRAY(
                SELECT lower(said) FROM unnest(p.category_path || CAST(p.category_ids AS text[]) || d.category) said
            ) END AS categories,
            t.words,
            row_number() OVER (ORDER BY {order}, d.asin, d.marketplace, d.price_type, d.changed_at) AS place
        FROM collected_deals d
        LEFT JOIN products p ON p.asin = d.asin AND p.marketplace = d.marketplace
        LEFT JOIN product_texts t ON t.asin = d.asin AND t.marketplace = d.marketplace
        WHERE {conditions}
        ORDER BY place
    )
"""


# So many price types of one product are deals at a time, at most, as queries of the feed go.
_PRICES_OF_A_PRODUCT: Final = 4
_ORDERS: Final = {
    False: "coalesce(d.deal_score, '-infinity') DESC, d.changed_at DESC",
    True: "d.announced_at DESC",
}


def insert_filter(
    connection: Connection, user_id: int, name: str, wanted: DealFilter, *, is_active: bool, is_instant: bool, now: datetime
) -> FilterRow:
    """Keep one.

    Raises:
        FilterExists: the user has one of this name.
        TooManyFilters: see there.
    """
    # One user's filters are added one after the other, so that the last count is right.
    connection.execute(text("SELECT 1 FROM users WHERE id = :user_id FOR NO KEY UPDATE"), {"user_id": user_id})
    kept = connection.execute(text("SELECT count(*) FROM deal_filters WHERE user_id = :user_id"), {"user_id": user_id}).scalar_one()
    if kept >= MOST_FILTERS:
        raise TooManyFilters(f"you have {kept} filters, and there may be {MOST_FILTERS}; remove one first")
    row = connection.execute(
        text(
            "INSERT INTO deal_filters (user_id, name, rules, is_active, is_instant, created_at) "
            "VALUES (:user_id, :name, CAST(:rules AS jsonb), :is_active, :is_instant, :now) "
            f"ON CONFLICT (user_id, name) DO NOTHING RETURNING {_COLUMNS}"
        ),
        {
            "user_id": user_id,
            "name": name,
            "rules": json.dumps(write_rules(wanted)),
            "is_active": is_active,
            "is_instant": is_instant,
            "now": now,
        },
    ).one_or_none()
    if row is None:
        raise FilterExists(f"there is a filter {name!r} of yours already")
    return FilterRow(*row)


def update_filter(
    connection: Connection, user_id: int, filter_id: int, name: str, wanted: DealFilter, *, is_active: bool, is_instant: bool
) -> FilterRow:
    """Write another in its place.

    Raises:
        FilterUnknown, FilterExists: see there.
    """
    _check_id(filter_id)
    try:
        row = connection.execute(
            text(
                "UPDATE deal_filters SET name = :name, rules = CAST(:rules AS jsonb), is_active = :is_active, is_instant = :is_instant "
                f"WHERE id = :filter_id AND user_id = :user_id RETURNING {_COLUMNS}"
            ),
            {
                "user_id": user_id,
                "filter_id": filter_id,
                "name": name,
                "rules": json.dumps(write_rules(wanted)),
                "is_active": is_active,
                "is_instant": is_instant,
            },
        ).one_or_none()
    except IntegrityError as error:
        raise FilterExists(f"there is another filter {name!r} of yours") from error
    if row is None:
        raise _unknown(filter_id)
    return FilterRow(*row)


def delete_filter(connection: Connection, user_id: int, filter_id: int) -> None:
    """Take one away. Reports stay, and the memory of what was told at once by it.

    Raises:
        FilterUnknown: see there.
    """
    _check_id(filter_id)
    gone = connection.execute(
        text("DELETE FROM deal_filters WHERE id = :filter_id AND user_id = :user_id RETURNING id"),
        {"filter_id": filter_id, "user_id": user_id},
    ).one_or_none()
    if gone is None:
        raise _unknown(filter_id)


def find_filter(connection: Connection, user_id: int, filter_id: int) -> FilterRow:
    """One of a user's.

    Raises:
        FilterUnknown: see there.
    """
    _check_id(filter_id)
    row = connection.execute(
        text(f"SELECT {_COLUMNS} FROM deal_filters WHERE id = :filter_id AND user_id = :user_id"),
        {"filter_id": filter_id, "user_id": user_id},
    ).one_or_none()
    if row is None:
        raise _unknown(filter_id)
    return FilterRow(*row)


def select_filters(connection: Connection, user_id: int) -> list[FilterRow]:
    """All of a user's, by id; there are at most MOST_FILTERS."""
    rows = connection.execute(text(f"SELECT {_COLUMNS} FROM deal_filters WHERE user_id = :user_id ORDER BY id"), {"user_id": user_id})
    return [FilterRow(*row) for row in rows]


def select_asked(
    connection: Connection,
    *,
    user_ids: Collection[int] | None = None,
    filter_ids: Collection[int] | None = None,
    only_instant: bool = False,
) -> tuple[list[AskedFilter], list[BrokenFilter]]:
    """Active filters by user and id, and those that cannot be read: whoever asks tells their owners.

    Args:
        user_ids, filter_ids: of these only; None means all.
    """
    conditions = ["is_active"]
    parameters: dict[str, Any] = {}
    for column, ids in (("user_id", user_ids), ("id", filter_ids)):
        if ids is not None:
            conditions.append(f"{column} = ANY(CAST(:{column}s AS bigint[]))")
            parameters[f"{column}s"] = list(ids)
    if only_instant:
        conditions.append("is_instant")
    rows = connection.execute(
        text(f"SELECT id, user_id, name, rules FROM deal_filters WHERE {' AND '.join(conditions)} ORDER BY user_id, id"), parameters
    )
    asked, broken = [], []
    for filter_id, user_id, name, rules in rows:
        try:
            asked.append(AskedFilter(filter_id, user_id, name, read_rules(rules)))
        except DealFilterInvalid as error:
            broken.append(BrokenFilter(filter_id, user_id, name, str(error)))
    return asked, broken


def select_matches(
    connection: Connection,
    filters: Sequence[AskedFilter],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    deal_keys: Collection[DealKey] | None = None,
    with_ended: bool = False,
    newest_first: bool = False,
    limit_per_filter: int,
) -> list[Match]:
    """The best deals of each filter, in the filters' order and each filter's by rank.

    Four statements, however many filters there are; one more for each further `_PAIRS_AT_ONCE` of filters times deals.

    Only announced deals: what may be a glitch is told nobody. Of a product whose several prices fell only the first in the order.

    Args:
        since: announced then or later.
        until: announced before then.
        deal_keys: of these only.
        with_ended: deals that are over, too.
        newest_first: the last announced come first, not the best score.
    """
    if not filters or (deal_keys is not None and not deal_keys):
        return []
    conditions, parameters = _wanted_deals(since=since, until=until, deal_keys=deal_keys, with_ended=with_ended)
    deals = len(deal_keys) if deal_keys is not None else _count(connection, conditions, parameters)
    at_once = max(1, _PAIRS_AT_ONCE // max(1, deals))
    connection.execute(text("SELECT set_config('work_mem', :memory, true)"), {"memory": _MEMORY})
    found: list[tuple[AskedFilter, DealKey]] = []
    for first in range(0, len(filters), at_once):
        some = filters[first : first + at_once]
        rows = _select_best(connection, some, conditions, parameters, order=_ORDERS[newest_first], limit_per_filter=limit_per_filter)
        found += [(some[number], DealKey(*key)) for number, _, *key in rows]
    by_key = {deal.key: deal for deal in select_deals(connection, {key for _, key in found})}
    ranks: Counter[int] = Counter()
    matches: list[Match] = []
    for one, key in found:
        ranks[one.filter_id] += 1
        matches.append(Match(one.filter_id, one.user_id, ranks[one.filter_id], by_key[key]))
    return matches


def _count(connection: Connection, conditions: str, parameters: dict[str, Any]) -> int:
    counted: int = connection.execute(text(f"SELECT count(*) FROM collected_deals d WHERE {conditions}"), parameters).scalar_one()
    return counted


def _select_best(
    connection: Connection,
    filters: Sequence[AskedFilter],
    conditions: str,
    parameters: dict[str, Any],
    *,
    order: str,
    limit_per_filter: int,
) -> list[Any]:
    """Number of the filter among these, place and key of each match, by number and place."""
    with_deals, asked = _asked(filters, conditions, order=order)
    found = connection.execute(
        text(
            f"""
            WITH {with_deals}
            SELECT f.id AS number, matched.place, matched.asin, matched.marketplace, matched.price_type, matched.changed_at
            FROM filters f CROSS JOIN LATERAL (
                SELECT d.place, d.asin, d.marketplace, d.price_type, d.changed_at FROM deals d WHERE {_MATCHES} ORDER BY d.place LIMIT :most
            ) matched
            ORDER BY number, matched.place
            """
        ),
        parameters | asked | {"most": limit_per_filter * _PRICES_OF_A_PRODUCT},
    ).all()
    return _one_a_product(found, limit_per_filter)


def _one_a_product(found: Sequence[Any], limit_per_filter: int) -> list[Any]:
    """Of each filter's rows the first of each product, and no more than asked for."""
    kept: dict[tuple[int, str, str], Any] = {}
    counts: Counter[int] = Counter()
    for row in found:
        place = row.number, row.asin, row.marketplace
        if place not in kept and counts[row.number] < limit_per_filter:
            kept[place] = row
            counts[row.number] += 1
    return list(kept.values())


def count_matches_by_day(
    connection: Connection, wanted: DealFilter, *, since: datetime, until: datetime, timezone: str
) -> list[tuple[date, int]]:
    """How many deals a filter would have told of, by the day they were announced, oldest first; days without any are left out."""
    conditions, parameters = _wanted_deals(since=since, until=until, deal_keys=None, with_ended=True)
    with_deals, asked = _asked([AskedFilter(0, 0, "", wanted)], conditions, order=_ORDERS[True])
    rows = connection.execute(
        text(
            f"""
            WITH {with_deals}
            SELECT CAST(d.announced_at AT TIME ZONE :timezone AS date) AS day, count(*)
            FROM filters f JOIN deals d ON {_MATCHES} GROUP BY day ORDER BY day
            """
        ),
        parameters | asked | {"timezone": timezone},
    )
    return [(day, hits) for day, hits in rows]


def select_deals(connection: Connection, keys: Collection[DealKey]) -> list[FoundDeal]:
    """These deals as they stand, in no order; those that are not there are left out."""
    if not keys:
        return []
    rows = connection.execute(
        text(
            f"""
            SELECT {DEAL_COLUMNS}
            FROM unnest(CAST(:asins AS text[]), CAST(:places AS text[]), CAST(:kinds AS text[]), CAST(:times AS timestamptz[]))
                AS wanted (asin, marketplace, price_type, changed_at)
            JOIN collected_deals d USING (asin, marketplace, price_type, changed_at)
            LEFT JOIN products p ON p.asin = d.asin AND p.marketplace = d.marketplace
            """
        ),
        _of_keys(keys),
    )
    return [FoundDeal(*row) for row in rows]


def find_deal(connection: Connection, key: DealKey) -> FoundDeal:
    """One deal as it stands.

    Raises:
        DealUnknown: see there.
    """
    for deal in select_deals(connection, [key]):
        return deal
    raise DealUnknown(f"there is no deal on {key.asin} in {key.marketplace} ({key.price_type}) since {key.changed_at:%Y-%m-%dT%H:%M:%SZ}")


def select_sightings(connection: Connection, key: DealKey, *, limit: int) -> list[tuple[datetime, str | None, int | None]]:
    """When a deal was seen, by which query of the feed or file of seeds, and its sales rank then, the latest first."""
    rows = connection.execute(
        text(
            "SELECT seen_at, query, sales_rank FROM deal_sightings WHERE asin = :asin AND marketplace = :marketplace "
            "AND price_type = :price_type AND changed_at = :changed_at ORDER BY seen_at DESC LIMIT :most"
        ),
        {
            "asin": key.asin,
            "marketplace": key.marketplace,
            "price_type": key.price_type,
            "changed_at": key.changed_at,
            "most": limit,
        },
    )
    return [(seen_at, query, sales_rank) for seen_at, query, sales_rank in rows]


def select_timezone(connection: Connection, user_id: int) -> str:
    """In which a user's days begin."""
    timezone: str = connection.execute(text("SELECT timezone FROM users WHERE id = :user_id"), {"user_id": user_id}).scalar_one()
    return timezone


_COLUMNS = "id, user_id, name, rules, is_active, is_instant, created_at"


def _asked(filters: Sequence[AskedFilter], conditions: str, *, order: str) -> tuple[str, dict[str, Any]]:
    """The two lists, `filters` by their number and `deals` by their place, and the parameters of the filters."""
    return f"{_FILTERS}, {_DEALS.format(conditions=conditions, order=order)}", {
        "filters": json.dumps([_row(number, one.wanted) for number, one in enumerate(filters)]),
        "with_categories": any(one.wanted.categories for one in filters),
    }


def _wanted_deals(
    *, since: datetime | None, until: datetime | None, deal_keys: Collection[DealKey] | None, with_ended: bool
) -> tuple[str, dict[str, Any]]:
    """The conditions on `d`, whatever the filter, and their parameters."""
    conditions = ["d.announced_at IS NOT NULL"]
    parameters: dict[str, Any] = {}
    if since is not None:
        conditions.append("d.announced_at >= :since")
        parameters["since"] = since
    if until is not None:
        conditions.append("d.announced_at < :until")
        parameters["until"] = until
    if not with_ended:
        conditions.append("d.ended_at IS NULL")
    if deal_keys is not None:
        conditions.append(
            "(d.asin, d.marketplace, d.price_type, d.changed_at) IN (SELECT * FROM unnest(CAST(:asins AS text[]), CAST(:places AS text[]), "
            "CAST(:kinds AS text[]), CAST(:times AS timestamptz[])))"
        )
        parameters |= _of_keys(deal_keys)
    return " AND ".join(conditions), parameters


def _row(number: int, wanted: DealFilter) -> dict[str, Any]:
    return {
        "id": number,
        "price_from": wanted.price_from_minor,
        "price_to": wanted.price_to_minor,
        "score_from": wanted.score_from,
        # What has no discount is in no range of it.
        "discount_from": 0 if wanted.discount_from_pct is None and wanted.discount_to_pct is not None else wanted.discount_from_pct,
        "discount_to": wanted.discount_to_pct,
        "below_median_from": wanted.below_median_from_pct,
        "rating_from": wanted.rating_from,
        "reviews_from": wanted.reviews_from,
        "rank_to": wanted.rank_to,
        "marketplaces": wanted.marketplaces or None,
        "price_types": wanted.price_types or None,
        "product_group": wanted.group,
        "layouts": wanted.layouts or None,
        "brands": wanted.brands or None,
        "categories": wanted.categories or None,
        "words": terms_of("words", wanted.words) or None,
        "not_words": terms_of("exclude_words", wanted.exclude_words) or None,
    }


def _of_keys(keys: Collection[DealKey]) -> dict[str, Any]:
    wanted = list(keys)
    return {
        "asins": [key.asin for key in wanted],
        "places": [key.marketplace for key in wanted],
        "kinds": [key.price_type for key in wanted],
        "times": [key.changed_at for key in wanted],
    }


def _check_id(filter_id: int) -> None:
    if not 0 < filter_id <= _LARGEST_ID:
        raise _unknown(filter_id)


def _unknown(filter_id: int) -> FilterUnknown:
    return FilterUnknown(f"there is no filter {filter_id} of yours")
