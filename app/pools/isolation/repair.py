"""Repairs what a role did to itself or to its objects, or what an earlier version left undone."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import asyncpg

from app.domain.errors import ProvisioningFailed
from app.domain.isolation_facts import ExcessGrant
from app.pools.isolation import objects
from app.pools.servers.server import Server

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """The repair of one role.

    Attributes:
        reset_settings: whether to undo settings for all its sessions.
        search_path_database: the database in which its search_path is then set to its own schema
            and *search_path_schemas*; None if it has no schema of its own.
        grant_usage_on: extension schemas that it should be able to use.
        connection_limit: the limit to set; called late, because the desired size may change before.
        verifier: the verifier of the role's password.
    """

    role: str
    reset_settings: bool = False
    search_path_database: str | None = None
    schemas: Sequence[str] = ()
    grant_usage_on: Sequence[str] = ()
    connection_limit: Callable[[], int] | None = None
    verifier: str | None = field(default=None, repr=False)


async def repair(server: Server, repairs: Iterable[Repair]) -> list[Repair]:
    """Carry *repairs* out, each in its own transaction; return those that Postgres refused.

    Raises:
        ServerUnavailable: some of them may have been carried out.
    """
    return await _for_each(server, repairs, _repair_role)


async def revoke(server: Server, grants: Iterable[ExcessGrant]) -> list[ExcessGrant]:
    """Revoke *grants*, each in its own transaction; return those that Postgres refused.

    Raises:
        ServerUnavailable: some of them may have been revoked.
    """
    return await _for_each(server, grants, _revoke)


async def _for_each(
    server: Server,
    items: Iterable[T],
    statements_of: Callable[[asyncpg.Connection, T], Awaitable[Sequence[str]]],
) -> list[T]:
    refused = []
    async with server.admin() as connection:
        for item in items:
            try:
                statements = await statements_of(connection, item)
                await objects.execute(connection, statements, fail_soon=True)
            except (asyncpg.PostgresError, ProvisioningFailed):
                refused.append(item)
    return refused


async def _revoke(_: asyncpg.Connection, grant: ExcessGrant) -> Sequence[str]:
    return [objects.revoke_all(grant.kind, grant.name, grant.grantees)]


async def _repair_role(connection: asyncpg.Connection, repair: Repair) -> Sequence[str]:
    role = repair.role
    statements: list[str] = []
    if repair.reset_settings:
        statements += objects.reset_settings(role)
        if repair.search_path_database is not None:
            path = objects.set_search_path(role, repair.search_path_database, repair.schemas)
            statements.append(path)
    statements += await objects.grant_schema_usage(connection, role, repair.grant_usage_on)
    if repair.connection_limit is not None:
        statements.append(objects.set_connection_limit(role, repair.connection_limit()))
    if repair.verifier is not None:
        statements.append(objects.set_verifier(role, repair.verifier))
    return statements
