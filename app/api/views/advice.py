"""The advisor's advice as the API shows it, with its evidence."""

from dataclasses import asdict
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from app.api.auth.principal import Principal
from app.control.advisor.advisor_loop import PoolAdvice
from app.domain.advisor import (
    EVIDENCE,
    Confidence,
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
)

_ELSEWHERE = "Another pool of the server has a growth on trial, which must not be disturbed"

_NAMES: dict[str, Any] = {
    "additionalProperties": False,
    "properties": {
        name: {"anyOf": [{"type": "number"}, {"type": "null"}], "description": meaning}
        for name, meaning in EVIDENCE.items()
    },
}


class EffectView(BaseModel):
    """The expected effect of the advice."""

    late_share_before: float | None = Field(
        description="Share of callers that are late or time out at the current size, 0 to 1: "
        "as measured within the last minutes, or of the forecast load if that is more.",
        examples=[0.08],
    )
    late_share_after: float | None = Field(
        description="The same at the new size; null when it cannot be predicted.", examples=[0.008]
    )
    connections_before: int = Field(examples=[5])
    connections_after: int = Field(examples=[12])


class Advice(BaseModel):
    """The size that a rule advises, and why."""

    action: ScalingAction = Field(examples=["stable"])
    current_size: int = Field(examples=[12])
    new_size: int = Field(examples=[12])
    wanted: int | None = Field(
        description="The size that the load requires, before any limit; null when the rule does "
        "not distinguish it from new_size.",
        examples=[14],
    )
    reason_code: ReasonCode = Field(examples=["size_fits"])
    reason: str = Field(
        examples=["12 connections fit the load, which needs 7, and leave 5 for bursts"]
    )
    confidence: Confidence = Field(description="How much evidence there is.", examples=["high"])
    estimated: bool = Field(
        description="Whether part of the load is on nodes, where waits are estimated; `evidence` "
        "says how much.",
        examples=[False],
    )
    evidence: dict[str, int | float | None] = Field(
        description="The numbers behind it; which ones depends on the rule and the reason.",
        json_schema_extra=_NAMES,
        examples=[{"offered_load": 6.2, "late_share": 0.08, "events": 412, "needed_size": 12}],
    )
    expected: EffectView | None = Field(description="Its expected effect; null for `stable`.")


class AdviceView(Advice):
    """The advisor's latest advice for a pool, its reason included, also for `stable`."""

    at: datetime = Field(examples=["2026-11-20T09:00:05Z"])
    idle_seconds: float | None = Field(
        description="Age in seconds from which an idle connection beyond `warm_size` is not worth "
        "keeping; mode `apply` closes it. Null: as in the settings.",
        examples=[10.0],
    )
    warm_size: int = Field(
        description="Connections worth keeping although unused: what the load needs.", examples=[7]
    )
    blocked_by: str | None = Field(
        description="Why it was not applied or, if no recommendation is open, not even "
        "recommended; null if nothing blocked it.",
        examples=["a person set this size 3 min ago"],
    )

    @classmethod
    def of(cls, latest: PoolAdvice, principal: Principal) -> Self:
        """Show it without names of pools that the principal cannot access."""
        advice = latest.advice
        is_of_others = advice.reason_code is ReasonCode.HELD_FOR_TRIAL and principal.tenants
        return cls(
            at=latest.at,
            **advice_fields(advice) | ({"reason": _ELSEWHERE} if is_of_others else {}),
            blocked_by=latest.blocked_by,
        )


def advice_fields(advice: PoolSizingRecommendation) -> dict[str, Any]:
    """The fields of every view of advice."""
    return asdict(advice) | {"estimated": advice.is_estimated}
