"""The advisor: its rule, mode and configuration, and what-if."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api.http.authentication import REQUIRE_ADMIN_ALL, REQUIRE_READ, require_unbound_key
from app.api.http.dependencies import AdvisorDep, CatalogDep, ManagerDep, PrincipalDep, provided
from app.api.http.error_responses import problem_responses, validation_error
from app.api.http.etags import PreconditionsDep, etag
from app.api.http.field_types import Name, RequestBody, Stale, examples
from app.api.http.strict_route import StrictRoute
from app.api.views.advice import Advice, advice_fields
from app.api.views.advisor_config import (
    AdvisorConfigBody,
    DemandConfigView,
    PoolSizeNumber,
    config_view,
)
from app.api.views.plan import OperationDep, PlanView
from app.catalog.catalog import Catalog
from app.control.advisor.advised_pools import AdvisedPools
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.advisor.observer import Observer
from app.control.advisor.what_if import what_if
from app.domain.advisor import (
    PoolPressureMonitorConfig,
    PoolSizingAdvisor,
    PoolSizingRecommendation,
)
from app.domain.advisor_settings import AdvisorRule, AdvisorSettings
from app.domain.errors import TenantNotFound
from app.domain.pool import PoolMetrics
from app.domain.tenant import AdvisorMode

_MANY = 1_000_000

router = APIRouter(prefix="/v1/advisor", tags=["advisor"], route_class=StrictRoute)


Rule = Annotated[AdvisorRule, Field(strict=False, description="The rule that recommends sizes.")]
Mode = Annotated[
    AdvisorMode,
    Field(
        strict=False,
        description="`off`: nothing is sampled. `recommend`: recommendations wait for a person. "
        "`apply`: they are applied at once. A tenant can have a mode of its own.",
    ),
]


class AdvisorBody(RequestBody):
    """A change of the advisor; omitted fields stay as they are."""

    model_config = examples(
        {"mode": "apply", "config": {"patience_seconds": 0.1, "late_share": 0.02}},
        {"rule": "hysteresis", "config": {"max_pool_size": 20, "scale_up_step": 2}},
    )

    rule: Rule | None = None
    mode: Mode | None = None
    config: AdvisorConfigBody = AdvisorConfigBody()


class AdvisorCounters(BaseModel):
    """Counters since the service started."""

    adjustments_total: int = Field(
        description="Recommendations made, those applied at once included.", examples=[3]
    )
    open_recommendations: int = Field(description="Open recommendations now.", examples=[1])


class AdvisorView(BaseModel):
    """The advisor."""

    rule: Rule = Field(examples=["demand"])
    mode: Mode = Field(examples=["recommend"])
    config: DemandConfigView | PoolPressureMonitorConfig = Field(
        description="Configuration of the current rule."
    )
    generation: int = Field(
        description="Version of these settings, also the ETag; 0 while nothing was changed.",
        examples=[1],
    )
    counters: AdvisorCounters
    stale: Stale


class EvaluateMetrics(RequestBody):
    """The metrics of a pool."""

    total_connections: int = Field(ge=0, le=_MANY, examples=[10])
    idle_connections: int = Field(ge=0, le=_MANY, examples=[0])
    active_connections: int = Field(ge=0, le=_MANY, examples=[10])
    waiting_requests: int = Field(ge=0, le=_MANY, examples=[8])


class EvaluateBody(RequestBody):
    """Either constant metrics over a number of samples, or a tenant's open pool."""

    model_config = examples(
        {
            "metrics": {
                "total_connections": 10,
                "idle_connections": 0,
                "active_connections": 10,
                "waiting_requests": 8,
            },
            "samples": 3,
        },
        {"tenant": "acme", "late_ms": 20, "late_share": 0.001},
    )

    rule: Rule | None = Field(
        default=None,
        description="With `metrics`: only `hysteresis`, which needs no history. With `tenant`: "
        "the current rule by default.",
        examples=["hysteresis"],
    )
    config: AdvisorConfigBody = Field(
        default=AdvisorConfigBody(),
        description="Configuration to try; omitted fields have their current values.",
        examples=[{"scale_up_step": 5, "samples_before_action": 3}],
    )
    metrics: EvaluateMetrics | None = None
    samples: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Number of times the rule evaluates them.",
        examples=[3],
    )
    tenant: Name | None = Field(
        default=None,
        description="Evaluate the last minutes of this tenant's open pool.",
        examples=["acme"],
    )
    late_ms: Annotated[float, Field(gt=0, le=86_400_000, allow_inf_nan=False)] | None = Field(
        default=None,
        description="demand: a caller that waits longer is late; default patience_seconds.",
    )
    late_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        default=None, description="demand: acceptable share of late callers."
    )
    budget: PoolSizeNumber | None = Field(
        default=None,
        description="Connections that all pools of the server share; by default only this pool is "
        "evaluated. Not for a key that is bound to tenants.",
    )


class Evaluation(Advice):
    """The rule's advice for the last sample."""


@router.get("", dependencies=[REQUIRE_READ], summary="Get the advisor")
async def get_advisor(advisor: AdvisorDep, catalog: CatalogDep, response: Response) -> AdvisorView:
    """Shows the advisor's rule, mode, configuration and counters.

    Works while the catalog is unreachable.
    """
    return _show(advisor, catalog, response)


@router.put("", dependencies=REQUIRE_ADMIN_ALL, summary="Change the advisor")
async def put_advisor(
    body: AdvisorBody,
    advisor: AdvisorDep,
    catalog: CatalogDep,
    *,
    operation: OperationDep,
    response: Response,
    preconditions: PreconditionsDep,
) -> AdvisorView | PlanView:
    """Changes the rule, mode or configuration for all pools; the advisor observes from scratch.

    `config` belongs to the chosen rule; the other rule's is kept. Omitted fields stay as they are.
    A repeated request changes nothing and keeps the ETag. A key that is bound to tenants answers
    403.
    """

    def applied_to(before: AdvisorSettings) -> AdvisorSettings:
        mode = body.mode or before.mode
        hysteresis = replace(before.hysteresis, enabled=mode is not AdvisorMode.OFF)
        return body.config.applied_to(
            replace(before, rule=body.rule or before.rule, mode=mode, hysteresis=hysteresis)
        )

    def expect(before: AdvisorSettings | None) -> int | None:
        return preconditions.expected_generation(before.generation if before else None)

    change = advisor.put_settings(applied_to, operation.actor, expect=expect)
    return await operation.run(change, lambda _: _show(advisor, catalog, response))


@router.post(
    "/evaluate",
    dependencies=[REQUIRE_READ],
    summary="Evaluate a what-if",
    responses=problem_responses(404),
)
async def evaluate_advisor(
    body: EvaluateBody,
    request: Request,
    *,
    advisor: AdvisorDep,
    manager: ManagerDep,
    pools: Annotated[AdvisedPools, provided(AdvisedPools)],
    observer: Annotated[Observer, provided(Observer)],
    principal: PrincipalDep,
) -> Evaluation:
    """Asks a new advisor about given numbers, or about a tenant's open pool.

    With `metrics`, the rule evaluates them `samples` times and the last advice is returned. With
    `tenant`, it evaluates the last minutes of that tenant's open pool, with another patience,
    rule, configuration or budget if given. Changes nothing, and works in every mode.
    """
    if body.tenant is None:
        return Evaluation(**advice_fields(_of_metrics(body, advisor)))
    if body.metrics is not None:
        raise validation_error(
            "body", "metrics", code="not_both", detail="Send tenant or metrics, not both."
        )
    if not principal.can_access(body.tenant):
        raise TenantNotFound(f"There is no tenant {body.tenant}.")
    if body.budget is not None:
        await require_unbound_key(request)
    state = manager.tenants.state(body.tenant)
    settings = _tried(body, advisor.settings)
    advice = await what_if(pools, observer, state, settings, budget=body.budget)
    return Evaluation(**advice_fields(advice))


def _of_metrics(body: EvaluateBody, advisor: AdvisorLoop) -> PoolSizingRecommendation:
    if body.metrics is None:
        raise validation_error("body", "metrics", code="missing", detail="Send metrics or tenant.")
    if body.rule is AdvisorRule.DEMAND:
        raise validation_error(
            *("body", "rule"),
            code="needs_a_tenant",
            detail="The demand rule evaluates a period of time: send tenant.",
        )
    for name in ("late_ms", "late_share", "budget"):
        if getattr(body, name) is not None:
            raise validation_error(
                "body", name, code="needs_a_tenant", detail="Allowed only together with tenant."
            )
    settings = replace(advisor.settings, rule=AdvisorRule.HYSTERESIS)
    fresh = PoolSizingAdvisor(body.config.applied_to(settings).hysteresis)
    metrics = PoolMetrics(**body.metrics.model_dump())
    for _ in range(body.samples - 1):
        fresh.evaluate(metrics)
    return fresh.evaluate(metrics)


def _tried(body: EvaluateBody, settings: AdvisorSettings) -> AdvisorSettings:
    """Return *settings* with the changes to try."""
    tried = body.config.applied_to(replace(settings, rule=body.rule or settings.rule))
    late_share = tried.demand.late_share if body.late_share is None else body.late_share
    patience = tried.demand.patience_seconds if body.late_ms is None else body.late_ms / 1000
    demand = replace(tried.demand, late_share=late_share, patience_seconds=patience)
    return replace(tried, demand=demand)


def _show(advisor: AdvisorLoop, catalog: Catalog, response: Response) -> AdvisorView:
    settings = advisor.settings
    response.headers["ETag"] = etag(settings.generation)
    return AdvisorView(
        rule=settings.rule,
        mode=settings.mode,
        config=config_view(settings),
        generation=settings.generation,
        counters=AdvisorCounters(
            adjustments_total=advisor.adjustments_total,
            open_recommendations=len(advisor.open_recommendations),
        ),
        stale=not catalog.available,
    )
