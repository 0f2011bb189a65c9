"""Opportunities as people ask for them: pages in any order, one of them, how many there are, and which comparison they are of.

Each order has an index for those that are surely the same article and one for the doubtful; who asks for both gets the two merged. A page
begins where the one before has ended, so its price does not grow with its number.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, text

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity import FoundOpportunity, Opportunity
from keeper.domain.opportunity_query import (
    LARGEST_TOTAL,
    LEAST_PROFIT_MINOR,
    LEAST_ROI_PCT,
    OpportunityQuery,
    OpportunitySort,
    Place,
)
from keeper.domain.price_type import PriceType

_LARGEST_ID: Final = 2**63 - 1
_PROFIT = f"coalesce(o.profit_minor, {LEAST_PROFIT_MINOR})"
_ROI = f"coalesce(o.roi_pct, {LEAST_ROI_PCT})"
_ENDED = "o.closed_at"
# By order: what it goes by, as the indices have it; the number alone for the newest.
_KEYS: Mapping[OpportunitySort, str] = {
    OpportunitySort.MARGIN: "o.margin_pct",
    OpportunitySort.PROFIT: _PROFIT,
    OpportunitySort.ROI: _ROI,
    OpportunitySort.SCORE: "o.score",
    OpportunitySort.NEWEST: "",
}
_SURE, _DOUBTFUL = "cardinality(o.doubts) = 0", "cardinality(o.doubts) > 0"
_COLUMNS = ", ".join(f"o.{one.name}" for one in fields(Opportunity))
_PRODUCT = """
    coalesce(t.title, s.title) AS title, coalesce(t.brand, s.brand) AS brand, coalesce(t.image_url, s.image_url) AS image_url,
    t.fba_pick_pack_minor, coalesce(t.package_weight_g, s.package_weight_g) AS package_weight_g, t.referral_fee_pct
"""
_LISTINGS = """
    LEFT JOIN products t ON t.asin = o.asin AND t.marketplace = o.target_market
    LEFT JOIN products s ON s.asin = o.asin AND s.marketplace = o.source_market
"""


class OpportunityUnknown(KeeperError):
    """There is no such opportunity."""


@dataclass(frozen=True, slots=True)
class OpportunityPage:
    """One page.

    Attributes:
        next: where the next page begins; None after the last one.
    """

    found: tuple[FoundOpportunity, ...]
    next: Place | None


@dataclass(frozen=True, slots=True)
class Generation:
    """Of which comparison and for which seller an answer is.

    Attributes:
        comparison_id: the newest that is through; None before the first.
        profile: of the asking user; None for the default seller.
        profile_revision: 0 without a profile.
    """

    comparison_id: int | None
    compared_at: datetime | None
    profile: Mapping[str, Any] | None
    profile_revision: int


def select_generation(connection: Connection, user_id: int | None) -> Generation:
    """What an answer to this user is made of; one cheap look."""
    row = connection.execute(
        text(
            """
            SELECT c.id, c.ended_at, s.profile, coalesce(s.revision, 0)
            FROM (VALUES (1)) AS one (row)
            LEFT JOIN LATERAL (SELECT id, ended_at FROM comparisons WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT 1) c ON true
            LEFT JOIN seller_profiles s ON s.user_id = :user_id
            """
        ),
        {"user_id": user_id},
    ).one()
    return Generation(*row)


def select_opportunities(connection: Connection, query: OpportunityQuery) -> OpportunityPage:
    """A page of them."""
    _plan_for_what_is_asked(connection)
    order = _ENDED if not query.is_active else _KEYS[query.sort]
    conditions, parameters = _conditions(query)
    if query.after is not None:
        parameters["after_id"] = query.after.opportunity_id
        if order:
            after = "to_timestamp(CAST(:after AS float8))" if order == _ENDED else "CAST(:after AS numeric)"
            conditions.append(f"({order}, o.id) < ({after}, :after_id)")
            parameters["after"] = query.after.value
        else:
            conditions.append("o.id < :after_id")
    by = f"{order} DESC, o.id DESC" if order else "o.id DESC"
    kinds = (_SURE, _DOUBTFUL) if query.includes_doubtful and query.is_active else () if query.includes_doubtful else (_SURE,)
    branches = " UNION ALL ".join(
        f"(SELECT o.* FROM opportunities o WHERE {' AND '.join([*conditions, *([kind] if kind else [])])} ORDER BY {by} LIMIT :limit)"
        for kind in kinds or ("",)
    )
    rows = connection.execute(
        text(
            f"""
            SELECT {_COLUMNS}, {_PRODUCT}
            FROM (SELECT * FROM ({branches}) o ORDER BY {by} LIMIT :limit) o {_LISTINGS}
            ORDER BY {by}
            """
        ),
        # One more than asked for tells whether there is a next page.
        parameters | {"limit": query.limit + 1},
    ).all()
    found = [_found(row) for row in rows]
    page = tuple(found[: query.limit])
    return OpportunityPage(page, place_of(page[-1].opportunity, query) if len(found) > query.limit else None)


def place_of(one: Opportunity, query: OpportunityQuery) -> Place:
    """Where a page ends that ends with this one."""
    assert one.id is not None  # noqa: S101  it is stored
    return Place(sort_value(one, query), one.id)


def sort_value(one: Opportunity, query: OpportunityQuery) -> Decimal:
    """What it is ordered by."""
    if not query.is_active:
        return Decimal(str(one.closed_at.timestamp())) if one.closed_at is not None else Decimal(0)
    match query.sort:
        case OpportunitySort.MARGIN:
            return one.margin_pct
        case OpportunitySort.PROFIT:
            return Decimal(LEAST_PROFIT_MINOR if one.profit_minor is None else one.profit_minor)
        case OpportunitySort.ROI:
            return LEAST_ROI_PCT if one.roi_pct is None else one.roi_pct
        case OpportunitySort.SCORE:
            return Decimal(one.score)
        case OpportunitySort.NEWEST:
            return Decimal(0)


def count_opportunities(connection: Connection, query: OpportunityQuery) -> int:
    """All that fulfil the conditions, 1,000 meaning so many or more."""
    conditions, parameters = _conditions(query)
    if not query.includes_doubtful:
        conditions.append(_SURE)
    _plan_for_what_is_asked(connection)
    counted: int = connection.execute(
        text(f"SELECT count(*) FROM (SELECT 1 FROM opportunities o WHERE {' AND '.join(conditions)} LIMIT :most) counted"),
        parameters | {"most": LARGEST_TOTAL},
    ).scalar_one()
    return counted


def select_by_ids(connection: Connection, ids: Collection[int]) -> list[FoundOpportunity]:
    """These, whether they are over or not, by their number."""
    rows = connection.execute(
        text(f"SELECT {_COLUMNS}, {_PRODUCT} FROM opportunities o {_LISTINGS} WHERE o.id = ANY(CAST(:ids AS bigint[])) ORDER BY o.id"),
        {"ids": [one for one in ids if 0 < one <= _LARGEST_ID]},
    )
    return [_found(row) for row in rows]


def select_of_products(connection: Connection, asins: Collection[str]) -> list[FoundOpportunity]:
    """All that are there of these products, the doubtful too, by product and number."""
    rows = connection.execute(
        text(
            f"""
            SELECT {_COLUMNS}, {_PRODUCT} FROM opportunities o {_LISTINGS}
            WHERE o.asin = ANY(CAST(:asins AS text[])) AND o.closed_at IS NULL ORDER BY o.asin, o.id
            """
        ),
        {"asins": list(asins)},
    )
    return [_found(row) for row in rows]


def find_opportunity(connection: Connection, opportunity_id: int) -> FoundOpportunity:
    """One of them, whether it is over or not.

    Raises:
        OpportunityUnknown: see there.
    """
    for found in select_by_ids(connection, [opportunity_id]):
        return found
    raise OpportunityUnknown(f"there is no opportunity {opportunity_id}")


@dataclass(frozen=True, slots=True)
class PairTotal:
    """The opportunities of one lane."""

    source_market: str
    target_market: str
    opportunities: int
    median_margin_pct: Decimal


@dataclass(frozen=True, slots=True)
class OpportunityTotals:
    """All that are there, counted.

    Attributes:
        open: the doubtful included; the other three are of these.
        profitable: surely the same article, and the profit known and above 0.
        best_margin_pct, best_profit_minor: of those that are surely the same article; None where there is none.
        by_pair: surely the same article, the largest lane first.
    """

    products: int
    markets: int
    open: int
    profitable: int
    doubtful: int
    unknown: int
    best_margin_pct: Decimal | None
    best_profit_minor: int | None
    by_pair: tuple[PairTotal, ...]


def select_totals(connection: Connection) -> OpportunityTotals:
    """Counts of all; a look at each row, so to be kept for a while."""
    markets: int = connection.execute(
        text("SELECT count(*) FROM (SELECT marketplace FROM products GROUP BY marketplace) known")
    ).scalar_one()
    # In the order of the index each product is met once; in memory, a million of them take ten times as long.
    connection.execute(text("SELECT set_config('enable_hashagg', 'off', true)"))
    products: int = connection.execute(text("SELECT count(*) FROM (SELECT DISTINCT asin FROM products) known")).scalar_one()
    connection.execute(text("SELECT set_config('enable_hashagg', 'on', true)"))
    rows = connection.execute(
        text(
            f"""
            WITH margin AS MATERIALIZED (
                -- Many share a margin, so that a median needs no sorting of all.
                SELECT o.source_market, o.target_market, o.margin_pct, count(*) AS open, count(*) FILTER (WHERE {_SURE}) AS sure,
                    count(*) FILTER (WHERE {_SURE} AND o.profit_minor > 0) AS profitable, count(*) FILTER (WHERE {_DOUBTFUL}) AS doubtful,
                    count(*) FILTER (WHERE o.profit_minor IS NULL) AS unknown, max(o.profit_minor) FILTER (WHERE {_SURE}) AS best_profit
                FROM opportunities o WHERE o.closed_at IS NULL GROUP BY o.source_market, o.target_market, o.margin_pct
            ), placed AS (
                SELECT *, sum(sure) OVER (PARTITION BY source_market, target_market ORDER BY margin_pct) AS upto,
                    sum(sure) OVER (PARTITION BY source_market, target_market) AS whole
                FROM margin
            )
            SELECT source_market, target_market, sum(open)::bigint AS open, sum(sure)::bigint AS sure,
                sum(profitable)::bigint AS profitable, sum(doubtful)::bigint AS doubtful, sum(unknown)::bigint AS unknown,
                max(margin_pct) FILTER (WHERE sure > 0) AS best_margin,
                max(best_profit) AS best_profit, min(margin_pct) FILTER (WHERE sure > 0 AND upto * 2 >= whole) AS median
            FROM placed GROUP BY source_market, target_market
            """
        )
    ).all()
    pairs = [PairTotal(row.source_market, row.target_market, row.sure, row.median) for row in rows if row.sure]
    return OpportunityTotals(
        products=products,
        markets=markets,
        open=sum(row.open for row in rows),
        profitable=sum(row.profitable for row in rows),
        doubtful=sum(row.doubtful for row in rows),
        unknown=sum(row.unknown for row in rows),
        best_margin_pct=max((row.best_margin for row in rows if row.best_margin is not None), default=None),
        best_profit_minor=max((row.best_profit for row in rows if row.best_profit is not None), default=None),
        by_pair=tuple(sorted(pairs, key=lambda one: (-one.opportunities, one.source_market, one.target_market))),
    )


def _plan_for_what_is_asked(connection: Connection) -> None:
    """A plan that is made once for all looks for a return nobody has through the whole order of margins: seconds for milliseconds.

    So does one that reads the table as it lies, because those that are over may lie together.
    """
    connection.execute(text("SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('enable_seqscan', 'off', true)"))


def _conditions(query: OpportunityQuery) -> tuple[list[str], dict[str, Any]]:
    """But for the doubts. Only what is asked for is named: with `IS NULL OR` a prepared plan could not use an index."""
    conditions = ["o.closed_at IS NULL" if query.is_active else "o.closed_at IS NOT NULL"]
    parameters: dict[str, Any] = {}
    wanted = (
        ("o.margin_pct >= :least_margin", "least_margin", query.least_margin_pct),
        (f"{_ROI} >= :least_roi", "least_roi", query.least_roi_pct),
        (f"{_PROFIT} >= :least_profit", "least_profit", query.least_profit_minor),
        ("o.asin = :asin", "asin", query.asin),
        ("o.became_at > :news_since", "news_since", query.news_since),
    )
    for condition, name, value in wanted:
        if value is not None:
            conditions.append(condition)
            parameters[name] = value
    # A profit that is not known is at least nothing.
    if query.least_roi_pct is not None or query.least_profit_minor is not None:
        conditions.append("o.profit_minor IS NOT NULL")
    lists = (("o.source_market", "sources", query.sources), ("o.target_market", "targets", query.targets))
    for column, name, values in (*lists, ("o.category", "categories", query.categories)):
        if len(values) == 1:
            conditions.append(f"{column} = :{name}")
            parameters[name] = str(values[0])
        elif values:
            conditions.append(f"{column} = ANY(CAST(:{name} AS text[]))")
            parameters[name] = [str(value) for value in values]
    return conditions, parameters


def _found(row: Sequence[Any]) -> FoundOpportunity:
    named = {one.name: value for one, value in zip(fields(Opportunity), row, strict=False)}
    named["source_market"] = Marketplace(named["source_market"])
    named["target_market"] = Marketplace(named["target_market"])
    named["price_type"] = PriceType(named["price_type"])
    for name in ("unknown_parts", "doubts", "flags"):
        named[name] = tuple(named[name])
    return FoundOpportunity(Opportunity(**named), *row[len(named) :])


def delete_over(connection: Connection, *, before: datetime, limit: int) -> int:
    """Forget opportunities that were closed before that time, with their alerts and outcomes. Returns how many.

    One whose outcome is still to be looked up stays, unless that has been due since before that time, too: nobody looks any more.
    """
    return connection.execute(
        text(
            """
            DELETE FROM opportunities WHERE id = ANY(ARRAY(
                SELECT o.id FROM opportunities o
                WHERE o.closed_at < :before AND NOT EXISTS (
                    SELECT 1 FROM opportunity_outcomes w
                    WHERE w.opportunity_id = o.id AND w.scored_at IS NULL AND w.due_at >= :before
                )
                ORDER BY o.closed_at, o.id LIMIT :limit FOR UPDATE SKIP LOCKED
            ))
            """
        ),
        {"before": before, "limit": limit},
    ).rowcount
