"""Keeper: the one door for every change of desired state, a person's or the advisor's.

Record, then apply: a change and its audit event are stored in one transaction, then carried
out as `plan` says. What a crash or an outage interrupts, the Reconciler finishes. Changes of
one tenant, or of one pool, go one at a time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from time import monotonic

from app.catalog.catalog import Catalog
from app.control.audit import audit_events
from app.control.locks import KeyedLocks
from app.control.pools.desired_state import DesiredPoolState
from app.control.pools.role_limits import RoleLimits
from app.domain.audit import Actor
from app.domain.desired_state import DesiredPool, Tenant
from app.domain.errors import (
    CatalogUnavailable,
    ImmutableField,
    NotProvisioned,
    PoolDraining,
    PoolIsShared,
    ProvisioningFailed,
    ServerNotFound,
    StaleVersion,
    TenantDeleting,
    Unavailable,
)
from app.domain.pool import PoolSize
from app.domain.tenant import TenantSpec
from app.pools.eviction import Eviction, EvictionReason
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState

_WARM_DEADLINE = 5.0
_RETIRE_DEADLINE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolChange:
    """What a PUT says of a pool's size; None leaves a number as it is."""

    min_size: int | None = None
    max_size: int | None = None
    warmup_size: int | None = None

    def apply_to(self, size: PoolSize) -> PoolSize:
        """*size* with this change.

        A smaller max_size alone takes min_size and warmup_size down with it.

        Raises:
            InvalidInput: the numbers do not fit together.
        """
        max_size = size.max_size if self.max_size is None else self.max_size
        min_size = min(size.min_size, max_size) if self.min_size is None else self.min_size
        warmup = min(size.warmup_size, max_size) if self.warmup_size is None else self.warmup_size
        return PoolSize(min_size=min_size, max_size=max_size, warmup_size=warmup)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOutcome:
    """What became of a pool, and for how many tenants."""

    pool: Pool | None
    desired: DesiredPool
    created: bool
    tenants: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What deleting a tenant did; a login not yet disabled is disabled later.

    Only a server that is not declared any more keeps the login for good.
    """

    eviction: Eviction | None
    login_disabled: bool


class Keeper:
    """Stores what operators want and makes it so."""

    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        wishes: DesiredPoolState,
        limits: RoleLimits,
        locks: KeyedLocks,
    ) -> None:
        """Record in *catalog*, apply through *manager*; sizes through *wishes* and *limits*."""
        self._catalog = catalog
        self._manager = manager
        self._wishes = wishes
        self._limits = limits
        self._locks = locks
        # When a person last set each pool's max_size, in monotonic seconds.
        self.resized_by_hand_at: dict[str, float] = {}

    async def load(self) -> None:
        """Learn everything the catalog remembers; at start.

        Raises:
            CatalogUnavailable: it cannot be reached.
        """
        for tenant in await self._catalog.tenants.load():
            self._manager.put_tenant(tenant)
        for desired in await self._catalog.pools.load():
            self._manager.set_desired(desired)

    # -- tenants -----------------------------------------------------------------------------

    async def put_tenant(
        self, spec: TenantSpec, actor: Actor, *, expected_generation: int | None = None
    ) -> tuple[Tenant, bool]:
        """Create or change a tenant; whether it was created.

        Raises:
            ServerNotFound, ImmutableField, StaleVersion, TenantDeleting, CatalogUnavailable
        """
        if spec.server not in self._manager.servers:
            raise ServerNotFound(f"No server {spec.server} is declared.")
        async with self._locks.hold(spec.id):
            account = self._manager.tenant_states.get(spec.id)
            before = account.tenant if account else None
            if before is not None:
                refuse_immutable_change(before, spec)
            event = audit_events.tenant_saved(before, spec, actor)
            tenant, created = await self._catalog.tenants.save(
                spec, event=event, expected_generation=expected_generation
            )
            if before is None or before.generation != tenant.generation:
                audit_events.log(event)
            self._manager.put_tenant(tenant)
            return tenant, created

    async def delete_tenant(
        self,
        tenant_id: str,
        actor: Actor,
        *,
        deadline: float,
        expected_generation: int | None = None,
    ) -> Deletion:
        """Close its pool within *deadline* seconds, disable its login and forget it.

        Raises:
            TenantNotFound, StaleVersion, CatalogUnavailable: nothing was done.
        """
        async with self._locks.hold(tenant_id):
            account = self._manager.tenant_state(tenant_id)
            if expected_generation not in (None, account.tenant.generation):
                raise StaleVersion
            event = audit_events.tenant_deleting(account.tenant, actor)
            was_deleting = account.tenant.deleting
            tenant = await self._catalog.tenants.mark_deleting(account.tenant.spec.id, event=event)
            if not was_deleting:
                audit_events.log(event)
            self._manager.put_tenant(tenant)
            pool = self._manager.find(tenant.spec.pool_id)
            eviction = None
            if pool is not None and not tenant.spec.is_shared:
                eviction = await self._manager.evict(pool, EvictionReason.DELETED, deadline)
            is_done = await self._retire(account, actor, eviction)
            is_declared = tenant.spec.server in self._manager.servers
            return Deletion(eviction=eviction, login_disabled=is_done and is_declared)

    async def finish_deletion(self, tenant_id: str, actor: Actor) -> bool:
        """Go on with a deletion that was interrupted; whether it is done.

        One that is still under way is left to whoever works on it.
        """
        if self._locks.is_held(tenant_id):
            return False
        async with self._locks.hold(tenant_id):
            account = self._manager.tenant_states.get(tenant_id)
            return account is None or await self._retire(account, actor)

    async def _retire(
        self, account: TenantState, actor: Actor, eviction: Eviction | None = None
    ) -> bool:
        tenant = account.tenant
        isolation = self._manager.isolations[tenant.spec.strategy]
        server = self._manager.servers.get(tenant.spec.server)
        try:
            # A server the settings name no longer has no login that could be disabled here.
            if tenant.provisioned_at is not None and server is not None:
                async with asyncio.timeout(_RETIRE_DEADLINE):
                    await isolation.disable_login(server, tenant)
            event = audit_events.tenant_deleted(tenant, actor, eviction)
            await self._catalog.tenants.delete(tenant.spec.id, event=event)
        except (Unavailable, ProvisioningFailed, TimeoutError):
            return False
        audit_events.log(event)
        self._manager.remove_tenant(tenant.spec.id)
        self._wishes.forget(tenant.spec.id)
        self.resized_by_hand_at.pop(tenant.spec.id, None)
        return True

    # -- pools -------------------------------------------------------------------------------

    async def put_pool(
        self,
        tenant_id: str,
        change: PoolChange,
        actor: Actor,
        *,
        whole_pool: bool = False,
        expected_generation: int | None = None,
    ) -> PoolOutcome:
        """Open the tenant's pool with this size, or resize it, and wait until it is warm.

        Raises:
            TenantNotFound, TenantDeleting, NotProvisioned, InvalidInput, PoolIsShared,
            BudgetExceeded, StaleVersion, CatalogUnavailable, PoolLimitReached, PoolDraining
        """
        account = self._manager.tenant_state(tenant_id)
        spec = account.tenant.spec
        async with self._locks.hold(spec.pool_id):
            # Only now: who waited for the lock may have waited for the tenant's deletion.
            refuse_unusable(account.tenant)
            pool = self._manager.find(spec.pool_id)
            if pool is not None and pool.is_closing:
                raise PoolDraining(f"The pool {spec.pool_id} is draining; it opens again after.")
            current = self._manager.desired_size(spec.pool_id, spec.strategy)
            size = change.apply_to(current)
            if spec.is_shared and size != current and not whole_pool:
                raise PoolIsShared
            desired, created = await self._wishes.set_desired(
                account, actor, size=size, expected_generation=expected_generation
            )
            if change.max_size is not None:
                self.resized_by_hand_at[spec.pool_id] = monotonic()
            await self._resize(account, desired, current, open_now=True)
            pool = self._manager.find(spec.pool_id)
            if pool is not None and pool.server.is_available:
                await pool.wait_until_warm(_WARM_DEADLINE)
            return self._outcome(account, desired, created=created)

    async def resize_pool(
        self, account: TenantState, max_size: int, actor: Actor, *, reason: str
    ) -> DesiredPool:
        """Change one pool's max_size, open or not, and say why in the audit trail.

        Raises:
            InvalidInput, BudgetExceeded, CatalogUnavailable, TenantDeleting, NotProvisioned
        """
        spec = account.tenant.spec
        async with self._locks.hold(spec.pool_id):
            if not spec.is_shared:
                refuse_unusable(account.tenant)
            current = self._manager.desired_size(spec.pool_id, spec.strategy)
            size = PoolChange(max_size=max_size).apply_to(current)
            desired, _ = await self._wishes.set_desired(account, actor, size=size, reason=reason)
            await self._resize(account, desired, current)
            return desired

    async def _resize(
        self,
        account: TenantState,
        desired: DesiredPool,
        before: PoolSize,
        *,
        open_now: bool = False,
    ) -> None:
        """Apply a size, the role's limit first if it grows and last if it shrinks."""
        growth = desired.size.max_size - before.max_size
        if growth > 0:
            await self._limits.apply(account)
        steps = self._wishes.plan(account, desired, open_now=open_now)
        await self._wishes.execute(account, steps)
        if growth < 0:
            await self._limits.apply(account)

    async def pause(
        self, tenant_id: str, actor: Actor, *, paused: bool, whole_pool: bool = False
    ) -> PoolOutcome:
        """Pause the tenant's pool, or resume it; works while the catalog is away.

        Raises:
            TenantNotFound, TenantDeleting, NotProvisioned, PoolIsShared
        """
        account = self._manager.tenant_state(tenant_id)
        refuse_shared(account, whole_pool=whole_pool)
        async with self._locks.hold(account.tenant.spec.pool_id):
            refuse_unusable(account.tenant)
            try:
                desired, created = await self._wishes.set_desired(account, actor, paused=paused)
            except CatalogUnavailable:
                desired, created = self._wishes.set_unsaved(account, actor, paused=paused), False
            await self._wishes.execute(account, self._wishes.plan(account, desired))
            return self._outcome(account, desired, created=created)

    async def release_minimum(self, account: TenantState, actor: Actor) -> None:
        """Keep no connection of a pool that is forced out; works while the catalog is away."""
        spec = account.tenant.spec
        if _is_leaving(account):  # whoever deletes it holds the lock
            return
        async with self._locks.hold(spec.pool_id):
            size = self._manager.desired_size(spec.pool_id, spec.strategy)
            if not size.min_size or _is_leaving(account):
                return
            try:
                await self._wishes.set_desired(account, actor, size=replace(size, min_size=0))
            except CatalogUnavailable:
                self._wishes.set_unsaved(account, actor, size=replace(size, min_size=0))

    def _outcome(self, account: TenantState, desired: DesiredPool, *, created: bool) -> PoolOutcome:
        spec = account.tenant.spec
        return PoolOutcome(
            pool=self._manager.find(spec.pool_id),
            desired=desired,
            created=created,
            tenants=self._manager.tenant_count(spec.pool_id),
        )


def refuse_shared(account: TenantState, *, whole_pool: bool) -> None:
    """Refuse to touch a pool of many tenants through one of them.

    Raises:
        PoolIsShared: unless *whole_pool* says that all are meant.
    """
    if account.tenant.spec.is_shared and not whole_pool:
        raise PoolIsShared


def _is_leaving(account: TenantState) -> bool:
    return account.tenant.deleting and not account.tenant.spec.is_shared


def refuse_unusable(tenant: Tenant) -> None:
    """Refuse to work on the pool of a tenant that has no database objects, or is leaving.

    Raises:
        TenantDeleting, NotProvisioned
    """
    if tenant.deleting:
        raise TenantDeleting
    if tenant.provisioned_at is None:
        raise NotProvisioned(f"Tenant {tenant.spec.id} has not been provisioned.")


def refuse_immutable_change(before: Tenant, spec: TenantSpec) -> None:
    """Refuse *spec* for a tenant that is leaving, or that lives elsewhere.

    Raises:
        TenantDeleting, ImmutableField
    """
    if before.deleting:
        raise TenantDeleting
    if (before.spec.server, before.spec.strategy) != (spec.server, spec.strategy):
        raise ImmutableField(
            f"Tenant {spec.id} lives on server {before.spec.server} with strategy "
            f"{before.spec.strategy}; neither can change."
        )
