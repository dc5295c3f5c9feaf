"""`poolkeeper tenants`: list, show, declare, provision, delete."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.table import Table

from app.cli.client.api_client import Document, path_segment
from app.cli.client.session import (
    DEFAULT_URL,
    JsonOption,
    KeyFileOption,
    LimitOption,
    ServerFilter,
    Session,
    TenantArgument,
    UrlOption,
    WatchOption,
)
from app.cli.client.table import TableColumn, age, number, pool_state, table, text
from app.runtime.printable import printable

Mode = Literal["off", "recommend", "apply"]
Strategy = Literal["shared", "per_tenant", "per_database"]

COLUMNS = (
    text("TENANT", "id"),
    text("STRATEGY", "strategy"),
    text("SERVER", "server"),
    text("STATE", "state"),
    number("WEIGHT", "weight"),
    number("MAX LEASES", "max_leases"),
    TableColumn(title="POOL", value=lambda item: item["pool"] and pool_state(item["pool"])),
    number("ACTIVE", lambda item: (item["pool"] or {}).get("active")),
    number("WAITING", lambda item: (item["pool"] or {}).get("waiting")),
    age("AGE", "created_at"),
    text("LABELS", "labels", no_wrap=False),
)

tenants = typer.Typer(help="List, show, declare, provision and delete tenants.")


@tenants.callback(invoke_without_command=True)
def list_tenants(
    context: typer.Context,
    *,
    strategy: Annotated[Strategy | None, typer.Option(help="Filter by strategy.")] = None,
    server: ServerFilter = None,
    label: Annotated[str | None, typer.Option(help="Filter by label, key=value.")] = None,
    limit: LimitOption = 1000,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List tenants."""
    context.obj = Session(url, key_file, as_json, watch)
    if context.invoked_subcommand is None:
        # The API writes key:value.
        label = label and label.replace("=", ":", 1)
        filters = {"strategy": strategy, "server": server, "label": label}
        context.obj.show_list("/v1/tenants", COLUMNS, limit=limit, **filters)


@tenants.command()
def show(context: typer.Context, tenant: TenantArgument) -> None:
    """Show one tenant."""
    context.obj.show(lambda client: client.get(_path(tenant)), _row)


@tenants.command()
def put(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    strategy: Annotated[Strategy | None, typer.Option(help="Isolation strategy.")] = None,
    server: Annotated[str | None, typer.Option(help="Server that hosts the tenant.")] = None,
    weight: Annotated[
        int, typer.Option(min=1, max=1000, help="Share of connections when they run short.")
    ] = 1,
    max_leases: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of concurrent leases.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value; repeatable.")] = None,
    advisor_mode: Annotated[
        Mode | None, typer.Option(help="How recommendations for its own pool are handled.")
    ] = None,
    provision: Annotated[
        bool, typer.Option(help="Also create the role, schema or database.")
    ] = True,
) -> None:
    """Declare a tenant, or change it; omitted options get their defaults."""
    fields = {
        "strategy": strategy,
        "server": server,
        "weight": weight,
        "max_leases": max_leases,
        "labels": _labels(label or []),
        "advisor_mode": advisor_mode,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    with context.obj.client() as client:
        declared = client.put(_path(tenant), given)
        if provision and declared["state"] == "declared":
            client.post(f"{_path(tenant)}/provision")
    context.obj.show(lambda client: client.get(_path(tenant)), _row)


@tenants.command()
def provision(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    adopt: Annotated[bool, typer.Option(help="Take over existing objects.")] = False,
) -> None:
    """Create the role, schema or database of a tenant."""
    context.obj.show(
        lambda client: client.post(f"{_path(tenant)}/provision", adopt=adopt),
        lambda done: f"{tenant}: provisioned, {', '.join(done['objects']) or 'nothing to create'}",
    )


@tenants.command()
def delete(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a tenant: close its pool and disable its login. Its data is kept."""
    if not yes:
        typer.confirm(printable(f"Delete tenant {tenant}? Its data is kept."), abort=True, err=True)
    context.obj.show(
        lambda client: client.delete(_path(tenant)),
        lambda done: (
            f"{tenant}: deleted, {done['closed']} connections closed, {done['cut']} leases cut"
        ),
    )


def _path(tenant: str) -> str:
    return f"/v1/tenants/{path_segment(tenant)}"


def _row(tenant: Document) -> Table:
    return table(COLUMNS, [tenant])


def _labels(pairs: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{pair} is not key=value", param_hint="--label")
        labels[key] = value
    return labels
