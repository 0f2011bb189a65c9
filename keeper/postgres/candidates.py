"""Candidates for the catalog, and the lists they come from."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

# Who did not belong, or is unknown to Keepa, is not asked for again before.
ASKED_AGAIN_AFTER = timedelta(days=90)
# A fetch that failed is tried again after so long.
RETRY_AFTER = timedelta(days=1)

_HAS_PRICES = "EXISTS (SELECT 1 FROM current_prices c WHERE c.asin = {of}.asin AND c.marketplace = {of}.marketplace)"
_AGAIN = """
    ON CONFLICT (asin, marketplace) DO UPDATE SET source = excluded.source, query = excluded.query,
        product_group = excluded.product_group, place = excluded.place, found_at = excluded.found_at, asked_at = NULL, fetched_at = NULL
    WHERE candidates.fetched_at < :forgotten
"""
_WAITING = "k.fetched_at IS NULL AND (k.asked_at IS NULL OR k.asked_at < :retried)"


@dataclass(frozen=True, slots=True)
class BestsellerList:
    """The list of a category, the best first, as it was when Keepa gave it."""

    fetched_at: datetime
    asins: tuple[str, ...]


def insert_found(
    connection: Connection, asins: Sequence[str], marketplace: str, *, source: str, query: str, group: str | None, now: datetime
) -> int:
    """Note products that a list holds, in its order. Returns how many are candidates anew; the catalog's own are none."""
    return connection.execute(
        text(
            f"""
            INSERT INTO candidates (asin, marketplace, source, query, product_group, place, found_at)
            SELECT s.asin, s.marketplace, :source, :query, :group, min(s.place), :now
            FROM (SELECT asin, :marketplace AS marketplace, place FROM unnest(CAST(:asins AS text[])) WITH ORDINALITY AS t (asin, place)) s
            WHERE NOT {_HAS_PRICES.format(of="s")}
            GROUP BY s.asin, s.marketplace ORDER BY s.asin {_AGAIN}
            """
        ),
        {
            "asins": list(asins),
            "marketplace": marketplace,
            "source": source,
            "query": query,
            "group": group,
            "now": now,
            "forgotten": now - ASKED_AGAIN_AFTER,
        },
    ).rowcount


def insert_from_deals(connection: Connection, marketplaces: Collection[str], *, since: datetime, now: datetime) -> int:
    """Note products that were seen in deals since then and have no prices yet. Returns how many are candidates anew."""
    return connection.execute(
        text(
            f"""
            INSERT INTO candidates (asin, marketplace, source, query, found_at)
            SELECT d.asin, d.marketplace, 'deals', min(d.query), :now FROM collected_deals d
            WHERE d.last_seen_at >= :since AND d.marketplace = ANY(:marketplaces) AND NOT {_HAS_PRICES.format(of="d")}
            GROUP BY d.asin, d.marketplace ORDER BY d.asin, d.marketplace {_AGAIN}
            """
        ),
        {"marketplaces": list(marketplaces), "since": since, "now": now, "forgotten": now - ASKED_AGAIN_AFTER},
    ).rowcount


def settle_known(connection: Connection, *, now: datetime) -> None:
    """What has come into the catalog by another way, as by a watch, waits no longer."""
    connection.execute(
        text(f"UPDATE candidates k SET fetched_at = :now WHERE k.fetched_at IS NULL AND {_HAS_PRICES.format(of='k')}"), {"now": now}
    )


def count_waiting(connection: Connection, *, now: datetime) -> int:
    """Candidates that may be fetched now."""
    return int(connection.execute(text(f"SELECT count(*) FROM candidates k WHERE {_WAITING}"), {"retried": now - RETRY_AFTER}).scalar_one())


def count_asked(connection: Connection, *, since: datetime) -> int:
    """Candidates a token was set aside for since then."""
    return int(connection.execute(text("SELECT count(*) FROM candidates WHERE asked_at >= :since"), {"since": since}).scalar_one())


def count_catalog(connection: Connection) -> int:
    """Products with prices, in all stores."""
    return int(connection.execute(text(f"SELECT count(*) FROM products p WHERE {_HAS_PRICES.format(of='p')}")).scalar_one())


def select_next(connection: Connection, *, limit: int, now: datetime) -> tuple[str, list[str]] | None:
    """The next candidates, all of one store: those seen in deals, then the best of their lists. None when nobody waits."""
    rows = connection.execute(
        text(
            f"""
            WITH first AS (
                SELECT k.marketplace FROM candidates k WHERE {_WAITING}
                ORDER BY k.source <> 'deals', k.place, k.found_at, k.marketplace LIMIT 1
            )
            SELECT k.marketplace, k.asin FROM candidates k JOIN first USING (marketplace) WHERE {_WAITING}
            ORDER BY k.source <> 'deals', k.place, k.found_at, k.asin LIMIT :limit
            """
        ),
        {"limit": limit, "retried": now - RETRY_AFTER},
    ).all()
    return (rows[0].marketplace, [row.asin for row in rows]) if rows else None


def mark_asked(connection: Connection, asins: Collection[str], marketplace: str, *, now: datetime | None) -> None:
    """A token is set aside for each of them; None when it was given back."""
    connection.execute(
        text("UPDATE candidates SET asked_at = :now WHERE marketplace = :marketplace AND asin = ANY(:asins)"),
        {"asins": list(asins), "marketplace": marketplace, "now": now},
    )


def mark_fetched(connection: Connection, asins: Collection[str], marketplace: str, *, now: datetime) -> None:
    """They were looked at; whether they joined the catalog, their prices tell."""
    connection.execute(
        text("UPDATE candidates SET fetched_at = :now WHERE marketplace = :marketplace AND asin = ANY(:asins)"),
        {"asins": list(asins), "marketplace": marketplace, "now": now},
    )


def select_groups(connection: Connection, asins: Collection[str], marketplace: str) -> dict[str, str | None]:
    """The product group each of them must belong to; None for any."""
    rows = connection.execute(
        text("SELECT asin, product_group FROM candidates WHERE marketplace = :marketplace AND asin = ANY(:asins)"),
        {"asins": list(asins), "marketplace": marketplace},
    )
    return {row.asin: row.product_group for row in rows}


def select_list(connection: Connection, marketplace: str, category_id: int) -> BestsellerList | None:
    """The last list of a category; None where none was ever asked for."""
    row = connection.execute(
        text("SELECT fetched_at, asins FROM bestseller_lists WHERE marketplace = :marketplace AND category_id = :category_id"),
        {"marketplace": marketplace, "category_id": category_id},
    ).one_or_none()
    return None if row is None else BestsellerList(row.fetched_at, tuple(row.asins))


def keep_list(connection: Connection, marketplace: str, category_id: int, asins: Sequence[str], *, now: datetime) -> None:
    """Keep a list in place of the one before."""
    connection.execute(
        text(
            """
            INSERT INTO bestseller_lists (marketplace, category_id, fetched_at, asins)
            VALUES (:marketplace, :category_id, :now, CAST(:asins AS text[]))
            ON CONFLICT (marketplace, category_id) DO UPDATE SET fetched_at = excluded.fetched_at, asins = excluded.asins
            """
        ),
        {"marketplace": marketplace, "category_id": category_id, "now": now, "asins": list(asins)},
    )


def select_found_at(connection: Connection, name: str) -> datetime | None:
    """When the finder was last asked for a file."""
    return connection.execute(text("SELECT asked_at FROM finder_queries WHERE name = :name"), {"name": name}).scalar_one_or_none()


def select_found(connection: Connection, name: str) -> tuple[str, ...]:
    """What the finder found last for a file, the best sold first; nothing where it was never asked."""
    found = connection.execute(text("SELECT asins FROM finder_queries WHERE name = :name"), {"name": name}).scalar_one_or_none()
    return tuple(found or ())


def keep_found(connection: Connection, name: str, asins: Sequence[str], *, now: datetime) -> None:
    """The finder has answered."""
    connection.execute(
        text(
            """
            INSERT INTO finder_queries (name, asked_at, found, asins) VALUES (:name, :now, cardinality(CAST(:asins AS text[])), :asins)
            ON CONFLICT (name) DO UPDATE SET asked_at = excluded.asked_at, found = excluded.found, asins = excluded.asins
            """
        ),
        {"name": name, "now": now, "asins": list(asins)},
    )
