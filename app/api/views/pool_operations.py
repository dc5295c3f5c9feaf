"""Results of operations on a pool."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from app.domain.eviction import EvictionReason
from app.domain.pool import PoolState


class PoolDrain(BaseModel):
    """A drain in progress."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"pool_id": "acme", "tenants": 1, "state": "draining", "deadline_seconds": 5.0}
            ]
        }
    )

    pool_id: str
    tenants: int = Field(description="Number of tenants that the pool serves.")
    state: PoolState
    deadline_seconds: float


class PoolRecycling(BaseModel):
    """The result of recycling a pool."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pool_id": "acme", "tenants": 1, "connections": 3}]}
    )

    pool_id: str
    tenants: int = Field(description="Number of tenants that the pool serves.")
    connections: int = Field(
        description="Connections replaced: idle ones at once, leased ones when they are returned."
    )


class PoolCheck(BaseModel):
    """The result of testing a pool's idle connections."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"pool_id": "acme", "tenants": 1, "tested": 2, "failed": 0}]
        }
    )

    pool_id: str
    tenants: int = Field(description="Number of tenants that the pool serves.")
    tested: int
    failed: int = Field(description="Connections that failed the check and were closed.")


class PoolEviction(BaseModel):
    """The result of evicting a pool."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"pool_id": "acme", "tenants": 1, "reason": "requested", "closed": 3, "cut": 0}
            ]
        }
    )

    pool_id: str
    tenants: int = Field(description="Number of tenants that the pool serves.")
    reason: EvictionReason
    closed: int = Field(description="Connections closed.")
    cut: int = Field(description="Leases that were cut at the deadline.")
