"""Health checks: tests connections, audits isolation, refreshes limits, ends left sessions.

Each check has its own deadline, so a hanging server does not delay the pools of other servers.
"""

import asyncio
from time import monotonic

import structlog

from app.control.monitoring.isolation_audit import IsolationAudit
from app.control.pools.operations import CheckReport
from app.control.time_slices import in_slices
from app.pools.left_sessions import LeftSessions
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool

_AT_A_TIME = 16

_log = structlog.get_logger(__name__)


class HealthChecks:
    """Runs one round of checks after another."""

    def __init__(self, manager: TenantPoolManager, isolation_audit: IsolationAudit) -> None:
        self._manager = manager
        self._left_sessions = LeftSessions(manager)
        self._isolation_audit = isolation_audit
        self._limiter = asyncio.Semaphore(_AT_A_TIME)
        self._read_only: set[str] = set()

    async def run_once(self) -> CheckReport:
        """Check everything that was not checked for an interval."""
        async with asyncio.TaskGroup() as group:
            due = group.create_task(self._check_due(), name="check: connections")
            group.create_task(self._isolation_audit.run_once(), name="check: isolation")
            group.create_task(self._left_sessions.run_once(), name="check: left sessions")
            for server in self._manager.servers.values():
                group.create_task(server.refresh(), name=f"check: server {server.name}")
        self._log_read_only()
        results = due.result()
        return CheckReport(
            tested=sum(tested for tested, _ in results), failed=sum(failed for _, failed in results)
        )

    def _log_read_only(self) -> None:
        """Log which servers became read-only, and which accept writes again."""
        servers = self._manager.servers.items()
        locked = {name for name, server in servers if server.limits and server.limits.read_only}
        for name in locked - self._read_only:
            _log.warning(
                "server takes no writes", server=name, setting="default_transaction_read_only"
            )
        for name in self._read_only - locked:
            _log.info("server takes writes again", server=name)
        self._read_only = locked

    async def _check_due(self) -> list[tuple[int, int]]:
        due = [
            pool
            async for pool in in_slices(list(self._manager.pools()))
            if pool.config.health_check
            and pool.connections.has_untested(not_since=_not_since(pool))
        ]
        async with asyncio.TaskGroup() as group:
            checks = [
                group.create_task(self._check(pool), name=f"check: pool {pool.pool_id}")
                for pool in due
            ]
        return [check.result() for check in checks]

    async def _check(self, pool: Pool) -> tuple[int, int]:
        async with self._limiter:
            return await pool.connections.check(not_since=_not_since(pool))


def _not_since(pool: Pool) -> float:
    return monotonic() - pool.config.health_check_interval
