"""Checks the requirements of the catalog's database at start, and explains refused logins.

Each problem is a sentence for the operator. After the login the server is trusted, and its messages
are quoted; before that, only its codes are used.
"""

import os
from dataclasses import dataclass

import asyncpg
from sqlalchemy import ARRAY, Connection, Text, bindparam, text
from sqlalchemy.exc import DBAPIError

from app.catalog.tables import metadata
from app.domain.errors import CatalogUnusable

OLDEST_VERSION = 14
"""The oldest PostgreSQL version; see docs/operations.md."""

_INSUFFICIENT_PRIVILEGE = "42501"
_UNDEFINED_TABLE = "42P01"
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
# By SQLSTATE, during a login.
_LOGIN_REASONS = {
    "08003": "the server closes the connection",
    "28P01": "the password is wrong, or the role does not exist",
    "28000": "the role may not log in, or not from here or not in this way (see pg_hba.conf)",
    "3D000": "the database does not exist",
    "42501": "the role may not connect to the database",
    "53300": "all connections of the server or of the role are in use",
    "55000": "the database accepts no connections",
    "57P03": "the server is starting up, shutting down or recovering",
}
# By SQLSTATE: why Postgres responds, but cannot run a statement.
STATEMENT_REASONS = {
    "25006": "it takes no writes (a standby, or default_transaction_read_only is on)",
    "53100": "its disk is full",
    "55P03": "another transaction, which is still open, holds a lock that is needed",
}
# SQLSTATEs of tables that are not as this version needs them, or that the role may not use: a
# missing right, column or table, and a statement that was prepared before a column changed.
_TABLES_PROBLEMS = frozenset({_INSUFFICIENT_PRIVILEGE, "42703", _UNDEFINED_TABLE, "0A000"})
_ENDS = frozenset({"FATAL", "PANIC"})
_FACTS = text("""
select current_setting('server_version_num')::int / 10000 as version,
       current_setting('server_encoding') as encoding,
       pg_is_in_recovery() as is_standby,
       current_setting('transaction_read_only') = 'on' as is_read_only,
       quote_ident(current_database()) as database,
       quote_ident(current_user) as role,
       quote_ident(coalesce(current_schema(), 'public')) as schema,
       current_schema() is null as has_no_schema,
       (select quote_ident(nspname)
        from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where relname in ('alembic_version', 'recommendations', 'tenants')
          and has_table_privilege(pg_class.oid, 'SELECT') and to_regclass('tenants') is null
        group by nspname having count(*) = 3 limit 1) as hidden_tables
""")
# Neither of these two locks a table: somebody may hold it for long, as VACUUM FULL does.
_MISSING = text("""
select name, "column", to_regclass(name) is null
from unnest(:tables, :columns) as each(name, "column")
where not exists (
    select from pg_attribute
    where attrelid = to_regclass(name) and attname = "column" and not attisdropped)
limit 1
""").bindparams(bindparam("tables", type_=ARRAY(Text)), bindparam("columns", type_=ARRAY(Text)))
_LACKING = text("""
select name, "right", quote_ident(current_user)
from unnest(:tables) as name, unnest(:rights) as "right"
where not has_table_privilege(name, "right")
""").bindparams(bindparam("tables", type_=ARRAY(Text)), bindparam("rights", type_=ARRAY(Text)))
_HAS_TABLES_OR_CAN_MAKE_THEM = text("""
select to_regclass('alembic_version') is not null
    or has_schema_privilege(current_schema(), 'CREATE')
""")
_OWN_AND_OPEN = text("""
select distinct quote_ident(datname)
from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
where datname = current_database() and grantee = 0 and pg_has_role(datdba, 'USAGE')
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What a server reports about itself.

    Names are quoted if SQL needs it, *version* is the major one. *hidden_tables*: the schema that
    has the catalog's tables, which the role may read, if its search_path does not lead there.
    """

    version: int
    encoding: str
    is_standby: bool
    is_read_only: bool
    database: str
    role: str
    schema: str
    has_no_schema: bool
    hidden_tables: str | None


def login_reason(error: BaseException) -> str | None:
    """Say why a login failed or nothing answered; None if unknown."""
    match error:
        case DBAPIError():
            reason = STATEMENT_REASONS.get(str(getattr(cause_of(error), "sqlstate", None)))
            return reason or (_refusal(cause_of(error)) if is_login_error(error) else None)
        case asyncpg.PostgresError():
            return {**_LOGIN_REASONS, **STATEMENT_REASONS}.get(str(error.sqlstate))
        case TimeoutError():
            return "it does not answer in time"
        case OSError() if error.errno:
            said = os.strerror(error.errno)
            return said[:1].lower() + said[1:]
    return None


def is_login_error(error: DBAPIError) -> bool:
    """Whether *error* is a refused login; a failed commit has no statement either."""
    cause = cause_of(error)
    return error.statement is None and (
        ends_connection(cause) or getattr(cause, "sqlstate", None) in _LOGIN_REASONS
    )


def tables_problem(error: BaseException) -> str | None:
    """Say why the catalog's tables cannot be used; None if that is not the problem."""
    if isinstance(error, DBAPIError):
        if is_login_error(error):
            return None
        error = cause_of(error)
    if getattr(error, "sqlstate", None) not in _TABLES_PROBLEMS or ends_connection(error):
        return None
    said = str(getattr(error, "message", None) or error)
    is_not_found = getattr(error, "sqlstate", None) == _UNDEFINED_TABLE
    return said + (", or is not in the search_path" if is_not_found else "")


def ends_connection(cause: BaseException) -> bool:
    """Whether Postgres ends the connection, as after every refused login."""
    severity = getattr(cause, "severity_en", None) or getattr(cause, "severity", None)
    return severity in _ENDS


def check_server(connection: Connection) -> ServerFacts:
    """Check that the server of *connection* can hold a catalog; return its facts.

    Raises:
        CatalogUnusable: it cannot.
    """
    row = connection.execute(_FACTS).mappings().one()
    facts = ServerFacts(**row)
    problem = unmet_requirement(facts)
    if problem is not None:
        raise CatalogUnusable(problem)
    return facts


def unmet_requirement(facts: ServerFacts) -> str | None:
    database, role = f"The catalog's database {facts.database}", facts.role
    problems = (
        (
            facts.version < OLDEST_VERSION,
            (
                f"The catalog's server is PostgreSQL {facts.version};"
                f" {OLDEST_VERSION} or newer is needed."
            ),
        ),
        (
            facts.encoding != "UTF8",
            (
                f"{database} is encoded in {facts.encoding}, and must be in UTF8. Create another"
                " one: CREATE DATABASE poolkeeper ENCODING 'UTF8' TEMPLATE template0;"
            ),
        ),
        (
            facts.is_standby,
            "The catalog's server is a standby, which takes no writes. Name the primary.",
        ),
        (
            facts.is_read_only,
            f"{database} is read-only for role {role}: default_transaction_read_only is on there.",
        ),
        (
            facts.hidden_tables is not None,
            (
                f"The catalog's tables are in the schema {facts.hidden_tables}, to which the"
                f" search_path of role {role} does not lead. Run in database {facts.database}:"
                f" GRANT USAGE ON SCHEMA {facts.hidden_tables} TO {role}; ALTER ROLE {role}"
                f" IN DATABASE {facts.database} SET search_path = {facts.hidden_tables};"
            ),
        ),
        (
            facts.has_no_schema,
            (
                f"{database} has none of the schemas in the search_path of role {role}."
                " Run there: CREATE SCHEMA public;"
            ),
        ),
    )
    return next((sentence for is_so, sentence in problems if is_so), None)


def check_rights(connection: Connection, facts: ServerFacts) -> None:
    """Check that the catalog's tables exist, or can be created.

    Raises:
        CatalogUnusable: neither is true.
    """
    if not connection.execute(_HAS_TABLES_OR_CAN_MAKE_THEM).scalar_one():
        raise _no_right_to_create(facts)


def check_tables(connection: Connection) -> None:
    """Check that the migrated catalog has the expected tables, and that they may be used.

    Raises:
        CatalogUnusable: a table, a column or a right is missing.
    """
    tables = metadata.sorted_tables
    columns = [(table.name, column.name) for table in tables for column in table.columns]
    names, fields = map(list, zip(*columns, strict=True))
    missing = connection.execute(_MISSING, {"tables": names, "columns": fields}).one_or_none()
    if missing is not None:
        name, column, has_no_table = missing
        raise _not_as_made(
            f'relation "{name}" does not exist, or is not in the search_path'
            if has_no_table
            else f'column "{column}" of relation "{name}" does not exist'
        )
    given = {"tables": [table.name for table in tables], "rights": list(_RIGHTS)}
    lacking = connection.execute(_LACKING, given).all()
    for name, _, role in lacking[:1]:
        rights = ", ".join(right for table, right, _ in lacking if table == name)
        raise CatalogUnusable(
            f"Role {role} lacks {rights} on the catalog's table {name}."
            f" Run: GRANT {rights} ON {name} TO {role};"
        )


def close_to_public(connection: Connection) -> None:
    """If we own the catalog's database, let only roles with their own grant connect to it.

    Postgres opens every new database to everyone, restored ones included. If it belongs to somebody
    else, the isolation audit reports it.
    """
    database = connection.execute(_OWN_AND_OPEN).scalar_one_or_none()
    if database is not None:
        connection.execute(text(f"REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC"))


def unusable_catalog(error: DBAPIError, facts: ServerFacts) -> CatalogUnusable:
    """Explain a failed migration, or a missing table."""
    cause = cause_of(error)
    said = str(getattr(cause, "message", None) or "a statement fails")
    if getattr(cause, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE:
        return _no_right_to_create(facts, f": {said}")
    return _not_as_made(said)


def _not_as_made(said: str) -> CatalogUnusable:
    return CatalogUnusable(
        f"The catalog's tables are not those that Poolkeeper made: {said}."
        " Restore them from a backup, or give the catalog an empty database."
    )


def _no_right_to_create(facts: ServerFacts, reason: str = "") -> CatalogUnusable:
    return CatalogUnusable(
        f"Role {facts.role} may not make the catalog's tables{reason}. Run in database"
        f" {facts.database}: GRANT CREATE, USAGE ON SCHEMA {facts.schema} TO {facts.role};"
    )


def cause_of(error: DBAPIError) -> BaseException:
    """The asyncpg error, which SQLAlchemy wraps twice."""
    return (error.orig and error.orig.__cause__) or error


def _refusal(error: BaseException) -> str:
    """Say why a login failed; for a server that is not trusted yet, with its code at most."""
    state = str(getattr(error, "sqlstate", None))
    code = f"SQLSTATE {state}" if state.isascii() and state.isalnum() else "an error"
    return login_reason(error) or f"the server answers {code} to the login"
