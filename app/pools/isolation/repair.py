"""Repairs what a role did to itself or its own objects, or what an earlier version left undone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import asyncpg

from app.domain.errors import ProvisioningFailed
from app.domain.isolation_policy import ExcessGrant
from app.pools.isolation.objects import DatabaseObjects
from app.pools.server import Server

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What to do about one role.

    Attributes:
        reset_settings: whether to undo what is set for all its sessions.
        search_path_database: where its search_path is set after that: to its own schema, and then
            *search_path_schemas*; None if it has no schema of its own.
        grant_usage_on: schemas for extensions that it should be able to use.
        connection_limit: what to set, read when it is set, for the desired size may change before.
        verifier: of the password that the role has.
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
        ServerUnavailable: some may have been carried out.
    """
    return await _for_each(server, repairs, _repair_role)


async def revoke(server: Server, grants: Iterable[ExcessGrant]) -> list[ExcessGrant]:
    """Revoke *grants*, each in its own transaction; return those that Postgres refused.

    Raises:
        ServerUnavailable: some may have been revoked.
    """
    return await _for_each(
        server,
        grants,
        lambda objects, grant: objects.revoke_all(grant.kind, grant.name, grant.grantees),
    )


async def _for_each(
    server: Server, items: Iterable[T], change: Callable[[DatabaseObjects, T], Awaitable[None]]
) -> list[T]:
    refused = []
    async with server.admin() as connection:
        objects = DatabaseObjects(connection)
        await objects.set_lock_timeout()
        for item in items:
            try:
                async with connection.transaction():
                    await change(objects, item)
            except (asyncpg.PostgresError, ProvisioningFailed):
                refused.append(item)
    return refused


async def _repair_role(objects: DatabaseObjects, repair: Repair) -> None:
    if repair.reset_settings:
        await objects.reset_settings(repair.role)
        if repair.search_path_database is not None:
            await objects.set_search_path(repair.role, repair.search_path_database, repair.schemas)
    await objects.grant_schema_usage(repair.role, repair.grant_usage_on)
    if repair.connection_limit is not None:
        await objects.set_connection_limit(repair.role, repair.connection_limit())
    if repair.verifier is not None:
        await objects.set_verifier(repair.role, repair.verifier)
