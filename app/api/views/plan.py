"""`?dry_run=true`: what a change would do, answered instead of doing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Query, Response, status
from pydantic import BaseModel, ConfigDict, Field

from app.api.http.dependencies import Service
from app.domain.preview import Plan, PlanAction

DryRunQuery = Annotated[
    bool,
    Query(
        description="Change nothing, and answer with the plan: it is judged as the request itself "
        "would be, and refused where that would be."
    ),
]
_CATALOG_AWAY = "The catalog is away: the request itself would answer 503 now."


class PlanStepView(BaseModel):
    """One step of a plan."""

    action: PlanAction = Field(description="What is done; `record` stores what is wanted.")
    target: str = Field(description="To what: its kind and its name.")
    before: Mapping[str, Any] | None = Field(description="What it is now, where that changes.")
    after: Mapping[str, Any] | None = Field(description="What it would be.")


class PlanEffectsView(BaseModel):
    """What a plan means for connections, reckoned from the pools of this moment."""

    connections_opened: int
    connections_closed: int
    leases_cut: int = Field(description="At most; leases that end in time are not cut.")


class PlanView(BaseModel):
    """What the request would do; nothing of it was done."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dry_run": True,
                    "plan": [
                        {
                            "action": "close",
                            "target": "pool acme",
                            "before": None,
                            "after": {"deadline_seconds": 5.0},
                        }
                    ],
                    "effects": {
                        "connections_opened": 0,
                        "connections_closed": 3,
                        "leases_cut": 1,
                    },
                    "warnings": ["1 leases under way get 5 s to end; those that do not are cut."],
                }
            ]
        }
    )

    dry_run: Literal[True]
    plan: list[PlanStepView] = Field(description="In order; empty when nothing would change.")
    effects: PlanEffectsView
    warnings: list[str]


def show_plan(
    service: Service, response: Response, preview: Plan, *, needs_catalog: bool = False
) -> PlanView:
    """*preview* as an answer, marked as one; *needs_catalog*: the request could not do without."""
    response.status_code = status.HTTP_200_OK
    response.headers["Dry-Run"] = "true"
    warnings = list(preview.warnings)
    if needs_catalog and not service.catalog.available:
        warnings.append(_CATALOG_AWAY)
    return PlanView(
        dry_run=True,
        plan=[
            PlanStepView(
                action=step.action, target=step.target, before=step.before, after=step.after
            )
            for step in preview.steps
        ],
        effects=PlanEffectsView(
            connections_opened=preview.effects.connections_opened,
            connections_closed=preview.effects.connections_closed,
            leases_cut=preview.effects.leases_cut,
        ),
        warnings=warnings,
    )
