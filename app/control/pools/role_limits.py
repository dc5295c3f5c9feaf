"""RoleLimits: how many connections each tenant's own role may have, in step with its pool's size.

What cannot be set now, the isolation audit sets at its next round.
"""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from app.domain.errors import ProvisioningFailed, Unavailable
from app.pools.isolation.repair import Repair, repair
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState

_DEADLINE = 5.0

_log = structlog.get_logger(__name__)


class RoleLimits:
    """Connection limits of roles."""

    def __init__(self, manager: TenantPoolManager) -> None:
        """Limit the roles of *manager*'s tenants."""
        self._manager = manager

    def limit_for(self, account: TenantState) -> int:
        """Most connections the tenant's role should have; -1 for no limit."""
        spec = account.tenant.spec
        size = self._manager.desired_size(spec.pool_id, spec.strategy)
        return self._manager.isolations[spec.strategy].connection_limit(size.max_size)

    async def apply(self, account: TenantState) -> None:
        """Limit the tenant's role as the size wanted of its pool asks."""
        spec = account.tenant.spec
        limit = self.limit_for(account)
        if limit < 0:
            return
        role = self._manager.isolations[spec.strategy].role(spec)
        try:
            async with asyncio.timeout(_DEADLINE):
                server = self._manager.server(spec.server)
                mended = Repair(role=role, connection_limit=partial(self.limit_for, account))
                refused = await repair(server, [mended])
        except (Unavailable, ProvisioningFailed, TimeoutError):
            refused = [role]
        if refused:
            _log.warning("connection limit not set", role=role, limit=limit)
