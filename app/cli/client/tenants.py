"""`poolkeeper tenants`: list, show, create, change, provision, rotate, delete."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import typer

from app.cli.client.api_client import ApiClient, ApiError, Document, path_segment
from app.cli.client.completion import server_names
from app.cli.client.service_command import (
    ChangeCommand,
    FinalCommand,
    LabelOption,
    ListCommand,
    ServerFilter,
    ShowCommand,
    TenantArgument,
    pairs,
    resource,
)
from app.cli.client.session import Session, given
from app.cli.client.table import (
    ALWAYS,
    VERY_WIDE,
    WIDE,
    Details,
    Item,
    age,
    counted,
    number,
    pool_state,
    prose,
    text,
    waiting,
)

Mode = Literal["off", "recommend", "apply"]
Strategy = Literal["shared", "per_tenant", "per_database"]
State = Literal["declared", "provisioned", "deleting"]


def _findings(tenant: Item) -> str | None:
    checks = tenant["isolation"]["checks"]
    failed = [f"{each['name']}: {each['detail']}" for each in checks if not each["ok"]]
    return ", ".join(failed) or None


def _waiting(tenant: Item) -> float | str | None:
    pool = tenant["pool"] or {"waiting": None}
    return waiting("waiting")(pool | {"waiting_on_nodes": tenant.get("waiting_on_nodes")})


COLUMNS = (
    text("TENANT", "id", ALWAYS),
    text("STRATEGY", "strategy"),
    text("STATE", "state"),
    text("POOL", lambda item: item["pool"] and pool_state(item["pool"])),
    number("ACTIVE", lambda item: (item["pool"] or {}).get("active")),
    number("WAITING", _waiting),
    text("SERVER", "server", WIDE),
    prose("LABELS", "labels", WIDE),
    number("WEIGHT", "weight", VERY_WIDE),
    number("MAX LEASES", "max_leases", VERY_WIDE),
    text("ADVISOR", lambda item: item["advisor_mode"] or "default", VERY_WIDE),
    age("AGE", "created_at", VERY_WIDE),
)
_DETAILS = (
    *COLUMNS,
    text("ROLE", lambda item: item["isolation"]["role"]),
    text("DATABASE", lambda item: item["isolation"]["database"]),
    text("SCHEMA", lambda item: item["isolation"]["schema"]),
    prose("FINDINGS", _findings),
    prose("QUERIES", lambda item: "allowed" if item["query_allowed"] else item["query_refusal"]),
)

WeightOption = Annotated[
    int | None, typer.Option(min=1, max=1000, help="Share of connections when they run short.")
]
MaxLeasesOption = Annotated[
    int | None, typer.Option(min=0, help="Maximum number of concurrent leases; 0: no limit.")
]
ModeOption = Annotated[
    Mode | None, typer.Option(help="How recommendations for its own pool are handled.")
]

tenants = resource("List, show, create, change, provision and delete tenants.")


@tenants.command("list", cls=ListCommand)
def list_tenants(
    context: typer.Context,
    *,
    selector: Annotated[
        str | None,
        typer.Option(
            "--selector", "-l", metavar="KEY=VALUE,…", help="Filter by labels; all must match."
        ),
    ] = None,
    strategy: Annotated[Strategy | None, typer.Option(help="Filter by strategy.")] = None,
    server: ServerFilter = None,
    state: Annotated[State | None, typer.Option(help="Filter by state.")] = None,
    search: Annotated[str | None, typer.Option(help="Filter by a part of the id.")] = None,
) -> None:
    """List tenants."""
    labels = pairs(selector.split(","), "--selector") if selector else {}
    filters = {"strategy": strategy, "server": server, "state": state, "search": search}
    context.obj.show_list(
        "/v1/tenants", COLUMNS, **filters, label=[f"{key}:{value}" for key, value in labels.items()]
    )


@tenants.command(cls=ShowCommand)
def show(context: typer.Context, tenant: TenantArgument) -> None:
    """Show one tenant."""
    context.obj.show_one(_path(tenant), _DETAILS)


@tenants.command(cls=ChangeCommand)
def create(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    strategy: Annotated[
        Strategy | None, typer.Option(help="Isolation strategy; cannot be changed later.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="Server that hosts the tenant; cannot be changed later.",
            autocompletion=server_names,
        ),
    ] = None,
    weight: WeightOption = None,
    max_leases: MaxLeasesOption = None,
    label: LabelOption = None,
    advisor_mode: ModeOption = None,
    provision: Annotated[
        bool, typer.Option(help="Also create its role, schema or database.")
    ] = True,
) -> None:
    """Create a tenant; omitted options get the service's defaults."""
    body = {
        **given(strategy=strategy, server=server),
        **_changed(weight, max_leases, advisor_mode),
        "labels": pairs(label or (), "--label"),
    }
    session: Session = context.obj

    def send(client: ApiClient) -> Document:
        declared = client.create(_path(tenant), body)
        if not provision or session.dry_run:
            return declared
        try:
            client.request("POST", f"{_path(tenant)}/provision")
        except ApiError as error:
            message = f"Tenant {tenant} was created, but not provisioned. {error}"
            raise ApiError(message, error.exit_status) from error
        return client.get(_path(tenant))

    session.change(send, partial(Details, _DETAILS))


@tenants.command("set", cls=ChangeCommand)
def change(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    weight: WeightOption = None,
    max_leases: MaxLeasesOption = None,
    label: LabelOption = None,
    remove_label: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A label to remove; repeatable.")
    ] = None,
    advisor_mode: ModeOption = None,
) -> None:
    """Change a tenant; omitted options stay as they are."""
    from poolkeeper.models import TenantBody

    added, removed = pairs(label or (), "--label"), remove_label or ()

    def changed(current: Document) -> Document:
        kept = {name: current[name] for name in TenantBody.__annotations__}
        labels = {key: value for key, value in kept["labels"].items() if key not in removed}
        new = _changed(weight, max_leases, advisor_mode)
        return {**kept, **new, "labels": {**labels, **added}}

    context.obj.change(
        lambda client: client.update(_path(tenant), changed), partial(Details, _DETAILS)
    )


@tenants.command(cls=ChangeCommand)
def provision(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    adopt: Annotated[bool, typer.Option("--adopt", help="Take over existing objects.")] = False,
) -> None:
    """Create the role, schema or database of a tenant."""
    context.obj.send(
        "POST",
        f"{_path(tenant)}/provision",
        lambda done: f"{tenant}: provisioned, {', '.join(done['objects']) or 'nothing to create'}",
        adopt=adopt,
    )


@tenants.command(cls=ChangeCommand)
def rotate(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    shared: Annotated[
        bool,
        typer.Option("--shared", help="Rotate the password of the shared tenants' common role."),
    ] = False,
) -> None:
    """Give the role of a tenant a new password and replace its connections."""
    context.obj.send(
        "POST",
        f"{_path(tenant)}/rotate-credentials",
        lambda done: (
            f"{done['role']}: new password (version {done['version']}),"
            f" {counted(done['connections'], 'connection')} to be replaced"
        ),
        scope="pool" if shared else None,
    )


@tenants.command(cls=FinalCommand)
def delete(context: typer.Context, tenant: TenantArgument) -> None:
    """Delete a tenant: close its pool and disable its login. Its data is kept."""
    path = _path(tenant)
    context.obj.confirm(f"Delete tenant {tenant}? Its data is kept.")
    context.obj.send(
        "DELETE",
        path,
        lambda done: (
            f"{tenant}: deleted, {counted(done['closed'], 'connection')} closed,"
            f" {counted(done['cut'], 'lease')} cut"
        ),
    )


def _path(tenant: str) -> str:
    return f"/v1/tenants/{path_segment(tenant)}"


def _changed(weight: int | None, max_leases: int | None, mode: Mode | None) -> Mapping[str, Any]:
    changed = given(weight=weight, advisor_mode=mode)
    if max_leases is not None:
        changed["max_leases"] = max_leases or None
    return changed
