"""Since when an opportunity is news, and what of it was told to the topic."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

UPGRADE = """
DROP INDEX opportunities_by_best;
ALTER TABLE opportunities ADD COLUMN became_at timestamptz, ADD COLUMN announced_profit_minor integer;
UPDATE opportunities SET became_at = best_at, announced_profit_minor = CASE WHEN announced_at IS NOT NULL THEN profit_minor END;
ALTER TABLE opportunities ALTER COLUMN became_at SET NOT NULL, ALTER COLUMN became_at SET DEFAULT keeper_now();
CREATE INDEX opportunities_by_news ON opportunities (became_at) WHERE closed_at IS NULL AND cardinality(doubts) = 0;
COMMENT ON COLUMN opportunities.became_at IS
    'When it opened, last became better than it was just before, or was no longer doubtful, stale or unknown: what is news goes by it';
COMMENT ON COLUMN opportunities.announced_profit_minor IS 'As it, or the same gap before it, was announced';
"""

DOWNGRADE = """
DROP INDEX opportunities_by_news;
ALTER TABLE opportunities DROP COLUMN became_at, DROP COLUMN announced_profit_minor;
CREATE INDEX opportunities_by_best ON opportunities (best_at) WHERE closed_at IS NULL AND cardinality(doubts) = 0;
"""


def upgrade() -> None:
    """Add them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take them away."""
    op.execute(DOWNGRADE)
