"""Deletes tenants: closes the pool, disables the login, deletes the record; the data stays.

The catalog first marks the tenant as being deleted; from then on, applications cannot connect as
the tenant. If the deletion is interrupted, the Reconciler finishes it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from app.catalog.catalog import Catalog
from app.control import audit_events
from app.control.keyed_locks import KeyedLocks
from app.control.operation import Expectation, Operation, PlanFor, any_version
from app.control.tenants.application_credentials import ApplicationCredentials
from app.domain.audit import Actor
from app.domain.errors import ProvisioningFailed, StaleVersion, Unavailable
from app.domain.eviction import Eviction, EvictionReason
from app.domain.plan import Plan, PlanAction, plan_close, plan_step
from app.domain.tenant import Tenant, TenantId, TenantSpec
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.tenant_state import TenantState

_DISABLE_LOGIN_DEADLINE = 10.0
_EVICT_DEADLINE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """The result of a deletion; a login not yet disabled is disabled later.

    Only on a server that is no longer declared, the login stays.
    """

    eviction: Eviction | None
    login_disabled: bool


class TenantDeletions:
    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        credentials: ApplicationCredentials,
        locks: KeyedLocks,
        *,
        forget_advice: Callable[[TenantId], None],
    ) -> None:
        """Call *forget_advice* when a tenant is deleted: a later one may have its id."""
        self._catalog = catalog
        self._manager = manager
        self._credentials = credentials
        self._locks = locks
        self._forget_advice = forget_advice

    def delete(
        self,
        state: TenantState,
        actor: Actor,
        *,
        deadline: float,
        expect: Expectation[Tenant] = any_version,
    ) -> Operation[TenantState, Deletion]:
        """Close its pool within *deadline* seconds, disable its login and delete its record.

        Raises:
            TenantNotFound, StaleVersion, CatalogUnavailable: nothing was done.
        """
        tenant_id = state.tenant.spec.id

        async def plan() -> PlanFor[TenantState]:
            # Another tenant may have its name by now, even with another strategy.
            current = self._manager.tenants.state(tenant_id)
            if expect(current.tenant) not in {None, current.tenant.generation}:
                raise StaleVersion
            spec = current.tenant.spec
            pool = self._own_pool(spec)
            parts: list[Plan] = []
            if pool is not None:
                parts.append(plan_close(pool.pool_id, pool.metrics, deadline))
            if current.tenant.provisioned_at is not None and not spec.is_shared:
                role = f"role {spec.id.object_name}"
                parts.append(plan_step(PlanAction.DISABLE_LOGIN, role))
            users = [f"credential {each.user}" for each in self._credentials.of(spec.id)]
            parts += [plan_step(PlanAction.FORGET, each) for each in (*users, f"tenant {spec.id}")]
            return PlanFor.of(current, *parts)

        async def execute(plan: PlanFor[TenantState]) -> Deletion:
            spec = plan.subject.tenant.spec
            event = audit_events.tenant_deleting(plan.subject.tenant, actor)
            tenant = await self._catalog.tenants.mark_deleting(spec.id, event=event)
            self._manager.put_tenant(tenant)
            # A lease may have opened it in the meantime; from now on none can.
            pool, eviction = self._own_pool(spec), None
            if pool is not None:
                eviction = await self._manager.evict(pool, EvictionReason.DELETED, deadline)
            is_done = await self._finish(plan.subject, actor, eviction)
            is_declared = spec.server in self._manager.servers
            return Deletion(eviction=eviction, login_disabled=is_done and is_declared)

        lock = partial(self._locks.hold, tenant_id)
        return Operation(plan=plan, execute=execute, lock=lock, needs_catalog=True)

    async def finish(self, tenant_id: str, actor: Actor) -> bool:
        """Continue an interrupted deletion; return whether it is done.

        A deletion that is still under way is left alone.
        """
        async with self._locks.hold_if_free(tenant_id) as is_free:
            if not is_free:
                return False
            state = self._manager.tenants.get(tenant_id)
            if state is None:
                return True
            # If the first step's response was lost, the deletion went no further.
            pool, eviction = self._own_pool(state.tenant.spec), None
            if pool is not None:
                eviction = await self._manager.evict(pool, EvictionReason.DELETED, _EVICT_DEADLINE)
            return await self._finish(state, actor, eviction, fail_soon=True)

    async def _finish(
        self,
        state: TenantState,
        actor: Actor,
        eviction: Eviction | None = None,
        *,
        fail_soon: bool = False,
    ) -> bool:
        tenant = state.tenant
        isolation = self._manager.isolations[tenant.spec.strategy]
        server = self._manager.servers.get(tenant.spec.server)
        credentials = self._credentials.of(tenant.spec.id)
        event = audit_events.tenant_deleted(tenant, actor, eviction, credentials)
        try:
            # On a server that is no longer in the settings, no login can be disabled.
            if tenant.provisioned_at is not None and server is not None:
                async with asyncio.timeout(_DISABLE_LOGIN_DEADLINE):
                    await isolation.disable_login(server, tenant, fail_soon=fail_soon)
            await self._catalog.tenants.delete(tenant.spec.id, event=event)
        except (Unavailable, ProvisioningFailed, TimeoutError):
            return False
        self._credentials.forget(tenant.spec.id)
        self._forget_advice(tenant.spec.id)
        self._manager.tenants.forget(tenant.spec.id)
        self._manager.desired.forget(tenant.spec.id)
        return True

    def _own_pool(self, spec: TenantSpec) -> Pool | None:
        return None if spec.is_shared else self._manager.find(spec.pool_id)
