"""A pool as the API shows it: what is wanted of it, and what there is.

Read from memory alone, so that it can be shown while the catalog is away.
"""

from __future__ import annotations

from dataclasses import asdict
from time import monotonic
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.auth.principal import Principal
from app.api.http.dependencies import Service
from app.api.views.advice import AdviceView
from app.control.monitoring.snapshot import PoolSnapshot
from app.domain.pool import PoolSize, PoolState
from app.domain.tenant import PoolStrategy
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState

POOL_EXAMPLE: dict[str, Any] = {
    "pool_id": "acme",
    "tenant": "acme",
    "tenants": 1,
    "shared": False,
    "strategy": "per_tenant",
    "server": "local",
    "open": True,
    "state": "ready",
    "desired": {"min_size": 0, "max_size": 5, "warmup_size": 1, "paused": False},
    "size": 3,
    "idle": 1,
    "active": 2,
    "waiting": 0,
    "access_count": 1841,
    "wait_p99_ms": 0.4,
    "leak_suspects": [],
    "generation": 1,
    "stale": False,
    "advice": None,
}


class DesiredSize(BaseModel):
    """What is wanted of a pool; defaults where nobody asked for anything."""

    min_size: int = Field(description="Connections kept open whatever happens.")
    max_size: int = Field(description="Most connections.")
    warmup_size: int = Field(description="Connections opened when the pool opens.")
    paused: bool = Field(description="Whether it shall lend nothing.")


class LeakSuspectView(BaseModel):
    """A lease held for so long that its borrower may have forgotten it."""

    tenant: str = Field(examples=["acme"])
    task: str = Field(description="Name of the task that borrowed.", examples=["Task-812"])
    taken_at: str = Field(description="File and line.", examples=["/srv/app/api/query.py:120"])
    age_seconds: float = Field(examples=[75.2])
    pid: int = Field(description="The connection's back-end.", examples=[4711])


class PoolView(BaseModel):
    """A pool, open or not."""

    model_config = ConfigDict(json_schema_extra={"examples": [POOL_EXAMPLE]})

    pool_id: str = Field(description="The tenant's id, or `shared@` and the server.")
    tenant: str | None = Field(description="Whose pool it is; null for a shared one.")
    tenants: int = Field(description="How many tenants it serves, of those the key may see.")
    shared: bool
    strategy: PoolStrategy
    server: str
    open: bool = Field(description="A pool that is not open opens on its next use.")
    state: PoolState = Field(description="`closed` while it is not open.")
    desired: DesiredSize
    size: int = Field(description="Open connections.")
    idle: int
    active: int = Field(description="Connections lent.")
    waiting: int = Field(description="Callers waiting for a connection.")
    access_count: int = Field(description="Times it was used since it opened.")
    wait_p99_ms: float | None = Field(
        description="99 of 100 callers waited no longer, within the statistics' window."
    )
    leak_suspects: list[LeakSuspectView] = Field(
        description="Leases held beyond the threshold, oldest first."
    )
    generation: int = Field(
        description="Grows with every change of what is wanted, from 0 for nothing; the ETag."
    )
    stale: bool = Field(description="Whether the catalog is away, and this is from memory.")
    advice: AdviceView | None = Field(
        default=None,
        description="The advisor's last word about it; null before there is one, where its mode "
        "is off, and in lists.",
    )


def show_row(row: PoolSnapshot, caller: Principal, *, tenants: int, stale: bool) -> PoolView:
    """An open pool, as of a snapshot; of its tenants those the caller may see are counted."""
    is_shared = row.strategy is PoolStrategy.SHARED
    return PoolView(
        pool_id=row.pool_id,
        tenant=None if is_shared else row.pool_id,
        tenants=tenants,
        shared=is_shared,
        strategy=row.strategy,
        server=row.server,
        open=True,
        state=row.state,
        desired=_wanted(row.desired, paused=row.paused),
        size=row.stats.metrics.total_connections,
        idle=row.stats.metrics.idle_connections,
        active=row.stats.metrics.active_connections,
        waiting=row.stats.metrics.waiting_requests,
        access_count=row.access_count,
        wait_p99_ms=row.stats.wait.p99_ms,
        leak_suspects=[
            LeakSuspectView(**asdict(suspect))
            for suspect in row.leak_suspects
            if caller.can_access(suspect.tenant)
        ],
        generation=row.generation,
        stale=stale,
    )


def visible_pools(service: Service, caller: Principal) -> list[Pool]:
    """The open pools that serve a tenant of the caller's."""
    pools = service.manager.pools()
    if caller.tenants is None:
        return list(pools)
    theirs = set(_their_pools(service, caller.tenants))
    return [pool for pool in pools if pool.pool_id in theirs]


def show_pool(service: Service, pool: Pool, caller: Principal) -> PoolView:
    """An open pool, as it is now; of a shared one's borrowers only those the caller may see."""
    strategy = pool.config.strategy
    closed = _closed(service, pool.pool_id, strategy, pool.server.name, caller)
    now = pool.metrics
    verdict = service.advisor_loop.latest_advice.get(pool.pool_id)
    return closed.model_copy(
        update={
            "advice": AdviceView.of(verdict, caller) if verdict else None,
            "open": True,
            "state": pool.state,
            "size": now.total_connections,
            "idle": now.idle_connections,
            "active": now.active_connections,
            "waiting": now.waiting_requests,
            "access_count": service.manager.access_count(pool),
            "wait_p99_ms": service.manager.pool_stats(pool).wait.p99_ms,
            "leak_suspects": [
                LeakSuspectView(**asdict(suspect))
                for suspect in pool.leak_suspects(monotonic())
                if caller.can_access(suspect.tenant)
            ],
        }
    )


def show_pool_of(service: Service, account: TenantState, caller: Principal) -> PoolView:
    """The pool of *account*'s tenant, open or not."""
    spec = account.tenant.spec
    pool = service.manager.find(spec.pool_id)
    if pool is not None:
        return show_pool(service, pool, caller)
    return _closed(service, spec.pool_id, spec.strategy, spec.server, caller)


def _closed(
    service: Service, pool_id: str, strategy: PoolStrategy, server: str, caller: Principal
) -> PoolView:
    manager = service.manager
    desired = manager.desired.get(pool_id)
    size: PoolSize = manager.desired_size(pool_id, strategy)
    is_shared = strategy is PoolStrategy.SHARED
    return PoolView(
        pool_id=pool_id,
        tenant=None if is_shared else pool_id,
        tenants=_tenants_of(service, pool_id, caller),
        shared=is_shared,
        strategy=strategy,
        server=server,
        open=False,
        state=PoolState.CLOSED,
        desired=_wanted(size, paused=desired.paused if desired else False),
        size=0,
        idle=0,
        active=0,
        waiting=0,
        access_count=0,
        wait_p99_ms=None,
        leak_suspects=[],
        generation=desired.generation if desired else 0,
        stale=not service.catalog.available,
    )


def _wanted(size: PoolSize, *, paused: bool) -> DesiredSize:
    return DesiredSize(
        min_size=size.min_size,
        max_size=size.max_size,
        warmup_size=size.warmup_size,
        paused=paused,
    )


def _tenants_of(service: Service, pool_id: str, caller: Principal) -> int:
    if caller.tenants is None:
        return service.manager.tenant_count(pool_id)
    return _their_pools(service, caller.tenants).count(pool_id)


def _their_pools(service: Service, tenants: frozenset[str]) -> list[str]:
    """The pool of each of *tenants*, as far as there are such tenants."""
    accounts = service.manager.tenant_states
    return [accounts[tenant].tenant.spec.pool_id for tenant in accounts.keys() & tenants]
