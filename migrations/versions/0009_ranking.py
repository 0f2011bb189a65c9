"""Products ranked by how well they sell."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# A table of its own: sales ranks change with nearly every answer, and an index on them in `products` would make each of these updates
# write all its indices.
UPGRADE = """
CREATE TABLE product_rankings (
    marketplace text NOT NULL,
    asin text NOT NULL,
    root_category_id bigint,
    score smallint NOT NULL CHECK (score BETWEEN 1 AND 100),
    rank_points smallint NOT NULL,
    drops_points smallint NOT NULL,
    sold_points smallint NOT NULL,
    reviews_points smallint NOT NULL,
    ranked_at timestamptz NOT NULL,
    PRIMARY KEY (asin, marketplace),
    CHECK (score = rank_points + drops_points + sold_points + reviews_points)
) WITH (fillfactor = 80);
CREATE INDEX product_rankings_best ON product_rankings (marketplace, score DESC, asin);
CREATE INDEX product_rankings_of_category ON product_rankings (marketplace, root_category_id, score DESC, asin);
COMMENT ON TABLE product_rankings IS 'Bestseller scores; a product of which nothing is known has none';
COMMENT ON COLUMN product_rankings.ranked_at IS 'Since when the score is this';
"""

DOWNGRADE = """
DROP TABLE product_rankings;
"""


def upgrade() -> None:
    """Add them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take them away."""
    op.execute(DOWNGRADE)
