"""Password rotation: a new password for a tenant's login role.

The catalog first stores the wanted version; until Postgres is known to have it, the Reconciler sets
it again. It does the same if a restore or a failover of the server or the catalog undid a rotation.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial

import structlog

from app.catalog.catalog import Catalog
from app.control import audit_events
from app.control.audit_outbox import AuditOutbox
from app.control.keyed_locks import KeyedLocks
from app.control.operation import Operation, PlanFor
from app.control.server_queues import work_off
from app.control.tenants.provisioning import check_login, lock_of_role
from app.control.time_slices import in_slices
from app.domain.audit import RECONCILER, Actor
from app.domain.errors import CatalogUnavailable, Conflict, ServerUnavailable, Unavailable
from app.domain.isolation_checks import AuditCheck
from app.domain.password_version import PasswordVersion
from app.domain.plan import PlanAction, plan_recycle, plan_step, warn_if_shared
from app.domain.tenant import OBJECT_PREFIX, Tenant, TenantSpec, shared_pool_id
from app.pools.isolation.role_passwords import RolePasswords
from app.pools.manager import TenantPoolManager
from app.pools.servers.server import Server
from app.pools.tenant_state import TenantState

_LOOK_UP_DEADLINE = 10.0
_ROTATE_DEADLINE = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """The result of a password rotation.

    *recycled* connections are replaced: idle ones at once, leased ones when returned; *tenants* is
    the number of tenants with that role.
    """

    role: str
    version: int
    recycled: int
    tenants: int


class PasswordRotation:
    def __init__(
        self,
        catalog: Catalog,
        manager: TenantPoolManager,
        role_passwords: RolePasswords,
        locks: KeyedLocks,
        outbox: AuditOutbox,
        *,
        without_logins: Callable[[TenantSpec], AbstractAsyncContextManager[None]],
        audit_isolation: Callable[[Server, str], Awaitable[None]],
    ) -> None:
        """Audit a pool with *audit_isolation* if a rotation may have mended a finding.

        *without_logins* keeps nodes from logging in as a tenant during its block.
        """
        self._catalog = catalog
        self._manager = manager
        self._role_passwords = role_passwords
        self._locks = locks
        self._outbox = outbox
        self._without_logins = without_logins
        self._audit_isolation = audit_isolation
        self._unapplied: dict[tuple[str, str], PasswordVersion] = {}

    async def load(self) -> None:
        """Load each role's password version, at start.

        Raises:
            CatalogUnavailable
        """
        for wanted in await self._catalog.password_versions.load():
            known = wanted.version if wanted.applied else wanted.version - 1
            self._role_passwords.set_password_version(wanted.server, wanted.role, known)
            if not wanted.applied:
                self._begin(wanted)

    def rotate(
        self, state: TenantState, actor: Actor, *, whole_pool: bool = False
    ) -> Operation[TenantState, Rotation]:
        """Give the tenant's role a new password; sessions continue and no borrower fails.

        This also repairs a role that changed its own password, and ends with a login as that role.

        Raises:
            TenantDeleting, NotProvisioned, PoolIsShared
            CatalogUnavailable: nothing was done.
            ServerUnavailable: it may not have been done; the Reconciler finishes it.
            ServerFull: it was done, but no test login was possible.
            ObjectsExist, ProvisioningFailed: Postgres refused.
        """

        async def plan() -> PlanFor[TenantState]:
            present = self._manager.tenants.present(state)
            spec = present.tenant.spec
            spec.check_scope(whole_pool=whole_pool)
            present.tenant.check_usable()
            server = self._manager.server(spec.server)
            if not server.is_available:
                raise ServerUnavailable(server.unavailable_detail)
            role = self._manager.isolations[spec.strategy].role(spec)
            plan = plan_step(PlanAction.CHANGE_PASSWORD, f"role {role}")
            pool = self._manager.find(spec.pool_id)
            if pool is not None:
                plan += plan_recycle(pool.pool_id, pool.size, pool.metrics)
            warning = warn_if_shared(spec, self._manager.tenants.count(spec.pool_id))
            return PlanFor.of(present, plan, warning)

        async def execute(plan: PlanFor[TenantState]) -> Rotation:
            present, tenant = plan.subject, plan.subject.tenant
            spec = tenant.spec
            role = self._manager.isolations[spec.strategy].role(spec)
            # A restored catalog has an earlier version: the next ones were rotated away already.
            marked = await self._marked_version(tenant)
            event = audit_events.credentials_rotated(tenant, role, actor)
            wanted = await self._catalog.password_versions.advance(
                spec.server, role, beyond=max(1, marked), event=event
            )
            self._begin(wanted)
            rotation = await self._apply(present, wanted)
            await check_login(self._manager, tenant)
            if present.isolation is not None and present.isolation.findings:
                await self._audit_isolation(self._manager.server(spec.server), spec.pool_id)
            return rotation

        lock = partial(self._locks.hold, state.tenant.spec.pool_id)
        return Operation(plan=plan, execute=execute, lock=lock, needs_catalog=True)

    async def _marked_version(self, tenant: Tenant) -> int:
        """The version of the password that its role has by its mark; 0 if there is none."""
        server = self._manager.server(tenant.spec.server)
        isolation = self._manager.isolations[tenant.spec.strategy]
        try:
            async with asyncio.timeout(_LOOK_UP_DEADLINE):
                return await isolation.marked_password_version(server, tenant)
        except TimeoutError as error:
            raise ServerUnavailable("The server took too long to answer.") from error

    def _begin(self, wanted: PasswordVersion) -> None:
        self._unapplied[wanted.server, wanted.role] = wanted
        self._role_passwords.begin_rotation(wanted.server, wanted.role, wanted.version)

    async def finish_rotations(self) -> int:
        """Set passwords that Postgres may not have; return how many.

        A role with a later one keeps it: the catalog was restored from before that rotation. A
        rotation that is still under way is left alone. This does not wait for a tenant's
        transaction, because the passwords of all other tenants would wait for it too.
        """
        unapplied: dict[str, list[PasswordVersion]] = defaultdict(list)
        for wanted in self._unapplied.values():
            unapplied[wanted.server].append(wanted)
        return await work_off(unapplied, self._finish)

    async def _finish(self, wanted: PasswordVersion) -> bool:
        state = self._state_of(wanted)
        if state is None or self._locks.is_held(lock_of_role(wanted.server, wanted.role)):
            return False
        async with self._locks.hold_if_free(state.tenant.spec.pool_id) as is_free:
            # Meanwhile there may have been another rotation.
            if not is_free or self._unapplied.get((wanted.server, wanted.role)) != wanted:
                return False
            try:
                marked = await self._marked_version(state.tenant)
                if marked > wanted.version:
                    await self._adopt(state.tenant.spec, replace(wanted, version=marked))
                else:
                    await self._apply(state, wanted, fail_soon=True)
            except (Unavailable, Conflict) as error:
                _log.warning("password not set", role=wanted.role, reason=error.detail)
                return False
        return True

    async def restore_lost(self) -> int:
        """Bring together each role's password and its version in the catalog; return how many.

        The isolation audit found them to differ. The later version is the one in force: an earlier
        password may be known to somebody.
        """
        lost: dict[str, dict[str, TenantState]] = defaultdict(dict)
        async for state in in_slices(list(self._manager.tenants.values())):
            findings = state.isolation.findings if state.isolation is not None else ()
            if state.tenant.is_usable and AuditCheck.PASSWORD in {one.check for one in findings}:
                lost[state.tenant.spec.server][state.tenant.spec.pool_id] = state
        states = {server: list(of_pools.values()) for server, of_pools in lost.items()}
        return await work_off(states, self._restore)

    async def _restore(self, state: TenantState) -> bool:
        spec = state.tenant.spec
        server = self._manager.server(spec.server)
        isolation = self._manager.isolations[spec.strategy]
        role, known = isolation.role(spec), isolation.password_version(server, spec)
        if not server.is_available or self._locks.is_held(lock_of_role(server.name, role)):
            return False
        async with self._locks.hold_if_free(spec.pool_id) as is_free:
            # Meanwhile it may be deleted; and a rotation under way sets the password anyway.
            is_under_way = (server.name, role) in self._unapplied
            if not is_free or is_under_way or not state.tenant.is_usable:
                return False
            try:
                marked = await self._marked_version(state.tenant)
                wanted = PasswordVersion(server=server.name, role=role, version=known, applied=True)
                if marked > known:
                    await self._adopt(spec, replace(wanted, version=marked))
                elif 0 < marked < known:
                    await self._apply(state, wanted, fail_soon=True)
                    self._note_restored(spec, wanted)
            except (Unavailable, Conflict) as error:
                _log.warning("password not restored", role=role, reason=error.detail)
                return False
        await self._audit_isolation(server, spec.pool_id)
        # Otherwise only the finding was out of date.
        return marked not in {0, known}

    async def _adopt(self, spec: TenantSpec, known: PasswordVersion) -> None:
        """Take over the version that the role has, and give nodes its password."""
        async with self._without_logins(spec):
            await self._catalog.password_versions.record_applied(
                known.server, known.role, known.version
            )
            self._role_passwords.set_password_version(known.server, known.role, known.version)
        self._unapplied.pop((known.server, known.role), None)
        self._note_restored(spec, known)

    def _note_restored(self, spec: TenantSpec, present: PasswordVersion) -> None:
        self._manager.connectors.forget_refusal(spec)
        event = audit_events.password_restored(
            present.role, spec.pool_id, present.version, RECONCILER
        )
        self._outbox.enqueue(event)

    async def _apply(
        self, state: TenantState, wanted: PasswordVersion, *, fail_soon: bool = False
    ) -> Rotation:
        spec = state.tenant.spec
        server = self._manager.server(spec.server)
        isolation = self._manager.isolations[spec.strategy]
        login = self._manager.connectors.of(server, spec)
        async with (
            self._locks.hold(lock_of_role(wanted.server, wanted.role)),
            self._without_logins(spec),
            login.changing(),
        ):
            try:
                async with asyncio.timeout(_ROTATE_DEADLINE):
                    await isolation.rotate_password(
                        server,
                        state.tenant,
                        wanted.version,
                        max_size=self._manager.desired.most_connections(spec),
                        fail_soon=fail_soon,
                    )
            except TimeoutError as error:
                raise ServerUnavailable("The server took too long to change it.") from error
            self._role_passwords.set_password_version(wanted.server, wanted.role, wanted.version)
        pool = self._manager.find(spec.pool_id)
        recycled = pool.recycle() if pool is not None else 0
        try:
            await self._catalog.password_versions.mark_applied(replace(wanted, applied=True))
            self._unapplied.pop((wanted.server, wanted.role), None)
        except CatalogUnavailable:
            _log.warning("password set but not recorded", role=wanted.role)
        return Rotation(
            role=wanted.role,
            version=wanted.version,
            recycled=recycled,
            tenants=self._manager.tenants.count(spec.pool_id),
        )

    def _state_of(self, wanted: PasswordVersion) -> TenantState | None:
        """A tenant that logs in with this role, and may do so."""
        state = self._manager.tenants.get(wanted.role.removeprefix(OBJECT_PREFIX))
        if state is None:
            state = self._manager.tenants.of_pool(shared_pool_id(wanted.server))
        if state is None or not state.tenant.is_usable:
            return None
        spec = state.tenant.spec
        role = self._manager.isolations[spec.strategy].role(spec)
        return state if (spec.server, role) == (wanted.server, wanted.role) else None
