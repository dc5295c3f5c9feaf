"""Leases and waiting callers: who holds what now, since when, and who waits for it."""

from __future__ import annotations

import asyncio
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
from app.api.http.paging import NextCursor, decode_cursor, invalid_cursor, paginate
from app.api.http.strict_route import StrictRoute
from app.api.routes.events import PoolQuery, TenantQuery
from app.api.views.wait import WaitView
from app.domain.wait import Wait
from app.pools.clients import Client, ClientState, clients, redacted, slot_clients
from app.pools.tenant_state import TenantState

# After so many callers other tasks get a turn.
_SLICE = 1000

router = APIRouter(prefix="/v1/leases", tags=["pools"], route_class=StrictRoute)


class LeaseOrder(StrEnum):
    """Sort keys; a minus puts the largest first."""

    LONGEST = "-age_seconds"
    SHORTEST = "age_seconds"
    TENANT = "tenant"


_RANKS: dict[LeaseOrder, Callable[[Client], float]] = {
    LeaseOrder.LONGEST: lambda client: client.since,
    LeaseOrder.SHORTEST: lambda client: -client.since,
    LeaseOrder.TENANT: lambda _: 0.0,
}


class LeaseView(BaseModel):
    """A caller that holds a connection, or waits for one."""

    state: ClientState = Field(
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
        description="Process ID of the connection's backend, as in `pg_stat_activity`; null while "
        "waiting.",
        examples=[4711],
    )
    task: str | None = Field(
        description="Name of the task: of a request `request` and its ID, as in the log.",
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
    state: Annotated[ClientState | None, Query(description="Filter by state.")] = None,
    tenant: TenantQuery = None,
    pool: PoolQuery = None,
    server: ServerQuery = None,
    sort: Annotated[LeaseOrder, Query(description="Sort key.")] = LeaseOrder.LONGEST,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> LeaseList:
    """Lists who holds a connection now, and who waits for one; the oldest first.

    From memory, as of now: two pages may differ by what happened meanwhile. Works while the catalog
    is unreachable. A key that is bound to tenants sees only theirs.
    """
    after = _after(cursor, sort) if cursor else None
    wanted = {"state": state, "pool": pool, "server": server, "tenant": tenant}

    def matches(client: Client) -> bool:
        name = client.tenant.tenant.spec.id
        found = (client.state, client.pool_id, client.server, name)
        return principal.can_access(name) and all(
            value in (None, each) for value, each in zip(wanted.values(), found, strict=True)
        )

    rank = _RANKS[sort]

    def place(client: Client) -> tuple[float, str, float]:
        return rank(client), client.tenant.tenant.spec.id, client.since

    counts: Counter[ClientState] = Counter()
    first: list[Client] = []
    seen = 0
    slot_waiters = map(manager.slot_waiters, manager.awaited_pools)
    for each in (*map(clients, list(manager.pools())), *map(slot_clients, slot_waiters)):
        matching = list(filter(matches, each))
        counts.update(client.state for client in matching)
        later = (client for client in matching if after is None or place(client) > after)
        first = heapq.nsmallest(limit + 1, [*first, *later], key=place)
        seen += len(matching)
        if seen >= _SLICE:
            seen = 0
            await asyncio.sleep(0)
    page, next_cursor = paginate(first, limit, lambda client: (sort.value, *place(client)))
    now, as_of = monotonic(), datetime.now(UTC)
    tenants = {each.tenant for each in page if each.state is ClientState.WAITING}
    waits = {each: manager.wait_of(each) for each in tenants}
    return LeaseList(
        as_of=as_of,
        active=counts[ClientState.ACTIVE],
        waiting=counts[ClientState.WAITING],
        items=[_view(client, now, as_of, waits) for client in page],
        next_cursor=next_cursor,
    )


def _view(
    client: Client, now: float, as_of: datetime, waits: Mapping[TenantState, Wait]
) -> LeaseView:
    wait = waits.get(client.tenant) if client.state is ClientState.WAITING else None
    borrower, age = client.borrower, max(0.0, now - client.since)
    return LeaseView(
        state=client.state,
        tenant=client.tenant.tenant.spec.id,
        pool_id=client.pool_id,
        server=client.server,
        since=as_of - timedelta(seconds=age),
        age_seconds=age,
        position=client.position,
        waits_for=WaitView.of(wait),
        pid=client.pid,
        task=borrower.task if borrower else None,
        taken_at=borrower.taken_at if borrower else None,
        statement=redacted(borrower.statement) if borrower and borrower.statement else None,
    )


def _after(cursor: str, order: LeaseOrder) -> tuple[float, str, float]:
    """The place of the last caller of the previous page."""
    of_order, rank, tenant, since = decode_cursor(cursor, str, float, str, float)
    if of_order != order:
        raise invalid_cursor()
    return rank, tenant, since
