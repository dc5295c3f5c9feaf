"""Which back-ends of tenants' roles a server has, and which of them are ours."""

import asyncio
from collections.abc import Collection, Mapping
from datetime import datetime

from app.domain.errors import PoolkeeperError
from app.domain.tenant import OBJECT_PREFIX
from app.pools.manager import TenantPoolManager
from app.pools.raw_text import as_bytea, starts_with, unquote
from app.pools.servers.server import Server

_DEADLINE = 2.0
# Without `track_activities` the state is `disabled`, whatever it runs.
_BUSY = "('active', 'fastpath function call')"
# Everyone can see these columns, but the state and the type only who may end such a back-end, as a
# rule. There are as many rows as connections, far fewer than tenants. Workers of a parallel query
# belong to its connection.
_LOOK = f"""
select pid, {as_bytea("usename")} as role, {as_bytea("datname")} as database,
    case when state in {_BUSY} then backend_start end as busy
from pg_stat_activity
where {starts_with("usename", OBJECT_PREFIX)} and datname is not null
    and backend_type is distinct from 'parallel worker'
"""  # noqa: S608 - constants
# Another back-end may have the process id by now. A refusal would end the statement before it comes
# to the others, and would be in the server's log each second.
_END = f"""
select pid, pg_terminate_backend(pid) from pg_stat_get_activity(null)
where (pid, backend_start) in (select * from unnest($1::int[], $2::timestamptz[]))
    and state in {_BUSY}
    and (pg_has_role(usesysid, 'usage') or pg_has_role('pg_signal_backend', 'usage'))
"""  # noqa: S608 - constants


async def role_backends(
    manager: TenantPoolManager, server: Server
) -> Mapping[int, datetime | None] | None:
    """All back-ends with the role and database of one of the *server*'s tenants.

    By process id: when each began, or None if it runs no statement. A role belongs to the whole
    server: another installation may use it in another database. None if the server does not answer.
    """
    if not server.is_available:
        return None
    try:
        async with asyncio.timeout(_DEADLINE), server.admin() as connection:
            rows = await connection.fetch(_LOOK)
    except (PoolkeeperError, TimeoutError):
        return None
    return {
        row["pid"]: row["busy"]
        for row in rows
        if _is_tenants(manager, server, unquote(row["role"]), unquote(row["database"]))
    }


def _is_tenants(manager: TenantPoolManager, server: Server, role: bytes, database: bytes) -> bool:
    state = manager.tenants.get(role.decode(errors="replace").removeprefix(OBJECT_PREFIX))
    if state is None:
        return False
    spec = state.tenant.spec
    is_own = spec.server == server.name and not spec.is_shared
    return is_own and manager.isolations[spec.strategy].database(server, spec).encode() == database


def own_backends(manager: TenantPoolManager, server: Server) -> frozenset[int]:
    """Process ids of the pools' back-ends, and of those already counted as lost."""
    pools = (pool for pool in manager.pools() if pool.server is server)
    return server.orphans.pids.union(*(pool.connections.pids for pool in pools))


async def end_busy(server: Server, backends: Mapping[int, datetime]) -> Collection[int]:
    """End those of *backends* that still run a statement, and return their process ids.

    Empty if the server does not answer, or refuses.
    """
    try:
        async with asyncio.timeout(_DEADLINE), server.admin() as connection:
            rows = await connection.fetch(_END, list(backends), list(backends.values()))
    except (PoolkeeperError, TimeoutError):
        return []
    return [row["pid"] for row in rows]
