"""`poolkeeper rls-sql`: SQL that enables row-level security on tables of shared tenants.

It only prints SQL; the owner of the tables reviews and runs it.
"""

import re
from typing import Annotated

import typer

from app.cli.client.exit_status import ExitStatus, fail

POLICY = "poolkeeper_tenant"
_MAX_BYTES = 63  # the longest identifier; Postgres truncates longer ones
_PART = r'"(?:[^"\0]|"")+"|[A-Za-z_][A-Za-z0-9_$]*'
_NAME = re.compile(rf"({_PART})\Z")
_QUALIFIED = re.compile(rf"(?:({_PART})\.)?({_PART})\Z")
# Without a context, the setting is NULL on a new connection, and empty after a transaction.
_TENANT = "(SELECT nullif(current_setting('app.tenant_id', true), ''))"


class InvalidIdentifier(ValueError):
    """The text is not a Postgres identifier."""


def rls_sql(
    tables: Annotated[
        list[str], typer.Argument(metavar="TABLE…", help="`table` or `schema.table`.")
    ],
    column: Annotated[str, typer.Option(help="Column with the tenant id.")] = "tenant_id",
    role: Annotated[
        str | None, typer.Option(help="Role that uses the tables; default: that of shared tenants.")
    ] = None,
) -> None:
    """Print SQL that restricts each shared tenant to its own rows."""
    from app.pools.isolation.shared import SHARED_ROLE

    try:
        typer.echo(policies(tables, column=column, role=role or SHARED_ROLE), nl=False)
    except InvalidIdentifier as error:
        fail(str(error), ExitStatus.USAGE)


def policies(tables: list[str], *, column: str, role: str) -> str:
    """SQL that enables and forces row-level security on *tables*; repeatable.

    Identifiers follow Postgres' rules: folded to lower case unless in double quotes.

    Raises:
        InvalidIdentifier: a name is not an identifier.
    """
    column, role = _quoted(column), _quoted(role)
    parts = ["BEGIN;\n", *(_for_table(table, column, role) for table in tables), "COMMIT;\n"]
    return "\n".join(parts)


def _for_table(table: str, column: str, role: str) -> str:
    schema, name = _split(table)
    full = f"{schema}.{name}" if schema else name
    is_own = f"{column}::text = {_TENANT}"
    usage = f"GRANT USAGE ON SCHEMA {schema} TO {role};\n" if schema else ""
    return f"""\
ALTER TABLE {full} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {full} FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS {POLICY} ON {full};
CREATE POLICY {POLICY} ON {full} USING ({is_own}) WITH CHECK ({is_own});
-- Restrictive: applies in addition to every other policy.
DROP POLICY IF EXISTS {POLICY}_only ON {full};
CREATE POLICY {POLICY}_only ON {full} AS RESTRICTIVE USING ({is_own}) WITH CHECK ({is_own});
-- TRUNCATE ignores policies.
REVOKE ALL ON {full} FROM PUBLIC, {role};
{usage}GRANT SELECT, INSERT, UPDATE, DELETE ON {full} TO {role};
"""


def _split(table: str) -> tuple[str | None, str]:
    found = _QUALIFIED.match(table)
    if found is None:
        raise InvalidIdentifier(
            f"{table!r} is not a table name; quote special characters with double quotes."
        )
    schema, name = found.groups()
    return schema and _quoted(schema), _quoted(name)


def _quoted(name: str) -> str:
    if _NAME.match(name) is None:
        raise InvalidIdentifier(
            f"{name!r} is not an identifier; quote special characters with double quotes."
        )
    plain = name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
    if len(plain.encode(errors="replace")) > _MAX_BYTES:
        raise InvalidIdentifier(f"{name!r} is longer than {_MAX_BYTES} bytes.")
    return '"' + plain.replace('"', '""') + '"'
