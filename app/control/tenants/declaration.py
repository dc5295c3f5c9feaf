"""Declarations of tenants: creates or changes them in the catalog, then tells the manager."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from app.catalog.catalog import Catalog
from app.control import audit_events
from app.control.keyed_locks import KeyedLocks
from app.control.operation import Expectation, Operation, PlanFor, any_version
from app.control.time_slices import in_slices
from app.domain.audit import Actor, AuditEvent
from app.domain.errors import ImmutableField, ServerNotFound
from app.domain.plan import plan_record
from app.domain.tenant import Tenant, TenantId, TenantSpec
from app.pools.manager import TenantPoolManager


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantChange:
    """The change to store, its event, and the generation that it changes; None: any."""

    spec: TenantSpec
    event: AuditEvent
    expected_generation: int | None


class TenantDeclarations:
    def __init__(self, catalog: Catalog, manager: TenantPoolManager, locks: KeyedLocks) -> None:
        self._catalog = catalog
        self._manager = manager
        self._locks = locks

    async def load(self) -> None:
        """Load what the catalog has; at start.

        Raises:
            CatalogUnavailable
        """
        async for tenant in in_slices(await self._catalog.tenants.load()):
            self._manager.put_tenant(tenant)

    def put(
        self,
        tenant_id: TenantId,
        declare: Callable[[Tenant | None], TenantSpec],
        actor: Actor,
        *,
        expect: Expectation[Tenant] = any_version,
    ) -> Operation[TenantChange, tuple[Tenant, bool]]:
        """Create or change a tenant; returns whether it was created.

        *declare* makes its declaration from the present tenant, if there is one.

        Raises:
            ServerNotFound, ImmutableField, StaleVersion, TenantDeleting, CatalogUnavailable
        """

        async def plan() -> PlanFor[TenantChange]:
            state = self._manager.tenants.get(tenant_id)
            before = state.tenant if state else None
            spec = declare(before)
            expected = expect(before)
            if spec.server not in self._manager.servers:
                raise ServerNotFound(f"No server {spec.server} is declared.")
            if before is not None:
                _refuse_immutable_change(before, spec)
            event = audit_events.tenant_saved(before, spec, actor)
            change = TenantChange(spec=spec, event=event, expected_generation=expected)
            return PlanFor.of(change, plan_record(f"tenant {tenant_id}", event))

        async def execute(plan: PlanFor[TenantChange]) -> tuple[Tenant, bool]:
            change = plan.subject
            tenant, created = await self._catalog.tenants.save(
                change.spec, event=change.event, expected_generation=change.expected_generation
            )
            self._manager.put_tenant(tenant)
            return tenant, created

        lock = partial(self._locks.hold, tenant_id)
        return Operation(plan=plan, execute=execute, lock=lock, needs_catalog=True)

    async def read_in_doubt(self) -> None:
        """Take over changes whose response was lost; nobody may be changing the tenant now.

        Raises:
            CatalogUnavailable
        """
        for tenant in self._catalog.tenants.in_doubt:
            async with self._locks.hold_if_free(tenant) as is_free:
                found = await self._catalog.tenants.read(tenant) if is_free else None
                if found is not None:
                    self._manager.put_tenant(found)


def _refuse_immutable_change(before: Tenant, spec: TenantSpec) -> None:
    before.check_not_deleting()
    if (before.spec.server, before.spec.strategy) != (spec.server, spec.strategy):
        raise ImmutableField(
            f"Tenant {spec.id} is on server {before.spec.server} with strategy "
            f"{before.spec.strategy}; neither can change."
        )
