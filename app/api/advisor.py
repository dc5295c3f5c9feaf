"""The advisor over HTTP: its rule, mode and knobs, and what it would say of given numbers."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.body import RequestBody
from app.api.deps import ActorDep, Service, ServiceDep
from app.api.problems import documented
from app.api.versions import IfMatchHeader, etag, expected_generation
from app.domain.advisor import Action, PoolPressureMonitorConfig, PoolSizingAdvisor, ReasonCode
from app.domain.desired import AdvisorMode, AdvisorSettings
from app.domain.pool import MAX_POOL_SIZE, PoolMetrics

_MANY = 1_000_000
_DAY_MS = 86_400_000

router = APIRouter(prefix="/v1/advisor", tags=["advisor"])

Rule = Annotated[Literal["hysteresis"], Field(description="How sizes are judged.")]
PoolSizeNumber = Annotated[int, Field(ge=1, le=MAX_POOL_SIZE)]
Mode = Annotated[
    AdvisorMode,
    Field(
        strict=False,
        description="`off`: nothing is sampled. `recommend`: advice waits for a person. "
        "`apply`: it is obeyed at once.",
    ),
]


class AdvisorConfig(RequestBody):
    """Knobs of the rule; a knob left out stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [asdict(PoolPressureMonitorConfig(enabled=True))]}
    )

    enabled: bool | None = Field(
        default=None,
        description="The published rule's own switch, true unless the mode is `off`. "
        "The mode decides; in a request this is not looked at.",
    )
    min_pool_size: PoolSizeNumber | None = Field(
        default=None, description="Never advise fewer connections; below max_pool_size."
    )
    max_pool_size: PoolSizeNumber | None = Field(
        default=None, description="Never advise more connections."
    )
    target_queue_depth: int | None = Field(
        default=None, ge=0, le=_MANY, description="Callers that may wait: more count as too many."
    )
    scale_up_step: PoolSizeNumber | None = Field(
        default=None, description="Connections added at a time."
    )
    scale_down_step: PoolSizeNumber | None = Field(
        default=None, description="Connections removed at a time."
    )
    scale_down_idle_ratio: float | None = Field(
        default=None, ge=0, le=1, description="Share of idle connections: more count as too many."
    )
    tuning_interval_ms: int | None = Field(
        default=None, ge=100, le=_DAY_MS, description="Milliseconds between two samples."
    )
    samples_before_action: int | None = Field(
        default=None, ge=1, le=1000, description="Samples in a row that must agree."
    )

    def onto(self, config: PoolPressureMonitorConfig) -> PoolPressureMonitorConfig:
        """*config* with these knobs.

        Raises:
            InvalidInput: they do not fit together.
        """
        return replace(config, **self.model_dump(exclude_none=True, exclude={"enabled"}))


class AdvisorBody(RequestBody):
    """How the advisor should work; what is left out stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"mode": "apply", "config": {"max_pool_size": 20, "scale_up_step": 2}}]
        }
    )

    rule: Rule | None = None
    mode: Mode | None = None
    config: AdvisorConfig = AdvisorConfig()


class AdvisorCounters(BaseModel):
    """What came of it since the service started."""

    adjustments_total: int = Field(
        description="Times the rule asked for another size of a pool.", examples=[3]
    )
    open_recommendations: int = Field(description="Waiting for a decision now.", examples=[1])


class AdvisorView(BaseModel):
    """How the advisor works, and what came of it."""

    rule: Rule
    mode: Mode = Field(examples=["recommend"])
    config: AdvisorConfig
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
    """A pool that looks the same so many samples in a row."""

    rule: Rule = Field(default="hysteresis", examples=["hysteresis"])
    config: AdvisorConfig = Field(
        default=AdvisorConfig(),
        description="Knobs to try; one left out is as it is in force now.",
        examples=[{"scale_up_step": 5, "samples_before_action": 3}],
    )
    metrics: EvaluateMetrics
    samples: int = Field(
        default=1, ge=1, le=1000, description="How often the rule sees it.", examples=[3]
    )


class Evaluation(BaseModel):
    """What the rule says to the last of the samples."""

    action: Action = Field(examples=["scale_up"])
    current_size: int = Field(examples=[10])
    new_size: int = Field(examples=[15])
    reason_code: ReasonCode = Field(examples=["queue_above_target"])
    reason: str = Field(examples=["8 requests waiting (threshold 3); grown by 5"])


@router.get("", summary="Show the advisor", responses=documented())
async def get_advisor(service: ServiceDep, response: Response) -> AdvisorView:
    """Its rule, mode and knobs, and its counters. Works while the catalog is away."""
    return _show(service, response)


@router.put("", summary="Change the advisor", responses=documented(400, 412, 413, 415))
async def put_advisor(
    body: AdvisorBody,
    service: ServiceDep,
    actor: ActorDep,
    response: Response,
    if_match: IfMatchHeader = None,
) -> AdvisorView:
    """Change its mode or knobs for all pools; samples are counted anew.

    What is left out stays as it is; the same again changes nothing and keeps the ETag.
    """
    before = service.advising.settings
    mode = body.mode or before.mode
    config = replace(body.config.onto(before.config), enabled=mode is not AdvisorMode.OFF)
    settings = AdvisorSettings(rule=body.rule or before.rule, mode=mode, config=config)
    await service.advising.put_settings(
        settings,
        actor,
        expected_generation=expected_generation(if_match, None, exists=True),
    )
    return _show(service, response)


@router.post(
    "/evaluate", summary="Ask what the advisor would say", responses=documented(400, 413, 415)
)
async def evaluate_advisor(body: EvaluateBody, service: ServiceDep) -> Evaluation:
    """Feed a fresh advisor the same numbers `samples` times and answer what it says at last.

    Changes nothing, touches no pool, and works in every mode.
    """
    advisor = PoolSizingAdvisor(body.config.onto(service.advising.settings.config))
    metrics = PoolMetrics(**body.metrics.model_dump())
    for _ in range(body.samples - 1):
        advisor.evaluate(metrics)
    return Evaluation(**asdict(advisor.evaluate(metrics)))


def _show(service: Service, response: Response) -> AdvisorView:
    settings = service.advising.settings
    response.headers["ETag"] = etag(settings.generation)
    return AdvisorView(
        rule="hysteresis",
        mode=settings.mode,
        config=AdvisorConfig(**asdict(settings.config)),
        generation=settings.generation,
        counters=AdvisorCounters(
            adjustments_total=service.advising.adjustments_total,
            open_recommendations=len(service.advising.open),
        ),
        stale=not service.catalog.available,
    )
