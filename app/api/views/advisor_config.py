"""The configuration of both rules in requests and responses, generated from their declarations."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from pydantic import Field, create_model

from app.api.http.error_responses import validation_error
from app.api.http.field_types import RequestBody, examples
from app.domain.advisor import DemandConfig, PoolPressureMonitorConfig, TrialConfig
from app.domain.advisor.config_value import ConfigValue, config_values
from app.domain.advisor_settings import AdvisorRule, AdvisorSettings
from app.domain.pool import MAX_POOL_SIZE

PoolSizeNumber = Annotated[int, Field(ge=1, le=MAX_POOL_SIZE)]


def _optional(value: ConfigValue, rule: str) -> tuple[Any, Any]:
    """A field that keeps its present value if omitted."""
    bounds = {"gt" if value.exclusive else "ge": value.kind(value.least)}
    if value.kind is float:
        bounds |= {"allow_inf_nan": False}
    description = f"{rule}{value.meaning}"
    bounded = Annotated[value.kind, Field(le=value.kind(value.most), **bounds)]  # type: ignore[name-defined]
    return bounded | None, Field(default=None, description=description)


def _fields(config: type, rule: str = "") -> dict[str, Any]:
    return {name: _optional(value, rule) for name, value in config_values(config).items()}


TrialConfigBody = create_model(
    "TrialConfigBody",
    __base__=RequestBody,
    __doc__="When growth of a saturated pool is kept; omitted fields stay as they are.",
    **_fields(TrialConfig),
)

_Values = create_model(
    "_Values",
    __base__=RequestBody,
    **_fields(DemandConfig, "demand: "),
    trial=(TrialConfigBody | None, Field(default=None, description="demand: when growth is kept.")),
    **_fields(PoolPressureMonitorConfig, "hysteresis: "),
)


class AdvisorConfigBody(_Values):
    """Configuration of one rule; omitted fields stay as they are."""

    model_config = examples(
        {"patience_seconds": 0.1, "late_share": 0.01},
        asdict(PoolPressureMonitorConfig(enabled=True)),
    )

    tuning_interval_ms: int | None = Field(
        default=None, ge=100, le=86_400_000, description="Both: milliseconds between two ticks."
    )
    enabled: bool | None = Field(
        default=None,
        description="hysteresis: the published rule's own switch, true unless the mode is `off`. "
        "Ignored in requests: the mode decides.",
    )

    def applied_to(self, settings: AdvisorSettings) -> AdvisorSettings:
        """Return *settings* with these values for its rule.

        Raises:
            RequestValidationError: a value belongs to the other rule.
            InvalidInput: the values do not fit together.
        """
        given = self.model_dump(exclude_none=True)
        for name in given.keys() - _NAMES[settings.rule]:
            raise validation_error(
                *("body", "config", name),
                code="value_of_another_rule",
                detail=f"The rule {settings.rule} has no such value.",
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
    """The configuration of the demand rule, and milliseconds between two of its ticks."""

    tuning_interval_ms: int


_NAMES = {
    AdvisorRule.DEMAND: frozenset(DemandConfigView.__dataclass_fields__),
    AdvisorRule.HYSTERESIS: frozenset(PoolPressureMonitorConfig.__dataclass_fields__),
}


def config_view(settings: AdvisorSettings) -> DemandConfigView | PoolPressureMonitorConfig:
    """The configuration of the rule in force."""
    if settings.rule is AdvisorRule.HYSTERESIS:
        return settings.hysteresis
    demand: dict[str, Any] = asdict(settings.demand)
    demand["trial"] = TrialConfig(**demand["trial"])
    return DemandConfigView(**demand, tuning_interval_ms=settings.demand_interval_ms)
