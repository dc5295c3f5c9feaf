"""Since when a pool is paused, and by whom; before, only whether it is."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_PAUSED_BY = """
UPDATE pools SET paused_at = updated_at, paused_by = coalesce(
    (
        SELECT actor FROM events
        WHERE events.pool = pools.pool_id AND action = 'pool.paused' ORDER BY id DESC LIMIT 1
    ),
    'unknown'
) WHERE paused
"""


def upgrade() -> None:
    op.execute("ALTER TABLE pools ADD paused_at timestamptz, ADD paused_by text")
    op.execute(_PAUSED_BY)
    op.execute(
        "ALTER TABLE pools DROP paused, ADD CONSTRAINT pools_paused_check"
        " CHECK ((paused_at IS NULL) = (paused_by IS NULL))"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE pools ADD paused boolean NOT NULL DEFAULT false")
    op.execute("UPDATE pools SET paused = paused_at IS NOT NULL")
    op.execute("ALTER TABLE pools ALTER paused DROP DEFAULT, DROP paused_at, DROP paused_by")
