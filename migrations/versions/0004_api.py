"""Watches can be paused, and answers to repeated requests are kept."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE watched_products ADD COLUMN removed_at timestamptz;
UPDATE watched_products SET removed_at = keeper_now() WHERE NOT is_active;
COMMENT ON COLUMN watched_products.removed_at IS 'Null while the watch is the user''s; one that is kept and not active is paused';
ALTER TABLE watched_products ADD CONSTRAINT watched_products_removed CHECK (removed_at IS NULL OR NOT is_active);
CREATE UNIQUE INDEX watched_products_one_paused ON watched_products (asin, marketplace, price_type, user_id)
    WHERE NOT is_active AND removed_at IS NULL;
DROP INDEX watched_products_of_user;
CREATE INDEX watched_products_of_user ON watched_products (user_id, id) WHERE removed_at IS NULL;

CREATE TABLE idempotent_requests (
    user_id bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    method text NOT NULL,
    path text NOT NULL,
    key text NOT NULL,
    body_hash bytea NOT NULL CHECK (length(body_hash) = 32),
    status smallint,
    answer json,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, method, path, key)
);
CREATE INDEX idempotent_requests_by_time ON idempotent_requests (started_at);
COMMENT ON TABLE idempotent_requests IS 'Answers kept for a day, written with what they tell of; a null status was begun and not finished';
"""

DOWNGRADE = """
DROP TABLE idempotent_requests;
DROP INDEX watched_products_one_paused;
DROP INDEX watched_products_of_user;
CREATE INDEX watched_products_of_user ON watched_products (user_id, id);
ALTER TABLE watched_products DROP CONSTRAINT watched_products_removed;
ALTER TABLE watched_products DROP COLUMN removed_at;
"""


def upgrade() -> None:
    """Add them."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take them away. A paused watch is a removed one for the older version."""
    op.execute(DOWNGRADE)
