"""The shape of a strategy: where it logs in, what surrounds a lease, what it creates."""

from __future__ import annotations

from typing import Protocol

from app.domain.desired import Tenant
from app.domain.tenant import TenantSpec
from app.pools.driver import Login
from app.pools.server import Server


class Isolation(Protocol):
    """One strategy's way to keep tenants apart."""

    def login(self, server: Server, spec: TenantSpec) -> Login:
        """How connections for this tenant are opened."""

    def context(self, spec: TenantSpec) -> str:
        """The statement that puts a transaction into the tenant's context; empty if none must."""

    def proof(self, spec: TenantSpec) -> str:
        """A statement that fails, before the commit, if the context is no longer in place."""

    async def provision(self, server: Server, tenant: Tenant, *, adopt: bool) -> list[str]:
        """Create what the tenant needs, idempotently; the names of what exists then.

        Raises:
            ObjectsExist: something of that name was made for somebody else, and not *adopt*.
            ProvisioningFailed: Postgres refused.
            ServerUnavailable: it cannot be reached.
        """

    async def retire(self, server: Server, tenant: Tenant) -> None:
        """Disable the tenant's login, if it has one of its own; its data stays.

        Raises:
            ServerUnavailable, ProvisioningFailed: it may still be able to log in.
        """
