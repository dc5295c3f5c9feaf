"""`poolkeeper query`: run one statement as a tenant."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from app.cli.client.api_client import Document, path_segment
from app.cli.client.output import print_note
from app.cli.client.service_command import TenantArgument
from app.cli.client.session import Session, given
from app.cli.client.table import ALWAYS, Table, prose


def query(
    context: typer.Context,
    tenant: TenantArgument,
    sql: Annotated[
        str,
        typer.Argument(metavar="SQL", help="One statement; - reads standard input."),
    ],
    *,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="VALUE", help="The value of $1, $2 …; repeatable."),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Allow the statement to write.")] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Maximum duration of the statement.")
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option("--max-rows", min=1, help="Maximum number of rows.")
    ] = None,
) -> None:
    """Run one statement as a tenant and print its rows."""
    body = given(
        sql=sys.stdin.read() if sql == "-" else sql,
        params=param or [],
        read_only=not write,
        timeout_seconds=timeout,
        max_rows=max_rows,
    )
    session: Session = context.obj
    session.send("POST", f"/v1/tenants/{path_segment(tenant)}/query", _rows, body)


def _rows(result: Document) -> Table | str:
    if result["truncated"]:
        count = result["row_count"]
        shown = "first row is" if count == 1 else f"first {count} rows are"
        print_note(f"Only the {shown} shown; --max-rows shows more.")
    if not result["columns"]:
        return str(result["status"])
    names = [column["name"] for column in result["columns"]]
    columns = [
        prose(name, lambda row, at=at: _cell(row["values"][at]), ALWAYS)  # type: ignore[misc]
        for at, name in enumerate(names)
    ]
    return Table(columns=columns, items=[{"values": row} for row in result["rows"]])


def _cell(value: object) -> str:
    """A value exactly as the service returned it."""
    if value is None:
        return "NULL"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
