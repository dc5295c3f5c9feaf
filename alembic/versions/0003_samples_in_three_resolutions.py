"""Samples by poll, by minute and by hour; counters become growth, old polls become minutes."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TABLE = """
CREATE TABLE {table} (
    subject text,
    at timestamptz,
    acquired bigint NOT NULL,
    timeouts bigint NOT NULL,
    polls integer NOT NULL,
    total_connections {gauge} NOT NULL,
    active_connections {gauge} NOT NULL,
    idle_connections {gauge} NOT NULL,
    waiting_requests {gauge} NOT NULL,
    {extra} NOT NULL,
    wait_p95_ms real,
    wait_p99_ms real,
    hold_p95_ms real,
    connect_p95_ms real,
    PRIMARY KEY (subject, at)
)
"""

_TO_MINUTES = """
INSERT INTO samples_by_minute
SELECT
    subject,
    date_trunc('minute', at),
    sum(CASE WHEN acquired < acquired_before THEN acquired
        ELSE acquired - coalesce(acquired_before, acquired) END),
    sum(CASE WHEN timeouts < timeouts_before THEN timeouts
        ELSE timeouts - coalesce(timeouts_before, timeouts) END),
    count(*),
    avg(total_connections),
    avg(active_connections),
    avg(idle_connections),
    avg(waiting_requests),
    max(waiting_requests),
    max(wait_p95_ms),
    max(wait_p99_ms),
    max(hold_p95_ms),
    max(connect_p95_ms)
FROM (
    SELECT
        *,
        lag(acquired) OVER before AS acquired_before,
        lag(timeouts) OVER before AS timeouts_before
    FROM samples
    WINDOW before AS (PARTITION BY subject ORDER BY at)
) AS polled
GROUP BY subject, date_trunc('minute', at)
"""

_OLD_TABLE = """
CREATE TABLE samples (
    subject text,
    at timestamptz,
    total_connections integer NOT NULL,
    active_connections integer NOT NULL,
    idle_connections integer NOT NULL,
    waiting_requests integer NOT NULL,
    acquired bigint NOT NULL,
    timeouts bigint NOT NULL,
    wait_p95_ms real,
    wait_p99_ms real,
    hold_p95_ms real,
    connect_p95_ms real,
    PRIMARY KEY (subject, at)
)
"""

# What was not rolled up yet is lost on the way back.
_FROM_MINUTES = """
INSERT INTO samples
SELECT
    subject,
    at,
    round(total_connections),
    round(active_connections),
    round(idle_connections),
    round(waiting_requests),
    sum(acquired) OVER since,
    sum(timeouts) OVER since,
    wait_p95_ms,
    wait_p99_ms,
    hold_p95_ms,
    connect_p95_ms
FROM samples_by_minute
WINDOW since AS (PARTITION BY subject ORDER BY at)
"""

_ROLLED_UP = ("samples_by_minute", "samples_by_hour")


def upgrade() -> None:
    for table in _ROLLED_UP:
        op.execute(_TABLE.format(table=table, gauge="real", extra="waiting_requests_max integer"))
    op.execute(_TO_MINUTES)
    op.drop_table("samples")
    op.execute(_TABLE.format(table="samples", gauge="integer", extra="gap_seconds real"))
    for table in ("samples", *_ROLLED_UP):
        op.execute(f"CREATE INDEX {table}_at_idx ON {table} (at)")


def downgrade() -> None:
    op.drop_table("samples")
    op.execute(_OLD_TABLE)
    op.execute(_FROM_MINUTES)
    op.execute("CREATE INDEX samples_at_idx ON samples USING brin (at) WITH (autosummarize = on)")
    for table in _ROLLED_UP:
        op.drop_table(table)
