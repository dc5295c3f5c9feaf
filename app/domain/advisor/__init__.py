"""Sizing advice: metrics in, a recommendation with its reason out.

Pure: no clock, no pool, no catalog. Whether advice is obeyed is decided in `app.control`.
"""

from app.domain.advisor.advisor import PoolSizingAdvisor
from app.domain.advisor.hysteresis import PoolPressureMonitorConfig, Streaks, advise
from app.domain.advisor.recommendation import Action, PoolSizingRecommendation, ReasonCode

__all__ = [
    "Action",
    "PoolPressureMonitorConfig",
    "PoolSizingAdvisor",
    "PoolSizingRecommendation",
    "ReasonCode",
    "Streaks",
    "advise",
]
