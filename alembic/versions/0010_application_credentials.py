"""Credentials by which applications connect as a tenant: verifiers, never a password."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE application_credentials (
            tenant text,
            name text,
            verifier text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz,
            last_used_at timestamptz,
            PRIMARY KEY (tenant, name)
        )
        """
    )


def downgrade() -> None:
    op.drop_table("application_credentials")
