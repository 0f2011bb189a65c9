"""When the first open opportunity ages, so that not every comparison goes through all of them."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE comparisons ADD COLUMN ages_at timestamptz;
COMMENT ON COLUMN comparisons.ages_at IS
    'When the first open opportunity has a price that is old, or too old, by nothing but time; null where the pass did not find out';
"""

DOWNGRADE = """
ALTER TABLE comparisons DROP COLUMN ages_at;
"""


def upgrade() -> None:
    """Add it."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take it away."""
    op.execute(DOWNGRADE)
