"""How often nodes were to replace a pool's connections."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE pools ADD COLUMN recycles integer NOT NULL DEFAULT 0")


def downgrade() -> None:
    op.execute("ALTER TABLE pools DROP COLUMN recycles")
