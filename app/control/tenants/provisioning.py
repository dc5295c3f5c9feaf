"""Provisioning: makes a tenant's database objects, and changes the password of its role.

Objects first, then the catalog: the same call finishes what was interrupted. A password the
other way round: the catalog says which version is wanted, and until Postgres is known to have
it the Reconciler sets it again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import structlog

from app.catalog.catalog import Catalog
from app.control.audit import audit_events
from app.control.keeper import refuse_shared, refuse_unusable
from app.control.locks import KeyedLocks
from app.control.monitoring.isolation_audit import IsolationAudit
from app.domain.audit import Actor
from app.domain.desired_state import CredentialVersion, Tenant
from app.domain.errors import (
    CatalogUnavailable,
    Conflict,
    ProvisioningFailed,
    ServerFull,
    ServerUnavailable,
    TenantDeleting,
    TenantLoginFailed,
    Unavailable,
)
from app.domain.tenant import OBJECT_PREFIX, shared_pool_id
from app.pools.isolation.credentials import Credentials
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState

_PROVISION_DEADLINE = 30.0
_RENEW_DEADLINE = 10.0
_LOGIN_DEADLINE = 15.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What rotating a password did.

    Attributes:
        role: whose password it was.
        version: the one it has now.
        recycled: connections that are replaced, idle ones at once, lent ones when they come back.
        tenants: how many tenants log in as that role.
    """

    role: str
    version: int
    recycled: int
    tenants: int


class TenantProvisioning:
    """Roles, schemas and databases of tenants."""

    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        credentials: Credentials,
        self_check: IsolationAudit,
        locks: KeyedLocks,
    ) -> None:
        """Record in *catalog* what is made on *manager*'s servers with these *credentials*."""
        self._catalog = catalog
        self._manager = manager
        self._credentials = credentials
        self._self_check = self_check
        self._locks = locks
        self._unapplied: dict[tuple[str, str], CredentialVersion] = {}

    async def load(self) -> None:
        """Learn which version of its password each role has; at start.

        Raises:
            CatalogUnavailable: it cannot be reached.
        """
        for wanted in await self._catalog.credentials.load():
            known = wanted.version if wanted.applied else wanted.version - 1
            self._credentials.set_password_version(wanted.server, wanted.role, known)
            if not wanted.applied:
                self._unapplied[wanted.server, wanted.role] = wanted

    async def provision(
        self, tenant_id: str, actor: Actor, *, adopt: bool = False
    ) -> tuple[Tenant, list[str]]:
        """Create the tenant's database objects, idempotently; the names of what exists then.

        Its role has logged in by then.

        Raises:
            TenantNotFound, TenantDeleting, ObjectsExist, ProvisioningFailed, ServerUnavailable,
            ServerFull, CatalogUnavailable: the objects may exist already; the same call finishes
                the job.
        """
        async with self._locks.hold(tenant_id):
            account = self._manager.tenant_state(tenant_id)
            tenant = account.tenant
            if tenant.deleting:
                raise TenantDeleting
            objects = await self._create(tenant, adopt=adopt)
            await self._log_in(tenant)
            event = audit_events.tenant_provisioned(tenant, objects, actor)
            if adopt and tenant.provisioned_at is not None:  # no first time, yet a change
                await self._catalog.audit_log.append([event])
                audit_events.log(event)
            marked = await self._catalog.tenants.mark_provisioned(tenant.spec.id, event=event)
            if tenant.provisioned_at is None:
                audit_events.log(event)
            self._manager.put_tenant(marked)
            await self._self_check.audit(self._manager.server(tenant.spec.server), [account])
            return marked, objects

    async def _create(self, tenant: Tenant, *, adopt: bool) -> list[str]:
        spec = tenant.spec
        isolation = self._manager.isolations[spec.strategy]
        server = self._manager.server(spec.server)
        max_size = self._manager.desired_size(spec.pool_id, spec.strategy).max_size
        lock = self._locks.hold(_lock_of(server.name, isolation.role(spec)))
        try:
            async with lock, asyncio.timeout(_PROVISION_DEADLINE):
                return await isolation.provision(server, tenant, adopt=adopt, max_size=max_size)
        except TimeoutError as error:
            raise ServerUnavailable("The server took too long to create it.") from error

    async def _log_in(self, tenant: Tenant) -> None:
        """Log in as the tenant's connections do, in the place of an admin connection.

        Raises:
            ProvisioningFailed: Postgres refuses the role, and says why.
            ServerFull: it takes no further connection now; nothing is known.
            ServerUnavailable: it cannot be reached.
        """
        spec = tenant.spec
        server, isolation = (
            self._manager.server(spec.server),
            self._manager.isolations[spec.strategy],
        )
        login = isolation.login(server, spec)
        try:
            async with asyncio.timeout(_LOGIN_DEADLINE), server.admin(login) as connection:
                await connection.execute(isolation.session_setup(spec))
        except TenantLoginFailed as error:
            raise ProvisioningFailed(
                f"The role {login.user} is set up, and yet it cannot log in. {error.detail}"
            ) from error
        except ServerFull as error:
            raise ServerFull(
                f"The role {login.user} is set up, but its login could not be tried: "
                f"{error.detail} Repeat the request."
            ) from error
        except TimeoutError as error:
            raise ServerUnavailable(f"The login as {login.user} took too long.") from error

    async def rotate(self, tenant_id: str, actor: Actor, *, whole_pool: bool = False) -> Rotation:
        """Give the tenant's role a new password; sessions go on, and no borrower is failed.

        It mends a role that changed its own password, too; the role has logged in by then.

        Raises:
            TenantNotFound, TenantDeleting, NotProvisioned, PoolIsShared
            CatalogUnavailable: nothing was done.
            ServerUnavailable: it was not done, or not known to be; it is as soon as possible.
            ServerFull: it was done, but no login could be tried.
            ObjectsExist, ProvisioningFailed: Postgres refused.
        """
        account = self._manager.tenant_state(tenant_id)
        refuse_shared(account, whole_pool=whole_pool)
        spec = account.tenant.spec
        async with self._locks.hold(spec.pool_id):
            refuse_unusable(account.tenant)
            server = self._manager.server(spec.server)
            if not server.is_available:
                raise ServerUnavailable(server.unavailable_detail)
            role = self._manager.isolations[spec.strategy].role(spec)
            event = audit_events.credentials_rotated(account.tenant, role, actor)
            wanted = await self._catalog.credentials.advance(server.name, role, event=event)
            self._unapplied[wanted.server, wanted.role] = wanted
            audit_events.log(event)
            rotation = await self._apply(account, wanted)
            await self._log_in(account.tenant)
            return rotation

    async def finish_rotations(self) -> int:
        """Set passwords that Postgres is not known to have; how many that were.

        One that is still under way is left to whoever works on it.
        """
        finished = 0
        for wanted in list(self._unapplied.values()):
            account = self._account_of(wanted)
            if account is None or self._locks.is_held(account.tenant.spec.pool_id):
                continue
            async with self._locks.hold(account.tenant.spec.pool_id):
                try:
                    await self._apply(account, wanted)
                    finished += 1
                except (Unavailable, Conflict) as error:
                    _log.warning("password not set", role=wanted.role, reason=error.detail)
        return finished

    async def _apply(self, account: TenantState, wanted: CredentialVersion) -> Rotation:
        spec = account.tenant.spec
        server = self._manager.server(spec.server)
        isolation = self._manager.isolations[spec.strategy]
        login = self._manager.connectors.of(server, spec)
        async with self._locks.hold(_lock_of(wanted.server, wanted.role)), login.changing():
            try:
                async with asyncio.timeout(_RENEW_DEADLINE):
                    await isolation.rotate_password(server, account.tenant, wanted.version)
            except TimeoutError as error:
                raise ServerUnavailable("The server took too long to change it.") from error
            self._credentials.set_password_version(wanted.server, wanted.role, wanted.version)
        pool = self._manager.find(spec.pool_id)
        recycled = pool.recycle() if pool is not None else 0
        try:
            await self._catalog.credentials.mark_applied(replace(wanted, applied=True))
            self._unapplied.pop((wanted.server, wanted.role), None)
        except CatalogUnavailable:
            _log.warning("password set, yet not recorded", role=wanted.role)
        return Rotation(
            role=wanted.role,
            version=wanted.version,
            recycled=recycled,
            tenants=self._manager.tenant_count(spec.pool_id),
        )

    def _account_of(self, wanted: CredentialVersion) -> TenantState | None:
        """Somebody who logs in with it and may do so."""
        account = self._manager.tenant_states.get(wanted.role.removeprefix(OBJECT_PREFIX))
        if account is None:
            account = self._manager.tenant_state_for_pool(shared_pool_id(wanted.server))
        if account is None or account.tenant.deleting or account.tenant.provisioned_at is None:
            return None
        spec = account.tenant.spec
        role = self._manager.isolations[spec.strategy].role(spec)
        return account if (spec.server, role) == (wanted.server, wanted.role) else None


def _lock_of(server: str, role: str) -> str:
    """Provisioning sets the password too, the shared role's for each of its tenants."""
    return f"role {role} on {server}"
