"""Looks at tenants' roles and at what they can reach: a few queries for all roles of a server.

Facts only; `app.domain.verdict` judges them. Nothing is asked in a tenant's own database.
Names and settings that others chose may be in any encoding, whatever this database's is. They
travel as bytes, and no function of Postgres that looks at characters touches them.
"""

# ruff: noqa: S608 - what is put into queries are expressions of this file

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import asyncpg

from app.domain.isolation import Check
from app.domain.tenant import OBJECT_PREFIX
from app.domain.verdict import ExtensionSchemas, RelationFacts, RoleFacts, SharedFacts
from app.pools import driver
from app.pools.foreign_text import as_bytes, begins, text_of
from app.pools.isolation.openings import OPENINGS, Opening

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
    select role, array_agg({as_bytes("rolname")}) as names,
        array_agg({as_bytes("rolname")}) filter (
            where {begins("rolname", "pg_")}
                or rolsuper or rolcreatedb or rolcreaterole or rolreplication or rolbypassrls
        ) as mighty
    from acting join pg_roles on oid = as_role group by role
), settings as (
    select setrole, array_agg({as_bytes(_SHORT_SETTING)}) filter (
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
    select name, {as_bytes("min(owner)")} as owner, array_agg(
        {as_bytes("case grantee when 0 then 'PUBLIC' else pg_get_userbyid(grantee) end")}
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
    array_agg({as_bytes("datname")}) filter (
        where privilege_type = 'CONNECT' and not (
            {begins("datname", OBJECT_PREFIX)} and datdba is not distinct from
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
    where not {begins("nspname", "pg_")} and nspname <> 'information_schema'
        and has_schema_privilege($1::oid, oid, 'USAGE')
        and not ({begins("nspname", OBJECT_PREFIX)} and nspowner is not distinct from
            (select oid from pg_roles where rolname = nspname))
)
"""
_RELATIONS = f"""{_USABLE}
select {as_bytes("format('%I.%I', nspname, relname)")} as name, relkind::text as kind,
    relrowsecurity as enabled, relforcerowsecurity as forced,
    array(
        select {as_bytes("polname")} from pg_policy
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
select {as_bytes("pg_proc.oid::regprocedure")} from pg_proc
join usable on usable.oid = pronamespace
where prosecdef and has_function_privilege($1::oid, pg_proc.oid, 'EXECUTE')
    and not exists (
        select from unnest(proconfig) as setting where {begins("setting", "search_path=")})
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """What one grantee, or everybody, may do with databases."""

    connect: frozenset[str]
    temporary: bool


_NOTHING = Grants(connect=frozenset(), temporary=False)


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
    shared: SharedFacts
    openings: Sequence[Opening]
    unchecked: Mapping[Check, str]
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
        row["grantee"]: Grants(
            connect=frozenset(map(text_of, row["connect"] or ())), temporary=row["temporary"]
        )
        for row in await looks.at(
            (Check.OTHER_DATABASES, Check.TEMPORARY_TABLES), _DATABASES, names
        )
    }
    [after] = await connection.fetchrow(_AFTER, list(schemas)) or [""]
    reachable = await _extension_schemas(looks, list(in_schema), schemas)
    public = await looks.at((Check.PUBLIC_SCHEMA,), _PUBLIC_MAY_CREATE)
    public_may_create = any(may for [may] in public)
    facts: dict[str, RoleFacts] = {}
    reach = SharedFacts()
    for row in await looks.at_roles(names, databases, after):
        owns = 0
        if row["name"] == shared:
            owns = sum(n for [n] in await looks.at((Check.OWNERSHIP,), _OWNED, row["oid"]))
            reach = await _reach(looks, row["oid"])
        known = _facts(row, grants, owns=owns, public_may_create=public_may_create)
        extensions = reachable.get(row["name"], known.extensions)
        facts[row["name"]] = replace(known, extensions=extensions)
    return Inspection(
        roles=facts,
        shared=reach,
        openings=[Opening(**row) for row in await looks.at((), OPENINGS)],
        unchecked=looks.failed,
        unchecked_roles=looks.failed_roles,
    )


@dataclass(frozen=True, slots=True)
class _Looks:
    """Queries of which one may fail without the others."""

    connection: asyncpg.Connection
    failed: dict[Check, str] = field(default_factory=dict)
    failed_roles: dict[str, str] = field(default_factory=dict)

    async def at(
        self, checks: Iterable[Check], query: str, *arguments: object
    ) -> list[asyncpg.Record]:
        """What *query* gives; nothing if it fails, and then *checks* are not made."""
        try:
            return await self.connection.fetch(query, *arguments)
        except driver.CONNECTION_ERRORS:
            raise
        except (asyncpg.PostgresError, UnicodeDecodeError) as error:
            self.failed.update(dict.fromkeys(checks, driver.reason(error)))
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
                self.failed_roles.update(dict.fromkeys(names, driver.reason(error)))
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
    checks = (Check.EXTENSION_SCHEMAS,)
    there = {name for [name] in await looks.at(checks, _EXISTING, list(schemas))}
    missing = ExtensionSchemas(missing=tuple(name for name in schemas if name not in there))
    found = dict.fromkeys(roles, missing)
    for row in await looks.at(checks, _SCHEMAS, roles, list(schemas)):
        found[row["role"]] = replace(
            missing, closed=tuple(row["closed"] or ()), open=tuple(row["open"] or ())
        )
    return found


async def _reach(looks: _Looks, role: int) -> SharedFacts:
    relations = await looks.at((Check.ROW_SECURITY, Check.BYPASSES), _RELATIONS, role)
    definers = await looks.at((Check.BYPASSES,), _DEFINERS, role)
    return SharedFacts(
        relations=tuple(
            RelationFacts(
                **{
                    **dict(row),
                    "name": text_of(row["name"]),
                    "loose_policies": tuple(map(text_of, row["loose_policies"])),
                }
            )
            for row in relations
        ),
        definers=tuple(text_of(name) for [name] in definers),
    )


def _facts(
    row: asyncpg.Record, grants: Mapping[int, Grants], *, owns: int, public_may_create: bool
) -> RoleFacts:
    public, own = grants.get(_PUBLIC, _NOTHING), grants.get(row["oid"], _NOTHING)
    name = row["name"]
    owner = None if row["owner"] is None else text_of(row["owner"])
    others = set(map(text_of, row["grantees"])) - {name, owner}
    return RoleFacts(
        can_login=row["can_login"],
        powers=tuple(power for power, has in zip(_POWERS, row["powers"], strict=True) if has),
        granted=tuple(map(text_of, row["granted"])),
        mighty=tuple(map(text_of, row["mighty"])),
        settings=tuple(map(text_of, row["settings"])),
        databases=tuple(public.connect | own.connect),
        connection_limit=row["connection_limit"],
        owner=owner,
        open_to=tuple(others) if name.startswith(OBJECT_PREFIX) else (),
        owns=owns,
        may_create_temporary=public.temporary or own.temporary,
        public_may_create=public_may_create,
    )
