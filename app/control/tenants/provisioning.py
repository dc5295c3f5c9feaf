"""Provisioning: creates a tenant's role, its schema or database, and its grants.

Objects come first, then the catalog: repeating the call finishes an interrupted one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import asyncpg

from app.catalog.audit_log import log
from app.catalog.catalog import Catalog
from app.control import audit_events
from app.control.keyed_locks import KeyedLocks
from app.control.operation import Operation, PlanFor
from app.domain.audit import Actor
from app.domain.errors import (
    ProvisioningFailed,
    ServerFull,
    ServerUnavailable,
    TenantLoginFailed,
)
from app.domain.plan import PlanAction, plan_step
from app.domain.tenant import Tenant
from app.pools.isolation import is_schema_missing, schema_missing
from app.pools.isolation.role_passwords import RolePasswords
from app.pools.manager import TenantPoolManager
from app.pools.servers.server import Server
from app.pools.tenant_state import TenantState

AuditIsolation = Callable[[Server, TenantState], Awaitable[None]]

_LOOK_UP_DEADLINE = 10.0
_PROVISION_DEADLINE = 30.0
_LOGIN_DEADLINE = 15.0


class TenantProvisioning:
    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        role_passwords: RolePasswords,
        locks: KeyedLocks,
        *,
        audit_isolation: AuditIsolation,
    ) -> None:
        self._catalog = catalog
        self._manager = manager
        self._role_passwords = role_passwords
        self._locks = locks
        self._audit_isolation = audit_isolation

    def provision(
        self, state: TenantState, actor: Actor, *, adopt: bool = False
    ) -> Operation[TenantState, tuple[Tenant, list[str]]]:
        """Create the tenant's database objects, idempotently, then log in with its role.

        It returns the names of the objects that exist then.

        Raises:
            TenantNotFound, TenantDeleting, ObjectsExist, ProvisioningFailed, ServerUnavailable,
            ServerFull, CatalogUnavailable: the objects may already exist; repeating the call
                finishes the job.
        """
        tenant_id = state.tenant.spec.id

        async def plan() -> PlanFor[TenantState]:
            current = self._manager.tenants.state(tenant_id)
            tenant = current.tenant
            spec = tenant.spec
            tenant.check_not_deleting()
            server = self._manager.server(spec.server)
            isolation = self._manager.isolations[spec.strategy]
            try:
                async with asyncio.timeout(_LOOK_UP_DEADLINE):
                    names = await isolation.plan_provisioning(server, tenant, adopt=adopt)
            except TimeoutError as error:
                raise ServerUnavailable("The server took too long to answer.") from error
            parts = [plan_step(PlanAction.CREATE_OBJECTS, name) for name in names]
            if tenant.provisioned_at is None:
                after = {"state": "provisioned"}
                parts.append(plan_step(PlanAction.RECORD, f"tenant {tenant_id}", after=after))
            return PlanFor.of(current, *parts)

        async def execute(plan: PlanFor[TenantState]) -> tuple[Tenant, list[str]]:
            tenant = plan.subject.tenant
            objects = await self._create(tenant, adopt=adopt)
            await check_login(self._manager, tenant)
            event = audit_events.tenant_provisioned(tenant, objects, actor)
            if adopt and tenant.provisioned_at is not None:
                await self._catalog.audit_log.append([event])
                log(event)
            marked = await self._catalog.tenants.mark_provisioned(tenant_id, event=event)
            self._manager.put_tenant(marked)
            await self._audit_isolation(self._manager.server(tenant.spec.server), plan.subject)
            return marked, objects

        lock = partial(self._locks.hold, tenant_id)
        return Operation(plan=plan, execute=execute, lock=lock, needs_catalog=True)

    async def _create(self, tenant: Tenant, *, adopt: bool) -> list[str]:
        spec = tenant.spec
        isolation = self._manager.isolations[spec.strategy]
        server = self._manager.server(spec.server)
        max_size = self._manager.desired.most_connections(spec)
        role = isolation.role(spec)
        lock = self._locks.hold(lock_of_role(server.name, role))
        try:
            async with lock, asyncio.timeout(_PROVISION_DEADLINE):
                version = await isolation.marked_password_version(server, tenant, adopt=adopt)
                if version > self._role_passwords.password_version(server.name, role):
                    # The catalog was restored, or is another one. An earlier password may be known
                    # to somebody: that may be why it was rotated.
                    await self._catalog.password_versions.record_applied(server.name, role, version)
                    self._role_passwords.set_password_version(server.name, role, version)
                return await isolation.provision(server, tenant, adopt=adopt, max_size=max_size)
        except TimeoutError as error:
            raise ServerUnavailable("The server took too long to create it.") from error


async def check_login(manager: TenantPoolManager, tenant: Tenant) -> None:
    """Log in as the tenant's connections do, in the place of an admin connection.

    Raises:
        ProvisioningFailed: Postgres refuses the role; the message says why.
        SchemaMissing: the login works, and the tenant has no schema.
        ServerFull: the server accepts no further connection, so the outcome is unknown.
        ServerUnavailable: the server cannot be reached.
    """
    spec = tenant.spec
    server, isolation = manager.server(spec.server), manager.isolations[spec.strategy]
    login = isolation.login(server, spec)
    try:
        async with asyncio.timeout(_LOGIN_DEADLINE), server.admin(login) as connection:
            try:
                await connection.execute(isolation.session_setup(spec))
            except asyncpg.PostgresError as error:
                if is_schema_missing(error):
                    raise schema_missing(spec) from error
                raise
        manager.connectors.forget_refusal(spec)
    except TenantLoginFailed as error:
        raise ProvisioningFailed(
            f"Role {login.user} is set up, but it cannot log in. {error.detail}"
        ) from error
    except ServerFull as error:
        raise ServerFull(
            f"Role {login.user} is set up, but its login could not be tried: "
            f"{error.detail} Repeat the request."
        ) from error
    except TimeoutError as error:
        raise ServerUnavailable(f"The login as {login.user} took too long.") from error


def lock_of_role(server: str, role: str) -> str:
    """The lock of a role's password.

    Provisioning sets the shared role's password for each tenant.
    """
    return f"role {role} on {server}"
