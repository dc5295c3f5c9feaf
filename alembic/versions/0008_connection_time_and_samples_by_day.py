"""How long connections were leased, in samples; samples by day; events by pool."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_BY_DAY = """
CREATE TABLE samples_by_day (
    subject text,
    at timestamptz,
    acquired bigint NOT NULL,
    timeouts bigint NOT NULL,
    connection_seconds double precision NOT NULL,
    polls integer NOT NULL,
    total_connections real NOT NULL,
    active_connections real NOT NULL,
    idle_connections real NOT NULL,
    waiting_requests real NOT NULL,
    waiting_requests_max integer NOT NULL,
    wait_p95_ms real,
    wait_p99_ms real,
    hold_p95_ms real,
    connect_p95_ms real,
    PRIMARY KEY (subject, at)
)
"""
# Before, only how many were leased at each poll is known.
_ESTIMATES = {
    "samples": "active_connections * polls * gap_seconds",
    "samples_by_minute": "active_connections * 60",
    "samples_by_hour": "active_connections * 3600",
}


def upgrade() -> None:
    for table, estimate in _ESTIMATES.items():
        op.execute(f"ALTER TABLE {table} ADD connection_seconds double precision")
        op.execute(f"UPDATE {table} SET connection_seconds = {estimate}")  # noqa: S608 - constants
        op.execute(f"ALTER TABLE {table} ALTER connection_seconds SET NOT NULL")
    op.execute(_BY_DAY)
    op.execute("CREATE INDEX samples_by_day_at_idx ON samples_by_day (at)")
    op.execute("CREATE INDEX events_pool_id_idx ON events (pool, id)")


def downgrade() -> None:
    op.execute("DROP INDEX events_pool_id_idx")
    op.drop_table("samples_by_day")
    for table in _ESTIMATES:
        op.execute(f"ALTER TABLE {table} DROP connection_seconds")
