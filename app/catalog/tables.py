"""The catalog's tables, as SQLAlchemy Core sees them.

Only their definitions: the other files of this package write them, and the migrations in `alembic/`
create them. A test fails if the two disagree.
"""

from enum import StrEnum

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from app.domain.pool import MAX_POOL_SIZE
from app.domain.recommendation import RecommendationKind, RecommendationStatus
from app.domain.tenant import AdvisorMode, PoolStrategy

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    choices = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({choices})", name=column)


def _time_of_insert(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


def _generation() -> Column[int]:
    return Column("generation", BigInteger, nullable=False, server_default=text("1"))


tenants = Table(
    "tenants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("uid", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    Column("server", Text, nullable=False),
    Column("strategy", Text, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("max_leases", Integer),
    Column("labels", JSONB, nullable=False),
    _generation(),
    Column("provisioned_at", DateTime(timezone=True)),
    Column("deleting", Boolean, nullable=False, server_default=text("false")),
    _time_of_insert("created_at"),
    _time_of_insert("updated_at"),
    # None: the mode of the whole service.
    Column("advisor_mode", Text),
    _one_of("strategy", PoolStrategy),
    _one_of("advisor_mode", AdvisorMode),
    CheckConstraint("weight BETWEEN 1 AND 1000", name="weight"),
    CheckConstraint("max_leases >= 1", name="max_leases"),
)

pools = Table(
    "pools",
    metadata,
    Column("pool_id", Text, primary_key=True),
    Column("min_size", Integer, nullable=False),
    Column("max_size", Integer, nullable=False),
    Column("warmup_size", Integer, nullable=False),
    _generation(),
    _time_of_insert("updated_at"),
    # Null if it is not paused.
    Column("paused_at", DateTime(timezone=True)),
    Column("paused_by", Text),
    Column("recycles", Integer, nullable=False, server_default=text("0")),
    CheckConstraint("min_size BETWEEN 0 AND max_size", name="min_size"),
    CheckConstraint(f"max_size BETWEEN 1 AND {MAX_POOL_SIZE}", name="max_size"),
    CheckConstraint("warmup_size BETWEEN 0 AND max_size", name="warmup_size"),
    CheckConstraint("(paused_at IS NULL) = (paused_by IS NULL)", name="paused"),
)

password_versions = Table(
    "credentials",
    metadata,
    Column("server", Text, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    # False until Postgres is known to have it.
    Column("applied", Boolean, nullable=False),
    _time_of_insert("updated_at"),
    CheckConstraint("version >= 2", name="version"),
)

application_credentials = Table(
    "application_credentials",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("verifier", Text, nullable=False),
    _time_of_insert("created_at"),
    Column("expires_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
)

nodes = Table(
    "nodes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("address", Text),
    Column("labels", JSONB, nullable=False),
    Column("selector", JSONB, nullable=False),
    Column("limits", JSONB, nullable=False),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("draining", Boolean, nullable=False, server_default=text("false")),
    _generation(),
    _time_of_insert("created_at"),
    _time_of_insert("updated_at"),
)

node_liabilities = Table(
    "node_liabilities",
    metadata,
    Column("node", Text, primary_key=True),
    Column("server", Text, primary_key=True),
    # At least as many as the node can have: it is written before an allotment grows.
    Column("connections", Integer, nullable=False),
    CheckConstraint("connections >= 0", name="connections"),
)

leadership = Table(
    "leadership",
    metadata,
    # There is one row. Its key is the epoch: a takeover changes it, and so waits for writes, which
    # hold it by FOR KEY SHARE; a renewal does not.
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("holder", Text),
    Column("url", Text),
    _time_of_insert("acquired_at"),
    _time_of_insert("renewed_at"),
    Column("released", Boolean, nullable=False, server_default=text("true")),
    # Number of epochs that began after an instance had failed.
    Column("failovers", BigInteger, nullable=False, server_default=text("0")),
)

instances = Table(
    "instances",
    metadata,
    Column("id", Text, primary_key=True),
    Column("url", Text),
    Column("version", Text, nullable=False),
    # Fingerprints of settings that all instances must share.
    Column("secret_key", Text, nullable=False),
    Column("servers", Text, nullable=False),
    # Fingerprint of the API keys, which may change while an instance runs.
    Column("keys", Text),
    _time_of_insert("started_at"),
    _time_of_insert("seen_at"),
)

advisor = Table(
    "advisor",
    metadata,
    # The service has one advisor, so there is one row.
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("rule", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("config", JSONB, nullable=False),
    _generation(),
    _time_of_insert("updated_at"),
    CheckConstraint("id = 1", name="id"),
    _one_of("mode", AdvisorMode),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text),
    Column("action", Text, nullable=False),
    Column("tenant", Text),
    Column("pool", Text),
    Column("reason", Text),
    Column("before", JSONB(none_as_null=True)),
    Column("after", JSONB(none_as_null=True)),
    Index(None, "tenant", "id"),
    Index(None, "pool", "id"),
)

recommendations = Table(
    "recommendations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("pool_id", Text, nullable=False),
    Column("tenant", Text),
    Column("rule", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("current_size", Integer, nullable=False),
    Column("new_size", Integer, nullable=False),
    Column("reason_code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("max_size", Integer, nullable=False),
    Column("total_connections", Integer, nullable=False),
    Column("idle_connections", Integer, nullable=False),
    Column("active_connections", Integer, nullable=False),
    Column("waiting_requests", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("closed_at", DateTime(timezone=True)),
    Column("closed_by", Text),
    Column("kind", Text, nullable=False, server_default=text("'resize'")),
    Column("placement", Text),
    Column("evidence", JSONB, nullable=False, server_default=text("'{}'")),
    Column("confidence", Text, nullable=False, server_default=text("'high'")),
    Column("expected", JSONB(none_as_null=True)),
    Column("wanted", Integer),
    _one_of("status", RecommendationStatus),
    _one_of("kind", RecommendationKind),
    CheckConstraint("(status = 'open') = (closed_at IS NULL)", name="closed_at"),
    Index(None, "created_at", "id"),
    Index(
        "recommendations_open_by_pool_key",
        "pool_id",
        unique=True,
        postgresql_where=text("status = 'open' AND kind = 'resize'"),
    ),
    Index(
        "recommendations_open_placement_by_tenant_key",
        "tenant",
        unique=True,
        postgresql_where=text("status = 'open' AND kind = 'placement'"),
    ),
)


def _samples(name: str, gauge: type[Integer | REAL[float]], *extra: Column[object]) -> Table:
    """Create a table of samples; the order of its columns needs no padding."""
    return Table(
        name,
        metadata,
        Column("subject", Text, primary_key=True),
        Column("at", DateTime(timezone=True), primary_key=True),
        Column("acquired", BigInteger, nullable=False),
        Column("timeouts", BigInteger, nullable=False),
        Column("connection_seconds", Double, nullable=False),
        Column("polls", Integer, nullable=False),
        Column("total_connections", gauge, nullable=False),
        Column("active_connections", gauge, nullable=False),
        Column("idle_connections", gauge, nullable=False),
        Column("waiting_requests", gauge, nullable=False),
        *extra,
        Column("wait_p95_ms", REAL),
        Column("wait_p99_ms", REAL),
        Column("hold_p95_ms", REAL),
        Column("connect_p95_ms", REAL),
        # All rows of a poll have the same time, which a B-tree stores once: 7 bytes a row. A BRIN
        # would be smaller, but never narrows again once new rows reuse the pages of deleted ones.
        Index(None, "at"),
    )


samples = _samples("samples", Integer, Column("gap_seconds", REAL, nullable=False))
samples_by_minute, samples_by_hour, samples_by_day = (
    _samples(name, REAL, Column("waiting_requests_max", Integer, nullable=False))
    for name in ("samples_by_minute", "samples_by_hour", "samples_by_day")
)
