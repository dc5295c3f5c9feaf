"""Sizing advice: observations in, a recommendation with its reason out.

Pure: no clock, no pool, no catalog. Whether advice is obeyed is decided in `app.control`.
"""

from app.domain.advisor.advisor import PoolSizingAdvisor
from app.domain.advisor.demand import Demand
from app.domain.advisor.demand_config import DemandConfig, TrialConfig
from app.domain.advisor.hysteresis import Hysteresis, PoolPressureMonitorConfig, Streaks, advise
from app.domain.advisor.observation import PoolObservation, ServerLoad
from app.domain.advisor.recommendation import (
    EVIDENCE,
    Action,
    Confidence,
    Effect,
    PoolSizingRecommendation,
    ReasonCode,
    TrialPhase,
)
from app.domain.advisor.rule import Memory, Rule
from app.domain.advisor.server_advisor import ServerAdvisor
from app.domain.advisor.tiering import Move, MoveSuggestion, TenantLoad, TieringConfig, suggest

__all__ = [
    "EVIDENCE",
    "Action",
    "Confidence",
    "Demand",
    "DemandConfig",
    "Effect",
    "Hysteresis",
    "Memory",
    "Move",
    "MoveSuggestion",
    "PoolObservation",
    "PoolPressureMonitorConfig",
    "PoolSizingAdvisor",
    "PoolSizingRecommendation",
    "ReasonCode",
    "Rule",
    "ServerAdvisor",
    "ServerLoad",
    "Streaks",
    "TenantLoad",
    "TieringConfig",
    "TrialConfig",
    "TrialPhase",
    "advise",
    "suggest",
]
