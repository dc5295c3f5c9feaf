"""The shape of a strategy: where it logs in, what surrounds a lease, what it creates."""

from __future__ import annotations

from typing import Protocol

import asyncpg

from app.domain.desired_state import Tenant
from app.domain.tenant import TenantSpec
from app.pools import driver
from app.pools.driver import Login
from app.pools.server import Server

# Beyond the pool's own: one to be replaced while it closes, one for a person.
SPARE_CONNECTIONS = 2

ADVISORY_UNLOCK = "SELECT pg_catalog.pg_advisory_unlock_all()"

# A setting that does not exist: to read it fails with its name in the message, in any language.
SCHEMA_MISSING = "poolkeeper.schema_missing"


def is_schema_missing(error: asyncpg.PostgresError) -> bool:
    """Whether a statement of ours failed because the tenant has no schema to work in."""
    return isinstance(
        error, asyncpg.UndefinedObjectError
    ) and SCHEMA_MISSING in driver.server_message(error)


class IsolationStrategy(Protocol):
    """One strategy's way to keep tenants apart."""

    def session_setup(self, spec: TenantSpec) -> str:
        """What each connection runs before its first lease, in a transaction of its own.

        It raises what `schema_is_missing` knows if the tenant has no schema to work in.
        """

    def advisory_unlock(self, spec: TenantSpec) -> str:
        """The statements that give up the session's advisory locks after the work.

        They raise the same as `preparation`.
        """

    def role(self, spec: TenantSpec) -> str:
        """The role that connections for this tenant log in as."""

    def database(self, server: Server, spec: TenantSpec) -> str:
        """The database they work in."""

    def login(self, server: Server, spec: TenantSpec) -> Login:
        """How connections for this tenant are opened."""

    def connection_limit(self, max_size: int) -> int:
        """Most connections its role may have with a pool of *max_size*; -1 for no limit."""

    def context_setup(self, spec: TenantSpec) -> str:
        """The statement that puts a transaction into the tenant's context; empty if none must."""

    def context_check(self, spec: TenantSpec) -> str:
        """A statement that fails, before the commit, if the context is no longer in place."""

    async def provision(
        self, server: Server, tenant: Tenant, *, adopt: bool, max_size: int | None = None
    ) -> list[str]:
        """Create what the tenant needs, idempotently; the names of what exists then.

        With *max_size*, its pool's, the role gets its connection limit too.

        Raises:
            ObjectsExist: something of that name was made for somebody else, and not *adopt*.
            ProvisioningFailed: Postgres refused.
            ServerUnavailable: it cannot be reached.
        """

    async def rotate_password(self, server: Server, tenant: Tenant, version: int) -> None:
        """Give the tenant's role that version of its password, whatever it has now.

        Raises:
            ObjectsExist: the role was made for somebody else.
            ServerUnavailable, ProvisioningFailed: it may have either password.
        """

    async def disable_login(self, server: Server, tenant: Tenant) -> None:
        """Disable the tenant's login, if it has one of its own; its data stays.

        Raises:
            ServerUnavailable, ProvisioningFailed: it may still be able to log in.
        """
