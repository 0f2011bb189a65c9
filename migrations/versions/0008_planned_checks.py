"""When a product is checked next is planned once for all its watches of one interval, and not in each of them."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# A check is of a product, whoever watches it and whichever of its prices: so many rows were rewritten, in five indices, for one answer.
UPGRADE = """
CREATE TABLE planned_checks (
    asin text NOT NULL,
    marketplace text NOT NULL,
    is_buybox boolean NOT NULL,
    interval_seconds integer NOT NULL,
    next_check_at timestamptz NOT NULL,
    last_checked_at timestamptz,
    last_failure text,
    PRIMARY KEY (asin, marketplace, is_buybox, interval_seconds)
) WITH (fillfactor = 80);
COMMENT ON TABLE planned_checks IS 'For all active watches of a product with one interval; those of the buy box apart: it costs more';

INSERT INTO planned_checks (asin, marketplace, is_buybox, interval_seconds, next_check_at, last_checked_at, last_failure)
SELECT asin, marketplace, price_type = 'BUY_BOX_SHIPPING', interval_seconds, min(next_check_at), max(last_checked_at),
    (array_agg(last_failure ORDER BY last_checked_at DESC NULLS LAST))[1]
FROM watched_products WHERE is_active GROUP BY 1, 2, 3, 4;
CREATE INDEX planned_checks_due ON planned_checks (next_check_at)
    INCLUDE (asin, marketplace, is_buybox, last_checked_at, interval_seconds);
CREATE INDEX planned_checks_short ON planned_checks (interval_seconds, next_check_at) WHERE interval_seconds < 300;

DROP INDEX watched_products_due, watched_products_short;
ALTER TABLE watched_products DROP COLUMN next_check_at, DROP COLUMN last_checked_at, DROP COLUMN last_failure;

-- A user who goes takes the watches along, and the plans that were for these alone. First the lock, then the look: who adds a watch holds
-- the plan until it can be seen.
CREATE FUNCTION forget_plans() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM 1 FROM planned_checks WHERE (asin, marketplace) IN (SELECT asin, marketplace FROM gone)
        ORDER BY asin, marketplace, is_buybox, interval_seconds FOR UPDATE;
    DELETE FROM planned_checks p WHERE (p.asin, p.marketplace) IN (SELECT asin, marketplace FROM gone) AND NOT EXISTS (
        SELECT 1 FROM watched_products w
        WHERE w.asin = p.asin AND w.marketplace = p.marketplace AND w.is_active
            AND w.interval_seconds = p.interval_seconds AND (w.price_type = 'BUY_BOX_SHIPPING') = p.is_buybox
    );
    RETURN NULL;
END $$;
CREATE TRIGGER forget_plans AFTER DELETE ON watched_products REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION forget_plans();
"""

DOWNGRADE = """
DROP TRIGGER forget_plans ON watched_products;
DROP FUNCTION forget_plans;
ALTER TABLE watched_products
    ADD COLUMN next_check_at timestamptz NOT NULL DEFAULT keeper_now(),
    ADD COLUMN last_checked_at timestamptz,
    ADD COLUMN last_failure text;
UPDATE watched_products w SET next_check_at = p.next_check_at, last_checked_at = p.last_checked_at, last_failure = p.last_failure
FROM planned_checks p
WHERE p.asin = w.asin AND p.marketplace = w.marketplace AND p.interval_seconds = w.interval_seconds
    AND p.is_buybox = (w.price_type = 'BUY_BOX_SHIPPING');
CREATE INDEX watched_products_due ON watched_products (next_check_at)
    INCLUDE (asin, marketplace, price_type, last_checked_at, interval_seconds)
    WHERE is_active;
CREATE INDEX watched_products_short ON watched_products (interval_seconds, next_check_at) WHERE is_active AND interval_seconds < 300;
DROP TABLE planned_checks;
"""


def upgrade() -> None:
    """Move the plans into a table of their own."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Move them back."""
    op.execute(DOWNGRADE)
