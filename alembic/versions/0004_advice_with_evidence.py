"""Recommendations carry their evidence and may be about a move; tenants have an advisor mode."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_UP = (
    """
    ALTER TABLE tenants ADD COLUMN advisor_mode text
        CHECK (advisor_mode IN ('off', 'recommend', 'apply'))
    """,
    """
    ALTER TABLE recommendations
        ADD COLUMN kind text NOT NULL DEFAULT 'resize' CHECK (kind IN ('resize', 'move')),
        ADD COLUMN move text,
        ADD COLUMN evidence jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN confidence text NOT NULL DEFAULT 'high',
        ADD COLUMN expected jsonb,
        ADD COLUMN wanted integer,
        DROP CONSTRAINT recommendations_status_check,
        ADD CONSTRAINT recommendations_status_check CHECK
            (status IN ('open', 'applied', 'dismissed', 'superseded', 'expired', 'undone'))
    """,
    "DROP INDEX recommendations_open_by_pool_key",
    """
    CREATE UNIQUE INDEX recommendations_open_by_pool_key
        ON recommendations (pool_id) WHERE status = 'open' AND kind = 'resize'
    """,
    """
    CREATE UNIQUE INDEX recommendations_open_move_by_tenant_key
        ON recommendations (tenant) WHERE status = 'open' AND kind = 'move'
    """,
    "UPDATE advisor SET config = jsonb_build_object('hysteresis', config)",
)

# What the table of before cannot hold is forgotten: moves, and that a growth was undone.
_DOWN = (
    "UPDATE advisor SET rule = 'hysteresis', config = config -> 'hysteresis'",
    "DROP INDEX recommendations_open_move_by_tenant_key",
    "DELETE FROM recommendations WHERE kind = 'move'",
    "UPDATE recommendations SET status = 'applied' WHERE status = 'undone'",
    "DROP INDEX recommendations_open_by_pool_key",
    """
    ALTER TABLE recommendations
        DROP COLUMN kind,
        DROP COLUMN move,
        DROP COLUMN evidence,
        DROP COLUMN confidence,
        DROP COLUMN expected,
        DROP COLUMN wanted,
        DROP CONSTRAINT recommendations_status_check,
        ADD CONSTRAINT recommendations_status_check CHECK
            (status IN ('open', 'applied', 'dismissed', 'superseded', 'expired'))
    """,
    """
    CREATE UNIQUE INDEX recommendations_open_by_pool_key
        ON recommendations (pool_id) WHERE status = 'open'
    """,
    "ALTER TABLE tenants DROP COLUMN advisor_mode",
)


def upgrade() -> None:
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in _DOWN:
        op.execute(statement)
