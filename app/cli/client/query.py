"""`poolkeeper query`: run one statement as a tenant."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

import typer

from app.cli.client.api_client import ApiError, Document, path_segment
from app.cli.client.output import print_note
from app.cli.client.service_command import TenantArgument
from app.cli.client.session import Session, given
from app.cli.client.table import ALWAYS, Details, Table, counted, text
from app.text.printable import printable
from app.text.wrapping import cell_width

# The most characters of a statement that are shown on either side of an error.
_AROUND = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Records(Table):
    """Rows with arbitrary columns: none is left out, and no value is cut.

    Where the terminal is too narrow for a table, there is a line for each field.
    """

    def lines(self, width: int | None = None) -> Iterator[str]:
        lines = list(Table.lines(self))
        if width is None or max(map(cell_width, lines)) <= width:
            yield from lines
            return
        yield f"{counted(len(self.items), 'row')}, a line for each field"
        for at, item in enumerate(self.items):
            if at:
                yield ""
            yield from Details(self.columns, item).lines(width)


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
    timeout_seconds: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", help="Maximum duration of the statement."),
    ] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Maximum number of rows.")] = None,
) -> None:
    """Run one statement as a tenant and print its rows."""
    sql = sys.stdin.read() if sql == "-" else sql
    body = given(
        sql=sql,
        params=param or [],
        read_only=not write,
        timeout_seconds=timeout_seconds,
        max_rows=max_rows,
    )
    session: Session = context.obj
    path = f"/v1/tenants/{path_segment(tenant)}/query"
    try:
        session.send("POST", path, lambda result: _rows(result, max_rows), body)
    except ApiError as error:
        if error.position is not None:
            error.quote(excerpt(sql, error.position))
        raise


def excerpt(sql: str, position: int) -> list[str]:
    """The line of *sql* with the character at *position*, from 1, and a mark below it."""
    before, after = sql[: position - 1], sql[position - 1 :]
    *lines, start = before.split("\n")
    end = after.split("\n")[0]
    head = f"Line {len(lines) + 1}: {'…' * (len(start) > _AROUND)}{printable(start[-_AROUND:])}"
    tail = f"{printable(end[:_AROUND])}{'…' * (len(end) > _AROUND)}"
    return [head + tail, f"{' ' * cell_width(head)}^"]


def _rows(result: Document, max_rows: int | None) -> Records | str:
    if result["truncated"]:
        count = result["row_count"]
        shown = "first row is" if count == 1 else f"first {count} rows are"
        # Otherwise the limit was the service's own.
        is_asked = count == max_rows
        more = "--max-rows shows more, up to POOLKEEPER_QUERY_MAX_ROWS of the service"
        most = "no more fit into a response (POOLKEEPER_QUERY_MAX_ROWS of the service)"
        print_note(
            f"Only the {shown} shown: {more if is_asked else most}. LIMIT and OFFSET show others."
        )
    if not result["columns"]:
        return str(result["status"])
    names = [column["name"] for column in result["columns"]]
    columns = [
        text(name, lambda row, at=at: _cell(row["values"][at]), ALWAYS)  # type: ignore[misc]
        for at, name in enumerate(names)
    ]
    return Records(columns=columns, items=[{"values": row} for row in result["rows"]])


def _cell(value: object) -> str:
    """A value as the service returned it; inside of JSON, one that no float holds is a string."""
    if value is None:
        return "NULL"
    if isinstance(value, str | Decimal):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)
