"""Running deals counted: how many there are of each, and what they cost."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from keeper.domain.marketplace import Marketplace
from keeper.domain.search import DISCOUNT_BANDS_PCT, MOST_COUNTS, band_name

BY: Final = ("brand", "category", "marketplace", "discount")
_COUNTED = """
    SELECT '{name}' AS name, {value}::text AS value, currency, count(*) AS deals, round(avg(amount_minor))::integer AS average_minor,
        percentile_disc(0.5) WITHIN GROUP (ORDER BY amount_minor) AS median_minor, max(discount_pct)::float8 AS largest_discount_pct
    FROM {source} WHERE {value} IS NOT NULL GROUP BY value, currency
"""


@dataclass(frozen=True, slots=True)
class DealTotal:
    """The deals of one value. A band of discounts is `25-50`, its upper end outside, or `75-`.

    Attributes:
        average_minor, median_minor: of their prices, in `currency`.
    """

    value: str
    currency: str
    deals: int
    average_minor: int
    median_minor: int
    largest_discount_pct: float | None


def select_totals(
    connection: Connection, marketplace: Marketplace, *, since: datetime, group: str | None = None, includes_glitches: bool = False
) -> dict[str, list[DealTotal]]:
    """Running deals of a marketplace by brand, category and discount, those of all by marketplace: most first, bands in their order.

    One statement that looks at the deals of the marketplace once, and at those of all once.

    Args:
        since: whose price changed then or later.
        group: of this product group only.
        includes_glitches: deals that may be a mistake and are not announced, too.
    """
    conditions = "d.ended_at IS NULL AND d.changed_at >= :since" + ("" if group is None else " AND d.product_group = :product_group")
    if not includes_glitches:
        conditions += " AND d.announced_at IS NOT NULL"
    parameters: dict[str, Any] = {
        "marketplace": marketplace.value,
        "since": since,
        "ends": list(DISCOUNT_BANDS_PCT),
        "most": MOST_COUNTS,
    }
    if group is not None:
        parameters["product_group"] = group
    counted = " UNION ALL ".join(
        f"(SELECT * FROM ({_COUNTED.format(name=name, value=value, source=source)}) counted ORDER BY deals DESC, value LIMIT :most)"
        for name, value, source in (
            ("brand", "brand", "here"),
            ("category", "category", "here"),
            ("discount", "band", "here"),
            ("marketplace", "marketplace", "everywhere"),
        )
    )
    rows = connection.execute(
        text(
            f"""
            WITH here AS MATERIALIZED (
                SELECT p.brand, coalesce(d.category, p.category_path[cardinality(p.category_path)]) AS category, d.amount_minor,
                    d.currency, d.discount_pct,
                    CASE WHEN d.discount_pct >= 0 THEN width_bucket(d.discount_pct, CAST(:ends AS numeric[])) - 1 END AS band
                FROM collected_deals d LEFT JOIN products p ON p.asin = d.asin AND p.marketplace = d.marketplace
                WHERE d.marketplace = :marketplace AND {conditions}
            ), everywhere AS (
                SELECT d.marketplace, d.amount_minor, d.currency, d.discount_pct FROM collected_deals d WHERE {conditions}
            )
            {counted}
            """
        ),
        parameters,
    ).all()
    totals: dict[str, list[DealTotal]] = {name: [] for name in BY}
    bands = sorted((row for row in rows if row.name == "discount"), key=lambda row: int(row.value))
    for name, value, *rest in [*(row for row in rows if row.name != "discount"), *bands]:
        totals[name].append(DealTotal(band_name(DISCOUNT_BANDS_PCT, int(value)) if name == "discount" else value, *rest))
    return totals
