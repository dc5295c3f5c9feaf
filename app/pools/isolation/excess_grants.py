"""Schemas and databases of tenants that everybody, or other tenants, may enter: found, and closed.

Only what bears our mark is closed again. The mark looked for is the role's, which a tenant cannot
change, so the schemas and databases of deleted tenants are known too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import asyncpg

from app.domain.tenant import OBJECT_PREFIX
from app.pools.isolation.objects import DatabaseObjects
from app.pools.raw_text import starts_with
from app.pools.server import Server

EXCESS_GRANTS = f"""
with made as (
    select oid, rolname from pg_roles
    where {starts_with("rolname", OBJECT_PREFIX)} and exists (
        select from pg_shdescription
        where objoid = pg_roles.oid and classoid = 'pg_authid'::regclass
            and {starts_with("description", "poolkeeper tenant ")})
), others as (
    select oid, rolname::text as name from made
    union all select oid, rolname::text from pg_roles where rolname = 'poolkeeper_shared'
    union all select 0::oid, 'PUBLIC'
), granted as (
    select 'DATABASE' as kind, datname as name, datdba as owner, grantee
    from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) where datallowconn
    union all
    select 'SCHEMA', nspname, nspowner, grantee from pg_namespace, aclexplode(nspacl)
)
select kind, made.rolname::text as name, array_agg(distinct others.name) as to
from granted
join made on made.oid = granted.owner and made.rolname = granted.name
join others on others.oid = granted.grantee and others.oid <> granted.owner
group by kind, made.rolname
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True, kw_only=True)
class ExcessGrant:
    """A tenant's object that others may enter.

    Attributes:
        kind: `DATABASE` or `SCHEMA`.
        name: its name, which is its owner's too.
        to: roles of other tenants, and `PUBLIC`.
    """

    kind: str
    name: str
    to: Sequence[str]


async def revoke(server: Server, opened: Iterable[ExcessGrant]) -> list[ExcessGrant]:
    """Take away what others may do there; what Postgres did not let us.

    Raises:
        ServerUnavailable: it cannot be reached; some may be closed.
    """
    refused = []
    async with server.admin() as connection:
        objects = DatabaseObjects(connection)
        await objects.set_lock_timeout()
        for each in opened:
            try:
                async with connection.transaction():
                    await objects.revoke_all(each.kind, each.name, each.to)
            except asyncpg.PostgresError:
                refused.append(each)
    return refused
