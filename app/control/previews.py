"""Dry runs: each change judged as the change itself is, and told instead of made.

Holds nothing that could change anything: it reads memory, and the catalog and Postgres where
the change would be refused for what they hold. Its refusals are the very functions of the
Keeper, the Operations and the Obeying, in their order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.advisor.recommendation_applier import RecommendationApplier
from app.control.audit import audit_events
from app.control.keeper import PoolChange, refuse_immutable_change, refuse_shared, refuse_unusable
from app.control.pools.desired_state import DesiredPoolState
from app.control.pools.operations import PoolOperations
from app.domain.audit import Actor, AuditEvent
from app.domain.desired_state import AdvisorSettings, DesiredPool
from app.domain.errors import (
    PoolDraining,
    RecommendationClosed,
    ServerUnavailable,
    TenantDeleting,
)
from app.domain.pool import PoolMetrics, PoolSize
from app.domain.preview import (
    Plan,
    PlanAction,
    PlanStep,
    plan_close,
    plan_of_steps,
    plan_recycle,
)
from app.domain.recommendation import RecommendationStatus
from app.domain.tenant import TenantSpec
from app.pools.isolation.forecast import plan_provisioning
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState

_LOOK_UP_DEADLINE = 10.0
_NOBODY = Actor(name="dry run")
_NOT_SENT = "Postgres has not seen the statement: what it would refuse is not known."
_ALL_TENANTS = "The pool is shared: this touches {} tenants."


class Previews:
    """What each change would do now. Each method raises what the change itself would."""

    def __init__(
        self,
        manager: TenantPoolManager,
        wishes: DesiredPoolState,
        operations: PoolOperations,
        advising: AdvisorLoop,
        obeying: RecommendationApplier,
    ) -> None:
        """Look at what these know."""
        self._manager = manager
        self._wishes = wishes
        self._operations = operations
        self._advising = advising
        self._obeying = obeying

    # -- tenants -----------------------------------------------------------------------------

    def put_tenant(self, spec: TenantSpec) -> Plan:
        """Creating or changing a tenant."""
        account = self._manager.tenant_states.get(spec.id)
        before = account.tenant if account else None
        if before is not None:
            refuse_immutable_change(before, spec)
        return _recorded(f"tenant {spec.id}", audit_events.tenant_saved(before, spec, _NOBODY))

    def delete_tenant(self, tenant_id: str, *, deadline: float) -> Plan:
        """Deleting a tenant; its data stays."""
        tenant = self._manager.tenant_state(tenant_id).tenant
        pool = self._manager.find(tenant.spec.pool_id)
        preview = Plan()
        if pool is not None and not tenant.spec.is_shared:
            preview += plan_close(pool.pool_id, pool.metrics, deadline)
        if tenant.provisioned_at is not None and not tenant.spec.is_shared:
            preview += _step(PlanAction.DISABLE_LOGIN, f"role {tenant.spec.id.object_name}")
        return preview + _step(PlanAction.FORGET, f"tenant {tenant_id}")

    async def provision(self, tenant_id: str, *, adopt: bool) -> Plan:
        """Creating what the tenant needs inside Postgres."""
        tenant = self._manager.tenant_state(tenant_id).tenant
        if tenant.deleting:
            raise TenantDeleting
        server = self._manager.server(tenant.spec.server)
        try:
            async with asyncio.timeout(_LOOK_UP_DEADLINE):
                objects = await plan_provisioning(server, tenant, adopt=adopt)
        except TimeoutError as error:
            raise ServerUnavailable("The server took too long to answer.") from error
        preview = Plan()
        for name in objects:
            preview += _step(PlanAction.CREATE_OBJECTS, name)
        if tenant.provisioned_at is None:
            preview += _step(PlanAction.RECORD, f"tenant {tenant_id}", {"state": "provisioned"})
        return preview

    # -- pools -------------------------------------------------------------------------------

    def put_pool(self, tenant_id: str, change: PoolChange, *, whole_pool: bool) -> Plan:
        """Opening the tenant's pool, or resizing it."""
        account = self._manager.tenant_state(tenant_id)
        spec = account.tenant.spec
        refuse_unusable(account.tenant)
        pool = self._manager.find(spec.pool_id)
        if pool is not None and pool.is_closing:
            raise PoolDraining(f"The pool {spec.pool_id} is draining; it opens again after.")
        current = self._manager.desired_size(spec.pool_id, spec.strategy)
        size = change.apply_to(current)
        if size != current:
            refuse_shared(account, whole_pool=whole_pool)
        return self._wish(account, size=size, open_now=True, whole_pool=whole_pool)

    def pause(self, tenant_id: str, *, paused: bool, whole_pool: bool) -> Plan:
        """Pausing the tenant's pool, or resuming it."""
        account = self._manager.tenant_state(tenant_id)
        refuse_shared(account, whole_pool=whole_pool)
        refuse_unusable(account.tenant)
        return self._wish(account, paused=paused, whole_pool=whole_pool)

    def close(self, tenant_id: str, *, deadline: float, whole_pool: bool, forced: bool) -> Plan:
        """Evicting the tenant's pool (*forced*), or draining it."""
        account, pool = self._operations.open_pool(tenant_id, whole_pool=whole_pool)
        size = self._manager.desired_size(pool.pool_id, account.tenant.spec.strategy)
        preview = plan_close(pool.pool_id, pool.metrics, deadline) + self._shared(account)
        if forced and size.min_size:
            step = _step(PlanAction.RECORD, f"pool {pool.pool_id}", {"min_size": 0})
            return step + preview
        return preview

    def recycle(self, tenant_id: str, *, whole_pool: bool) -> Plan:
        """Replacing every connection."""
        account, pool = self._operations.open_pool(tenant_id, whole_pool=whole_pool)
        preview = plan_recycle(pool.pool_id, pool.size, pool.metrics)
        return preview + self._shared(account)

    def rotate(self, tenant_id: str, *, whole_pool: bool) -> Plan:
        """Changing the password of the tenant's role, and replacing its connections."""
        account = self._manager.tenant_state(tenant_id)
        refuse_shared(account, whole_pool=whole_pool)
        refuse_unusable(account.tenant)
        spec = account.tenant.spec
        role = self._manager.isolations[spec.strategy].role(spec)
        preview = _step(PlanAction.CHANGE_PASSWORD, f"role {role}")
        pool = self._manager.find(spec.pool_id)
        if pool is not None:
            preview += plan_recycle(pool.pool_id, pool.size, pool.metrics)
        return preview + self._shared(account)

    def check(self, tenant_id: str, *, whole_pool: bool) -> Plan:
        """Testing every idle connection."""
        account, pool = self._operations.open_pool(tenant_id, whole_pool=whole_pool)
        tested = {"connections": pool.metrics.idle_connections}
        preview = _step(PlanAction.CHECK, f"pool {pool.pool_id}", tested)
        return preview + self._shared(account)

    def query(self, tenant_id: str) -> Plan:
        """Running a statement as the tenant; Postgres is not asked what it thinks of it."""
        account = self._manager.tenant_state(tenant_id)
        refuse_unusable(account.tenant)
        step = _step(PlanAction.RUN_STATEMENT, f"tenant {tenant_id}")
        return step + Plan(warnings=(_NOT_SENT,))

    def evict_expired(self) -> Plan:
        """The sweep."""
        preview = Plan()
        for pool in self._manager.expired():
            preview += plan_close(pool.pool_id, pool.metrics, 0.0)
        return preview

    # -- the advisor -------------------------------------------------------------------------

    def put_advisor(self, settings: AdvisorSettings) -> Plan:
        """Changing the advisor."""
        event = audit_events.advisor_saved(self._advising.settings, settings, _NOBODY)
        return _recorded("advisor", event)

    async def close_recommendation(
        self, recommendation_id: UUID, status: RecommendationStatus
    ) -> Plan:
        """Applying a recommendation, or dismissing it."""
        found = await self._obeying.get_open(recommendation_id)
        event = audit_events.recommendation_closed(found, status, _NOBODY)
        closing = _recorded(f"recommendation {recommendation_id}", event)
        if status is not RecommendationStatus.APPLIED:
            return closing
        judgement = self._obeying.decide(found)
        if judgement.outdated_reason:
            raise RecommendationClosed(judgement.outdated_reason)
        if judgement.already_applied:
            return closing
        account = judgement.account
        spec = account.tenant.spec
        if not spec.is_shared:
            refuse_unusable(account.tenant)
        current = self._manager.desired_size(spec.pool_id, spec.strategy)
        size = PoolChange(max_size=judgement.new_size).apply_to(current)
        return self._wish(account, size=size, whole_pool=True) + closing

    # -- together ----------------------------------------------------------------------------

    def _wish(
        self,
        account: TenantState,
        *,
        size: PoolSize | None = None,
        paused: bool | None = None,
        open_now: bool = False,
        whole_pool: bool,
    ) -> Plan:
        """Wanting something of the pool, and carrying it out."""
        wish, event = self._wishes.wish(account, _NOBODY, size=size, paused=paused)
        if self._wishes.keeps_more(account.tenant.spec, wish.size):
            self._wishes.check_budget(account.tenant.spec, wish.size)
        pool = self._manager.find(wish.pool_id)
        steps = self._wishes.plan(account, wish, open_now=open_now)
        metrics: PoolMetrics | None = pool.metrics if pool else None
        preview = _recorded(f"pool {wish.pool_id}", event)
        preview += plan_of_steps(wish.pool_id, steps, metrics)
        # Who means but the one tenant may not know of others, and touches none of them.
        if whole_pool:
            preview += self._shared(account)
        return preview + self._unreachable(account, wish)

    def _shared(self, account: TenantState) -> Plan:
        spec = account.tenant.spec
        tenants = self._manager.tenant_count(spec.pool_id)
        if not spec.is_shared or tenants < 2:  # noqa: PLR2004 - alone it touches nobody else
            return Plan()
        return Plan(warnings=(_ALL_TENANTS.format(tenants),))

    def _unreachable(self, account: TenantState, wish: DesiredPool) -> Plan:
        server = self._manager.servers.get(account.tenant.spec.server)
        if wish.paused or (server is not None and server.is_available):
            return Plan()
        return Plan(warnings=("The server is away: connections open when it is back.",))


def _step(action: PlanAction, target: str, after: Mapping[str, Any] | None = None) -> Plan:
    return Plan(steps=(PlanStep(action=action, target=target, after=after),))


def _recorded(target: str, event: AuditEvent) -> Plan:
    """Storing what *event* tells of; nothing is stored that says the same as before."""
    if event.before == event.after:
        return Plan()
    step = PlanStep(action=PlanAction.RECORD, target=target, before=event.before, after=event.after)
    return Plan(steps=(step,))
