"""`poolkeeper tenants`: list, show, declare, provision, delete."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from app.cli.client.api_client import Document, path_segment
from app.cli.client.session import (
    DEFAULT_URL,
    JsonOption,
    KeyFileOption,
    LimitOption,
    Session,
    TenantArgument,
    UrlOption,
    WatchOption,
    session_of,
)
from app.cli.client.table import TableColumn, age, number, table, text
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
    TableColumn(title="POOL", value=lambda item: (item["pool"] or {}).get("state")),
    TableColumn(
        title="ACTIVE", value=lambda item: (item["pool"] or {}).get("active"), justify="right"
    ),
    TableColumn(
        title="WAITING", value=lambda item: (item["pool"] or {}).get("waiting"), justify="right"
    ),
    age("AGE", "created_at"),
    text("LABELS", "labels", no_wrap=False),
)

tenants = typer.Typer(help="Tenants: list, show, declare, provision, delete.")


@tenants.callback(invoke_without_command=True)
def list_tenants(
    context: typer.Context,
    *,
    strategy: Annotated[Strategy | None, typer.Option(help="Only of this strategy.")] = None,
    server: Annotated[str | None, typer.Option(help="Only on this server.")] = None,
    label: Annotated[str | None, typer.Option(help="Only with this label, key=value.")] = None,
    limit: LimitOption = 1000,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    watch: WatchOption = None,
) -> None:
    """List tenants."""
    context.obj = Session(url=url, key_file=key_file, as_json=as_json, watch=watch)
    if context.invoked_subcommand is not None:
        return
    with context.obj.client() as remote:
        context.obj.show(
            lambda: list(
                remote.items(
                    "/v1/tenants",
                    most=limit,
                    strategy=strategy,
                    server=server,
                    # As the API writes it.
                    label=label and label.replace("=", ":", 1),
                )
            ),
            lambda items: table(COLUMNS, items),
        )


@tenants.command()
def show(context: typer.Context, tenant: TenantArgument) -> None:
    """Show one tenant."""
    with session_of(context).client() as remote:
        session_of(context).show(
            lambda: remote.get(f"/v1/tenants/{path_segment(tenant)}"),
            lambda one: table(COLUMNS, [one]),
        )


@tenants.command()
def put(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    strategy: Annotated[Strategy | None, typer.Option(help="How it is isolated.")] = None,
    server: Annotated[str | None, typer.Option(help="A declared server.")] = None,
    weight: Annotated[int, typer.Option(min=1, max=1000, help="Its share in need.")] = 1,
    max_leases: Annotated[int | None, typer.Option(min=1, help="Most leases at once.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value; may be repeated.")] = None,
    advisor_mode: Annotated[
        Mode | None, typer.Option(help="What becomes of advice about its own pool.")
    ] = None,
    provision: Annotated[bool, typer.Option(help="Create role, schema or database, too.")] = True,
) -> None:
    """Declare a tenant, or change it: what is left out gets its default."""
    body = {
        "strategy": strategy,
        "server": server,
        "weight": weight,
        "max_leases": max_leases,
        "labels": _labels(label or []),
        "advisor_mode": advisor_mode,
    }
    given = {key: value for key, value in body.items() if value is not None}
    with session_of(context).client() as remote:
        declared = remote.put(f"/v1/tenants/{path_segment(tenant)}", given)
        if provision and declared["state"] == "declared":
            remote.post(f"/v1/tenants/{path_segment(tenant)}/provision")
        session_of(context).show(
            lambda: remote.get(f"/v1/tenants/{path_segment(tenant)}"),
            lambda one: table(COLUMNS, [one]),
        )


@tenants.command()
def provision(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    adopt: Annotated[bool, typer.Option(help="Take over objects that exist already.")] = False,
) -> None:
    """Create what the tenant's strategy needs."""
    with session_of(context).client() as remote:
        session_of(context).show(
            lambda: remote.post(f"/v1/tenants/{path_segment(tenant)}/provision", adopt=adopt),
            lambda done: f"{tenant}: provisioned, {', '.join(done['objects']) or 'nothing to do'}",
        )


@tenants.command()
def delete(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Close its pool, disable its login and forget it; its data stays."""
    if not yes:
        question = printable(f"Delete the tenant {tenant}? Its data stays.")
        typer.confirm(question, abort=True, err=True)
    with session_of(context).client() as remote:
        session_of(context).show(
            lambda: remote.delete(f"/v1/tenants/{path_segment(tenant)}"),
            lambda gone: f"{tenant}: deleted, {_count(gone)}",
        )


def _labels(pairs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{pair} is not key=value", param_hint="--label")
        found[key] = value
    return found


def _count(gone: Document) -> str:
    return f"{gone['closed']} connections closed, {gone['cut']} leases cut"
