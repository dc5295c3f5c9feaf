"""`?dry_run=true`: shows the plan of an operation instead of executing it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Query, Response, status
from pydantic import BaseModel, Field

from app.api.http.dependencies import ActorDep, CatalogDep
from app.catalog.catalog import Catalog
from app.control.operation import Operation
from app.domain.audit import Actor
from app.domain.plan import Plan, PlanAction

R = TypeVar("R")
V = TypeVar("V")

DryRunQuery = Annotated[
    bool,
    Query(
        description="Change nothing and respond with the plan. The same validation applies as "
        "without it."
    ),
]
_CATALOG_UNREACHABLE = "The catalog is unreachable: the request itself would get 503 now."


class PlanStepView(BaseModel):
    """One step of a plan."""

    action: PlanAction = Field(
        description="What is done; `record` stores desired state.", examples=["close"]
    )
    target: str = Field(description="Kind and name of the object.", examples=["pool acme"])
    before: Mapping[str, Any] | None = Field(
        description="Its value now, where that changes.", examples=[None]
    )
    after: Mapping[str, Any] | None = Field(
        description="Its value afterwards.", examples=[{"deadline_seconds": 5.0}]
    )


class PlanEffectsView(BaseModel):
    """What a plan means for connections, estimated from the pools at this moment."""

    connections_opened: int = Field(examples=[0])
    connections_closed: int = Field(examples=[3])
    leases_cut: int = Field(description="At most; leases that end in time are not cut.")


class PlanView(BaseModel):
    """What the request would do; nothing was changed."""

    dry_run: Literal[True]
    plan: list[PlanStepView] = Field(description="In order; empty when nothing would change.")
    effects: PlanEffectsView
    warnings: list[str] = Field(
        examples=[["Active leases (1) get 5 s to end; after that they are cut."]]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRequest:
    """A request for an operation: executed, or only planned."""

    actor: Actor
    dry_run: bool
    catalog: Catalog
    response: Response

    async def run(
        self,
        operation: Operation[Any, R],
        show: Callable[[R], V],
        *,
        then: Callable[[], Awaitable[object]] | None = None,
    ) -> V | PlanView:
        """Execute *operation*, do what comes *then*, show the result; in a dry run, the plan."""
        if not self.dry_run:
            shown = show(await operation)
            if then is not None:
                await then()
            return shown
        plan: Plan = await operation.plan()
        is_away = not self.catalog.available
        problem = _CATALOG_UNREACHABLE if is_away else self.catalog.write_problem
        if operation.needs_catalog and problem is not None:
            plan += Plan(warnings=(problem,))
        return show_plan(plan, self.response)


def show_plan(plan: Plan, response: Response) -> PlanView:
    """The body of a dry run's *response*."""
    response.status_code = status.HTTP_200_OK
    response.headers["Dry-Run"] = "true"
    return PlanView(
        dry_run=True,
        plan=[PlanStepView(**asdict(step)) for step in plan.steps],
        effects=PlanEffectsView(**asdict(plan.effects)),
        warnings=list(plan.warnings),
    )


async def get_operation_request(
    catalog: CatalogDep, actor: ActorDep, response: Response, *, dry_run: DryRunQuery = False
) -> OperationRequest:
    return OperationRequest(actor=actor, dry_run=dry_run, catalog=catalog, response=response)


OperationDep = Annotated[OperationRequest, Depends(get_operation_request)]
