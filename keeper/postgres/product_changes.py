"""Which products changed since they were last compared: written by whoever records, taken by the comparison."""

from collections.abc import Collection

from sqlalchemy import Connection, text

from keeper.domain.opportunity import PRICE_TOO_OLD


def note_changes(connection: Connection, asins: Collection[str], *, looked_at: Collection[str] = ()) -> None:
    """These products are to be compared anew.

    Args:
        asins: whose prices or facts are others.
        looked_at: whose prices were checked and may be what they were: an open opportunity is told that they are fresh, and one that time
            alone has closed may be there again.
    """
    if not asins and not looked_at:
        return
    connection.execute(
        text(
            """
            INSERT INTO product_changes (asin)
            SELECT asin FROM unnest(CAST(:asins AS text[])) AS asin
            UNION
            SELECT asin FROM unnest(CAST(:looked_at AS text[])) AS asin
            WHERE EXISTS (SELECT 1 FROM opportunities o WHERE o.asin = asin.asin AND o.closed_at IS NULL)
                OR EXISTS (
                    SELECT 1 FROM (
                        SELECT DISTINCT ON (o.source_market, o.target_market) o.closed_why FROM opportunities o
                        WHERE o.asin = asin.asin AND o.closed_at IS NOT NULL
                        ORDER BY o.source_market, o.target_market, o.id DESC
                    ) latest
                    WHERE latest.closed_why = :price_too_old
                )
            """
        ),
        {"asins": list(asins), "looked_at": list(looked_at), "price_too_old": PRICE_TOO_OLD},
    )


def select_last_change(connection: Connection) -> int:
    """The number of the latest change; 0 where there is none. What comes later is for the next pass."""
    number: int = connection.execute(text("SELECT coalesce(max(seq), 0) FROM product_changes")).scalar_one()
    return number


def take_changes(connection: Connection, *, until: int, limit: int) -> list[str]:
    """Take the oldest changes off the list, each product once; where the transaction is undone they are on it again."""
    rows = connection.execute(
        text(
            """
            WITH taken AS (
                DELETE FROM product_changes WHERE seq = ANY(ARRAY(
                    SELECT seq FROM product_changes WHERE seq <= :until ORDER BY seq LIMIT :limit FOR UPDATE SKIP LOCKED
                )) RETURNING asin
            )
            SELECT DISTINCT asin FROM taken ORDER BY asin
            """
        ),
        {"until": until, "limit": limit},
    )
    return list(rows.scalars())


def take_changes_between(connection: Connection, after: str, last: str | None) -> list[str]:
    """Take the changes of a range of products off the list, before their prices are read."""
    rows = connection.execute(
        text(
            f"""
            WITH taken AS (DELETE FROM product_changes WHERE asin > :after {"AND asin <= :last" if last is not None else ""} RETURNING asin)
            SELECT DISTINCT asin FROM taken
            """
        ),
        {"after": after, "last": last},
    )
    return list(rows.scalars())


def forget_doubles(connection: Connection) -> int:
    """Keep one change of each product, the latest, so that a list nobody takes from is no longer than there are products.

    Returns:
        How many went.
    """
    return connection.execute(
        text(
            """
            DELETE FROM product_changes c USING (
                SELECT asin, max(seq) AS latest FROM product_changes GROUP BY asin HAVING count(*) > 1
            ) many
            WHERE c.asin = many.asin AND c.seq < many.latest
            """
        )
    ).rowcount
