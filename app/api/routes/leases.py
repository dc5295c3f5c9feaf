"""Leases and waiting callers: who holds what now, since when, and who waits for it."""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from time import monotonic
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.http.authentication import REQUIRE_READ
from app.api.http.dependencies import CursorQuery, LimitQuery, ManagerDep, PrincipalDep, ServerQuery
from app.api.http.paging import NextCursor, decode_sorted, paginate
from app.api.http.strict_route import StrictRoute
from app.api.routes.events import PoolQuery, TenantQuery
from app.api.views.wait import WaitView
from app.control.time_slices import in_slices
from app.domain.wait import Wait
from app.pools.callers import Caller, CallerState, callers, redacted, slot_callers
from app.pools.tenant_state import TenantState

router = APIRouter(prefix="/v1/leases", tags=["pools"], route_class=StrictRoute)


class LeaseOrder(StrEnum):
    """Sort keys; a minus puts the largest first."""

    LONGEST = "-age_seconds"
    SHORTEST = "age_seconds"
    TENANT = "tenant"


_RANKS: dict[LeaseOrder, Callable[[Caller], float]] = {
    LeaseOrder.LONGEST: lambda caller: caller.since,
    LeaseOrder.SHORTEST: lambda caller: -caller.since,
    LeaseOrder.TENANT: lambda _: 0.0,
}


class LeaseView(BaseModel):
    """A caller that holds a connection, or waits for one."""

    state: CallerState = Field(
        description="`active`: it holds a connection. `waiting`: it waits for one.",
        examples=["active"],
    )
    tenant: str = Field(examples=["acme"])
    pool_id: str = Field(examples=["acme"])
    server: str = Field(examples=["local"])
    since: datetime = Field(
        description="When the lease, or the wait, began.", examples=["2026-11-20T09:12:30Z"]
    )
    age_seconds: float = Field(description="How long ago that was.", examples=[4.2])
    position: int | None = Field(
        description="Place among the waiting callers of its tenant, 1 is next; null if active. "
        "Tenants of a shared pool take turns.",
        examples=[None],
    )
    waits_for: WaitView | None = Field(
        description="What its tenant's callers wait for; null if active."
    )
    pid: int | None = Field(
        description="Process ID of the connection's back-end, as in `pg_stat_activity`; null while "
        "waiting.",
        examples=[4711],
    )
    task: str | None = Field(
        description="Name of the task; for a request, `request` and its ID, as in the log.",
        examples=["request 5d1c4a2e8b7f4c6d"],
    )
    taken_at: str | None = Field(
        description="Where it asked for the lease: file and line.",
        examples=["/srv/app/orders.py:120"],
    )
    statement: str | None = Field(
        description="The statement of a query, up to its first literal, quoted name or comment; "
        "null if it is not known.",
        examples=["select count(*) from orders where customer = $1"],
    )


class LeaseList(BaseModel):
    """A page of callers."""

    as_of: datetime = Field(examples=["2026-11-20T09:12:34Z"])
    active: int = Field(description="Leases that match, on all pages.", examples=[1])
    waiting: int = Field(description="Waiting callers that match, on all pages.", examples=[0])
    items: list[LeaseView]
    next_cursor: NextCursor


@router.get(
    "",
    dependencies=[REQUIRE_READ],
    summary="List leases and waiting callers",
)
async def list_leases(
    manager: ManagerDep,
    principal: PrincipalDep,
    *,
    state: Annotated[CallerState | None, Query(description="Filter by state.")] = None,
    tenant: TenantQuery = None,
    pool: PoolQuery = None,
    server: ServerQuery = None,
    sort: Annotated[LeaseOrder, Query(description="Sort key.")] = LeaseOrder.LONGEST,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> LeaseList:
    """Lists who holds a connection now, and who waits for one; the oldest first.

    From memory, as of now: callers may come and go between two pages. Works while the catalog
    is unreachable. A key that is bound to tenants sees only theirs.
    """
    after = decode_sorted(cursor, sort, float, str, float) if cursor else None
    wanted = {"state": state, "pool": pool, "server": server, "tenant": tenant}

    def matches(caller: Caller) -> bool:
        name = caller.tenant.tenant.spec.id
        found = (caller.state, caller.pool_id, caller.server, name)
        return principal.can_access(name) and all(
            value in (None, each) for value, each in zip(wanted.values(), found, strict=True)
        )

    rank = _RANKS[sort]

    def place(caller: Caller) -> tuple[float, str, float]:
        return rank(caller), caller.tenant.tenant.spec.id, caller.since

    counts: Counter[CallerState] = Counter()
    first: list[Caller] = []
    slot_waiters = map(manager.slot_waiters, manager.awaited_pools)
    of_pools = (*map(callers, list(manager.pools())), *map(slot_callers, slot_waiters))
    async for each in in_slices(of_pools):
        matching = list(filter(matches, each))
        counts.update(caller.state for caller in matching)
        later = (caller for caller in matching if after is None or place(caller) > after)
        first = heapq.nsmallest(limit + 1, [*first, *later], key=place)
    page, next_cursor = paginate(first, limit, lambda caller: (sort.value, *place(caller)))
    now, as_of = monotonic(), datetime.now(UTC)
    tenants = {each.tenant for each in page if each.state is CallerState.WAITING}
    waits = {each: manager.wait_of(each) for each in tenants}
    return LeaseList(
        as_of=as_of,
        active=counts[CallerState.ACTIVE],
        waiting=counts[CallerState.WAITING],
        items=[_view(caller, now, as_of, waits) for caller in page],
        next_cursor=next_cursor,
    )


def _view(
    caller: Caller, now: float, as_of: datetime, waits: Mapping[TenantState, Wait]
) -> LeaseView:
    wait = waits.get(caller.tenant) if caller.state is CallerState.WAITING else None
    borrower, age = caller.borrower, max(0.0, now - caller.since)
    return LeaseView(
        state=caller.state,
        tenant=caller.tenant.tenant.spec.id,
        pool_id=caller.pool_id,
        server=caller.server,
        since=as_of - timedelta(seconds=age),
        age_seconds=age,
        position=caller.position,
        waits_for=WaitView.of(wait),
        pid=caller.pid,
        task=borrower.task if borrower else None,
        taken_at=borrower.taken_at if borrower else None,
        statement=redacted(borrower.statement) if borrower and borrower.statement else None,
    )
