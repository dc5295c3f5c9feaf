"""What is wanted of each pool: recorded with its event, then carried out as `plan` says.

The part of the Keeper that knows sizes and pauses. A pause or a forced eviction must work
while the catalog is away: such a wish is kept here and stored when the catalog is back.
"""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime

from app.catalog.catalog import Catalog
from app.control.audit import audit_events
from app.control.locks import KeyedLocks
from app.domain.audit import Actor, AuditEvent
from app.domain.desired_state import DesiredPool
from app.domain.errors import BudgetExceeded, ServerUnavailable
from app.domain.plan import ActualPool, Open, Pause, Resize, Resume, Step, pool_steps
from app.domain.pool import PoolSize, PoolState
from app.domain.tenant import TenantSpec
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState

_OPEN_DEADLINE = 5.0


class DesiredPoolState:
    """Desired pools: in the catalog, in memory, and made true."""

    def __init__(self, catalog: Catalog, manager: TenantPoolManager, locks: KeyedLocks) -> None:
        """Record in *catalog*, apply through *manager*, one change of a pool at a time."""
        self._catalog = catalog
        self._manager = manager
        self._locks = locks
        self._unsaved: dict[str, DesiredPool] = {}
        self._untold: list[AuditEvent] = []

    async def set_desired(
        self,
        account: TenantState,
        actor: Actor,
        *,
        size: PoolSize | None = None,
        paused: bool | None = None,
        expected_generation: int | None = None,
        reason: str | None = None,
    ) -> tuple[DesiredPool, bool]:
        """Record what is wanted of *account*'s pool; whether something is for the first time.

        Raises:
            BudgetExceeded, StaleVersion, CatalogUnavailable
            ServerUnavailable: more is to be kept on a server whose budget is not known yet.
        """
        spec = account.tenant.spec
        before = self._manager.desired.get(spec.pool_id)
        if size is None:
            size = self._manager.desired_size(spec.pool_id, spec.strategy)
        if paused is None:
            paused = before.paused if before else False
        keeps_more = self.keeps_more(spec, size)
        # Two pools of one server must not both take what is left of its budget.
        budget = self._locks.hold(f"server {spec.server}") if keeps_more else nullcontext()
        async with budget:
            if keeps_more:
                self.check_budget(spec, size)
            event = audit_events.desired_pool_changed(
                before, size, actor, spec.pool_id, paused=paused, spec=spec, reason=reason
            )
            # Against what the catalog has, a wish after an unsaved one may seem no change.
            after_unsaved = spec.pool_id in self._unsaved
            desired, created = await self._catalog.pools.save(
                spec.pool_id,
                size,
                paused=paused,
                event=None if after_unsaved else event,
                expected_generation=expected_generation,
            )
            self._manager.set_desired(desired)
        if after_unsaved:
            del self._unsaved[spec.pool_id]
            self._tell_later(before, event)
        elif before is None or before.generation != desired.generation:
            audit_events.log(event)
        return desired, created

    def wish(
        self,
        account: TenantState,
        actor: Actor,
        *,
        size: PoolSize | None = None,
        paused: bool | None = None,
    ) -> tuple[DesiredPool, AuditEvent]:
        """What wanting this would come to, and the event that would tell it; nothing is kept."""
        spec = account.tenant.spec
        before = self._manager.desired.get(spec.pool_id)
        desired = DesiredPool(
            pool_id=spec.pool_id,
            size=size or self._manager.desired_size(spec.pool_id, spec.strategy),
            paused=(before.paused if before else False) if paused is None else paused,
            generation=before.generation if before else 0,
            updated_at=datetime.now(UTC),
        )
        event = audit_events.desired_pool_changed(
            before, desired.size, actor, spec.pool_id, paused=desired.paused, spec=spec
        )
        return desired, event

    def set_unsaved(
        self,
        account: TenantState,
        actor: Actor,
        *,
        size: PoolSize | None = None,
        paused: bool | None = None,
    ) -> DesiredPool:
        """Want something while the catalog is away, and store it later."""
        spec = account.tenant.spec
        before = self._manager.desired.get(spec.pool_id)
        desired, event = self.wish(account, actor, size=size, paused=paused)
        self._tell_later(before, event)
        self._unsaved[spec.pool_id] = desired
        self._manager.set_desired(desired)
        return desired

    def forget(self, pool_id: str) -> None:
        """Want nothing of the pool any more, stored or not: its tenant is gone."""
        self._unsaved.pop(pool_id, None)
        self._manager.clear_desired(pool_id)

    def take_unrecorded(self) -> list[AuditEvent]:
        """What tells of changes kept while the catalog was away, since this was asked last."""
        untold, self._untold = self._untold, []
        return untold

    def _tell_later(self, before: DesiredPool | None, event: AuditEvent) -> None:
        if before is None or event.before != event.after:
            self._untold.append(event)

    async def execute(
        self, account: TenantState, steps: list[Step], *, open_deadline: float = _OPEN_DEADLINE
    ) -> None:
        """Do what `plan_for` said; room for the pool is awaited *open_deadline* seconds.

        Raises:
            PoolLimitReached: there was no room to open the pool.
        """
        pool = self._manager.find(account.tenant.spec.pool_id)
        for step in steps:
            match step:
                case Open():
                    await self._manager.open_pool(account, open_deadline)
                case Resize(after=size) if pool is not None:
                    self._manager.resize(pool, size)
                case Pause() if pool is not None:
                    pool.pause()
                case Resume() if pool is not None:
                    pool.resume()

    def keeps_more(self, spec: TenantSpec, size: PoolSize) -> bool:
        """Whether this size keeps more connections open than what was wanted so far."""
        before = self._manager.desired.get(spec.pool_id)
        return size.min_size > (before.size.min_size if before else 0)

    def check_budget(self, spec: TenantSpec, size: PoolSize) -> None:
        """Refuse a min_size that does not fit beside those of the server's other pools.

        Raises:
            BudgetExceeded
            ServerUnavailable: the server's budget is not known yet.
        """
        server = self._manager.server(spec.server)
        if server.limits is None:  # never reached yet: its budget is not known
            raise ServerUnavailable(server.unavailable_detail)
        kept = sum(
            desired.size.min_size
            for pool_id, desired in self._manager.desired.items()
            if pool_id != spec.pool_id and self._manager.server_name_of(pool_id) == spec.server
        )
        if kept + size.min_size > server.budget.limit:
            raise BudgetExceeded(
                f"min_size {size.min_size} does not fit: other pools keep {kept} of the server's "
                f"{server.budget.limit} connections already."
            )

    def plan(
        self, account: TenantState, desired: DesiredPool | None, *, open_now: bool = False
    ) -> list[Step]:
        """The steps from what the tenant's pool is to what is wanted of it."""
        pool = self._manager.find(account.tenant.spec.pool_id)
        actual = None
        if pool is not None:
            if pool.is_closing:
                return []
            actual = ActualPool(size=pool.size, paused=pool.state is PoolState.PAUSED)
        return pool_steps(desired, actual, open_now=open_now)

    async def converge(self, account: TenantState, desired: DesiredPool) -> list[Step]:
        """Carry out at once what is still to be done for a pool; the steps that were.

        Waits neither for room nor for a change of the pool that is under way.

        Raises:
            PoolLimitReached: there is no room to open the pool now.
        """
        if self._locks.is_held(desired.pool_id):
            return []
        async with self._locks.hold(desired.pool_id):
            steps = self.plan(account, desired)
            await self.execute(account, steps, open_deadline=0.0)
            return steps

    async def save_unsaved(self) -> int:
        """Store what was changed while the catalog was away; how much that was.

        Raises:
            CatalogUnavailable: it still is.
        """
        saved = 0
        for pool_id in list(self._unsaved):
            if self._locks.is_held(pool_id):  # a change under way; the next turn saves it
                continue
            async with self._locks.hold(pool_id):
                if pool_id not in self._unsaved:  # stored or forgotten meanwhile
                    continue
                desired = self._unsaved[pool_id]
                stored, _ = await self._catalog.pools.save(
                    pool_id, desired.size, paused=desired.paused
                )
                self._manager.set_desired(stored)
                del self._unsaved[pool_id]
                saved += 1
        return saved
