"""Who sells a product, by the ids of sellers alone."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE offer_checks (
    asin text NOT NULL,
    marketplace text NOT NULL,
    checked_at timestamptz NOT NULL,
    PRIMARY KEY (asin, marketplace)
);
COMMENT ON TABLE offer_checks IS 'When the sellers of a product were last asked for';

CREATE TABLE offers_history (
    asin text NOT NULL,
    marketplace text NOT NULL,
    checked_at timestamptz NOT NULL,
    seller_id text NOT NULL,
    price_minor integer CHECK (price_minor > 0),
    is_amazon boolean,
    is_fba boolean,
    buy_box_pct numeric(5, 2) CHECK (buy_box_pct BETWEEN 0 AND 100),
    PRIMARY KEY (asin, marketplace, checked_at, seller_id)
);
COMMENT ON TABLE offers_history IS 'Sellers of new goods at each check; nothing of a seller is kept but the id';
COMMENT ON COLUMN offers_history.price_minor IS 'With shipping, in the store''s currency; null: had the buy box, and offers it no more';
COMMENT ON COLUMN offers_history.buy_box_pct IS 'Share of the year in which it had the buy box; null: not known';
"""

DOWNGRADE = """
DROP TABLE offers_history, offer_checks;
"""


def upgrade() -> None:
    """Add them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take them away."""
    op.execute(DOWNGRADE)
