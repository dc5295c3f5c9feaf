"""Sessions of deleted tenants: a node that cannot be reached would keep them, so they end here.

A deletion takes the login away from the tenant's role, so that nothing opens another one, and sets
its connection limit to 0: a role of another installation, too, may have lost its login otherwise.
"""

import asyncio
from time import monotonic
from typing import Any

import asyncpg
import structlog

from app.domain.errors import PoolkeeperError
from app.domain.tenant import OBJECT_PREFIX
from app.pools.isolation.objects import TENANT_MARK
from app.pools.manager import TenantPoolManager
from app.pools.raw_text import as_bytea, starts_with, unquote
from app.pools.servers.server import Server

# In seconds. A node that can be reached lets transactions end for ten.
_GRACE = 15.0
_DEADLINE = 5.0
_LOOK = f"""
select pid, backend_start, {as_bytea("usename")} as role, {as_bytea("description")} as mark
from pg_stat_activity
join pg_roles on pg_roles.oid = usesysid and not rolcanlogin and rolconnlimit = 0
join pg_shdescription on objoid = usesysid and classoid = 'pg_authid'::regclass
where {starts_with("usename", OBJECT_PREFIX)} and {starts_with("description", TENANT_MARK)}
"""  # noqa: S608 - constants
# Another back-end may have the process id by now.
_END = "select pg_terminate_backend(pid) from pg_stat_get_activity($1) where backend_start = $2"

_log = structlog.get_logger(__name__)


class LeftSessions:
    """Ends sessions that deleted tenants still have on the servers."""

    def __init__(self, manager: TenantPoolManager) -> None:
        self._manager = manager
        # Since when each session is left, by server and row, in monotonic seconds.
        self._seen: dict[str, dict[tuple[Any, ...], float]] = {}

    async def run_once(self) -> None:
        """End those that were left for a while; the next round tries again what failed."""
        servers = [each for each in self._manager.servers.values() if each.is_available]
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(self._end_on(server), name=f"left sessions on {server.name}")

    async def _end_on(self, server: Server) -> None:
        try:
            async with asyncio.timeout(_DEADLINE), server.admin() as connection:
                rows = await connection.fetch(_LOOK)
                now, before = monotonic(), self._seen.get(server.name, {})
                left = {row: before.get(row, now) for row in map(tuple, rows)}
                self._seen[server.name] = left
                for (pid, began, *quoted), since in left.items():
                    role, mark = (unquote(each).decode(errors="replace") for each in quoted)
                    if now - since < _GRACE or not self._is_deleted(role, mark):
                        continue
                    if await connection.fetchval(_END, pid, began):
                        _log.warning("session of a deleted tenant ended", role=role, pid=pid)
        except (PoolkeeperError, asyncpg.PostgresError, TimeoutError) as error:
            reason = str(error) or "timeout"
            _log.warning("sessions of deleted tenants not ended", server=server.name, reason=reason)

    def _is_deleted(self, role: str, mark: str) -> bool:
        """Whether it is not the role of a tenant that is there, perhaps in a restored catalog.

        A later tenant of the same id has another mark.
        """
        state = self._manager.tenants.get(role.removeprefix(OBJECT_PREFIX))
        if state is None or state.tenant.deleting:
            return True
        return not mark.startswith(f"{TENANT_MARK}{state.tenant.uid}")
