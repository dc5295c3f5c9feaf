"""Reads the facts for the isolation audit, with a few queries for hundreds of roles of a server.

`app.domain.isolation_checks` judges them. No query runs in a tenant's own database. Names and
settings that others chose may be in any encoding, whatever this database's is. So they are fetched
as bytes, and no Postgres function that looks at characters touches them.
"""

# ruff: noqa: S608 - what is put into queries are expressions of this file

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from app.domain.isolation_checks import AuditCheck, Inspection
from app.domain.isolation_facts import ExcessGrant, RelationFacts, RoleFacts
from app.domain.nodes.node import CHECK_INTERVAL_MS
from app.domain.tenant import OBJECT_PREFIX
from app.pools import driver
from app.pools.isolation.objects import OF_DATABASE, PASSWORD_MARK, SHARED_MARK, TENANT_MARK
from app.pools.raw_text import as_hex, decode, starts_with

# Attributes that no tenant may have, with their columns.
_ATTRIBUTES = {
    "rolsuper": "SUPERUSER",
    "rolcreatedb": "CREATEDB",
    "rolcreaterole": "CREATEROLE",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
}
_PUBLIC = 0
# One turn of the event loop processes the rows of so many roles.
_ROLES_AT_ONCE = 250
_LONGEST_MARK = 200
_password = re.compile(rf"poolkeeper .*{PASSWORD_MARK}").fullmatch
_shared_in = re.compile(rf"{SHARED_MARK}{OF_DATABASE}(.+){PASSWORD_MARK}").fullmatch
_tenant_uid = re.compile(rf"{TENANT_MARK}([0-9a-f-]{{36}})(?:{PASSWORD_MARK})?").fullmatch
# Per role, because a role can have settings for every database of the cluster.
_MAX_SETTINGS = 100
# A query may wait for a locked table, or count unlimited objects that somebody created. It then
# fails alone, and leaves time for the others.
_LIMITS = "SET lock_timeout = '1s'; SET statement_timeout = '5s'"

# A tenant may set a value of any length. The cast of text to name does not look at characters.
_SHORTENED_SETTING = "setting::name || case when octet_length(setting) > 63 then '...' else '' end"

_HAS_ATTRIBUTES = ", ".join(
    f"case when {has} then '{name}' end" for has, name in _ATTRIBUTES.items()
)
_ROLES = f"""
with recursive ours as (
    select * from pg_roles where rolname = any($1::text[])
), acting(role, as_role) as (
    select member, roleid from pg_auth_members where member in (select oid from ours)
    union
    select acting.role, roleid from acting join pg_auth_members on member = as_role
), granted as (
    select role, array_agg({as_hex("rolname")}) as names,
        array_agg({as_hex("rolname")}) filter (
            where {starts_with("rolname", "pg_")}
                or {" or ".join(_ATTRIBUTES)}
        ) as privileged
    from acting join pg_roles on oid = as_role group by role
), settings as (
    select setrole, array_agg({as_hex(_SHORTENED_SETTING)}) filter (
        where not (datname is not distinct from current_database() and setting =
            format('search_path=%I%s, pg_temp', pg_get_userbyid(setrole), $3::text))
            and setting <> 'client_connection_check_interval={CHECK_INTERVAL_MS}'
        ) as names
    from pg_db_role_setting left join pg_database on pg_database.oid = setdatabase,
        unnest(setconfig) as setting
    where setrole in (select oid from ours) group by setrole
), home as (
    select nspname as name, pg_get_userbyid(nspowner) as owner, grantee
    from pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
    where nspname = any($1::text[]) and nspname <> all ($2::text[])
    union all
    select datname, pg_get_userbyid(datdba), grantee
    from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
    where datname = any($2::text[])
), homes as (
    select name, {as_hex("min(owner)")} as owner, array_agg(
        {as_hex("case grantee when 0 then 'PUBLIC' else pg_get_userbyid(grantee) end")}
    ) as grantees
    from home group by name
)
select ours.oid, ours.rolname::text as name, rolcanlogin as can_login,
    pg_has_role(ours.oid, 'usage') as is_ours,
    array_remove(array[{_HAS_ATTRIBUTES}], null) as attributes,
    rolconnlimit as connection_limit, coalesce(granted.names, '{{}}') as memberships,
    coalesce(granted.privileged, '{{}}') as privileged_memberships,
    coalesce(settings.names[:{_MAX_SETTINGS}], '{{}}') as settings,
    homes.owner, coalesce(homes.grantees, '{{}}') as grantees,
    (select {as_hex("description")} from pg_shdescription
        where objoid = ours.oid and classoid = 'pg_authid'::regclass
            and octet_length(description) < {_LONGEST_MARK}) as mark
from ours
left join granted on granted.role = ours.oid
left join settings on settings.setrole = ours.oid
left join homes on homes.name = ours.rolname
"""
# The ACL of a database that many tenants share is large: a copy of it is not read from storage
# again for each of its entries.
_DATABASES = f"""
select grantee,
    array_agg({as_hex("datname")}) filter (
        where privilege_type = 'CONNECT' and not (
            {starts_with("datname", OBJECT_PREFIX)} and datdba is not distinct from
                (select oid from pg_roles where rolname = datname))
    ) as connect,
    coalesce(bool_or(privilege_type = 'TEMPORARY') filter (where datname = current_database()),
        false) as temporary
from pg_database, aclexplode(
    case when datacl is null then acldefault('d', datdba) else datacl || '{{}}'::aclitem[] end)
where datallowconn and grantee in (
    select 0::oid union all select oid from pg_roles where rolname = any($1::text[])
)
group by grantee
"""
_SCHEMAS = """
select rolname::text as role,
    array_agg(nspname::text) filter (
        where not has_schema_privilege(pg_roles.oid, pg_namespace.oid, 'USAGE')) as unusable,
    array_agg(nspname::text) filter (
        where has_schema_privilege(pg_roles.oid, pg_namespace.oid, 'CREATE')) as writable
from pg_roles, pg_namespace
where rolname = any($1::text[]) and nspname = any($2::text[])
group by rolname
"""
_EXISTING_SCHEMAS = "select nspname::text from pg_namespace where nspname = any($1::text[])"
_SEARCH_PATH_SUFFIX = """
select coalesce(string_agg(', ' || quote_ident(name), '' order by place), '')
from unnest($1::text[]) with ordinality as each(name, place)
"""
_PUBLIC_CAN_CREATE = """
select exists (
    select from pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
    where nspname = 'public' and grantee = 0 and privilege_type = 'CREATE'
)
"""
_OWNED = """
select count(*) from pg_shdepend
where refclassid = 'pg_authid'::regclass and refobjid = $1 and deptype = 'o'
"""
# Schemas that the shared role can use, without those of tenants: a schema that a tenant opened is
# that tenant's finding, and has no rows of shared tenants.
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
select {as_hex("format('%I.%I', nspname, relname)")} as name, relkind::text as kind,
    relrowsecurity as rls_enabled, relforcerowsecurity as rls_forced,
    array(
        select {as_hex("polname")} from pg_policy
        where polrelid = pg_class.oid and polpermissive and not coalesce(
            coalesce(pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
                ~ 'app\\.tenant_id', false)
    ) as unfiltered_policies,
    has_table_privilege($1::oid, pg_class.oid, 'TRUNCATE') as can_truncate,
    relkind = 'v' and (rolsuper or rolbypassrls)
        and not coalesce(reloptions && '{{security_invoker=true,security_invoker=on}}', false)
        as bypasses_rls
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
_SECURITY_DEFINERS = f"""{_USABLE}
select {as_hex("pg_proc.oid::regprocedure")} from pg_proc
join usable on usable.oid = pronamespace
where prosecdef and has_function_privilege($1::oid, pg_proc.oid, 'EXECUTE')
    and not exists (
        select from unnest(proconfig) as setting where {starts_with("setting", "search_path=")})
"""
# The mark is read from the role, which a tenant cannot change, so the schemas and databases of
# deleted tenants are known too. Each is looked up by its name: the planner, which knows little
# about system catalogs, would compare all grants with all roles.
_EXCESS_GRANTS = f"""
with made as materialized (
    select oid, rolname from pg_roles
    where {starts_with("rolname", OBJECT_PREFIX)} and exists (
        select from pg_shdescription
        where objoid = pg_roles.oid and classoid = 'pg_authid'::regclass
            and {starts_with("description", "poolkeeper tenant ")})
), owned as (
    select 'DATABASE' as kind, made.*, coalesce(datacl, acldefault('d', datdba)) as acl
    from made join pg_database on datname = rolname and datdba = made.oid where datallowconn
    union all
    select 'SCHEMA', made.*, nspacl
    from made join pg_namespace on nspname = rolname and nspowner = made.oid
)
select kind, rolname::text as name, array_agg(distinct
    case grantee when 0 then 'PUBLIC' else pg_get_userbyid(grantee)::text end) as grantees
from owned, aclexplode(acl)
where grantee <> owned.oid and (grantee = 0 or grantee in (
    select oid from made
    union all select oid from pg_roles where rolname = 'poolkeeper_shared'))
group by kind, rolname
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseGrants:
    """What one grantee, or everyone, can do with databases."""

    connect: frozenset[str] = frozenset()
    temporary: bool = False


async def inspect(
    connection: asyncpg.Connection,
    *,
    in_schema: Iterable[str],
    in_database: Iterable[str],
    shared: str | None,
    extension_schemas: Sequence[str] = (),
    open_databases: frozenset[str] = frozenset(),
) -> Inspection:
    """Read the facts over an admin *connection* into the server's own database.

    Args:
        connection: a connection of any role that may read the system catalogs.
        in_schema: roles of tenants with their own schema.
        in_database: roles of tenants with their own database.
        shared: the role of the shared tenants, if there are any.
        extension_schemas: schemas on the search_path of tenants with their own schema.
        open_databases: databases to which everyone may connect, as the operator knows.

    Raises:
        asyncpg.PostgresConnectionError, OSError: the connection broke.
    """
    await connection.execute(_LIMITS)
    queries = _Queries(connection)
    schemas, databases = set(in_schema), set(in_database)
    names = [*schemas, *databases, *([shared] if shared else [])]
    [suffix] = await connection.fetchrow(_SEARCH_PATH_SUFFIX, list(extension_schemas)) or [""]
    public = await queries.fetch((AuditCheck.PUBLIC_SCHEMA,), _PUBLIC_CAN_CREATE)
    roles: dict[str, RoleFacts] = {}
    relations: list[RelationFacts] = []
    functions: list[str] = []
    for begin in range(0, len(names), _ROLES_AT_ONCE):
        some = names[begin : begin + _ROLES_AT_ONCE]
        grants = await _database_grants(queries, some)
        usable = await _extension_schemas(
            queries, [name for name in some if name in schemas], extension_schemas
        )
        everyone = grants.get(_PUBLIC, DatabaseGrants())
        rows = await queries.fetch_roles(some, [name for name in some if name in databases], suffix)
        for row in rows:
            name, oid, owned = row["name"], row["oid"], 0
            if name == shared:
                owned = await _count_owned(queries, oid)
                relations = await _relations(queries, oid)
                functions = await _security_definers(queries, oid)
            itself = grants.get(oid, DatabaseGrants())
            roles[name] = _role_facts(
                row,
                databases=tuple(everyone.connect - open_databases | itself.connect),
                can_create_temporary=everyone.temporary or itself.temporary,
                owned_objects=owned,
                public_can_create=any(can for [can] in public),
                **usable.get(name, {}),
            )
    return Inspection(
        roles=roles,
        relations=relations,
        security_definer_functions=functions,
        excess_grants=[ExcessGrant(**row) for row in await queries.fetch((), _EXCESS_GRANTS)],
        unchecked=queries.failed,
        unchecked_roles=queries.failed_roles,
    )


@dataclass(frozen=True, slots=True)
class _Queries:
    """Runs queries; one may fail without the others."""

    connection: asyncpg.Connection
    failed: dict[AuditCheck, str] = field(default_factory=dict)
    failed_roles: dict[str, str] = field(default_factory=dict)

    async def fetch(
        self, checks: Iterable[AuditCheck], query: str, *arguments: object
    ) -> list[asyncpg.Record]:
        """Fetch the rows of *query*; none if it fails, and then *checks* count as not made."""
        try:
            return await self.connection.fetch(query, *arguments)
        except driver.CONNECTION_ERRORS:
            raise
        except (asyncpg.PostgresError, UnicodeDecodeError) as error:
            self.failed.update(dict.fromkeys(checks, driver.failure_reason(error)))
            return []

    async def fetch_roles(
        self, names: Sequence[str], databases: Sequence[str], suffix: str
    ) -> list[asyncpg.Record]:
        """Fetch the rows for these roles, for all at once if that succeeds, else one by one."""
        try:
            return await self.connection.fetch(_ROLES, names, databases, suffix)
        except driver.CONNECTION_ERRORS:
            raise
        except (asyncpg.PostgresError, UnicodeDecodeError) as error:
            if len(names) <= 1:
                self.failed_roles.update(dict.fromkeys(names, driver.failure_reason(error)))
                return []
        half = len(names) // 2
        return [
            *await self.fetch_roles(names[:half], databases, suffix),
            *await self.fetch_roles(names[half:], databases, suffix),
        ]


async def _database_grants(queries: _Queries, names: list[str]) -> dict[int, DatabaseGrants]:
    """What everyone and each of these roles can do with databases, by the grantee's oid."""
    checks = (AuditCheck.OTHER_DATABASES, AuditCheck.TEMPORARY_TABLES)
    return {
        row["grantee"]: DatabaseGrants(
            connect=frozenset(_decoded(row["connect"] or ())), temporary=row["temporary"]
        )
        for row in await queries.fetch(checks, _DATABASES, names)
    }


async def _extension_schemas(
    queries: _Queries, roles: list[str], schemas: Sequence[str]
) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Find those of *schemas* that a role cannot use as needed: fields of `RoleFacts`, by role."""
    if not schemas:
        return {}
    checks = (AuditCheck.EXTENSION_SCHEMAS,)
    existing = {name for [name] in await queries.fetch(checks, _EXISTING_SCHEMAS, list(schemas))}
    missing = {"missing_schemas": tuple(name for name in schemas if name not in existing)}
    found = dict.fromkeys(roles, missing)
    for row in await queries.fetch(checks, _SCHEMAS, roles, list(schemas)):
        found[row["role"]] = {
            **missing,
            "unusable_schemas": tuple(row["unusable"] or ()),
            "writable_schemas": tuple(row["writable"] or ()),
        }
    return found


def _role_facts(row: asyncpg.Record, **others: Any) -> RoleFacts:
    """The facts in a *row* of `_ROLES`, with the *others*."""
    name = row["name"]
    owner = None if row["owner"] is None else decode(row["owner"])
    grantees = set(_decoded(row["grantees"])) - {name, owner}
    mark = "" if row["mark"] is None else decode(row["mark"])
    password, shared_in = _password(mark), _shared_in(mark)
    tenant_uid = _tenant_uid(mark)
    return RoleFacts(
        can_login=row["can_login"],
        is_ours=row["is_ours"],
        attributes=tuple(row["attributes"]),
        memberships=_decoded(row["memberships"]),
        privileged_memberships=_decoded(row["privileged_memberships"]),
        settings=_decoded(row["settings"]),
        connection_limit=row["connection_limit"],
        owner=owner,
        grantees=tuple(grantees) if name.startswith(OBJECT_PREFIX) else (),
        password_version=int(password[1]) if password else None,
        password_key=password[2] if password else None,
        shared_in=shared_in[1] if shared_in else None,
        tenant_uid=tenant_uid[1] if tenant_uid else None,
        **others,
    )


async def _count_owned(queries: _Queries, role: int) -> int:
    rows = await queries.fetch((AuditCheck.OWNERSHIP,), _OWNED, role)
    return sum(count for [count] in rows)


async def _security_definers(queries: _Queries, role: int) -> list[str]:
    rows = await queries.fetch((AuditCheck.RLS_BYPASS,), _SECURITY_DEFINERS, role)
    return [decode(function) for [function] in rows]


async def _relations(queries: _Queries, role: int) -> list[RelationFacts]:
    checks = (AuditCheck.ROW_SECURITY, AuditCheck.RLS_BYPASS)
    return [
        RelationFacts(
            **{
                **dict(row),
                "name": decode(row["name"]),
                "unfiltered_policies": _decoded(row["unfiltered_policies"]),
            }
        )
        for row in await queries.fetch(checks, _RELATIONS, role)
    ]


def _decoded(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(decode, texts))
