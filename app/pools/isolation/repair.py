"""Mends what a role did to itself, or what an earlier version left undone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import asyncpg

from app.domain.errors import ProvisioningFailed
from app.pools.isolation.objects import DatabaseObjects
from app.pools.server import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What to do about one role.

    Attributes:
        role: which one.
        reset: whether to undo what is set for all its sessions.
        own_schema_in: the database where it finds its own schema first, if it has one.
        schemas: those that it finds after that.
        grant: those of them that it is to be let use.
        connection_limit: tells, when it is set, how many connections it shall have at most,
            for the wish may change before; None leaves that as it is.
    """

    role: str
    reset_settings: bool = False
    search_path_database: str | None = None
    schemas: Sequence[str] = ()
    grant_usage_on: Sequence[str] = ()
    connection_limit: Callable[[], int] | None = None


async def repair(server: Server, repairs: Iterable[Repair]) -> list[str]:
    """Carry *repairs* out, each by itself; the roles with which Postgres did not let us.

    Raises:
        ServerUnavailable: it cannot be reached; some may have been carried out.
    """
    refused = []
    async with server.admin() as connection:
        objects = DatabaseObjects(connection)
        await objects.set_lock_timeout()
        for each in repairs:
            try:
                async with connection.transaction():
                    await _carry_out(objects, each)
            except (asyncpg.PostgresError, ProvisioningFailed):
                refused.append(each.role)
    return refused


async def _carry_out(objects: DatabaseObjects, repair: Repair) -> None:
    if repair.reset_settings:
        await objects.reset_settings(repair.role)
        if repair.search_path_database is not None:
            await objects.set_search_path(repair.role, repair.search_path_database, repair.schemas)
    await objects.grant_schema_usage(repair.role, repair.grant_usage_on)
    if repair.connection_limit is not None:
        await objects.set_connection_limit(repair.role, repair.connection_limit())
