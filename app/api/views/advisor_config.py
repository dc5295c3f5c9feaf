"""The knobs of both rules as a request may turn them, and as they are shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from app.api.http.error_responses import validation_error
from app.api.http.field_types import RequestBody
from app.domain.advisor import DemandConfig, PoolPressureMonitorConfig, TrialConfig
from app.domain.desired_state import AdvisorRule, AdvisorSettings
from app.domain.pool import MAX_POOL_SIZE

_MANY = 1_000_000
_DAY_MS = 86_400_000

PoolSizeNumber = Annotated[int, Field(ge=1, le=MAX_POOL_SIZE)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Factor = Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=_MANY)]
FewTicks = Annotated[int, Field(ge=1, le=1000)]


class TrialConfigBody(RequestBody):
    """When a growth made while saturated paid; a knob left out stays as it is."""

    saturation: Share | None = Field(
        default=None, description="Share of connections busy from which a pool is saturated."
    )
    ticks: FewTicks | None = Field(
        default=None, description="Saturated ticks before and after that make a comparison."
    )
    completions: Count | None = Field(
        default=None, description="Leases ended before and after that make one."
    )
    max_ticks: FewTicks | None = Field(
        default=None, description="Ticks after which an undecided trial is undone."
    )
    min_growth: Factor | None = Field(
        default=None, description="Smallest growth of which something can be told, as a factor."
    )
    elasticity: Share | None = Field(
        default=None, description="Growth of throughput per growth of size that pays."
    )
    certainty: Positive | None = Field(
        default=None, description="Standard errors between a verdict and chance."
    )
    ceiling_seconds: Positive | None = Field(
        default=None, description="How long an undone growth is not tried again."
    )
    max_ceiling_seconds: Positive | None = Field(
        default=None, description="What that doubles up to, with every further failure."
    )


class AdvisorConfigBody(RequestBody):
    """Knobs of one rule; one left out stays as it is, one of the other rule is refused."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"patience_seconds": 0.05, "late_share": 0.01},
                asdict(PoolPressureMonitorConfig(enabled=True)),
            ]
        }
    )

    tuning_interval_ms: int | None = Field(
        default=None, ge=100, le=_DAY_MS, description="Both: milliseconds between two looks."
    )
    # --- hysteresis
    enabled: bool | None = Field(
        default=None,
        description="hysteresis: the published rule's own switch, true unless the mode is `off`. "
        "The mode decides; in a request this is not looked at.",
    )
    min_pool_size: PoolSizeNumber | None = Field(
        default=None, description="hysteresis: never advise fewer; below max_pool_size."
    )
    max_pool_size: PoolSizeNumber | None = Field(
        default=None, description="hysteresis: never advise more connections."
    )
    target_queue_depth: int | None = Field(
        default=None, ge=0, le=_MANY, description="hysteresis: callers that may wait."
    )
    scale_up_step: PoolSizeNumber | None = Field(
        default=None, description="hysteresis: connections added at a time."
    )
    scale_down_step: PoolSizeNumber | None = Field(
        default=None, description="hysteresis: connections removed at a time."
    )
    scale_down_idle_ratio: Share | None = Field(
        default=None, description="hysteresis: share of idle connections that is not too many."
    )
    samples_before_action: FewTicks | None = Field(
        default=None, description="hysteresis: samples in a row that must agree."
    )
    # --- demand
    patience_seconds: Positive | None = Field(
        default=None, description="demand: a caller that waits longer is late."
    )
    late_share: Share | None = Field(
        default=None, description="demand: share of callers that may be late, above 0."
    )
    rate_smoothing: Share | None = Field(
        default=None, description="demand: weight of the newest 5 seconds in the arrival rate."
    )
    rate_margin: float | None = Field(
        default=None,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="demand: mean absolute deviations added to the smoothed rate.",
    )
    hold_seconds: Positive | None = Field(
        default=None, description="demand: the past over which hold times are averaged."
    )
    hold_inflation: Factor | None = Field(
        default=None, description="demand: multiple of the usual hold time that counts as ours."
    )
    late_ticks: int | None = Field(
        default=None, ge=1, le=3, description="demand: late ticks of the last three that count."
    )
    late_growth: Positive | None = Field(
        default=None, description="demand: share of the size added when callers are late."
    )
    max_growth: Factor | None = Field(
        default=None, description="demand: factor by which a size may grow at a time, above 1."
    )
    min_step: PoolSizeNumber | None = Field(
        default=None, description="demand: connections it may always grow by."
    )
    window_seconds: Positive | None = Field(
        default=None, description="demand: what was needed within this time is not given back."
    )
    shrink_share: Share | None = Field(
        default=None, description="demand: share of the size given back within a minute."
    )
    shrink_step: PoolSizeNumber | None = Field(
        default=None, description="demand: connections that may always be given back."
    )
    burst_allowance: int | None = Field(
        default=None,
        ge=0,
        le=MAX_POOL_SIZE,
        description="demand: connections that the limit leaves to bursts.",
    )
    idle_seconds: Positive | None = Field(
        default=None,
        description="demand: unused for so long a connection is closed where connects are quick.",
    )
    dead_band: Share | None = Field(
        default=None, description="demand: share by which a size may be too large."
    )
    min_events: Count | None = Field(
        default=None, description="demand: callers below which nothing is concluded."
    )
    enough_events: Count | None = Field(
        default=None, description="demand: callers above which confidence is high."
    )
    loop_lag_seconds: Positive | None = Field(
        default=None, description="demand: a standstill of our own that explains waits."
    )
    idle_in_transaction_share: Share | None = Field(
        default=None, description="demand: share of connections idle in transactions."
    )
    lock_share: Share | None = Field(
        default=None, description="demand: share waiting for locks that is contention."
    )
    io_share: Share | None = Field(
        default=None, description="demand: share waiting for disks that slows growth."
    )
    client_write_share: Share | None = Field(
        default=None, description="demand: share waiting for slow readers."
    )
    running_per_core: Positive | None = Field(
        default=None, description="demand: statements running per core that are the limit."
    )
    trial: TrialConfigBody | None = Field(default=None, description="demand: when a growth paid.")

    def applied_to(self, settings: AdvisorSettings) -> AdvisorSettings:
        """*settings* with these knobs of its rule.

        Raises:
            RequestValidationError: one is a knob of the other rule.
            InvalidInput: they do not fit together.
        """
        given = self.model_dump(exclude_none=True)
        for name in given.keys() - _KNOBS[settings.rule]:
            raise validation_error(
                *("body", "config", name),
                code="knob_of_another_rule",
                detail=f"The rule {settings.rule} has no such knob.",
            )
        given.pop("enabled", None)
        if settings.rule is AdvisorRule.HYSTERESIS:
            return replace(settings, hysteresis=replace(settings.hysteresis, **given))
        interval = given.pop("tuning_interval_ms", settings.demand_interval_ms)
        if "trial" in given:
            given["trial"] = replace(settings.demand.trial, **given["trial"])
        demand = replace(settings.demand, **given)
        return replace(settings, demand=demand, demand_interval_ms=interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandConfigView(DemandConfig):
    """The demand rule's knobs, and milliseconds between two of its looks."""

    tuning_interval_ms: int


_KNOBS = {
    AdvisorRule.DEMAND: frozenset(DemandConfigView.__dataclass_fields__),
    AdvisorRule.HYSTERESIS: frozenset(PoolPressureMonitorConfig.__dataclass_fields__),
}


def config_view(settings: AdvisorSettings) -> DemandConfigView | PoolPressureMonitorConfig:
    """The knobs of the rule in force."""
    if settings.rule is AdvisorRule.HYSTERESIS:
        return settings.hysteresis
    demand: dict[str, Any] = asdict(settings.demand)
    demand["trial"] = TrialConfig(**demand["trial"])
    return DemandConfigView(**demand, tuning_interval_ms=settings.demand_interval_ms)
