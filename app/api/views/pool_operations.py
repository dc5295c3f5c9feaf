"""Responses of operations on a pool."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from app.domain.pool import PoolState
from app.pools.eviction import EvictionReason


class PoolDrain(BaseModel):
    """A drain that has started."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"pool_id": "acme", "tenants": 1, "state": "draining", "deadline_seconds": 5.0}
            ]
        }
    )

    pool_id: str
    tenants: int = Field(description="How many tenants this affects.")
    state: PoolState
    deadline_seconds: float


class PoolRecycling(BaseModel):
    """How many connections will be replaced."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pool_id": "acme", "tenants": 1, "connections": 3}]}
    )

    pool_id: str
    tenants: int = Field(description="How many tenants this affects.")
    connections: int = Field(description="Idle ones at once, leased ones when they are returned.")


class PoolCheck(BaseModel):
    """What testing idle connections found."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"pool_id": "acme", "tenants": 1, "tested": 2, "failed": 0}]
        }
    )

    pool_id: str
    tenants: int = Field(description="How many tenants this affects.")
    tested: int
    failed: int = Field(description="Connections that failed the check and were closed.")


class PoolEviction(BaseModel):
    """What evicting a pool did."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"pool_id": "acme", "tenants": 1, "reason": "forced", "closed": 3, "cut": 0}
            ]
        }
    )

    pool_id: str
    tenants: int = Field(description="How many tenants this affects.")
    reason: EvictionReason
    closed: int = Field(description="Connections closed.")
    cut: int = Field(description="Leases cut because they outlasted the deadline.")
