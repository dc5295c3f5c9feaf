"""The advisor over HTTP: its rule, mode and knobs, and what it would say of given numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.http.authentication import (
    REQUIRE_ADMIN,
    REQUIRE_READ,
    REQUIRE_UNBOUND_KEY,
    require_unbound_key,
)
from app.api.http.dependencies import PrincipalDep, Service, ServiceDep
from app.api.http.error_responses import problem_responses, validation_error
from app.api.http.etags import PreconditionsDep, etag
from app.api.http.field_types import RequestBody
from app.api.http.strict_route import StrictRoute
from app.api.views.advice import ConfidenceField, Evidence, Expected, Wanted, advice_fields
from app.api.views.advisor_config import (
    AdvisorConfigBody,
    DemandConfigView,
    PoolSizeNumber,
    config_view,
)
from app.api.views.plan import OperationDep, PlanView
from app.control.advisor.what_if import what_if
from app.domain.advisor import (
    PoolPressureMonitorConfig,
    PoolSizingAdvisor,
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
)
from app.domain.advisor_mode import AdvisorMode
from app.domain.desired_state import AdvisorRule, AdvisorSettings
from app.domain.errors import TenantNotFound
from app.domain.pool import PoolMetrics
from app.domain.tenant import TENANT_ID_PATTERN

_MANY = 1_000_000

router = APIRouter(prefix="/v1/advisor", tags=["advisor"], route_class=StrictRoute)

Rule = Annotated[AdvisorRule, Field(strict=False, description="How sizes are judged.")]
Mode = Annotated[
    AdvisorMode,
    Field(
        strict=False,
        description="`off`: nothing is sampled. `recommend`: advice waits for a person. "
        "`apply`: it is obeyed at once. A tenant may have a mode of its own.",
    ),
]


class AdvisorBody(RequestBody):
    """How the advisor should work; what is left out stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"mode": "apply", "config": {"patience_seconds": 0.1, "late_share": 0.02}},
                {"rule": "hysteresis", "config": {"max_pool_size": 20, "scale_up_step": 2}},
            ]
        }
    )

    rule: Rule | None = None
    mode: Mode | None = None
    config: AdvisorConfigBody = AdvisorConfigBody()


class AdvisorCounters(BaseModel):
    """What came of it since the service started."""

    adjustments_total: int = Field(
        description="Times the rule asked for another size of any pool.", examples=[3]
    )
    open_recommendations: int = Field(description="Waiting for a decision now.", examples=[1])


class AdvisorView(BaseModel):
    """How the advisor works, and what came of it."""

    rule: Rule = Field(examples=["demand"])
    mode: Mode = Field(examples=["recommend"])
    config: DemandConfigView | PoolPressureMonitorConfig = Field(
        description="The knobs of the rule in force."
    )
    generation: int = Field(
        description="Grows with every change; the ETag. 0: nothing was ever changed.", examples=[1]
    )
    counters: AdvisorCounters
    stale: bool = Field(
        description="Whether the catalog is away, and this is from memory.", examples=[False]
    )


class EvaluateMetrics(RequestBody):
    """What a pool looks like."""

    total_connections: int = Field(ge=0, le=_MANY, examples=[10])
    idle_connections: int = Field(ge=0, le=_MANY, examples=[0])
    active_connections: int = Field(ge=0, le=_MANY, examples=[10])
    waiting_requests: int = Field(ge=0, le=_MANY, examples=[8])


class EvaluateBody(RequestBody):
    """Either a pool that looks the same so many samples in a row, or a tenant's live pool."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
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
            ]
        }
    )

    rule: Rule | None = Field(
        default=None,
        description="For `metrics` hysteresis, the only rule that needs no past; for a tenant by "
        "default the rule in force.",
        examples=["hysteresis"],
    )
    config: AdvisorConfigBody = Field(
        default=AdvisorConfigBody(),
        description="Knobs to try; one left out is as it is in force now.",
        examples=[{"scale_up_step": 5, "samples_before_action": 3}],
    )
    metrics: EvaluateMetrics | None = None
    samples: int = Field(
        default=1, ge=1, le=1000, description="How often the rule sees them.", examples=[3]
    )
    tenant: Annotated[str, Field(pattern=TENANT_ID_PATTERN, max_length=48)] | None = Field(
        default=None,
        description="Judge the last minutes of this tenant's open pool.",
        examples=["acme"],
    )
    late_ms: Annotated[float, Field(gt=0, le=86_400_000, allow_inf_nan=False)] | None = Field(
        default=None,
        description="demand: a caller that waits longer is late; patience_seconds otherwise.",
    )
    late_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = Field(
        default=None, description="demand: share of callers that may be late."
    )
    budget: PoolSizeNumber | None = Field(
        default=None,
        description="Connections that all pools of the server may have; by default nothing is "
        "divided. Not for a key that is bound to tenants.",
    )


class Evaluation(BaseModel):
    """What the rule says to the last of the samples."""

    action: ScalingAction = Field(examples=["scale_up"])
    current_size: int = Field(examples=[10])
    new_size: int = Field(examples=[15])
    reason_code: ReasonCode = Field(examples=["queue_above_target"])
    reason: str = Field(examples=["8 requests waiting (threshold 3); grown by 5"])
    wanted: Wanted
    confidence: ConfidenceField
    evidence: Evidence
    expected: Expected


@router.get(
    "", dependencies=[REQUIRE_READ], summary="Show the advisor", responses=problem_responses()
)
async def get_advisor(service: ServiceDep, response: Response) -> AdvisorView:
    """Its rule, mode and knobs, and its counters. Works while the catalog is away."""
    return _show(service, response)


@router.put(
    "",
    dependencies=[REQUIRE_ADMIN, REQUIRE_UNBOUND_KEY],
    summary="Change the advisor",
    responses=problem_responses(412, 428),
)
async def put_advisor(
    body: AdvisorBody,
    service: ServiceDep,
    *,
    operation: OperationDep,
    response: Response,
    preconditions: PreconditionsDep,
) -> AdvisorView | PlanView:
    """Change its rule, mode or knobs for all pools; what it has seen counts no more.

    `config` is that of the chosen rule; the other rule's knobs are kept. What is left out stays
    as it is; the same again changes nothing and keeps the ETag. A key that
    is bound to tenants cannot do this.
    """
    before = service.advisor_loop.settings
    expected = preconditions.expected_generation(before.generation)
    mode = body.mode or before.mode
    hysteresis = replace(before.hysteresis, enabled=mode is not AdvisorMode.OFF)
    settings = body.config.applied_to(
        replace(before, rule=body.rule or before.rule, mode=mode, hysteresis=hysteresis)
    )
    change = service.advisor_loop.put_settings(
        settings, operation.actor, expected_generation=expected
    )
    return await operation.run(change, lambda _: _show(service, response))


@router.post(
    "/evaluate",
    dependencies=[REQUIRE_READ],
    summary="Ask what the advisor would say",
    responses=problem_responses(404, 409),
)
async def evaluate_advisor(
    body: EvaluateBody, request: Request, service: ServiceDep, principal: PrincipalDep
) -> Evaluation:
    """Ask a fresh advisor about given numbers, or "what if" about a tenant's live pool.

    `metrics` are shown to it `samples` times, and what it says at last is answered. With `tenant`
    it sees the last minutes of that tenant's open pool, and may be given another lateness, rule,
    knobs or budget. Changes nothing, touches no pool, and works in every mode.
    """
    if body.tenant is None:
        return _evaluation(_of_metrics(body, service))
    if body.metrics is not None:
        raise validation_error(
            "body", "metrics", code="not_both", detail="Give a tenant or metrics."
        )
    if not principal.can_access(body.tenant):
        raise TenantNotFound(f"There is no tenant {body.tenant}.")
    if body.budget is not None:
        await require_unbound_key(request)
    account = service.manager.tenant_state(body.tenant)
    settings = _tried(body, service.advisor_loop.settings)
    return _evaluation(
        await what_if(service.manager, service.observer, account, settings, budget=body.budget)
    )


def _of_metrics(body: EvaluateBody, service: Service) -> PoolSizingRecommendation:
    if body.metrics is None:
        raise validation_error(
            "body", "metrics", code="missing", detail="Give metrics, or a tenant."
        )
    if body.rule is AdvisorRule.DEMAND:
        raise validation_error(
            *("body", "rule"),
            code="needs_a_tenant",
            detail="The demand rule judges what happened over time: name a tenant.",
        )
    for name in ("late_ms", "late_share", "budget"):
        if getattr(body, name) is not None:
            raise validation_error(
                "body", name, code="needs_a_tenant", detail="It is of use with a tenant only."
            )
    settings = replace(service.advisor_loop.settings, rule=AdvisorRule.HYSTERESIS)
    advisor = PoolSizingAdvisor(body.config.applied_to(settings).hysteresis)
    metrics = PoolMetrics(**body.metrics.model_dump())
    for _ in range(body.samples - 1):
        advisor.evaluate(metrics)
    return advisor.evaluate(metrics)


def _tried(body: EvaluateBody, settings: AdvisorSettings) -> AdvisorSettings:
    """*settings* with what is to be tried."""
    tried = body.config.applied_to(replace(settings, rule=body.rule or settings.rule))
    demand = tried.demand
    if body.late_ms is not None:
        demand = replace(demand, patience_seconds=body.late_ms / 1000)
    if body.late_share is not None:
        demand = replace(demand, late_share=body.late_share)
    return replace(tried, demand=demand)


def _evaluation(advice: PoolSizingRecommendation) -> Evaluation:
    return Evaluation(**advice_fields(advice))


def _show(service: Service, response: Response) -> AdvisorView:
    settings = service.advisor_loop.settings
    response.headers["ETag"] = etag(settings.generation)
    return AdvisorView(
        rule=settings.rule,
        mode=settings.mode,
        config=config_view(settings),
        generation=settings.generation,
        counters=AdvisorCounters(
            adjustments_total=service.advisor_loop.adjustments_total,
            open_recommendations=len(service.advisor_loop.open_recommendations),
        ),
        stale=not service.catalog.available,
    )
