"""Looks at tenants' roles and at what they can reach: a few queries for all roles of a server.

Facts only; `app.domain.isolation_policy` judges them. Nothing is asked in a tenant's own database.
Names and settings that others chose may be in any encoding, whatever this database's is. They
travel as bytes, and no function of Postgres that looks at characters touches them.
"""

# ruff: noqa: S608 - what is put into queries are expressions of this file

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import asyncpg

from app.domain.isolation import AuditCheck
from app.domain.isolation_policy import ExtensionSchemas, RelationFacts, RoleFacts, SharedRoleReach
from app.domain.tenant import OBJECT_PREFIX
from app.pools import driver
from app.pools.isolation.excess_grants import EXCESS_GRANTS, ExcessGrant
from app.pools.raw_text import as_bytea, decode, starts_with

_POWERS = ("SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS")
_PUBLIC = 0
# Of one role: it may set each in every database of the cluster.
_MOST_SETTINGS = 100
# Waiting for a table that somebody keeps locked, or counting what somebody made without measure,
# is one look's failure: there is time for the others.
_LIMITS = "SET lock_timeout = '1s'; SET statement_timeout = '5s'"


# A tenant may set a value of any length; text becomes a name without a look at characters.
_SHORT_SETTING = "setting::name || case when octet_length(setting) > 63 then '...' else '' end"

_ROLES = f"""
with recursive ours as (
    select * from pg_roles where rolname = any($1::text[])
), acting(role, as_role) as (
    select member, roleid from pg_auth_members where member in (select oid from ours)
    union
    select acting.role, roleid from acting join pg_auth_members on member = as_role
), granted as (
    select role, array_agg({as_bytea("rolname")}) as names,
        array_agg({as_bytea("rolname")}) filter (
            where {starts_with("rolname", "pg_")}
                or rolsuper or rolcreatedb or rolcreaterole or rolreplication or rolbypassrls
        ) as mighty
    from acting join pg_roles on oid = as_role group by role
), settings as (
    select setrole, array_agg({as_bytea(_SHORT_SETTING)}) filter (
        where not (datname is not distinct from current_database() and setting =
            format('search_path=%I%s, pg_temp', pg_get_userbyid(setrole), $3::text))
        ) as names
    from pg_db_role_setting left join pg_database on pg_database.oid = setdatabase,
        unnest(setconfig) as setting
    where setrole in (select oid from ours) group by setrole
), home as (
    select nspname as name, pg_get_userbyid(nspowner) as owner, grantee
    from pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
    where nspname = any($1) and nspname <> all ($2)
    union all
    select datname, pg_get_userbyid(datdba), grantee
    from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
    where datname = any($2)
), homes as (
    select name, {as_bytea("min(owner)")} as owner, array_agg(
        {as_bytea("case grantee when 0 then 'PUBLIC' else pg_get_userbyid(grantee) end")}
    ) as grantees
    from home group by name
)
select ours.oid, ours.rolname::text as name, rolcanlogin as can_login,
    array[rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls] as powers,
    rolconnlimit as connection_limit, coalesce(granted.names, '{{}}') as granted,
    coalesce(granted.mighty, '{{}}') as mighty,
    coalesce(settings.names[:{_MOST_SETTINGS}], '{{}}') as settings,
    homes.owner, coalesce(homes.grantees, '{{}}') as grantees
from ours
left join granted on granted.role = ours.oid
left join settings on settings.setrole = ours.oid
left join homes on homes.name = ours.rolname
"""
_DATABASES = f"""
select grantee,
    array_agg({as_bytea("datname")}) filter (
        where privilege_type = 'CONNECT' and not (
            {starts_with("datname", OBJECT_PREFIX)} and datdba is not distinct from
                (select oid from pg_roles where rolname = datname))
    ) as connect,
    coalesce(bool_or(privilege_type = 'TEMPORARY') filter (where datname = current_database()),
        false) as temporary
from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
where datallowconn and grantee in (
    select 0::oid union all select oid from pg_roles where rolname = any($1::text[])
)
group by grantee
"""
_SCHEMAS = """
select rolname::text as role,
    array_agg(nspname::text) filter (
        where not has_schema_privilege(pg_roles.oid, pg_namespace.oid, 'USAGE')) as closed,
    array_agg(nspname::text) filter (
        where has_schema_privilege(pg_roles.oid, pg_namespace.oid, 'CREATE')) as open
from pg_roles, pg_namespace
where rolname = any($1::text[]) and nspname = any($2::text[])
group by rolname
"""
_EXISTING = "select nspname::text from pg_namespace where nspname = any($1::text[])"
_AFTER = """
select coalesce(string_agg(', ' || quote_ident(name), '' order by place), '')
from unnest($1::text[]) with ordinality as each(name, place)
"""
_PUBLIC_MAY_CREATE = """
select exists (
    select from pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
    where nspname = 'public' and grantee = 0 and privilege_type = 'CREATE'
)
"""
_OWNED = """
select count(*) from pg_shdepend
where refclassid = 'pg_authid'::regclass and refobjid = $1 and deptype = 'o'
"""
# Only schemas that the shared role may use. What a tenant has opened in its own is its own fault,
# and none of the shared tenants' rows are there.
_USABLE = f"""
with usable as materialized (
    select oid, nspname from pg_namespace
    where not {starts_with("nspname", "pg_")} and nspname <> 'information_schema'
        and has_schema_privilege($1::oid, oid, 'USAGE')
        and not ({starts_with("nspname", OBJECT_PREFIX)} and nspowner is not distinct from
            (select oid from pg_roles where rolname = nspname))
)
"""
_RELATIONS = f"""{_USABLE}
select {as_bytea("format('%I.%I', nspname, relname)")} as name, relkind::text as kind,
    relrowsecurity as enabled, relforcerowsecurity as forced,
    array(
        select {as_bytea("polname")} from pg_policy
        where polrelid = pg_class.oid and polpermissive and not coalesce(
            coalesce(pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
                ~ 'app\\.tenant_id', false)
    ) as loose_policies,
    has_table_privilege($1::oid, pg_class.oid, 'TRUNCATE') as may_truncate,
    relkind = 'v' and (rolsuper or rolbypassrls)
        and not coalesce(reloptions && '{{security_invoker=true,security_invoker=on}}', false)
        as bypassing
from pg_class
join usable on usable.oid = relnamespace
join pg_roles on pg_roles.oid = relowner
where relkind in ('r', 'p', 'f', 'm', 'v')
    and (has_any_column_privilege($1::oid, pg_class.oid, 'SELECT, INSERT, UPDATE')
        or has_table_privilege($1::oid, pg_class.oid, 'DELETE, TRUNCATE'))
    and (exists (select from pg_policy where polrelid = pg_class.oid)
        or exists (
            select from pg_attribute
            where attrelid = pg_class.oid and attname = 'tenant_id' and not attisdropped))
"""
_DEFINERS = f"""{_USABLE}
select {as_bytea("pg_proc.oid::regprocedure")} from pg_proc
join usable on usable.oid = pronamespace
where prosecdef and has_function_privilege($1::oid, pg_proc.oid, 'EXECUTE')
    and not exists (
        select from unnest(proconfig) as setting where {starts_with("setting", "search_path=")})
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseGrants:
    """What one grantee, or everybody, may do with databases."""

    connect: frozenset[str]
    temporary: bool


_NOTHING = DatabaseGrants(connect=frozenset(), temporary=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found, and what could not be looked at.

    Attributes:
        roles: facts of the roles that exist, by name.
        shared: what the shared role can reach.
        openings: tenants' schemas and databases that others may enter.
        unchecked: why checks of all roles could not be made.
        unchecked_roles: why nothing could be found out about some roles, by name.
    """

    roles: Mapping[str, RoleFacts]
    shared: SharedRoleReach
    excess_grants: Sequence[ExcessGrant]
    unchecked: Mapping[AuditCheck, str]
    unchecked_roles: Mapping[str, str]


async def inspect(
    connection: asyncpg.Connection,
    *,
    in_schema: Iterable[str],
    in_database: Iterable[str],
    shared: str | None,
    schemas: Sequence[str] = (),
) -> Inspection:
    """Facts about roles, over an admin *connection* into the server's own database.

    A look that fails leaves the others alone.

    Args:
        connection: may be any role's that is allowed to read the system catalogs.
        in_schema: roles of tenants with a schema of their own.
        in_database: roles of tenants with a database of their own.
        shared: the role of the shared tenants, if there are any.
        schemas: what tenants with a schema of their own find after that.

    Raises:
        asyncpg.PostgresConnectionError, OSError: the connection is gone.
    """
    await connection.execute(_LIMITS)
    looks = _Looks(connection)
    databases = list(in_database)
    names = [*in_schema, *databases, *([shared] if shared else [])]
    grants = {
        row["grantee"]: DatabaseGrants(
            connect=frozenset(map(decode, row["connect"] or ())), temporary=row["temporary"]
        )
        for row in await looks.at(
            (AuditCheck.OTHER_DATABASES, AuditCheck.TEMPORARY_TABLES), _DATABASES, names
        )
    }
    [after] = await connection.fetchrow(_AFTER, list(schemas)) or [""]
    reachable = await _extension_schemas(looks, list(in_schema), schemas)
    public = await looks.at((AuditCheck.PUBLIC_SCHEMA,), _PUBLIC_MAY_CREATE)
    public_may_create = any(may for [may] in public)
    facts: dict[str, RoleFacts] = {}
    reach = SharedRoleReach()
    for row in await looks.at_roles(names, databases, after):
        owns = 0
        if row["name"] == shared:
            owns = sum(n for [n] in await looks.at((AuditCheck.OWNERSHIP,), _OWNED, row["oid"]))
            reach = await _reach(looks, row["oid"])
        known = _facts(row, grants, owns=owns, public_may_create=public_may_create)
        extensions = reachable.get(row["name"], known.extension_schemas)
        facts[row["name"]] = replace(known, extension_schemas=extensions)
    return Inspection(
        roles=facts,
        shared=reach,
        excess_grants=[ExcessGrant(**row) for row in await looks.at((), EXCESS_GRANTS)],
        unchecked=looks.failed,
        unchecked_roles=looks.failed_roles,
    )


@dataclass(frozen=True, slots=True)
class _Looks:
    """Queries of which one may fail without the others."""

    connection: asyncpg.Connection
    failed: dict[AuditCheck, str] = field(default_factory=dict)
    failed_roles: dict[str, str] = field(default_factory=dict)

    async def at(
        self, checks: Iterable[AuditCheck], query: str, *arguments: object
    ) -> list[asyncpg.Record]:
        """What *query* gives; nothing if it fails, and then *checks* are not made."""
        try:
            return await self.connection.fetch(query, *arguments)
        except driver.CONNECTION_ERRORS:
            raise
        except (asyncpg.PostgresError, UnicodeDecodeError) as error:
            self.failed.update(dict.fromkeys(checks, driver.failure_reason(error)))
            return []

    async def at_roles(
        self, names: Sequence[str], databases: Sequence[str], after: str
    ) -> list[asyncpg.Record]:
        """What there is to say of these roles, of all at once if that succeeds."""
        try:
            return await self.connection.fetch(_ROLES, names, databases, after)
        except driver.CONNECTION_ERRORS:
            raise
        except (asyncpg.PostgresError, UnicodeDecodeError) as error:
            if len(names) <= 1:
                self.failed_roles.update(dict.fromkeys(names, driver.failure_reason(error)))
                return []
        half = len(names) // 2
        return [
            *await self.at_roles(names[:half], databases, after),
            *await self.at_roles(names[half:], databases, after),
        ]


async def _extension_schemas(
    looks: _Looks, roles: list[str], schemas: Sequence[str]
) -> dict[str, ExtensionSchemas]:
    """What there is to say of each role about *schemas*."""
    if not schemas:
        return {}
    checks = (AuditCheck.EXTENSION_SCHEMAS,)
    there = {name for [name] in await looks.at(checks, _EXISTING, list(schemas))}
    missing = ExtensionSchemas(missing=tuple(name for name in schemas if name not in there))
    found = dict.fromkeys(roles, missing)
    for row in await looks.at(checks, _SCHEMAS, roles, list(schemas)):
        found[row["role"]] = replace(
            missing, not_usable=tuple(row["closed"] or ()), writable=tuple(row["open"] or ())
        )
    return found


async def _reach(looks: _Looks, role: int) -> SharedRoleReach:
    relations = await looks.at((AuditCheck.ROW_SECURITY, AuditCheck.RLS_BYPASS), _RELATIONS, role)
    definers = await looks.at((AuditCheck.RLS_BYPASS,), _DEFINERS, role)
    return SharedRoleReach(
        relations=tuple(
            RelationFacts(
                **{
                    **dict(row),
                    "name": decode(row["name"]),
                    "loose_policies": tuple(map(decode, row["loose_policies"])),
                }
            )
            for row in relations
        ),
        security_definer_functions=tuple(decode(name) for [name] in definers),
    )


def _facts(
    row: asyncpg.Record, grants: Mapping[int, DatabaseGrants], *, owns: int, public_may_create: bool
) -> RoleFacts:
    public, own = grants.get(_PUBLIC, _NOTHING), grants.get(row["oid"], _NOTHING)
    name = row["name"]
    owner = None if row["owner"] is None else decode(row["owner"])
    others = set(map(decode, row["grantees"])) - {name, owner}
    return RoleFacts(
        can_login=row["can_login"],
        attributes=tuple(power for power, has in zip(_POWERS, row["powers"], strict=True) if has),
        memberships=tuple(map(decode, row["granted"])),
        privileged_memberships=tuple(map(decode, row["mighty"])),
        settings=tuple(map(decode, row["settings"])),
        databases=tuple(public.connect | own.connect),
        connection_limit=row["connection_limit"],
        owner=owner,
        grantees=tuple(others) if name.startswith(OBJECT_PREFIX) else (),
        owned_objects=owns,
        can_create_temporary=public.temporary or own.temporary,
        public_can_create=public_may_create,
    )
