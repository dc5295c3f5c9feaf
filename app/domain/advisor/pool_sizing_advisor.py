"""The hysteresis rule for one pool, with what it remembers between samples."""

from app.domain.advisor.hysteresis import PoolPressureMonitorConfig, Streaks, advise_by_thresholds
from app.domain.advisor.sizing_recommendation import PoolSizingRecommendation, ScalingAction
from app.domain.pool import PoolMetrics


class PoolSizingAdvisor:
    """Takes one sample after another and recommends a size; it resizes nothing.

    Attributes:
        adjustments_total: how many times it recommended another size.
        recommended_size: the size it recommended last; 0 before its first recommendation.
    """

    __slots__ = ("_streaks", "adjustments_total", "config", "recommended_size")

    def __init__(self, config: PoolPressureMonitorConfig) -> None:
        self.config = config
        self._streaks = Streaks()
        self.adjustments_total = 0
        self.recommended_size = 0

    def evaluate(self, metrics: PoolMetrics) -> PoolSizingRecommendation:
        """Recommend a size from this sample and those before it."""
        recommendation, self._streaks = advise_by_thresholds(self.config, self._streaks, metrics)
        if recommendation.action is not ScalingAction.STABLE:
            self.adjustments_total += 1
            self.recommended_size = recommendation.new_size
        return recommendation
