"""Sinks are rows, the outbox is in the order of its events, products know when they changed."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE sinks (
    name text PRIMARY KEY CHECK (name ~ '^[a-z0-9._-]{1,200}$'),
    kinds text[] NOT NULL,
    fill_until bigint,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE sinks IS 'The systems that receive events: whoever records queues one outbox row for each that takes the kind';
COMMENT ON COLUMN sinks.fill_until IS 'Not null while the kept events up to this one are being queued; nothing is delivered before';
INSERT INTO sinks (name, kinds) VALUES ('notify', '{alert}');

DROP INDEX outbox_held;
ALTER TABLE outbox DROP CONSTRAINT outbox_pkey;
ALTER TABLE outbox DROP COLUMN id;
ALTER TABLE outbox ADD PRIMARY KEY (sink, shard, event_seq);
CREATE INDEX outbox_held ON outbox (sink, shard, key, event_seq) WHERE next_try_at IS NOT NULL;

ALTER TABLE products ADD COLUMN changed_at timestamptz;
UPDATE products SET changed_at = checked_at;
ALTER TABLE products ALTER COLUMN changed_at SET NOT NULL;
COMMENT ON COLUMN products.changed_at IS 'When the revision was last raised';

CREATE TABLE ingested_events (
    event_id uuid PRIMARY KEY,
    topic text NOT NULL,
    ingested_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ingested_events_by_time ON ingested_events (ingested_at);
COMMENT ON TABLE ingested_events IS 'Foreign events that were recorded: a second copy is the same event';
"""

DOWNGRADE = """
DROP TABLE ingested_events;
ALTER TABLE products DROP COLUMN changed_at;
DROP INDEX outbox_held;
DELETE FROM outbox WHERE sink NOT IN ('kafka', 'search', 'notify');
ALTER TABLE outbox DROP CONSTRAINT outbox_pkey;
ALTER TABLE outbox ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY;
ALTER TABLE outbox ADD PRIMARY KEY (sink, shard, id);
CREATE INDEX outbox_held ON outbox (sink, shard, key, id) WHERE next_try_at IS NOT NULL;
DROP TABLE sinks;
"""


def upgrade() -> None:
    """Add them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take them away. What waits for a sink the older version does not know is lost for it."""
    op.execute(DOWNGRADE)
