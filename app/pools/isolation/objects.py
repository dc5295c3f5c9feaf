"""Roles, schemas and databases of tenants: which exist, and the statements that change them.

One query reads which objects exist. Functions derive the statements, and the caller sends those
that belong together in one request, which Postgres runs as one transaction. Every object created
for a tenant has a comment with the tenant's uid, its mark; an object without it is not ours.
"""

# ruff: noqa: S608 - what is put into queries is of this file

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import asyncpg

from app.domain.errors import ObjectsExist, ProvisioningFailed
from app.domain.nodes.node import CHECK_INTERVAL_MS

TENANT_MARK = "poolkeeper tenant "
"""How the mark of a tenant begins; its uid follows."""

SHARED_MARK = "poolkeeper shared role"
"""How the mark of the role of shared tenants begins."""

OF_DATABASE = " of database "
"""After that mark; the name of the database follows."""

VERSION_MARK = ", password "
"""After the mark of a role; the version of its password follows."""

KEY_MARK = ", key "
"""After that version; the fingerprint of the secret key follows."""

PASSWORD_MARK = f"{VERSION_MARK}([0-9]{{1,9}})(?:{KEY_MARK}([0-9a-f]{{4}}))?"
"""A regular expression, here and in Postgres: what follows the mark of a role."""

# Postgres compares the marks, because a comment may be in any encoding. CREATE DATABASE cannot be
# part of a transaction: a database that a crash left unmarked is recognised by its owner, the role
# that was marked before. 'public' as a role means everyone.
_IS_ROLE_MARKED = f"""
coalesce((
    select bool_or(said = mark or starts_with(said, mark || '{VERSION_MARK}'))
    from unnest($2::text[]) as mark, shobj_description(role.oid, 'pg_authid') as said
), false)
"""
_FACTS = f"""
select admin.rolsuper as is_superuser, admin.rolinherit as inherits,
    current_setting('server_version_num')::int >= 160000 as grants_with_options,
    quote_ident(admin.rolname) as admin,
    case when role.oid is not null then {_IS_ROLE_MARKED} end as role,
    substring(
        shobj_description(role.oid, 'pg_authid')
        from '^poolkeeper .*{PASSWORD_MARK}$'
    )::int as password_version,
    array(
        select kind from (values
            ('role', shobj_description(role.oid, 'pg_authid')),
            ('schema', (select obj_description(oid, 'pg_namespace')
                from pg_namespace where nspname = $1)),
            ('database', (select shobj_description(oid, 'pg_database')
                from pg_database where datname = $1))
        ) as found(kind, mark) where starts_with(mark, $3)
    ) as of_tenants,
    array(
        select kind from (values
            -- Since version 16 CREATEROLE alone does not suffice.
            ('role', current_setting('server_version_num')::int < 160000
                or pg_has_role(role.oid, 'USAGE WITH ADMIN OPTION')),
            -- Provisioning gives the admin the role, and with it what the role owns.
            ('schema', (select nspowner is not distinct from role.oid
                or pg_has_role(nspowner, 'USAGE') from pg_namespace where nspname = $1)),
            ('database', (select datdba is not distinct from role.oid
                or pg_has_role(datdba, 'USAGE') from pg_database where datname = $1))
        ) as found(kind, is_ours) where not is_ours
    ) as out_of_reach,
    coalesce(starts_with(shobj_description(role.oid, 'pg_authid'), $4), false) as is_shared,
    coalesce(role.rolsuper or role.rolcreatedb or role.rolcreaterole or role.rolreplication
        or role.rolbypassrls, false) as has_attributes,
    (
        select coalesce(obj_description(oid, 'pg_namespace') = any($2), false)
        from pg_namespace where nspname = $1
    ) as schema,
    (
        select coalesce(shobj_description(oid, 'pg_database') = any($2), false) or (
            datdba is not distinct from role.oid and {_IS_ROLE_MARKED})
        from pg_database where datname = $1
    ) as database,
    (
        select pg_has_role(datdba, 'USAGE')
            and has_database_privilege('public', oid, 'CONNECT, TEMPORARY, CREATE')
        from pg_database where datname = current_database()
    ) as is_open_to_public,
    coalesce(pg_has_role(public.nspowner, 'USAGE')
        and has_schema_privilege('public', public.oid, 'USAGE, CREATE'), false)
        as is_public_schema_open,
    coalesce(pg_has_role(public.nspowner, 'USAGE'), false) as can_grant_public_schema
from pg_roles as admin
left join pg_roles as role on role.rolname = $1
left join pg_namespace as public on public.nspname = 'public'
where admin.rolname = current_user
"""

_EXTENSION_SCHEMAS = """
select wanted.name, pg_namespace.oid is not null as is_there,
    has_schema_privilege(coalesce(rolname, 'public'), pg_namespace.oid, 'CREATE') as is_writable,
    has_schema_privilege(coalesce(rolname, 'public'), pg_namespace.oid, 'USAGE') as is_usable
from unnest($1::text[]) with ordinality as wanted(name, place)
left join pg_namespace on nspname = wanted.name
left join pg_roles on rolname = $2
order by place
"""

SHORTEST_TIMEOUT_MS = 100
"""A shorter timeout could keep a role from logging in."""
_FAIL_SOON = "SET LOCAL lock_timeout = '100ms'"
# Only a superuser may name these attributes; a role created by another role has none of them.
_NO_ATTRIBUTES = " NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
# Undoes what anybody, including the role itself, set for all its sessions, everywhere and in single
# databases. Names of databases may be in any encoding, so they never leave Postgres.
_RESET_SETTINGS = """
DO $do$
DECLARE command text;
BEGIN
    FOR command IN
        SELECT CASE WHEN setdatabase = 0 THEN format('ALTER ROLE %%I RESET ALL', rolname)
            ELSE format('ALTER ROLE %%I IN DATABASE %%I RESET ALL', rolname, datname) END
        FROM pg_db_role_setting
        JOIN pg_roles ON pg_roles.oid = setrole
        LEFT JOIN pg_database ON pg_database.oid = setdatabase
        WHERE rolname = %L
    LOOP EXECUTE command; END LOOP;
END $do$
"""
# The same for some settings of a database, and for timeouts that are too short. Values may be in
# any encoding, too. A timeout has a unit as an interval has; a bare number is in milliseconds.
_RESET_DATABASE = rf"""
DO $do$
DECLARE command text; wanted text; timeout interval;
BEGIN
    FOR command, wanted IN
        SELECT format('ALTER DATABASE %%I RESET %%I', datname, name),
            CASE WHEN name = ANY(%L::text[]) THEN split_part(setting, '=', 2) END
        FROM pg_db_role_setting
        JOIN pg_database ON pg_database.oid = setdatabase,
            unnest(setconfig) AS setting, unnest(%L::text[]) AS name
        WHERE setrole = 0 AND datname = %L AND setting LIKE replace(name, '_', '\_') || '=%%'
    LOOP
        BEGIN
            timeout := CASE WHEN wanted ~ '[a-z]' THEN wanted ELSE wanted || ' ms' END;
        EXCEPTION WHEN OTHERS THEN
            timeout := NULL;
        END;
        CONTINUE WHEN timeout = '0' OR timeout >= '{SHORTEST_TIMEOUT_MS} ms';
        EXECUTE command;
    END LOOP;
END $do$
"""
# Postgres refuses any interval where its platform cannot check: on Windows, and before 15 on macOS.
_CHECK_CLIENTS = f"""
DO $do$
BEGIN
    ALTER ROLE %I SET client_connection_check_interval = {CHECK_INTERVAL_MS:d};
EXCEPTION WHEN invalid_parameter_value THEN
END $do$
"""
_PLACES = re.compile("%[IL%]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFacts:
    """The existing objects of one name, and the admin's rights, in the connection's database.

    Attributes:
        role, schema, database: whether it has the tenant's mark; None if it does not exist.
        password_version: the version of the role's password; None if it has no mark that says it.
        of_tenants: the kinds of objects that have the mark of any tenant.
        out_of_reach: the kinds of objects that exist and that the admin may not change.
        is_shared: whether the role has the mark of any installation's shared tenants.
        grants_with_options: whether a grant of a role says what it allows, as since version 16.
        is_open_to_public: whether everyone can use the connection's database, and the admin can
            revoke that; *is_public_schema_open*: the same for its schema public.
    """

    is_superuser: bool
    inherits: bool
    grants_with_options: bool
    admin: str
    role: bool | None
    password_version: int | None
    of_tenants: Sequence[str]
    out_of_reach: Sequence[str]
    is_shared: bool
    has_attributes: bool
    schema: bool | None
    database: bool | None
    is_open_to_public: bool
    is_public_schema_open: bool
    can_grant_public_schema: bool

    @classmethod
    async def read(cls, connection: asyncpg.Connection, name: str, marks: Sequence[str]) -> Self:
        [row] = await connection.fetch(_FACTS, name, marks, TENANT_MARK, SHARED_MARK)
        return cls(**row)

    def check(self, kinds: Iterable[str], name: str, *, adopt: bool) -> None:
        """Check that the objects of these *kinds* that exist may be used.

        Raises:
            ObjectsExist: an object has another mark or none, and *adopt* is not set.
            ProvisioningFailed: the admin may not change it.
        """
        for kind in kinds:
            if getattr(self, kind.lower()) is False and not adopt:
                origin = "was not created for this tenant"
                # A tenant that was deleted, or is in another catalog.
                if kind.lower() in self.of_tenants:
                    origin = "was created for an earlier tenant of the same id"
                elif kind == "ROLE" and self.is_shared:
                    origin = (
                        "serves the shared tenants of another installation on this server, which "
                        "could no longer log in"
                    )
                raise ObjectsExist(
                    f"The {kind.lower()} {name} exists already and {origin}; "
                    "adopt=true takes it over."
                )
            if kind.lower() in self.out_of_reach:
                raise ProvisioningFailed(
                    f"The {kind.lower()} {name} exists, and role {self.admin} may not change it. "
                    f"Run as a superuser: {_hand_over(kind, name, self.admin)};"
                )


def _hand_over(kind: str, name: str, admin: str) -> str:
    """SQL that lets *admin*, a quoted name, change an object of somebody else."""
    if kind == "ROLE":
        return f"{sql('GRANT %I TO', name)} {admin} WITH ADMIN OPTION"
    return f"{sql(f'ALTER {kind} %I OWNER TO', name)} {admin}"


def sql(template: str, *names: str) -> str:
    """Fill %I (identifiers) and %L (literals) in *template* with *names*, in their order.

    It works like Postgres' format(). Literals need standard_conforming_strings, which admin
    connections set.
    """
    left = iter(names)

    def fill(place: re.Match[str]) -> str:
        if place[0] == "%%":
            return "%"
        quote = '"' if place[0] == "%I" else "'"
        return f"{quote}{next(left).replace(quote, quote * 2)}{quote}"

    return _PLACES.sub(fill, template)


async def execute(
    connection: asyncpg.Connection, statements: Iterable[str], *, fail_soon: bool = False
) -> None:
    """Execute *statements* in one request, which is one transaction.

    *fail_soon*: wait at most a tenth of a second for a tenant's open transaction that holds a lock;
    otherwise as long as the connection allows.
    """
    first = [_FAIL_SOON] if fail_soon else []
    await connection.execute(";\n".join([*first, *statements]))


def put_login_role(
    facts: ObjectFacts, name: str, verifier: str, mark: str, *, connection_limit: int | None
) -> Iterator[str]:
    """Create the role or set its password, remove all its attributes, and mark it.

    Raises:
        ProvisioningFailed: the role has attributes that this admin cannot remove, or the admin does
            not inherit its roles' rights.
    """
    # Without these rights it could revoke nothing from PUBLIC, and grant nothing to the role.
    if not facts.is_superuser and not facts.inherits:
        raise ProvisioningFailed(
            f"The admin role {facts.admin} is NOINHERIT and has no rights on what its "
            f"tenants' roles own. Run as a superuser: ALTER ROLE {facts.admin} INHERIT;"
        )
    if not facts.is_superuser and facts.has_attributes:
        raise ProvisioningFailed(f"The role {name} has attributes that no tenant may have.")
    verb = "CREATE" if facts.role is None else "ALTER"
    attributes = _NO_ATTRIBUTES if facts.is_superuser else ""
    limit = "" if connection_limit is None else f" CONNECTION LIMIT {connection_limit:d}"
    yield sql(
        f"{verb} ROLE %I LOGIN PASSWORD %L VALID UNTIL 'infinity'{limit}{attributes}",
        *(name, verifier),
    )
    yield from reset_settings(name)
    yield sql("COMMENT ON ROLE %I IS %L", name, mark)
    if not facts.is_superuser:
        # With `createrole_self_grant` the admin may have it already, without some of these options.
        options = " WITH INHERIT TRUE, SET TRUE" if facts.grants_with_options else ""
        yield sql(f"GRANT %I TO CURRENT_USER{options}", name)


def set_verifier(name: str, verifier: str) -> str:
    return sql("ALTER ROLE %I PASSWORD %L", name, verifier)


def disable_login(name: str) -> str:
    """Let nobody log in; its limit distinguishes it from a role whose login others took away."""
    return sql("ALTER ROLE %I NOLOGIN CONNECTION LIMIT 0", name)


def set_connection_limit(name: str, limit: int) -> str:
    return sql(f"ALTER ROLE %I CONNECTION LIMIT {limit:d}", name)


def reset_settings(name: str) -> Iterator[str]:
    """Reset all settings of the role, because they could break its sessions.

    One setting is set again where it can be: on nodes, drivers send RESET ALL, which then restores
    this check interval. Pools send another value in their startup message.
    """
    yield sql(_RESET_SETTINGS, name)
    yield sql(_CHECK_CLIENTS, name)


def reset_database(name: str, settings: Iterable[str], timeouts: Sequence[str]) -> str:
    """Reset these *settings* of a database, and *timeouts* that are too short; all others stay."""
    array, both = ("{" + ",".join(names) + "}" for names in (timeouts, (*settings, *timeouts)))
    return sql(_RESET_DATABASE, array, both, name)


def set_search_path(name: str, database: str, schemas: Sequence[str]) -> str:
    """Set the role's search_path to its own schema, then *schemas*, wherever it logs in."""
    path = ", ".join(["%I"] * (1 + len(schemas)))
    return sql(
        f"ALTER ROLE %I IN DATABASE %I SET search_path = {path}, pg_temp",
        *(name, database, name, *schemas),
    )


async def grant_schema_usage(
    connection: asyncpg.Connection, name: str, schemas: Sequence[str]
) -> list[str]:
    """Let the role, which may not exist yet, use *schemas*, which hold extensions.

    Raises:
        ProvisioningFailed: a schema does not exist, or tenants can create objects in it.
    """
    statements = []
    for row in await connection.fetch(_EXTENSION_SCHEMAS, schemas, name) if schemas else ():
        schema = row["name"]
        if not row["is_there"]:
            raise ProvisioningFailed(
                f"The schema {schema} in `extension_schemas` does not exist. "
                f"Run: CREATE SCHEMA {schema};"
            )
        if row["is_writable"]:
            raise ProvisioningFailed(
                f"The role {name} may create objects in the schema {schema}, which other "
                f'tenants use. Run: REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, "{name}";'
            )
        if not row["is_usable"]:
            statements.append(sql("GRANT USAGE ON SCHEMA %I TO %I", schema, name))
    return statements


def revoke_all(kind: str, name: str, grantees: Sequence[str]) -> str:
    """Revoke all rights on a database or schema from *grantees*, and those that they granted."""
    roles = [grantee for grantee in grantees if grantee != "PUBLIC"]
    places = ", ".join(["%I"] * len(roles) + ["PUBLIC"] * (len(roles) < len(grantees)))
    return sql(f"REVOKE ALL ON {kind} %I FROM {places} CASCADE", name, *roles)


def revoke_from_public(facts: ObjectFacts, database: str) -> Iterator[str]:
    """Close *database*, in which *facts* were read, to everyone, as far as our rights allow.

    The isolation audit reports what stays open.
    """
    if facts.is_open_to_public:
        yield sql("REVOKE ALL ON DATABASE %I FROM PUBLIC", database)
    if facts.is_public_schema_open:
        yield "REVOKE ALL ON SCHEMA public FROM PUBLIC"


def revoke_default_privileges(name: str) -> Iterator[str]:
    """Stop granting PUBLIC rights on new objects, which Postgres does by default."""
    for privilege in ("EXECUTE ON FUNCTIONS", "USAGE ON TYPES"):
        yield sql(f"ALTER DEFAULT PRIVILEGES FOR ROLE %I REVOKE {privilege} FROM PUBLIC", name)
