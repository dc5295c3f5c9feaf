"""How often an instance failed, and which API keys each one has."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE leadership ADD COLUMN failovers bigint NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE instances ADD COLUMN keys text")


def downgrade() -> None:
    op.execute("ALTER TABLE instances DROP COLUMN keys")
    op.execute("ALTER TABLE leadership DROP COLUMN failovers")
