"""`poolkeeper credentials`: users and passwords with which applications connect as a tenant."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from app.cli.client.api_client import ApiClient, ApiError, Document, path_segment
from app.cli.client.completion import credential_names
from app.cli.client.exit_status import ExitStatus
from app.cli.client.output import print_note
from app.cli.client.service_command import (
    ChangeCommand,
    FinalCommand,
    ListCommand,
    ShowCommand,
    TenantArgument,
    resource,
)
from app.cli.client.session import Session
from app.cli.client.table import ALWAYS, WIDE, age, text
from app.cli.client.times import ExpiresOption, expiry

COLUMNS = (
    text("NAME", "name", ALWAYS),
    text("USER", "user", ALWAYS),
    text("EXPIRES", lambda item: "expired" if item["expired"] else item["expires_at"] or "never"),
    age("LAST SEEN", "last_used_at"),
    age("AGE", "created_at", WIDE),
)
NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Credential name.", autocompletion=credential_names),
]
_NO_NODE = (
    "No ready node serves the tenant yet: this connection string is for POST /sql alone; "
    "psql and drivers need a node."
)
_SEVERAL_NODES = (
    "The connection string names all ready nodes that serve the tenant, for psql, psycopg, asyncpg "
    "and others that take several hosts. For a driver that takes one, such as node-pg, keep one."
)

credentials = resource("List, show, create and revoke the credentials of applications.")


@credentials.command("list", cls=ListCommand)
def list_credentials(context: typer.Context, tenant: TenantArgument) -> None:
    """List the credentials of a tenant; never a password."""
    context.obj.show_list(_path(tenant), COLUMNS)


@credentials.command(cls=ShowCommand)
def show(context: typer.Context, tenant: TenantArgument, name: NameArgument) -> None:
    """Show one credential, without its password."""
    context.obj.show_one(f"{_path(tenant)}/{path_segment(name)}", COLUMNS)


@credentials.command(cls=ChangeCommand)
def create(
    context: typer.Context,
    tenant: TenantArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new credential.")],
    *,
    expires_at: ExpiresOption = None,
) -> None:
    """Create a credential and print its connection string once."""
    try:
        expires = expiry(expires_at, datetime.now(UTC))
    except ValueError as error:
        raise ApiError(str(error), ExitStatus.USAGE) from error
    body = {"name": name, **({"expires_at": expires.isoformat()} if expires else {})}
    session: Session = context.obj

    def send(client: ApiClient) -> Document:
        issued = client.request("POST", _path(tenant), body)
        if not session.dry_run:
            if issued["node_connection_string"] is None:
                print_note(_NO_NODE)
            elif len(issued["node_connection_strings"]) > 1:
                print_note(_SEVERAL_NODES)
            print_note(f"Credential {issued['user']}; its password is shown only once:")
        return issued

    session.change(
        send, lambda issued: issued["node_connection_string"] or issued["connection_string"]
    )


@credentials.command(cls=FinalCommand)
def revoke(context: typer.Context, tenant: TenantArgument, name: NameArgument) -> None:
    """Revoke a credential; the service rejects it at once."""
    path = f"{_path(tenant)}/{path_segment(name)}"
    context.obj.confirm(
        f"Revoke credential {tenant}.{name}? Its applications can no longer connect."
    )
    context.obj.send("DELETE", path, lambda revoked: f"{revoked['user']}: revoked")


def _path(tenant: str) -> str:
    return f"/v1/tenants/{path_segment(tenant)}/credentials"
