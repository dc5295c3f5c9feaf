"""Tenants, pools and the advisor as desired; events, recommendations and samples as they came."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TENANTS = """
CREATE TABLE tenants (
    id text PRIMARY KEY,
    uid uuid NOT NULL DEFAULT gen_random_uuid(),
    server text NOT NULL,
    strategy text NOT NULL CHECK (strategy IN ('shared', 'per_tenant', 'per_database')),
    weight integer NOT NULL CHECK (weight BETWEEN 1 AND 1000),
    max_leases integer CHECK (max_leases >= 1),
    labels jsonb NOT NULL,
    generation bigint NOT NULL DEFAULT 1,
    provisioned_at timestamptz,
    deleting boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
)
"""

_POOLS = """
CREATE TABLE pools (
    pool_id text PRIMARY KEY,
    min_size integer NOT NULL,
    max_size integer NOT NULL CHECK (max_size BETWEEN 1 AND 10000),
    warmup_size integer NOT NULL,
    paused boolean NOT NULL,
    generation bigint NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pools_min_size_check CHECK (min_size BETWEEN 0 AND max_size),
    CONSTRAINT pools_warmup_size_check CHECK (warmup_size BETWEEN 0 AND max_size)
)
"""

_ADVISOR = """
CREATE TABLE advisor (
    id smallint PRIMARY KEY CHECK (id = 1),
    rule text NOT NULL,
    mode text NOT NULL CHECK (mode IN ('off', 'recommend', 'apply')),
    config jsonb NOT NULL,
    generation bigint NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now()
)
"""

_EVENTS = """
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    request_id text,
    action text NOT NULL,
    tenant text,
    pool text,
    reason text,
    before jsonb,
    after jsonb
)
"""

_RECOMMENDATIONS = """
CREATE TABLE recommendations (
    id uuid PRIMARY KEY,
    pool_id text NOT NULL,
    tenant text,
    rule text NOT NULL,
    action text NOT NULL,
    current_size integer NOT NULL,
    new_size integer NOT NULL,
    reason_code text NOT NULL,
    reason text NOT NULL,
    max_size integer NOT NULL,
    total_connections integer NOT NULL,
    idle_connections integer NOT NULL,
    active_connections integer NOT NULL,
    waiting_requests integer NOT NULL,
    status text NOT NULL
        CHECK (status IN ('open', 'applied', 'dismissed', 'superseded', 'expired')),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    closed_at timestamptz,
    closed_by text,
    CONSTRAINT recommendations_closed_at_check CHECK ((status = 'open') = (closed_at IS NULL))
)
"""

_SAMPLES = """
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

_INDEXES = (
    "CREATE INDEX events_tenant_id_idx ON events (tenant, id)",
    "CREATE INDEX recommendations_created_at_id_idx ON recommendations (created_at, id)",
    """
    CREATE UNIQUE INDEX recommendations_open_by_pool_key
        ON recommendations (pool_id) WHERE status = 'open'
    """,
    "CREATE INDEX samples_at_idx ON samples USING brin (at) WITH (autosummarize = on)",
)


def upgrade() -> None:
    tables = (_TENANTS, _POOLS, _ADVISOR, _EVENTS, _RECOMMENDATIONS, _SAMPLES)
    for statement in (*tables, *_INDEXES):
        op.execute(statement)


def downgrade() -> None:
    for table in ("samples", "recommendations", "events", "advisor", "pools", "tenants"):
        op.drop_table(table)
