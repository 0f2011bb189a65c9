"""Who did what that concerns others: a log that is only added to."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    via text NOT NULL CHECK (via IN ('api', 'command')),
    actor text NOT NULL,
    user_id bigint,
    key_id bigint,
    action text NOT NULL,
    target text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('done', 'failed', 'refused')),
    request_id text NOT NULL DEFAULT ''
);
CREATE INDEX audit_log_by_time ON audit_log (at);
COMMENT ON TABLE audit_log IS 'What was done that concerns others. No references: it outlives users and keys; no secrets, no bodies';
COMMENT ON COLUMN audit_log.actor IS 'The user''s name; of a command the account of the operating system';
COMMENT ON COLUMN audit_log.key_id IS 'The API key that was shown; null of a command, and where the API asks for no keys';

CREATE FUNCTION audit_log_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('keeper.audit_retention', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit_log is only added to' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_log_is_kept BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_log_is_kept();
CREATE TRIGGER audit_log_is_not_emptied BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_kept();
"""

DOWNGRADE = """
DROP TABLE audit_log;
DROP FUNCTION audit_log_is_kept();
"""


def upgrade() -> None:
    """Add it."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take it away, with all that is in it."""
    op.execute(DOWNGRADE)
