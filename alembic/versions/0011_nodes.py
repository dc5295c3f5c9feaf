"""PgBouncer nodes, and the connections that each may have."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE nodes (
            name text PRIMARY KEY,
            address text,
            labels jsonb NOT NULL,
            selector jsonb NOT NULL,
            limits jsonb NOT NULL,
            paused boolean NOT NULL DEFAULT false,
            draining boolean NOT NULL DEFAULT false,
            generation bigint NOT NULL DEFAULT 1,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.execute(
        """
        CREATE TABLE node_liabilities (
            node text,
            server text,
            connections integer NOT NULL,
            PRIMARY KEY (node, server),
            CONSTRAINT node_liabilities_connections_check CHECK (connections >= 0)
        )
        """
    )


def downgrade() -> None:
    op.drop_table("node_liabilities")
    op.drop_table("nodes")
