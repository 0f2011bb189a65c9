"""Products: one row per ASIN and marketplace, written in bulk before anything else of the product."""

from collections.abc import Collection, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, text

from keeper.domain.product import Product
from keeper.postgres.engine import copy_rows, copy_text, json_rows

_CONTENT = (
    ("kind", "text"),
    ("title", "text"),
    ("brand", "text"),
    ("manufacturer", "text"),
    ("model", "text"),
    ("color", "text"),
    ("size", "text"),
    ("binding", "text"),
    ("image_url", "text"),
    ("root_category_id", "bigint"),
    ("category_ids", "bigint[]"),
    ("category_path", "text[]"),
    ("eans", "text[]"),
    ("upcs", "text[]"),
    ("parent_asin", "text"),
    ("sales_rank", "integer"),
    ("rating_tenths", "smallint"),
    ("review_count", "integer"),
    ("monthly_sold", "integer"),
    ("availability", "text"),
    ("referral_fee_pct", "double precision"),
    ("fba_pick_pack_minor", "integer"),
    ("package_height_mm", "integer"),
    ("package_length_mm", "integer"),
    ("package_width_mm", "integer"),
    ("package_weight_g", "integer"),
    ("package_quantity", "integer"),
    ("unit_count", "integer"),
    ("prime_eligible", "boolean"),
    ("listed_at", "timestamptz"),
    ("is_hazardous", "boolean"),
    ("is_heat_sensitive", "boolean"),
    ("return_rate", "text"),
    ("coupon_minor", "integer"),
    ("coupon_pct", "smallint"),
    ("lightning_ends_at", "timestamptz"),
    ("offer_count", "integer"),
    ("sales_rank_drops_30", "integer"),
    ("buy_box_is_amazon", "boolean"),
    ("buy_box_is_fba", "boolean"),
)
_NAMES = [name for name, _ in _CONTENT]
_FACTS_OF = attrgetter("asin", "marketplace", "updated_at", *(name for name in _NAMES if name not in ("image_url", "kind")))
_FACTS = ("asin", "marketplace", "keepa_updated_at", *(name for name in _NAMES if name not in ("image_url", "kind")))
_SEEN = f"""
    json_to_recordset(CAST(:rows AS json)) AS s
    (asin text, marketplace text, keepa_updated_at timestamptz, {", ".join(f"{name} {kind}" for name, kind in _CONTENT)})
"""
# Not asked in every request (rating) or not said in every answer: what was known stays known.
_STICKY = {
    "rating_tenths",
    "review_count",
    "monthly_sold",
    "sales_rank",
    "prime_eligible",
    "offer_count",
    "sales_rank_drops_30",
    "buy_box_is_amazon",
    "buy_box_is_fba",
}


def _new(name: str) -> str:
    return f"coalesce(s.{name}, p.{name})" if name in _STICKY else f"s.{name}"


def make_stage(connection: Connection) -> None:
    """The temporary table of this session; empty in every transaction."""
    columns = ", ".join(f"{name} {kind}" for name, kind in _CONTENT)
    connection.execute(
        text(
            "CREATE TEMPORARY TABLE IF NOT EXISTS stage_product "
            f"(asin text, marketplace text, keepa_updated_at timestamptz, is_partial boolean, {columns}) ON COMMIT DELETE ROWS"
        )
    )


def stage_products(connection: Connection, products: Sequence[Product]) -> None:
    """COPY the products in."""
    columns = f"asin, marketplace, keepa_updated_at, is_partial, {', '.join(_NAMES)}"
    copy_rows(connection, f"stage_product ({columns})", [_line(one) for one in products])
    connection.execute(text("ANALYZE stage_product"))


def write_seen(
    connection: Connection, products: Sequence[Product], *, now: datetime
) -> tuple[frozenset[tuple[str, str]], list[tuple[str, str]]]:
    """All at once what the stages do for products seen by the way, which have no prices: what they do not say stays as it is known.

    Locks as `lock_products` does: new ones in order, then known ones in order.

    Returns:
        ASIN and marketplace of the new ones, and of all whose content is new or another.
    """
    seen = {(one.asin, one.marketplace.value): _seen_row(one) for one in products}
    added = _insert_new(connection, _SEEN, {"now": now, "rows": json_rows(list(seen.values()))})
    known = {place: row for place, row in seen.items() if place not in added}
    if not known:
        return added, list(added)
    connection.execute(
        text(
            """
            SELECT 1 FROM products p JOIN unnest(CAST(:asins AS text[]), CAST(:marketplaces AS text[])) AS s (asin, marketplace)
                USING (asin, marketplace)
            ORDER BY p.asin, p.marketplace FOR UPDATE OF p
            """
        ),
        {"asins": [asin for asin, _ in known], "marketplaces": [marketplace for _, marketplace in known]},
    )
    is_other = f"({', '.join(f'p.{name}' for name in _NAMES[1:])}) IS DISTINCT FROM ({', '.join(_or_known(name) for name in _NAMES[1:])})"
    rows = connection.execute(
        text(
            f"""
            UPDATE products p SET {", ".join(f"{name} = {_or_known(name)}" for name in _NAMES[1:])},
                keepa_updated_at = coalesce(s.keepa_updated_at, p.keepa_updated_at),
                revision = p.revision + CASE WHEN {is_other} THEN 1 ELSE 0 END,
                changed_at = CASE WHEN {is_other} THEN :now ELSE p.changed_at END
            FROM {_SEEN}
            WHERE p.asin = s.asin AND p.marketplace = s.marketplace
                AND NOT coalesce(s.keepa_updated_at < p.keepa_updated_at, false)
                AND ({is_other} OR s.keepa_updated_at IS DISTINCT FROM coalesce(p.keepa_updated_at, s.keepa_updated_at))
            RETURNING p.asin, p.marketplace, p.changed_at = :now
            """
        ),
        {"now": now, "rows": json_rows(list(known.values()))},
    )
    return added, [*added, *((asin, marketplace) for asin, marketplace, is_changed in rows if is_changed)]


def _or_known(name: str) -> str:
    return f"coalesce(s.{name}, p.{name})"


def _seen_row(product: Product) -> dict[str, Any]:
    """What it says, by column; what it does not is left out."""
    row = {name: value for name, value in zip(_FACTS, _FACTS_OF(product), strict=True) if value is not None and value != ()}
    row["kind"] = product.kind
    if product.image_urls:
        row["image_url"] = product.image_urls[0]
    return row


def _insert_new(connection: Connection, source: str, parameters: dict[str, Any]) -> frozenset[tuple[str, str]]:
    """Insert the products of `source AS s` that are not there, in order. Returns their ASINs and marketplaces."""
    rows = connection.execute(
        text(
            f"""
            INSERT INTO products (asin, marketplace, {", ".join(_NAMES)}, keepa_updated_at, first_seen_at, checked_at, changed_at)
            SELECT asin, marketplace, {", ".join(_NAMES)}, keepa_updated_at, :now, :now, :now FROM {source}
            WHERE NOT EXISTS (SELECT 1 FROM products p WHERE p.asin = s.asin AND p.marketplace = s.marketplace)
            ORDER BY asin, marketplace ON CONFLICT DO NOTHING RETURNING asin, marketplace
            """
        ),
        parameters,
    )
    return frozenset((asin, marketplace) for asin, marketplace in rows)


def lock_products(connection: Connection, *, now: datetime) -> frozenset[tuple[str, str]]:
    """Insert the new ones and lock all staged, in order: from here on each product has one writer.

    Where a later answer has been recorded already, the staged content becomes that of the row: a late answer moves nothing back.

    Returns:
        ASIN and marketplace of the new ones.
    """
    added = _insert_new(connection, "stage_product s", {"now": now})
    found = connection.execute(
        text(
            """
            SELECT count(*) FILTER (WHERE is_late) AS late, count(*) FILTER (WHERE is_partial) AS partial FROM (
                SELECT s.keepa_updated_at < p.keepa_updated_at AS is_late, s.is_partial
                FROM products p JOIN stage_product s USING (asin, marketplace)
                ORDER BY p.asin, p.marketplace FOR UPDATE OF p
            ) locked
            """
        )
    ).one()
    if found.late:
        connection.execute(
            text(
                f"""
                UPDATE stage_product s SET {", ".join(f"{name} = p.{name}" for name in _NAMES)}, keepa_updated_at = p.keepa_updated_at
                FROM products p WHERE p.asin = s.asin AND p.marketplace = s.marketplace AND s.keepa_updated_at < p.keepa_updated_at
                """
            )
        )
    if found.partial:
        connection.execute(
            text(
                f"""
                UPDATE stage_product s SET kind = p.kind, {", ".join(f"{name} = coalesce(s.{name}, p.{name})" for name in _NAMES[1:])}
                FROM products p WHERE p.asin = s.asin AND p.marketplace = s.marketplace AND s.is_partial
                """
            )
        )
    return added


def update_products(connection: Connection, *, now: datetime) -> list[tuple[str, str]]:
    """What was staged becomes the row; the revision rises where the content, or one of its prices in `change`, is another.

    Returns:
        ASIN and marketplace of those whose revision rose, or that are new.
    """
    is_other = f"({', '.join(f'p.{name}' for name in _NAMES)}) IS DISTINCT FROM ({', '.join(_new(name) for name in _NAMES)})"
    rows = connection.execute(
        text(
            f"""
            UPDATE products p SET {", ".join(f"{name} = {_new(name)}" for name in _NAMES)},
                keepa_updated_at = coalesce(s.keepa_updated_at, p.keepa_updated_at),
                checked_at = CASE WHEN s.is_partial THEN p.checked_at ELSE :now END,
                revision = p.revision + CASE WHEN c.asin IS NOT NULL OR {is_other} THEN 1 ELSE 0 END,
                changed_at = CASE WHEN c.asin IS NOT NULL OR {is_other} THEN :now ELSE p.changed_at END
            FROM stage_product s LEFT JOIN (SELECT DISTINCT asin, marketplace FROM change) c USING (asin, marketplace)
            WHERE p.asin = s.asin AND p.marketplace = s.marketplace
            RETURNING p.asin, p.marketplace, p.changed_at = :now
            """
        ),
        {"now": now},
    )
    return [(asin, marketplace) for asin, marketplace, is_changed in rows if is_changed]


def _line(product: Product) -> str:
    facts: list[str] = [product.asin, product.marketplace.value, _plain(product.updated_at), "t" if product.is_partial else "f"]
    for name in _NAMES:
        value = product.image_urls[0] if name == "image_url" and product.image_urls else getattr(product, name, None)
        facts.append(_field(value))
    return "\t".join(facts) + "\n"


def _field(value: Any) -> str:
    if value is None or value == ():
        return "\\N"
    if isinstance(value, str):
        return copy_text(value)
    if isinstance(value, tuple):
        quoted = ",".join('"' + str(part).replace("\\", "\\\\").replace('"', '\\"') + '"' for part in value)
        return copy_text("{" + quoted + "}")
    return _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "\\N"
    return str(value.isoformat() if isinstance(value, datetime) else value)


def select_titles(connection: Connection, asins: Collection[str], marketplace: str) -> dict[str, str]:
    """Titles by ASIN, where known."""
    rows = connection.execute(
        text("SELECT asin, title FROM products WHERE asin = ANY(:asins) AND marketplace = :marketplace AND title IS NOT NULL"),
        {"asins": list(asins), "marketplace": marketplace},
    )
    return {row.asin: row.title for row in rows}
