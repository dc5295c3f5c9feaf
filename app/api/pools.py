"""All open pools over HTTP: the list, and the sweep."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.deps import ActorDep, CursorQuery, LimitQuery, Service, ServiceDep
from app.api.paging import decode_cursor, page_of
from app.api.pool_view import POOL_EXAMPLE, PoolView, show_pool
from app.api.problems import documented, invalid
from app.domain.tenant import PoolStrategy
from app.pools.pool import TenantPool

router = APIRouter(prefix="/v1/pools", tags=["pools"])


class PoolOrder(StrEnum):
    """What pools are sorted by; a minus puts the largest first."""

    POOL_ID = "pool_id"
    WAITING = "waiting"
    MOST_WAITING = "-waiting"
    WAIT_P99 = "wait_p99_ms"
    LONGEST_WAIT_P99 = "-wait_p99_ms"
    ACTIVE = "active"
    MOST_ACTIVE = "-active"
    SIZE = "size"
    LARGEST = "-size"


class PoolList(BaseModel):
    """One page of open pools."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [POOL_EXAMPLE], "next_cursor": None}]}
    )

    items: list[PoolView]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")


class SweptPool(BaseModel):
    """One pool that a sweep looked at."""

    tenant: str | None = Field(description="Whose pool it is; null for a shared one.")
    pool_id: str
    reason: str = Field(
        description="Evicted: `idle`. Skipped: `busy`, `min_size` or `not_expired`."
    )


class Sweep(BaseModel):
    """What a sweep did."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "evicted": [{"tenant": "acme", "pool_id": "acme", "reason": "idle"}],
                    "skipped": [{"tenant": None, "pool_id": "shared@local", "reason": "busy"}],
                }
            ]
        }
    )

    evicted: list[SweptPool]
    skipped: list[SweptPool]


@router.get("", summary="List open pools", responses=documented())
async def list_pools(
    service: ServiceDep,
    *,
    sort: Annotated[PoolOrder, Query(description="Ties go by pool id.")] = PoolOrder.POOL_ID,
    strategy: Annotated[PoolStrategy | None, Query(description="Of this strategy.")] = None,
    server: Annotated[str | None, Query(max_length=48, description="On this server.")] = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> PoolList:
    """Every pool that is open, from any tenant.

    What pools are sorted by changes while one turns the pages, so a pool may be seen twice or
    not at all, unless they are sorted by id.
    """
    found = sorted(
        (_rank(service, pool, sort), pool.pool_id, pool)
        for pool in service.manager.pools()
        if (strategy is None or pool.config.strategy is strategy)
        and (server is None or pool.server.name == server)
    )
    if cursor:
        order, rank, pool_id = decode_cursor(cursor, str, float, str)
        if order != sort:
            raise invalid(
                "query", "cursor", code="bad_cursor", detail="It belongs to another order."
            )
        found = [each for each in found if each[:2] > (rank, pool_id)]
    page, next_cursor = page_of(found, limit, lambda each: (sort.value, each[0], each[1]))
    return PoolList(
        items=[show_pool(service, pool) for _, _, pool in page], next_cursor=next_cursor
    )


@router.post("/evict-expired", summary="Close pools nobody uses", responses=documented())
async def evict_expired_pools(service: ServiceDep, actor: ActorDep) -> Sweep:
    """Close every pool unused for longer than its idle timeout, and say why the others stay.

    The service does the same at each poll; busy pools and those with a `min_size` are left
    alone. Works while the catalog is away.
    """
    report = await service.operations.evict_expired(actor)
    return Sweep(
        evicted=[_swept(gone.pool_id, gone.reason) for gone in report.evicted],
        skipped=[_swept(skip.pool_id, skip.reason) for skip in report.skipped],
    )


def _rank(service: Service, pool: TenantPool, order: PoolOrder) -> float:
    """What sorts *pool* ascending into this order."""
    match order.lstrip("-"):
        case "waiting":
            rank = float(pool.metrics.waiting_requests)
        case "wait_p99_ms":
            rank = service.manager.pool_stats(pool).wait.p99_ms or 0.0
        case "active":
            rank = float(pool.metrics.active_connections)
        case "size":
            rank = float(pool.metrics.total_connections)
        case _:
            rank = 0.0
    return -rank if order.startswith("-") else rank


def _swept(pool_id: str, reason: str) -> SweptPool:
    return SweptPool(tenant=None if "@" in pool_id else pool_id, pool_id=pool_id, reason=reason)
