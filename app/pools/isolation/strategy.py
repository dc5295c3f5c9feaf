"""The interface of a strategy: a tenant's login, its objects, and what surrounds a lease."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import asyncpg

from app.domain.errors import SchemaMissing
from app.domain.tenant import Tenant, TenantSpec
from app.pools import driver
from app.pools.isolation.objects import (
    KEY_MARK,
    TENANT_MARK,
    VERSION_MARK,
    ObjectFacts,
    execute,
    put_login_role,
)
from app.pools.isolation.role_passwords import RolePasswords
from app.pools.servers.server import Server
from app.wire import Login

ADVISORY_UNLOCK = "SELECT pg_catalog.pg_advisory_unlock_all()"

# A setting that does not exist. Reading it fails with its name in the message, in any language.
SCHEMA_MISSING = "poolkeeper.schema_missing"

# Settings in the startup message override those that a role set for its own sessions (ALTER ROLE
# CURRENT_USER SET …), and RESET ALL restores them.
FIXED_SETTINGS = {
    "default_transaction_read_only": "off",
    "exit_on_error": "off",
    "idle_session_timeout": "0",
    # A library that does not exist would block every login.
    "local_preload_libraries": "",
    "role": "none",
    "row_security": "on",
}

# A back-end notices within this many milliseconds that its client has gone, even during a long
# statement, so that its place in the budget is soon free.
_CHECK_CLIENTS = {"client_connection_check_interval": "1000"}


def is_schema_missing(error: asyncpg.PostgresError) -> bool:
    """Whether one of our statements failed because the tenant has no schema to work in."""
    return isinstance(
        error, asyncpg.UndefinedObjectError
    ) and SCHEMA_MISSING in driver.server_message(error)


def schema_missing(spec: TenantSpec) -> SchemaMissing:
    """What a caller gets then."""
    name = spec.id.object_name
    return SchemaMissing(
        f"The schema {name} does not exist, or the role {name} may not use it: it was dropped, "
        "renamed or closed. Provision the tenant again."
    )


class IsolationStrategy(ABC):
    """One way to keep tenants apart."""

    object_kinds: ClassVar[tuple[str, ...]] = ("ROLE",)
    """The kinds of objects that provisioning creates, all with the name of the role."""

    settings: ClassVar[Mapping[str, str]]
    """Settings of each connection, besides those that all strategies set."""

    def __init__(self, role_passwords: RolePasswords) -> None:
        self._role_passwords = role_passwords

    @abstractmethod
    def role(self, spec: TenantSpec) -> str:
        """The role with which connections for this tenant log in."""

    @abstractmethod
    def database(self, server: Server, spec: TenantSpec) -> str:
        """The database that they use."""

    @abstractmethod
    def search_path(self, server: Server, spec: TenantSpec) -> str | None:
        """Their search_path; None for what the database says, here as on nodes.

        If the role can create temporary tables, it must not end in pg_temp: with its schema gone,
        every table that it creates would be temporary.
        """

    @abstractmethod
    def connection_limit(self, max_size: int) -> int:
        """The most connections for its role with a pool of *max_size*; -1 for no limit."""

    @abstractmethod
    def session_setup(self, spec: TenantSpec) -> str:
        """The statements that a connection runs before its first lease, in their own transaction.

        They fail with an error that `is_schema_missing` recognises if the tenant has no schema.
        """

    @abstractmethod
    def context_setup(self, spec: TenantSpec) -> str:
        """The statement that puts a transaction into the tenant's context."""

    @abstractmethod
    def context_check(self, spec: TenantSpec) -> str:
        """A statement that fails, before the commit, if the context is no longer in place."""

    @abstractmethod
    def advisory_unlock(self, spec: TenantSpec) -> str:
        """The statements that release the session's advisory locks after the work.

        They fail like those of `session_setup`.
        """

    def login(self, server: Server, spec: TenantSpec) -> Login:
        """The login of connections for this tenant."""
        role = self.role(spec)
        can_check = server.limits is None or server.limits.checks_clients
        path = self.search_path(server, spec)
        return replace(
            server.admins.login,
            user=role,
            password=self._role_passwords.password(server.name, role),
            database=self.database(server, spec),
            settings={
                **FIXED_SETTINGS,
                **(_CHECK_CLIENTS if can_check else {}),
                "application_name": f"poolkeeper/{spec.pool_id}",
                **({} if path is None else {"search_path": path}),
                **self.settings,
            },
        )

    def password_version(self, server: Server, spec: TenantSpec) -> int:
        """The version of that login's password."""
        return self._role_passwords.password_version(server.name, self.role(spec))

    def password_versions(self, server: Server, spec: TenantSpec) -> frozenset[int]:
        """The same, and the version that a rotation under way sets."""
        return self._role_passwords.password_versions(server.name, self.role(spec))

    @property
    def key_fingerprint(self) -> str:
        """The fingerprint of the secret key that passwords are derived from."""
        return self._role_passwords.key_fingerprint

    # -- provisioning: each may raise ServerUnavailable, ProvisioningFailed and ObjectsExist -----

    async def plan_provisioning(self, server: Server, tenant: Tenant, *, adopt: bool) -> list[str]:
        """Name the objects that `provision` creates or changes.

        Raises:
            ObjectsExist: an object was not created for this tenant, and *adopt* is not set.
        """
        name = self.role(tenant.spec)
        async with server.admin() as connection:
            await self._read_facts(connection, server, tenant, adopt=adopt)
        return [f"{kind.lower()} {name}" for kind in self.object_kinds]

    @abstractmethod
    async def provision(
        self, server: Server, tenant: Tenant, *, adopt: bool, max_size: int | None = None
    ) -> list[str]:
        """Create what the tenant needs, idempotently, and return its names.

        With the pool's *max_size*, also set the role's connection limit.
        """

    async def marked_password_version(
        self, server: Server, tenant: Tenant, *, adopt: bool = False
    ) -> int:
        """The version of the role's password by its mark; 0 if there is none."""
        async with server.admin() as connection:
            facts = await self._read_facts(connection, server, tenant, adopt=adopt, kinds=("ROLE",))
        return facts.password_version or 0

    async def rotate_password(
        self,
        server: Server,
        tenant: Tenant,
        version: int,
        *,
        max_size: int | None = None,
        fail_soon: bool = False,
    ) -> None:
        """Set that version of the role's password, whatever the present one is.

        With the pool's *max_size*, also set the role's connection limit: that of a role whose
        tenant was deleted, and is back with a restored catalog, is 0.
        *fail_soon*: do not wait for a transaction of the tenant that locks its role; see `execute`.
        After ServerUnavailable or ProvisioningFailed it may have either password.
        """
        async with server.admin() as connection:
            facts = await self._read_facts(connection, server, tenant, adopt=False, kinds=("ROLE",))
            statements = [
                *self._put_role(facts, server, tenant, max_size=max_size, version=version),
                *self._restore_access(server, self.role(tenant.spec)),
            ]
            await execute(connection, statements, fail_soon=fail_soon)

    @abstractmethod
    async def disable_login(
        self, server: Server, tenant: Tenant, *, fail_soon: bool = False
    ) -> None:
        """Disable the tenant's own login, if it has one; its data stays.

        *fail_soon*: as in `rotate_password`.
        """

    def marks(self, server: Server, tenant: Tenant) -> Sequence[str]:  # noqa: ARG002 - see shared
        """The comments on objects created for the tenant, or their beginnings.

        The first one is for new objects, others are those of earlier versions.
        """
        return [f"{TENANT_MARK}{tenant.uid}"]

    async def _read_facts(
        self,
        connection: asyncpg.Connection,
        server: Server,
        tenant: Tenant,
        *,
        adopt: bool,
        kinds: Iterable[str] | None = None,
    ) -> ObjectFacts:
        """Read which of the tenant's objects exist, and check those of these *kinds*.

        See `check`.
        """
        name = self.role(tenant.spec)
        facts = await ObjectFacts.read(connection, name, self.marks(server, tenant))
        facts.check(kinds or reversed(self.object_kinds), name, adopt=adopt)
        return facts

    def _put_role(
        self,
        facts: ObjectFacts,
        server: Server,
        tenant: Tenant,
        *,
        max_size: int | None = None,
        version: int | None = None,
    ) -> Iterator[str]:
        role = self.role(tenant.spec)
        version = version or self._role_passwords.password_version(server.name, role)
        verifier = self._role_passwords.verifier(server.name, role, version)
        key = self._role_passwords.key_fingerprint
        mark = f"{self.marks(server, tenant)[0]}{VERSION_MARK}{version}{KEY_MARK}{key}"
        limit = None if max_size is None else self.connection_limit(max_size)
        return put_login_role(facts, role, verifier, mark, connection_limit=limit)

    @abstractmethod
    def _restore_access(self, server: Server, role: str) -> Iterator[str]:
        """Undo whatever keeps the role from logging in to its database."""
