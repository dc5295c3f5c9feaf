"""Role limits: keeps the connection limit of each tenant's role in step with its pool's size.

If a limit cannot be set now, the isolation audit sets it in its next round.
"""

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
    """The connection limits of tenants' roles."""

    def __init__(self, manager: TenantPoolManager) -> None:
        self._manager = manager

    def limit_for(self, state: TenantState) -> int:
        """The most connections that the tenant's role should have; -1 for no limit."""
        spec = state.tenant.spec
        most = self._manager.desired.most_connections(spec)
        return self._manager.isolations[spec.strategy].connection_limit(most)

    async def apply(self, state: TenantState) -> None:
        """Set the limit that the desired size of its pool requires."""
        spec = state.tenant.spec
        limit = self.limit_for(state)
        if limit < 0:
            return
        role = self._manager.isolations[spec.strategy].role(spec)
        try:
            async with asyncio.timeout(_DEADLINE):
                server = self._manager.server(spec.server)
                wanted = Repair(role=role, connection_limit=partial(self.limit_for, state))
                is_set = not await repair(server, [wanted])
        except (Unavailable, ProvisioningFailed, TimeoutError):
            is_set = False
        if not is_set:
            _log.warning("connection limit not set", role=role, limit=limit)
