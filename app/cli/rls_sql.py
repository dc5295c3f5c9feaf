"""`poolkeeper rls-sql`: the SQL that keeps shared tenants' rows apart in given tables.

Writes SQL and runs none: whoever owns the tables reads it, and runs it.
"""

from __future__ import annotations

import re
from typing import Annotated

import typer

from app.pools.isolation.shared import SHARED_ROLE
from app.runtime.printable import print_error

POLICY = "poolkeeper_tenant"
_MISUSED = 2
_LONGEST = 63  # bytes of a name; Postgres would cut the rest off
_PART = r'"(?:[^"\0]|"")+"|[A-Za-z_][A-Za-z0-9_$]*'
_NAME = re.compile(rf"({_PART})\Z")
_QUALIFIED = re.compile(rf"(?:({_PART})\.)?({_PART})\Z")
# An unset context is null on a new connection and empty after another transaction's.
_TENANT = "(SELECT nullif(current_setting('app.tenant_id', true), ''))"


class InvalidIdentifier(ValueError):
    """The text names nothing in Postgres."""


def rls_sql(
    tables: Annotated[
        list[str], typer.Argument(metavar="TABLE…", help="`table` or `schema.table`.")
    ],
    column: Annotated[str, typer.Option(help="The column that says whose a row is.")] = "tenant_id",
    role: Annotated[str, typer.Option(help="Who may use the tables.")] = SHARED_ROLE,
) -> None:
    """Print the SQL that lets each shared tenant see and write its own rows only."""
    try:
        typer.echo(policies(tables, column=column, role=role), nl=False)
    except InvalidIdentifier as error:
        print_error(str(error))
        raise typer.Exit(_MISUSED) from error


def policies(tables: list[str], *, column: str, role: str) -> str:
    """SQL that enables and forces row-level security on *tables*, and may be run again.

    Names are read as Postgres reads them: folded to lower case unless in double quotes.

    Raises:
        NotAName: one of the names is none.
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
-- Whatever other policies allow, this one must agree.
DROP POLICY IF EXISTS {POLICY}_only ON {full};
CREATE POLICY {POLICY}_only ON {full} AS RESTRICTIVE USING ({is_own}) WITH CHECK ({is_own});
-- TRUNCATE asks no policy.
REVOKE ALL ON {full} FROM PUBLIC, {role};
{usage}GRANT SELECT, INSERT, UPDATE, DELETE ON {full} TO {role};
"""


def _split(table: str) -> tuple[str | None, str]:
    found = _QUALIFIED.match(table)
    if found is None:
        raise InvalidIdentifier(
            f"{table!r} names no table; what is not plain belongs in double quotes."
        )
    schema, name = found.groups()
    return schema and _quoted(schema), _quoted(name)


def _quoted(name: str) -> str:
    if _NAME.match(name) is None:
        raise InvalidIdentifier(f"{name!r} is no name; what is not plain belongs in double quotes.")
    plain = name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
    if len(plain.encode(errors="replace")) > _LONGEST:
        raise InvalidIdentifier(f"{name!r} is longer than {_LONGEST} bytes.")
    return '"' + plain.replace('"', '""') + '"'
