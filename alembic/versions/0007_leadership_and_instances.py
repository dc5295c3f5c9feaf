"""Which instance is active, in which epoch, and which instances there are."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE leadership (
            epoch bigint PRIMARY KEY,
            holder text,
            url text,
            acquired_at timestamptz NOT NULL DEFAULT now(),
            renewed_at timestamptz NOT NULL DEFAULT now(),
            released boolean NOT NULL DEFAULT true
        )
        """
    )
    op.execute("INSERT INTO leadership (epoch) VALUES (0)")
    op.execute(
        """
        CREATE TABLE instances (
            id text PRIMARY KEY,
            url text,
            version text NOT NULL,
            secret_key text NOT NULL,
            servers text NOT NULL,
            started_at timestamptz NOT NULL DEFAULT now(),
            seen_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE instances, leadership")
