"""Which back-ends of tenants' roles a server has, and which of them are ours."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from app.domain.errors import PoolkeeperError
from app.pools.manager import TenantPoolManager
from app.pools.server import Server

_DEADLINE = 2.0
# Nobody hides these two columns. A role belongs to the whole server: another installation may use
# it in another database.
_LOOK = """
select pid from pg_stat_activity
where (usename, datname) in (select * from unnest($1::name[], $2::name[]))
"""


async def role_backends(
    server: Server, logins: Collection[tuple[str, str]]
) -> frozenset[int] | None:
    """Process ids of all that logged in with these *logins*, roles with a database each.

    None if the server does not say.
    """
    if not server.is_available:
        return None
    roles = [role for role, _ in logins]
    databases = [database for _, database in logins]
    try:
        async with asyncio.timeout(_DEADLINE), server.admin() as connection:
            rows = await connection.fetch(_LOOK, roles, databases)
    except (PoolkeeperError, TimeoutError):
        return None
    return frozenset(row["pid"] for row in rows)


def own_backends(manager: TenantPoolManager, server: Server) -> frozenset[int]:
    """Process ids of those that the pools have, or that count as lost already."""
    pools = (pool for pool in manager.pools() if pool.server is server)
    return server.orphans.union(*(pool.connections.pids for pool in pools))
