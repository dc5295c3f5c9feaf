"""The rights that the service's role needs on a declared server, with the SQL that grants them."""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import asyncpg

from app.domain.errors import ServerUnavailable
from app.pools.servers.server import Server

_DEADLINE = 10.0
_OLDEST_VERSION = 14
# See docs/operations.md: one tenant's locks must not fill the server's lock table unnoticed.
_MIN_LOCKS = 1024
# Postgres quotes the names. "public" means everyone here.
_FACTS = """
select current_setting('server_version_num')::int / 10000 as version,
    current_setting('server_encoding') as encoding,
    current_setting('max_locks_per_transaction')::int as max_locks,
    (select pending_restart from pg_settings where name = 'max_locks_per_transaction')
        as is_restart_due,
    quote_ident(rolname) as role,
    quote_ident(datname) as database,
    rolsuper as is_superuser,
    rolcreaterole and rolcreatedb and rolinherit as makes_roles_and_databases,
    has_database_privilege(home.oid, 'CREATE') as makes_schemas,
    has_database_privilege(home.oid, 'CONNECT WITH GRANT OPTION')
        and has_database_privilege(home.oid, 'TEMPORARY WITH GRANT OPTION') as grants_access,
    pg_has_role(datdba, 'USAGE')
        or not has_database_privilege('public', home.oid, 'CONNECT') as is_closed,
    not exists (
        select from pg_namespace where nspname = 'public' and not pg_has_role(nspowner, 'USAGE')
            and has_schema_privilege('public', oid, 'CREATE')
    ) as is_public_schema_closed,
    array(
        select quote_ident(datname) from pg_database as other
        where datallowconn and datname not in (current_database(), $1) and datname <> all ($2)
            and not starts_with(datname, 'tenant_')
            and has_database_privilege('public', other.oid, 'CONNECT')
        order by datname
    ) as other_open_databases,
    array(
        select quote_ident(used.datname) || ' TO '
            || string_agg(distinct quote_ident(guest.rolname), ', ')
        from pg_stat_activity join pg_database as used on used.oid = datid
        join pg_roles as guest on guest.oid = usesysid
        where not guest.rolsuper and guest.oid <> admin.oid
            -- What is closed is closed to tenants first of all.
            and not starts_with(guest.rolname, 'tenant_') and guest.rolname <> 'poolkeeper_shared'
            and not exists (
                select from aclexplode(coalesce(used.datacl, acldefault('d', used.datdba)))
                where privilege_type = 'CONNECT' and grantee <> 0
                    and pg_has_role(guest.oid, grantee, 'USAGE')
            )
        group by used.datname order by used.datname
    ) as guests
from pg_roles as admin, pg_database as home
where rolname = current_user and datname = current_database()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One requirement, and whether it is met.

    Attributes:
        is_critical: without it, tenants cannot be provisioned or are not isolated.
        sql: SQL with which a superuser can meet it; None if SQL cannot.
        sql_place: where to run it.
    """

    name: str
    is_met: bool
    detail: str
    is_critical: bool = True
    sql: str | None = None
    sql_place: str = "the server's database"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminFacts:
    """What the server reports about the service's role and its database; names are quoted.

    Attributes:
        guests: who is connected by a right of PUBLIC only, and is no tenant, as
            "database TO role, role".
    """

    version: int
    encoding: str
    max_locks: int
    is_restart_due: bool
    role: str
    database: str
    is_superuser: bool
    makes_roles_and_databases: bool
    makes_schemas: bool
    grants_access: bool
    is_closed: bool
    is_public_schema_closed: bool
    other_open_databases: Sequence[str]
    guests: Sequence[str] = ()

    @classmethod
    async def read(
        cls, connection: asyncpg.Connection, *, catalog: str | None, known: Collection[str]
    ) -> Self:
        """Ask the server.

        *catalog* is the catalog's database there, which the service closes to others; *known* are
        open databases that need not be reported.
        """
        return cls(**dict(await connection.fetchrow(_FACTS, catalog or "", list(known)) or {}))


async def requirements_of(server: Server, *, catalog: str | None) -> list[Requirement]:
    """Check all requirements of a server that was contacted.

    Raises:
        Unavailable, ProvisioningFailed: the server does not answer, or refuses.
    """
    try:
        async with asyncio.timeout(_DEADLINE), server.admin() as connection:
            facts = await AdminFacts.read(connection, catalog=catalog, known=server.open_databases)
    except TimeoutError as error:
        raise ServerUnavailable("The server took too long to answer.") from error
    return [*judge(facts, known=server.open_databases), _of_budget(server)]


def judge(facts: AdminFacts, *, known: Collection[str] = ()) -> Iterator[Requirement]:
    role, database, is_superuser = facts.role, facts.database, facts.is_superuser
    yield Requirement(
        name="version",
        is_met=facts.version >= _OLDEST_VERSION,
        detail=f"PostgreSQL {facts.version}; {_OLDEST_VERSION} or newer is needed",
    )
    yield Requirement(
        name="role",
        is_met=is_superuser or facts.makes_roles_and_databases,
        detail=f"role {role} creates tenants' roles and databases, and inherits their rights",
        sql=f"ALTER ROLE {role} CREATEROLE CREATEDB INHERIT;",
    )
    yield Requirement(
        name="schemas",
        is_met=is_superuser or facts.makes_schemas,
        detail=f"role {role} creates tenants' schemas in database {database}",
        sql=f"GRANT CREATE ON DATABASE {database} TO {role};",
    )
    yield Requirement(
        name="grants",
        is_met=is_superuser or facts.grants_access,
        detail=f"role {role} lets tenants connect to database {database}",
        sql=f"GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {role} WITH GRANT OPTION;",
    )
    yield Requirement(
        name="database",
        is_met=facts.is_closed,
        detail=f"database {database} is closed to PUBLIC, or the service can close it",
        sql=_close(facts, [database]),
    )
    yield Requirement(
        name="public schema",
        is_met=facts.is_public_schema_closed,
        detail=f"not everyone can create objects in schema public of database {database}",
        sql="REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
    )
    open_databases = facts.other_open_databases
    others = ", ".join(open_databases)
    yield Requirement(
        name="other databases",
        is_met=not others,
        is_critical=not {"postgres", "template1"}.issuperset(open_databases),
        detail=f"tenants can also connect to {others}; what only your provider can close belongs in"
        " the setting open_databases of the server"
        if others
        else "tenants can connect to no other database"
        + (f" than {', '.join(sorted(known))} (open_databases)" if known else ""),
        sql=_close(facts, open_databases),
    )
    yield Requirement(
        name="encoding",
        is_met=facts.encoding == "UTF8",
        is_critical=False,
        detail=f"database {database} is encoded in {facts.encoding}; UTF8 stores every text",
    )
    yield Requirement(
        name="locks",
        is_met=facts.max_locks >= _MIN_LOCKS,
        is_critical=False,
        detail=f"max_locks_per_transaction is {facts.max_locks}; {_MIN_LOCKS} keep one tenant "
        "from filling the lock table"
        + ("; another value is set: restart Postgres" if facts.is_restart_due else ""),
        sql=None
        if facts.is_restart_due
        else f"ALTER SYSTEM SET max_locks_per_transaction = {_MIN_LOCKS};\n"
        "SELECT pg_reload_conf();  -- then restart Postgres",
    )


def _close(facts: AdminFacts, databases: Sequence[str]) -> str:
    """Revoke PUBLIC's rights, without locking out who uses *databases* by them now."""
    places = tuple(f"{database} TO " for database in databases)
    guests = [each for each in facts.guests if each.startswith(places)]
    return "\n".join(
        [
            "-- Roles that log in there by a right of PUBLIC need one of their own first.",
            *(f"GRANT CONNECT, TEMPORARY ON DATABASE {each};  -- connected now" for each in guests),
            f"REVOKE CONNECT, TEMPORARY ON DATABASE {', '.join(databases)} FROM PUBLIC;",
        ]
    )


def _of_budget(server: Server) -> Requirement:
    limits, budget = server.limits, server.limit
    usable = limits.max_connections - limits.reserved if limits else 0
    wanted = server.fixed_budget or budget
    fewer = f", fewer than the {wanted} that are set" if wanted > budget else ""
    return Requirement(
        name="budget",
        is_met=0 < wanted <= budget,
        detail=f"the service may use {budget} of {usable} connections{fewer}",
    )
