"""Bestseller scores of all products, by the weights of `keeper.domain.ranking`; a test holds both together."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from keeper.domain.ranking import (
    DROPS_POINTS,
    FULL_DROPS_30,
    FULL_MONTHLY_SOLD,
    FULL_REVIEW_TENTHS,
    RANK_POINTS,
    REVIEW_POINTS,
    SOLD_POINTS,
    RankedProduct,
    RankingFacts,
    RankingPart,
)


def _of(points: int, value: str, full: int) -> str:
    """Half up, in whole numbers, as the domain does."""
    return f"((2 * {points} * least(greatest(coalesce({value}, 0), 0), {full}) + {full}) / {2 * full})"


_RANK = f"""
    CASE WHEN sales_rank IS NULL OR sales_rank < 1 THEN 0
        {" ".join(f"WHEN sales_rank <= {most} THEN {points}" for most, points in RANK_POINTS)} ELSE 0 END
"""
_PARTS = f"""
    {_RANK} AS rank_points,
    {_of(DROPS_POINTS, "sales_rank_drops_30", FULL_DROPS_30)} AS drops_points,
    {_of(SOLD_POINTS, "monthly_sold", FULL_MONTHLY_SOLD)} AS sold_points,
    {_of(REVIEW_POINTS, "rating_tenths * review_count::bigint", FULL_REVIEW_TENTHS)} AS reviews_points
"""
_COLUMNS = ("root_category_id", "score", "rank_points", "drops_points", "sold_points", "reviews_points")


@dataclass(frozen=True, slots=True)
class RankedShare:
    """What one step of a walk over all products did.

    Attributes:
        last: the last ASIN; None where the walk is at its end.
        changed: scores that are new, others than before, or gone.
    """

    last: str | None
    changed: int


@dataclass(frozen=True, slots=True)
class RankingPlace:
    """Where a page ended."""

    score: int
    asin: str


def rank_after(connection: Connection, after: str, *, limit: int, now: datetime) -> RankedShare:
    """Make the scores of the next products what their facts say; only what is another is written."""
    last = connection.execute(
        text("SELECT max(asin) FROM (SELECT asin FROM products WHERE asin > :after ORDER BY asin LIMIT :limit) next"),
        {"after": after, "limit": limit},
    ).scalar_one()
    scope = "asin > :after" if last is None else "asin > :after AND asin <= :last"
    changed = connection.execute(
        text(
            f"""
            WITH points AS (
                SELECT asin, marketplace, root_category_id, {_PARTS} FROM products WHERE {scope}
            ), scored AS (
                SELECT *, rank_points + drops_points + sold_points + reviews_points AS score FROM points
            ), gone AS (
                DELETE FROM product_rankings r WHERE {scope.replace("asin", "r.asin")} AND NOT EXISTS (
                    SELECT FROM scored s WHERE s.asin = r.asin AND s.marketplace = r.marketplace AND s.score > 0
                ) RETURNING 1
            ), kept AS (
                INSERT INTO product_rankings AS r (asin, marketplace, ranked_at, {", ".join(_COLUMNS)})
                SELECT asin, marketplace, :now, {", ".join(_COLUMNS)} FROM scored WHERE score > 0 ORDER BY asin, marketplace
                ON CONFLICT (asin, marketplace) DO UPDATE
                SET ranked_at = excluded.ranked_at, {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS)}
                WHERE ({", ".join(f"r.{name}" for name in _COLUMNS)})
                    IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in _COLUMNS)})
                RETURNING 1
            )
            SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM kept)
            """
        ),
        {"after": after, "now": now} | ({} if last is None else {"last": last}),
    ).scalar_one()
    return RankedShare(last, int(changed))


def select_ranking(
    connection: Connection, marketplace: str, *, root_category_id: int | None = None, after: RankingPlace | None = None, limit: int
) -> list[RankedProduct]:
    """The next products of a store, the best sold first; of equal ones by ASIN.

    Args:
        root_category_id: Keepa's number of a top category; None for all.
    """
    conditions = ["r.marketplace = :marketplace"]
    parameters: dict[str, object] = {"marketplace": marketplace, "limit": limit}
    if root_category_id is not None:
        conditions.append("r.root_category_id = :root")
        parameters["root"] = root_category_id
    if after is not None:
        # The first part is what the index can begin at.
        conditions.append("r.score <= :score AND (r.score < :score OR r.asin > :asin)")
        parameters |= {"score": after.score, "asin": after.asin}
    rows = connection.execute(
        text(
            f"""
            SELECT r.asin, p.title, p.brand, p.image_url, r.root_category_id, p.category_path[cardinality(p.category_path)] AS category,
                r.score, r.rank_points, r.drops_points, r.sold_points, r.reviews_points,
                p.sales_rank, p.sales_rank_drops_30, p.monthly_sold, p.rating_tenths, p.review_count
            FROM (
                SELECT * FROM product_rankings r WHERE {" AND ".join(conditions)} ORDER BY r.score DESC, r.asin LIMIT :limit
            ) r LEFT JOIN products p ON p.asin = r.asin AND p.marketplace = r.marketplace
            ORDER BY r.score DESC, r.asin
            """
        ),
        parameters,
    )
    return [_ranked(row) for row in rows]


def _ranked(row: Sequence[object]) -> RankedProduct:
    named: dict[str, object] = dict(zip(_RANKED, row, strict=True))
    parts = {part: named.pop(f"{part}_points") for part in RankingPart}
    facts = {name: named.pop(name) for name in _FACTS}
    return RankedProduct(**named, parts=parts, facts=RankingFacts(**facts))  # type: ignore[arg-type]


_FACTS = ("sales_rank", "sales_rank_drops_30", "monthly_sold", "rating_tenths", "review_count")
_RANKED = (
    "asin", "title", "brand", "image_url", "root_category_id", "category", "score",
    *(f"{part}_points" for part in RankingPart), *_FACTS,
)  # fmt: skip
