"""Checker: tests idle connections, and asks each server for its limits, at their interval.

Each test has its own deadline, so a server that hangs delays nobody else's pools.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic

from app.pools.manager import TenantPoolManager
from app.pools.pool import TenantPool

_AT_A_TIME = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """How many idle connections were tested and how many of them failed."""

    tested: int
    failed: int


class Checker:
    """One round of checks after the other."""

    def __init__(self, manager: TenantPoolManager) -> None:
        """Check *manager*'s pools and servers."""
        self._manager = manager
        self._gate = asyncio.Semaphore(_AT_A_TIME)

    async def run_once(self) -> HealthReport:
        """Test what was not tested for a check interval."""
        due = [pool for pool in self._manager.pools() if pool.config.health_check]
        refreshes = [server.refresh() for server in self._manager.servers.values()]
        results, _ = await asyncio.gather(
            asyncio.gather(*(self._check(pool) for pool in due)), asyncio.gather(*refreshes)
        )
        return HealthReport(
            tested=sum(tested for tested, _ in results), failed=sum(failed for _, failed in results)
        )

    async def _check(self, pool: TenantPool) -> tuple[int, int]:
        async with self._gate:
            return await pool.check(not_since=monotonic() - pool.config.health_check_interval)
