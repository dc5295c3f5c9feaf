"""`poolkeeper findings`: what needs attention now, and what fixes it."""

import typer

from app.cli.client.service_command import ShowCommand, resource
from app.cli.client.table import ALWAYS, WIDE, Item, Table, number, prose, text

PATH = "/v1/findings"


def _place(finding: Item) -> str:
    if finding["nodes"]:
        names = ", ".join(finding["nodes"])
        more = ", …" if finding["node_count"] > len(finding["nodes"]) else ""
        return f"{'nodes' if finding['node_count'] > 1 else 'node'} {names}{more}"
    return finding["server"] or ("several servers" if finding["count"] else "service")


def _tenants(finding: Item) -> str:
    """The first tenants; the number says how many there are."""
    names = ", ".join(finding["tenants"])
    return names if finding["count"] <= len(finding["tenants"]) else f"{names}, …"


COLUMNS = (
    text("CHECK", "check", ALWAYS),
    text("SEVERITY", "severity", ALWAYS),
    text("PLACE", _place, ALWAYS),
    number("COUNT", "count", ALWAYS),
    prose("DETAIL", "detail", ALWAYS),
    prose("TENANTS", _tenants, WIDE),
)

findings = resource("List what needs attention: the service, servers, nodes, logins, isolation.")


@findings.command("list", cls=ShowCommand)
def list_findings(context: typer.Context) -> None:
    """List what needs attention now, and what fixes it; the worst first.

    These are servers, nodes, logins of tenants and the service itself, as far as they do not work,
    what to upgrade on nodes, paused pools and nodes, leases held for too long, and checks of the
    isolation audit that failed. The exit status is 0 even if there are findings, as for every list.
    """
    context.obj.show(
        lambda client: client.get(PATH)["items"],
        lambda items: Table(columns=COLUMNS, items=items, wraps=True),
    )
