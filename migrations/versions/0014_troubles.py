"""Troubles that the watchdog follows, the schedulers it has seen, and whose request an event arose from."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE troubles (
    check_name text NOT NULL,
    about text NOT NULL,
    opened_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    ended_at timestamptz,
    text text NOT NULL,
    remedy text NOT NULL,
    told text[] NOT NULL DEFAULT '{}',
    told_end text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (check_name, about, opened_at)
);
CREATE UNIQUE INDEX troubles_one_open ON troubles (check_name, about) WHERE ended_at IS NULL;
COMMENT ON TABLE troubles IS 'What the watchdog has seen, on the machine''s clock; each is told once to each channel, and its end once';
COMMENT ON COLUMN troubles.told IS 'Channels that have taken the message';

CREATE TABLE schedulers (
    deployment_id uuid PRIMARY KEY,
    place text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE schedulers IS 'The deployments of the watchdog that have run on this database; two at a time are two schedulers';

-- A default and no parameter, so that every way to record an event keeps it; constant for the rows there are, so no table is rewritten.
ALTER TABLE events ADD COLUMN request_id text DEFAULT nullif(current_setting('keeper.request_id', true), '');
COMMENT ON COLUMN events.request_id IS 'Of the request that it arose from, as the API has answered it; null for none';
"""

DOWNGRADE = """
ALTER TABLE events DROP COLUMN request_id;
DROP TABLE schedulers, troubles;
"""


def upgrade() -> None:
    """Add them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take them away."""
    op.execute(DOWNGRADE)
