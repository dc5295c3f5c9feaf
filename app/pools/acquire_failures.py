"""How callers of a pool fail: refused at once, at their deadline, or all together."""

from collections.abc import Iterable
from time import monotonic
from typing import Protocol

from app.domain.errors import (
    PoolDraining,
    PoolkeeperError,
    PoolPaused,
    PoolSaturated,
    PoolTimeout,
    ServerUnavailable,
    Unavailable,
)
from app.domain.pool import PoolConfig, PoolSize, PoolState
from app.domain.wait import in_seconds
from app.pools.connect_backoff import ConnectBackoff
from app.pools.connections import Connections
from app.pools.recorder import Recorder
from app.pools.scheduling.wait_queue import WaitQueue
from app.pools.scheduling.waiter import Waiter
from app.pools.servers.server import Server
from app.pools.tenant_state import TenantState

# Looked up once: enum members are slow to find.
_PAUSED = PoolState.PAUSED
_NOTABLE_LAG = 0.1


class RefusingPool(Protocol):
    """The facts about a pool that say whether a caller is refused, or why none was served."""

    pool_id: str
    state: PoolState
    size: PoolSize
    most: int
    config: PoolConfig
    server: Server
    backoff: ConnectBackoff
    connections: Connections
    waiters: WaitQueue
    recorder: Recorder

    @property
    def is_closing(self) -> bool:
        """Whether it takes no more leases."""


class AcquireFailures:
    """Failures of a pool's callers; each one is counted for the pool and for the tenant."""

    def __init__(self, pool: RefusingPool) -> None:
        self._pool = pool

    def refuse(self, tenant: TenantState) -> None:
        """Raise if a caller must be refused at once; the errors are those of `Pool.acquire`."""
        pool = self._pool
        if pool.is_closing:
            raise PoolDraining(f"The pool {pool.pool_id} is {pool.state}.")
        if not pool.server.is_available:
            raise ServerUnavailable(pool.server.unavailable_detail)
        refusal: Unavailable | None = None
        if pool.state is _PAUSED and pool.config.refuses_when_paused:
            refusal = self.paused()
        elif pool.waiters.count >= pool.config.max_waiting:
            refusal = PoolSaturated(f"{pool.waiters.count} callers wait for pool {pool.pool_id}.")
        if refusal is not None:
            for recorder in self._recorders(tenant):
                recorder.record_rejected()
            raise refusal

    def paused(self, waited: float | None = None) -> PoolPaused:
        """The error for callers of a paused pool; *waited*: for how many seconds, if at all."""
        name = self._pool.pool_id
        if waited is not None:
            return PoolPaused(
                f"Pool {name} is paused, and was not resumed in {in_seconds(waited)}."
            )
        return PoolPaused(f"Pool {name} is paused; it serves again when it is resumed.")

    def time_out(self, waiter: Waiter) -> None:
        """Fail *waiter*, whose deadline has passed."""
        for recorder in self._recorders(waiter.tenant_state):
            recorder.record_timeout()
        waited = waiter.deadline - waiter.asked_at
        is_paused = self._pool.state is _PAUSED
        self.fail([waiter], self.paused(waited) if is_paused else self._timed_out(waiter))

    def _timed_out(self, waiter: Waiter) -> PoolTimeout:
        pool = self._pool
        lag = pool.server.lag.worst_since(waiter.since)
        waited = in_seconds(waiter.deadline - waiter.asked_at)
        if lag > _NOTABLE_LAG:
            waited += f" (of which the service itself was busy for {lag:.1f} s)"
        if waiter.slot_seconds:
            waited += (
                f", {in_seconds(waiter.slot_seconds)} of which it waited for one of the "
                f"{pool.config.max_pools} pools that {pool.config.max_pools_setting} allows"
            )
        why = self._why(waiter.tenant_state)
        return PoolTimeout(f"No connection of pool {pool.pool_id} became free in {waited}.{why}")

    def _why(self, tenant: TenantState) -> str:
        """Why none did: the first limit that binds, with a space before it; empty if unknown."""
        pool, why = self._pool, ""
        if not tenant.can_lease:
            spec = tenant.tenant.spec
            why = f" Tenant {spec.id} holds as many as its max_leases allows: {spec.max_leases}."
        elif failed := pool.backoff.error:
            why = f" Opening one failed: {failed.detail}"
        elif not pool.connections.live and pool.connections.connecting:
            why = " Its login has not been answered yet."
        elif pool.server.is_degraded:
            why = f" No other can be opened: {pool.server.last_error}"
        elif pool.connections.open < pool.most and (budget := pool.server.budget).is_exhausted:
            name, nodes = pool.server.name, pool.server.on_nodes
            why = f" All {budget.limit} connections of server {name} are in use."
            if nodes:
                why = f" Pools have {budget.used} connections of server {name}, nodes {nodes}."
        elif pool.most < (size := pool.size.max_size):
            most = pool.most or "none"
            why = f" It may have {most} of its {size} connections; nodes may have the others."
        elif len(pool.connections.leased) >= size:
            why = f" As many are on lease as its max_size allows: {size}."
        return why

    def fail(self, waiters: Iterable[Waiter], error: PoolkeeperError) -> None:
        """Fail those of *waiters* that still wait, each with its own *error*."""
        now = monotonic()
        for waiter in waiters:
            if not waiter.future.done():
                self.record_abandoned(waiter, now)
                self._pool.waiters.remove(waiter)
                waiter.fail(type(error)(error.detail))

    def fail_all(self, error: Unavailable) -> None:
        """Fail every waiter."""
        self.fail(self._pool.waiters.clear(), error)

    def record_abandoned(self, waiter: Waiter, now: float) -> None:
        """Count *waiter* as gone without a connection."""
        slot_seconds = waiter.slot_seconds
        for recorder in self._recorders(waiter.tenant_state):
            recorder.record_abandoned(now - waiter.since + slot_seconds, now)
        if slot_seconds:
            waiter.tenant_state.recorder.record_slot_wait(slot_seconds)

    def _recorders(self, tenant: TenantState) -> tuple[Recorder, ...]:
        own = self._pool.recorder
        return (own,) if tenant.recorder is own else (own, tenant.recorder)
