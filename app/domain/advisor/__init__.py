"""Sizing rules: observations in, recommendations with their reasons out. No clock, no I/O."""

from app.domain.advisor.demand import DemandRule
from app.domain.advisor.demand_config import DemandConfig, TrialConfig
from app.domain.advisor.hysteresis import (
    HysteresisRule,
    PoolPressureMonitorConfig,
    Streaks,
    advise_by_thresholds,
)
from app.domain.advisor.observation import PoolObservation, ServerLoad
from app.domain.advisor.placement import (
    Placement,
    PlacementConfig,
    PlacementSuggestion,
    TenantUsage,
    suggest_placement,
)
from app.domain.advisor.pool_sizing_advisor import PoolSizingAdvisor
from app.domain.advisor.rule import Memory, SizingRule
from app.domain.advisor.server_advisor import ServerAdvisor, grown_within
from app.domain.advisor.sizing_recommendation import (
    EVIDENCE,
    Confidence,
    Effect,
    PoolSizingRecommendation,
    ReasonCode,
    ScalingAction,
    TrialPhase,
)

__all__ = [
    "EVIDENCE",
    "Confidence",
    "DemandConfig",
    "DemandRule",
    "Effect",
    "HysteresisRule",
    "Memory",
    "Placement",
    "PlacementConfig",
    "PlacementSuggestion",
    "PoolObservation",
    "PoolPressureMonitorConfig",
    "PoolSizingAdvisor",
    "PoolSizingRecommendation",
    "ReasonCode",
    "ScalingAction",
    "ServerAdvisor",
    "ServerLoad",
    "SizingRule",
    "Streaks",
    "TenantUsage",
    "TrialConfig",
    "TrialPhase",
    "advise_by_thresholds",
    "grown_within",
    "suggest_placement",
]
