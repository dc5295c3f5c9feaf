"""Which version of its password each login role has; a role without a row has the first."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_CREDENTIALS = """
CREATE TABLE credentials (
    server text,
    role text,
    version integer NOT NULL CHECK (version >= 2),
    applied boolean NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (server, role)
)
"""


def upgrade() -> None:
    op.execute(_CREDENTIALS)


def downgrade() -> None:
    op.drop_table("credentials")
