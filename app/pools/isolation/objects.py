"""Roles, schemas and databases: how they are looked up, marked and created.

The server quotes names and literals (`format`). Every object created for a tenant carries a
comment with the tenant's uid, its mark; an object without it is not ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from app.domain.errors import ObjectsExist, ProvisioningFailed

# Whether it has this mark, NULL if it does not exist. Compared by Postgres, for a comment may be
# in any encoding.
_ROLE_MARK = """
select coalesce(shobj_description(oid, 'pg_authid') = $2, false) from pg_roles where rolname = $1
"""
_SCHEMA_MARK = """
select coalesce(obj_description(oid, 'pg_namespace') = $2, false)
from pg_namespace where nspname = $1
"""
# CREATE DATABASE cannot be part of a transaction: one left unmarked by a crash is known as the
# tenant's by its owner, the role that was marked before.
_DATABASE_MARK = """
select coalesce(shobj_description(oid, 'pg_database') = $2, false) or exists (
    select from pg_roles as owner where owner.oid = datdba and owner.rolname = $1
        and shobj_description(owner.oid, 'pg_authid') = $2)
from pg_database where datname = $1
"""
_MARKS = {"ROLE": _ROLE_MARK, "SCHEMA": _SCHEMA_MARK, "DATABASE": _DATABASE_MARK}

_LOGIN_ROLE = "ROLE %I LOGIN PASSWORD %L VALID UNTIL 'infinity'"
# Only a superuser may name these attributes; a role that another role creates has none of them.
_NO_ATTRIBUTES = " NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_HAS_ATTRIBUTES = """
select rolsuper or rolcreatedb or rolcreaterole or rolreplication or rolbypassrls
from pg_roles where rolname = $1
"""
# Undoes what anybody, also the role itself, set for all its sessions, everywhere and in single
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
# Whether everyone can use a database or the schema public, and we may revoke that.
_PUBLIC_CAN_USE_DATABASE = """
select exists (
    select from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
    where datname = $1 and grantee = 0 and pg_has_role(datdba, 'USAGE')
)
"""
_PUBLIC_CAN_USE_SCHEMA = """
select exists (
    select from pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
    where nspname = 'public' and grantee = 0 and pg_has_role(nspowner, 'USAGE')
)
"""
_CAN_GRANT_PUBLIC = """
select exists (
    select from pg_namespace where nspname = 'public' and pg_has_role(nspowner, 'USAGE')
)
"""
_EXTENSION_SCHEMA = """
select has_schema_privilege($2::name, oid, 'CREATE') as is_writable,
    has_schema_privilege($2::name, oid, 'USAGE') as is_usable
from pg_namespace where nspname = $1
"""
_ADMIN = """
select rolsuper as is_superuser, rolinherit as inherits, quote_ident(rolname) as name
from pg_roles where rolname = current_user
"""


@dataclass(frozen=True, slots=True)
class DatabaseObjects:
    """Creates and marks database objects over one admin connection."""

    connection: asyncpg.Connection

    async def set_lock_timeout(self) -> None:
        """Let a statement fail soon if a tenant's open transaction holds what it changes."""
        await self.connection.execute("SET lock_timeout = '100ms'")

    async def execute(self, template: str, *names: str) -> None:
        """Execute *template*, its %I (identifiers) and %L (literals) filled in by the server."""
        statement = await self.connection.fetchval(
            "select format($1, variadic $2::text[])", template, list(names)
        )
        await self.connection.execute(statement)

    async def exists(self, kind: str, name: str, *, mark: str, adopt: bool) -> bool:
        """Whether the object exists and may be used.

        Raises:
            ObjectsExist: it has another mark or none, and *adopt* is not set.
        """
        is_marked = await self.connection.fetchval(_MARKS[kind], name, mark)
        if is_marked is False and not adopt:
            raise ObjectsExist(
                f"The {kind.lower()} {name} exists already and was not created for this tenant; "
                "adopt=true takes it over."
            )
        return is_marked is not None

    async def put_login_role(self, name: str, verifier: str, *, mark: str, adopt: bool) -> None:
        """Create the role or give it this password, without any attribute, and mark it.

        Raises:
            ProvisioningFailed: it has attributes that this admin cannot take away, or the admin
                does not inherit its roles' rights.
        """
        [admin] = await self.connection.fetch(_ADMIN)
        is_superuser = admin["is_superuser"]
        # Without them it could revoke nothing from PUBLIC, and grant nothing to the role.
        if not is_superuser and not admin["inherits"]:
            raise ProvisioningFailed(
                f"The admin role {admin['name']} is NOINHERIT and has no rights on what its "
                f"tenants' roles own. Run as a superuser: ALTER ROLE {admin['name']} INHERIT;"
            )
        verb = "ALTER" if await self.exists("ROLE", name, mark=mark, adopt=adopt) else "CREATE"
        attributes = _NO_ATTRIBUTES if is_superuser else ""
        await self.execute(f"{verb} {_LOGIN_ROLE}{attributes}", name, verifier)
        if await self.connection.fetchval(_HAS_ATTRIBUTES, name):
            raise ProvisioningFailed(f"The role {name} has attributes that no tenant may have.")
        await self.reset_settings(name)
        await self.execute("COMMENT ON ROLE %I IS %L", name, mark)
        if not is_superuser:
            await self.execute("GRANT %I TO CURRENT_USER", name)

    async def set_verifier(self, name: str, verifier: str) -> None:
        await self.execute("ALTER ROLE %I PASSWORD %L", name, verifier)

    async def set_connection_limit(self, name: str, limit: int) -> None:
        await self.execute(f"ALTER ROLE %I CONNECTION LIMIT {limit:d}", name)

    async def reset_settings(self, name: str) -> None:
        """Undo what was set for all sessions of the role, which could keep it from working."""
        await self.execute(_RESET_SETTINGS, name)

    async def set_search_path(self, name: str, database: str, schemas: Sequence[str]) -> None:
        """Let the role find its own schema, then *schemas*, wherever it logs in from."""
        path = ", ".join(["%I"] * (1 + len(schemas)))
        await self.execute(
            f"ALTER ROLE %I IN DATABASE %I SET search_path = {path}, pg_temp",
            *(name, database, name, *schemas),
        )

    async def grant_schema_usage(self, name: str, schemas: Sequence[str]) -> None:
        """Let the role use *schemas*, which hold extensions.

        Raises:
            ProvisioningFailed: one does not exist, or tenants can create objects there.
        """
        for schema in schemas:
            row = await self.connection.fetchrow(_EXTENSION_SCHEMA, schema, name)
            if row is None:
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
                await self.execute("GRANT USAGE ON SCHEMA %I TO %I", schema, name)

    async def revoke_all(self, kind: str, name: str, grantees: Sequence[str]) -> None:
        """Revoke all of the database or schema from *grantees*, and what they granted to others."""
        roles = [grantee for grantee in grantees if grantee != "PUBLIC"]
        places = ", ".join(["%I"] * len(roles) + ["PUBLIC"] * (len(roles) < len(grantees)))
        await self.execute(f"REVOKE ALL ON {kind} %I FROM {places} CASCADE", name, *roles)

    async def revoke_from_public(self, database: str) -> None:
        """Close *database*, which this connection is in, to everyone, as far as we may.

        The isolation audit reports what stays open.
        """
        if await self.connection.fetchval(_PUBLIC_CAN_USE_DATABASE, database):
            await self.execute("REVOKE ALL ON DATABASE %I FROM PUBLIC", database)
        if await self.connection.fetchval(_PUBLIC_CAN_USE_SCHEMA):
            await self.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")

    async def grant_usage_of_public(self, name: str) -> None:
        """Let the role use, not change, the schema that tables live in by default."""
        if await self.connection.fetchval(_CAN_GRANT_PUBLIC):
            await self.execute("GRANT USAGE ON SCHEMA public TO %I", name)

    async def revoke_default_privileges(self, name: str) -> None:
        """Give nobody else what Postgres grants PUBLIC on new objects by default."""
        for privilege in ("EXECUTE ON FUNCTIONS", "USAGE ON TYPES"):
            await self.execute(
                f"ALTER DEFAULT PRIVILEGES FOR ROLE %I REVOKE {privilege} FROM PUBLIC", name
            )

    async def disable_login(self, name: str, *, mark: str) -> None:
        """Set the role NOLOGIN, if it has this mark."""
        if await self.connection.fetchval(_ROLE_MARK, name, mark):
            await self.execute("ALTER ROLE %I NOLOGIN", name)
