"""Runs the statements of a request in one transaction of a tenant."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from fastapi import Request

from app.api.http.disconnect import CancelOnDisconnect
from app.domain.isolation_level import IsolationLevel
from app.domain.tenant import TenantId
from app.pools.manager import TenantPoolManager
from app.pools.query.runner import Query
from app.pools.query.statement import Result, Statement


async def run_statements(
    request: Request,
    manager: TenantPoolManager,
    tenant: TenantId,
    statements: Sequence[Statement[Result]],
    *,
    timeout: float,
    read_only: bool,
    isolation_level: IsolationLevel | None = None,
    deferrable: bool = False,
) -> tuple[list[Result], float]:
    """Run *statements* within *timeout* seconds; return their results, and the seconds used.

    If the client disconnects, they are cancelled, unless the commit has begun.

    Raises:
        PoolkeeperError: from the lease or the query.
        ClientDisconnected
    """
    query = Query(statements, timeout=timeout)
    lease = manager.lease(
        tenant,
        read_only=read_only,
        isolation_level=isolation_level,
        deferrable=deferrable,
        statement_timeout=timeout,
        work=query,
        statement=statements[0].sql,
    )
    async with CancelOnDisconnect(request) as client, lease as connection:
        began = monotonic()
        results = await query.run(connection)
        took = monotonic() - began
        client.run_to_the_end()
    return results, took
