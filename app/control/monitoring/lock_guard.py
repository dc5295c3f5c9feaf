"""LockGuard: keeps one tenant's locks from filling the lock table that all sessions share.

It looks a few times a second, for the table fills in less than one, through a connection that
is open beforehand.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic

import structlog

from app.control.audit import audit_events
from app.control.audit.outbox import AuditOutbox
from app.domain.audit import LOCK_GUARD
from app.domain.errors import ProvisioningFailed, Unavailable
from app.domain.lock_table import (
    BackendKey,
    BackendSignal,
    LockHolder,
    LockTable,
    SentSignal,
    choose_signals,
)
from app.domain.tenant import OBJECT_PREFIX, shared_pool_id
from app.pools.connection import PooledConnection
from app.pools.isolation.shared import SHARED_ROLE
from app.pools.lock_monitor import LockMonitor
from app.pools.manager import TenantPoolManager
from app.pools.server import Server

# Seconds until a server that could not be asked is tried again.
_PAUSE = 1.0
_DEADLINE = 2.0

_log = structlog.get_logger(__name__)


class LockGuard:
    """Watches the lock table of one server.

    Attributes:
        share: how much of the table was used at the last look; more than 1 if Postgres had
            room for more than it plans for.
        ended: how many statements and connections were ended.
    """

    def __init__(
        self, server: Server, manager: TenantPoolManager, journal: AuditOutbox, *, limit: float
    ) -> None:
        """Relieve *server* when more than *limit* of its table is used, a share of 0 to 1.

        Only back-ends of *manager*'s tenants are ended; each ending is told in *journal*.
        """
        self._server = server
        self._manager = manager
        self._journal = journal
        self._limit = limit
        self._watch = LockMonitor(server, self._owner)
        self._known: dict[BackendKey, SentSignal] = {}
        self._not_before = 0.0
        self.utilization = 0.0
        self.ended: Counter[BackendSignal] = Counter()

    async def run_once(self) -> None:
        """Look once, and end what has to be ended."""
        if monotonic() < self._not_before:
            return
        try:
            table = await self._watch.read(self._limit)
            self.utilization = table.utilization
            holding = {holder.backend for holder in table.holders}
            self._known = {key: ended for key, ended in self._known.items() if key in holding}
            endings = choose_signals(table, limit=self._limit, sent=self._known, now=monotonic())
            for holder, ending in endings.items():
                # What could not be ended is tried again at the next look.
                if ending is None or await self._end(table, holder, ending):
                    self._known[holder.backend] = SentSignal(signal=ending, sent_at=monotonic())
        except (Unavailable, ProvisioningFailed) as error:
            self._not_before = monotonic() + _PAUSE
            # The loss of a server is told elsewhere.
            if self._server.is_available:
                _log.warning(
                    "lock table not checked", server=self._server.name, reason=error.detail
                )

    def close(self) -> None:
        """Let the connection go."""
        self._watch.close()

    async def _end(self, table: LockTable, holder: LockHolder, ending: BackendSignal) -> bool:
        """Whether there was something to end, and it is ended."""
        pid = holder.backend[0]
        reason = (
            f"It held {holder.locks} locks, and {table.utilization:.0%} of the lock table of "
            f"server {self._server.name} was used."
        )
        pool_id, tenant = self._pool_of(holder.role)
        pool = self._manager.find(pool_id)
        lent = pool.active_connection(pid) if pool is not None else None
        if lent is not None and lent.tenant_state is not None:
            tenant = str(lent.tenant_state.tenant.spec.id)
            lent.mark_terminated(reason)
        try:
            is_ended = await self._watch.send(holder.backend, ending)
        except (Unavailable, ProvisioningFailed):
            # Postgres may have no room left to look up whether we may.
            if lent is None or lent.termination_reason != reason:
                raise
            is_ended = await _end_from_here(lent, ending)
        if is_ended:
            self.ended[ending] += 1
            self._journal.enqueue(
                audit_events.lock_holder_ended(
                    ending, pool_id, LOCK_GUARD, tenant=tenant, holder=holder, reason=reason
                )
            )
        return is_ended

    def _pool_of(self, role: str) -> tuple[str, str | None]:
        """The pool and the tenant of a role; several tenants have the shared one."""
        if role == SHARED_ROLE:
            return shared_pool_id(self._server.name), None
        tenant = role.removeprefix(OBJECT_PREFIX)
        return tenant, tenant

    def _owner(self, pid: int, role: str | None) -> tuple[str, str] | None:
        """The role and the owner of a back-end; each of the shared role may be another tenant's."""
        role = role or self._role_of_lent(pid)
        if role is None:
            return None
        if role == SHARED_ROLE:
            is_used = self._manager.tenant_count(shared_pool_id(self._server.name))
            return (role, f"{role}:{pid}") if is_used else None
        account = self._manager.tenant_states.get(role.removeprefix(OBJECT_PREFIX))
        if account is None or account.tenant.spec.is_shared:
            return None
        return (role, role) if account.tenant.spec.server == self._server.name else None

    def _role_of_lent(self, pid: int) -> str | None:
        """The role of a back-end that one of our pools has lent."""
        for pool in self._manager.pools():
            if pool.server is self._server and pool.active_connection(pid) is not None:
                is_shared = pool.pool_id == shared_pool_id(self._server.name)
                return SHARED_ROLE if is_shared else OBJECT_PREFIX + pool.pool_id
        return None


async def _end_from_here(lent: PooledConnection, ending: BackendSignal) -> bool:
    """End it by what a client may always do, which takes no lock; whether that was possible."""
    if ending is BackendSignal.CONNECTION:
        lent.terminate()
        return True
    try:
        async with asyncio.timeout(_DEADLINE):
            await lent.cancel()
    except OSError:  # a TimeoutError is one
        return False
    return True
