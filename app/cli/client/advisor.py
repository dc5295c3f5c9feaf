"""`poolkeeper advisor`: its rule, mode and limits, and what it would recommend."""

import json
from collections.abc import Container
from functools import partial
from typing import Annotated, Any, Literal

import typer

from app.cli.client.api_client import ApiError
from app.cli.client.evidence import evidence_of
from app.cli.client.exit_status import ExitStatus
from app.cli.client.service_command import (
    ChangeCommand,
    ServiceCommand,
    ShowCommand,
    TenantArgument,
    pairs,
    resource,
)
from app.cli.client.session import given
from app.cli.client.table import ALWAYS, Details, Item, effect_of, number, prose, text

Mode = Literal["off", "recommend", "apply"]
Rule = Literal["demand", "hysteresis"]
_PATH = "/v1/advisor"
_COLUMNS = (
    text("RULE", "rule", ALWAYS),
    text("MODE", "mode", ALWAYS),
    number("OPEN RECOMMENDATIONS", lambda item: item["counters"]["open_recommendations"]),
    number("MADE SINCE START", lambda item: item["counters"]["adjustments_total"]),
)
_EVALUATION = (
    number("SIZE", "current_size"),
    number("PROPOSED", "new_size"),
    prose("REASON", "reason"),
    text("CONFIDENCE", "confidence"),
    prose("EXPECTED", effect_of),
    prose("EVIDENCE", evidence_of),
)

advisor = resource("Show and change the advisor, and ask it what it would recommend.")


@advisor.command(cls=ShowCommand)
def show(context: typer.Context) -> None:
    """Show the advisor's rule, mode and limits."""
    context.obj.show(lambda client: client.get(_PATH), _details)


@advisor.command("set", cls=ChangeCommand)
def change(
    context: typer.Context,
    *,
    mode: Annotated[
        Mode | None, typer.Option(help="Whether recommendations wait for a person.")
    ] = None,
    rule: Annotated[Rule | None, typer.Option(help="The rule that recommends sizes.")] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A limit as `advisor show` names it; repeatable."),
    ] = None,
) -> None:
    """Change the advisor; omitted options stay as they are."""
    limits = _config(config or [])
    body = given(mode=mode, rule=rule, config=limits or None)
    context.obj.send("PUT", _PATH, lambda found: _details(found, limits), body)


@advisor.command(cls=ServiceCommand)
def evaluate(
    context: typer.Context,
    tenant: TenantArgument,
    *,
    rule: Annotated[
        Rule | None, typer.Option(help="A rule to use in place of the advisor's.")
    ] = None,
    late_ms: Annotated[
        float | None, typer.Option(help="A caller that waits longer is late.")
    ] = None,
    late_share: Annotated[
        float | None, typer.Option(help="Tolerated share of late callers, 0 to 1.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="A connection budget to use in place of the server's.")
    ] = None,
) -> None:
    """Show what would be recommended for a tenant's pool, as it is used now."""
    if "@" in tenant:
        raise ApiError("Name a tenant; for a shared pool, any of its tenants.", ExitStatus.USAGE)
    body = given(tenant=tenant, rule=rule, late_ms=late_ms, late_share=late_share, budget=budget)
    context.obj.send("POST", f"{_PATH}/evaluate", partial(Details, _EVALUATION), body)


def _details(found: Item, only: Container[str] | None = None) -> Details:
    """The advisor with all its limits, or with some."""
    limits = (
        prose(name, lambda _, value=value: json.dumps(value))  # type: ignore[misc]
        for name, value in found["config"].items()
        if only is None or name in only
    )
    return Details((*_COLUMNS, *limits), found)


def _config(values: list[str]) -> dict[str, Any]:
    """Parse KEY=VALUE; values are JSON, such as numbers, or else text."""
    found: dict[str, Any] = {}
    for key, value in pairs(values, "--config").items():
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
