"""Verifier renewal: gives roles that an earlier version provisioned a cheaper verifier.

The password stays the same, so sessions, leases and logins continue. Logins show which roles need
it; see `Connectors.stretched` and `app/pools/isolation/role_passwords.py`.
"""

from collections import defaultdict
from contextlib import AsyncExitStack

import structlog

from app.control import audit_events
from app.control.audit_outbox import AuditOutbox
from app.control.keyed_locks import KeyedLocks
from app.control.server_queues import work_off
from app.control.tenants.provisioning import lock_of_role
from app.domain.audit import RECONCILER
from app.domain.errors import ProvisioningFailed, Unavailable
from app.pools.isolation.repair import Repair, repair
from app.pools.isolation.role_passwords import OWN_ITERATIONS, RolePasswords
from app.pools.manager import TenantPoolManager
from app.pools.servers.server import Server

# In one batch: half a second of a server's admin connection, for which others wait.
_BATCH = 50

_log = structlog.get_logger(__name__)


class VerifierRenewal:
    """Renews verifiers that have more iterations than their passwords need."""

    def __init__(
        self,
        manager: TenantPoolManager,
        role_passwords: RolePasswords,
        locks: KeyedLocks,
        outbox: AuditOutbox,
    ) -> None:
        self._manager = manager
        self._role_passwords = role_passwords
        self._locks = locks
        self._outbox = outbox

    async def renew(self) -> int:
        """Renew a batch; return how many.

        A renewal that Postgres refuses is tried again once a login shows that it is still needed.
        """
        due = {server.name: [(server, pools)] for server, pools in self._due().items()}
        return await work_off(due, self._try_to_renew)

    async def _try_to_renew(self, due: tuple[Server, dict[str, str]]) -> int:
        server, pools = due
        try:
            return await self._renew(server, pools)
        except (Unavailable, ProvisioningFailed) as error:
            _log.warning("verifiers not renewed", server=server.name, reason=str(error))
            return 0

    def _due(self) -> dict[Server, dict[str, str]]:
        """The next roles whose password nobody is changing, with their pools, by server."""
        due: dict[Server, dict[str, str]] = defaultdict(dict)
        count = 0
        for pool_id in list(self._manager.connectors.stretched):
            state = self._manager.tenants.of_pool(pool_id)
            if state is None or not state.tenant.is_usable:
                self._manager.connectors.stretched.discard(pool_id)
                continue
            spec = state.tenant.spec
            server = self._manager.server(spec.server)
            role = self._manager.isolations[spec.strategy].role(spec)
            if server.is_available and not self._locks.is_held(lock_of_role(server.name, role)):
                due[server][role] = pool_id
                count += 1
            if count == _BATCH:
                break
        return due

    async def _renew(self, server: Server, pools: dict[str, str]) -> int:
        async with AsyncExitStack() as held:
            locks = {
                role: self._locks.hold_if_free(lock_of_role(server.name, role)) for role in pools
            }
            free = {
                role: pools[role]
                for role, lock in locks.items()
                if await held.enter_async_context(lock)
            }
            repairs = [
                Repair(role=role, verifier=self._role_passwords.verifier(server.name, role))
                for role in free
            ]
            refused = {each.role for each in await repair(server, repairs)}
        self._manager.connectors.stretched.difference_update(free.values())
        for role, pool_id in free.items():
            if role in refused:
                _log.warning("verifier not renewed", role=role)
            else:
                event = audit_events.verifier_renewed(role, pool_id, OWN_ITERATIONS, RECONCILER)
                self._outbox.enqueue(event)
        return len(free) - len(refused)
