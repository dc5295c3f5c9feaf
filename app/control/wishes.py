"""What is wanted of each pool: recorded with its event, then carried out as `plan` says.

The part of the Keeper that knows sizes and pauses. A pause or a forced eviction must work
while the catalog is away: such a wish is kept here and stored when the catalog is back.
"""

from __future__ import annotations

from datetime import UTC, datetime

from app.catalog.catalog import Catalog
from app.control import told
from app.control.locks import KeyedLocks
from app.domain.desired import DesiredPool
from app.domain.errors import BudgetExceeded, ServerUnavailable
from app.domain.event import Actor
from app.domain.plan import ActualPool, Open, Pause, Resize, Resume, Step, plan
from app.domain.pool import PoolSize, PoolState
from app.domain.tenant import TenantSpec
from app.pools.account import TenantAccount
from app.pools.manager import TenantPoolManager

_OPEN_DEADLINE = 5.0


class PoolWishes:
    """Desired pools: in the catalog, in memory, and made true."""

    def __init__(self, catalog: Catalog, manager: TenantPoolManager, locks: KeyedLocks) -> None:
        """Record in *catalog*, apply through *manager*, one change of a pool at a time."""
        self._catalog = catalog
        self._manager = manager
        self._locks = locks
        self._unsaved: dict[str, tuple[DesiredPool, Actor]] = {}

    async def want(
        self,
        account: TenantAccount,
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
        if size.min_size > (before.size.min_size if before else 0):
            self._refuse_over_budget(spec, size)
        desired, created = await self._catalog.pools.save(
            spec.pool_id,
            size,
            paused=paused,
            event=told.pool_wanted(
                before, size, actor, spec.pool_id, paused=paused, spec=spec, reason=reason
            ),
            expected_generation=expected_generation,
        )
        self._unsaved.pop(spec.pool_id, None)
        self._manager.want(desired)
        return desired, created

    def keep_unsaved(
        self,
        account: TenantAccount,
        actor: Actor,
        *,
        size: PoolSize | None = None,
        paused: bool | None = None,
    ) -> DesiredPool:
        """Want something while the catalog is away, and store it later."""
        spec = account.tenant.spec
        before = self._manager.desired.get(spec.pool_id)
        desired = DesiredPool(
            pool_id=spec.pool_id,
            size=size or self._manager.desired_size(spec.pool_id, spec.strategy),
            paused=(before.paused if before else False) if paused is None else paused,
            generation=before.generation if before else 0,
            updated_at=datetime.now(UTC),
        )
        self._unsaved[spec.pool_id] = (desired, actor)
        self._manager.want(desired)
        return desired

    async def carry_out(self, account: TenantAccount, steps: list[Step]) -> None:
        """Do what `plan_for` said.

        Raises:
            PoolLimitReached: there was no room to open the pool.
        """
        pool = self._manager.find(account.tenant.spec.pool_id)
        for step in steps:
            match step:
                case Open():
                    await self._manager.open_pool(account, _OPEN_DEADLINE)
                case Resize(after=size) if pool is not None:
                    self._manager.resize(pool, size)
                case Pause() if pool is not None:
                    pool.pause()
                case Resume() if pool is not None:
                    pool.resume()

    def _refuse_over_budget(self, spec: TenantSpec, size: PoolSize) -> None:
        server = self._manager.server(spec.server)
        if server.limits is None:  # never reached yet: its budget is not known
            raise ServerUnavailable(server.unavailable_detail)
        kept = sum(
            desired.size.min_size
            for pool_id, desired in self._manager.desired.items()
            if pool_id != spec.pool_id and self._manager.server_of(pool_id) == spec.server
        )
        if kept + size.min_size > server.budget.limit:
            raise BudgetExceeded(
                f"min_size {size.min_size} does not fit: other pools keep {kept} of the server's "
                f"{server.budget.limit} connections already."
            )

    def plan_for(
        self, account: TenantAccount, desired: DesiredPool | None, *, open_now: bool = False
    ) -> list[Step]:
        """The steps from what the tenant's pool is to what is wanted of it."""
        pool = self._manager.find(account.tenant.spec.pool_id)
        actual = None
        if pool is not None:
            if pool.is_closing:
                return []
            actual = ActualPool(size=pool.size, paused=pool.state is PoolState.PAUSED)
        return plan(desired, actual, open_now=open_now)

    async def converge(self, account: TenantAccount, desired: DesiredPool) -> list[Step]:
        """Carry out what is still to be done for a pool; the steps that were."""
        async with self._locks.of(desired.pool_id):
            steps = self.plan_for(account, desired)
            await self.carry_out(account, steps)
            return steps

    async def save_unsaved(self) -> int:
        """Store what was changed while the catalog was away; how much that was.

        Raises:
            CatalogUnavailable: it still is.
        """
        saved = 0
        for pool_id in list(self._unsaved):
            async with self._locks.of(pool_id):
                if pool_id not in self._unsaved:  # a later wish was stored while we waited
                    continue
                desired, actor = self._unsaved[pool_id]
                event = told.pool_wanted(None, desired.size, actor, pool_id, paused=desired.paused)
                stored, _ = await self._catalog.pools.save(
                    pool_id, desired.size, paused=desired.paused, event=event
                )
                self._manager.want(stored)
                del self._unsaved[pool_id]
                saved += 1
        return saved
