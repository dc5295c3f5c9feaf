"""Lock guard: keeps one tenant's locks from filling the lock table that all sessions share.

It reads the table a few times a second, because filling it takes less than a second, over a
connection that was opened before.
"""

import asyncio
from collections import Counter
from time import monotonic

import structlog

from app.control import audit_events
from app.control.audit_outbox import AuditOutbox
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
from app.pools.servers.server import Server

# Seconds until a server that did not answer is asked again.
_PAUSE = 1.0
_DEADLINE = 2.0

_log = structlog.get_logger(__name__)


class LockGuard:
    """Watches the lock table of one server.

    Attributes:
        utilization: the share of the table in use at the last reading; more than 1 if Postgres had
            memory for more locks than planned.
        ended: number of statements and connections that were ended.
    """

    def __init__(
        self, server: Server, manager: TenantPoolManager, outbox: AuditOutbox, *, limit: float
    ) -> None:
        """Act when more than *limit*, a share of 0 to 1, of *server*'s table is in use.

        It ends only back-ends of *manager*'s tenants.
        """
        self._server = server
        self._manager = manager
        self._outbox = outbox
        self._limit = limit
        self._monitor = LockMonitor(server, self._owner)
        self._sent: dict[BackendKey, SentSignal] = {}
        self._not_before = 0.0
        # Why the last reading failed; None if it succeeded.
        self._complaint: str | None = None
        self.utilization = 0.0
        self.ended: Counter[BackendSignal] = Counter()

    async def run_once(self) -> None:
        """Read the table once, and end what must be ended."""
        if monotonic() < self._not_before:
            return
        try:
            table = await self._monitor.read(self._limit)
            self.utilization = table.utilization
            holding = {holder.backend for holder in table.holders}
            self._sent = {key: sent for key, sent in self._sent.items() if key in holding}
            signals = choose_signals(table, limit=self._limit, sent=self._sent, now=monotonic())
            for holder, signal in signals.items():
                # A back-end that could not be ended is tried again at the next reading.
                if signal is None or await self._send(table, holder, signal):
                    self._sent[holder.backend] = SentSignal(signal=signal, sent_at=monotonic())
        except (Unavailable, ProvisioningFailed) as error:
            self._not_before = monotonic() + _PAUSE
            # The loss of a server is logged elsewhere.
            if self._server.is_available and error.detail != self._complaint:
                _log.warning(
                    "lock table not checked", server=self._server.name, reason=error.detail
                )
            self._complaint = error.detail
        else:
            self._complaint = None

    def close(self) -> None:
        self._monitor.close()

    async def _send(self, table: LockTable, holder: LockHolder, signal: BackendSignal) -> bool:
        """End it; return whether it existed and has been ended."""
        pid = holder.backend[0]
        reason = (
            f"It held {holder.locks} locks, and {table.utilization:.0%} of the lock table of "
            f"server {self._server.name} was used."
        )
        pool_id, tenant = self._pool_of(holder.role)
        pool = self._manager.find(pool_id)
        leased = pool.connections.leased_by_backend(pid) if pool is not None else None
        if leased is not None and leased.tenant_state is not None:
            tenant = str(leased.tenant_state.tenant.spec.id)
            leased.mark_terminated(reason)
        try:
            is_ended = await self._monitor.send(holder.backend, signal)
        except (Unavailable, ProvisioningFailed):
            # Postgres may have no lock left to check our rights.
            if leased is None or leased.termination_reason != reason:
                raise
            is_ended = await _end_as_client(leased, signal)
        if is_ended:
            self.ended[signal] += 1
            self._outbox.enqueue(
                audit_events.lock_holder_ended(
                    signal, pool_id, LOCK_GUARD, tenant=tenant, holder=holder, reason=reason
                )
            )
        return is_ended

    def _pool_of(self, role: str) -> tuple[str, str | None]:
        """The pool and the tenant of a role; several tenants share the shared one."""
        if role == SHARED_ROLE:
            return shared_pool_id(self._server.name), None
        tenant = role.removeprefix(OBJECT_PREFIX)
        return tenant, tenant

    def _owner(self, pid: int, role: str | None) -> tuple[str, str] | None:
        """The role and the owner of a back-end.

        Back-ends of the shared role may belong to any tenant.
        """
        role = role or self._role_of_leased(pid)
        if role is None:
            return None
        if role == SHARED_ROLE:
            is_used = self._manager.tenants.count(shared_pool_id(self._server.name))
            return (role, f"{role}:{pid}") if is_used else None
        state = self._manager.tenants.get(role.removeprefix(OBJECT_PREFIX))
        if state is None or state.tenant.spec.is_shared:
            return None
        return (role, role) if state.tenant.spec.server == self._server.name else None

    def _role_of_leased(self, pid: int) -> str | None:
        """The role of a back-end that one of our pools has leased."""
        for pool in self._manager.pools():
            if pool.server is self._server and pool.connections.leased_by_backend(pid) is not None:
                is_shared = pool.pool_id == shared_pool_id(self._server.name)
                return SHARED_ROLE if is_shared else OBJECT_PREFIX + pool.pool_id
        return None


async def _end_as_client(leased: PooledConnection, signal: BackendSignal) -> bool:
    """End it as a client does, which takes no lock; return whether that was possible."""
    if signal is BackendSignal.TERMINATE_CONNECTION:
        leased.terminate()
        return True
    try:
        async with asyncio.timeout(_DEADLINE):
            await leased.cancel()
    except OSError:  # a TimeoutError is one
        return False
    return True
