"""What became of opportunities after a day, a week and a month."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE opportunity_outcomes (
    opportunity_id bigint NOT NULL REFERENCES opportunities ON DELETE CASCADE,
    days smallint NOT NULL CHECK (days > 0),
    due_at timestamptz NOT NULL,
    score smallint NOT NULL,
    bought_minor integer NOT NULL CHECK (bought_minor > 0),
    promised_minor integer,
    scored_at timestamptz,
    source_minor integer,
    target_minor integer,
    margin_minor integer,
    has_lasted boolean,
    profit_minor integer,
    earned_minor integer,
    PRIMARY KEY (opportunity_id, days),
    CHECK (scored_at IS NOT NULL OR num_nonnulls(source_minor, target_minor, margin_minor, has_lasted, profit_minor, earned_minor) = 0)
);
CREATE INDEX opportunity_outcomes_due ON opportunity_outcomes (due_at, opportunity_id) WHERE scored_at IS NULL;
COMMENT ON TABLE opportunity_outcomes IS 'What an opportunity said when it was noted, and what its prices were some days later';
COMMENT ON COLUMN opportunity_outcomes.score IS 'Right after it opened; the opportunity''s own changes over its life';
COMMENT ON COLUMN opportunity_outcomes.bought_minor IS 'The purchase price when it was noted, in the source store''s currency';
COMMENT ON COLUMN opportunity_outcomes.promised_minor IS 'The profit when it was noted, euro cents';
COMMENT ON COLUMN opportunity_outcomes.has_lasted IS 'The gross gap was above the least margin; null: a price of that time is not known';
COMMENT ON COLUMN opportunity_outcomes.profit_minor IS 'Of buying and selling at that time, euro cents; null where anything is not known';
COMMENT ON COLUMN opportunity_outcomes.earned_minor IS 'Of having bought when it was noted and selling at that time; null as above';
"""

DOWNGRADE = """
DROP TABLE opportunity_outcomes;
"""


def upgrade() -> None:
    """Add them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take them away."""
    op.execute(DOWNGRADE)
