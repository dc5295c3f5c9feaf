"""The hysteresis rule for one pool, with what it remembers between samples."""

from app.domain.advisor.hysteresis import PoolPressureMonitorConfig, Streaks, advise_by_thresholds
from app.domain.advisor.sizing_recommendation import PoolSizingRecommendation, ScalingAction
from app.domain.pool import PoolMetrics


class PoolSizingAdvisor:
    """Takes one sample after another and recommends a size; it resizes nothing."""

    __slots__ = ("_adjustments", "_config", "_recommended", "_streaks")

    def __init__(self, config: PoolPressureMonitorConfig) -> None:
        self._config = config
        self._streaks = Streaks()
        self._adjustments = 0
        self._recommended = 0

    def evaluate(self, metrics: PoolMetrics) -> PoolSizingRecommendation:
        """Recommend a size from this sample and those before it."""
        recommendation, self._streaks = advise_by_thresholds(self._config, self._streaks, metrics)
        if recommendation.action is not ScalingAction.STABLE:
            self._adjustments += 1
            self._recommended = recommendation.new_size
        return recommendation

    @property
    def config(self) -> PoolPressureMonitorConfig:
        """The rule's configuration."""
        return self._config

    @property
    def adjustments_total(self) -> int:
        """How many times it recommended another size."""
        return self._adjustments

    @property
    def recommended_size(self) -> int:
        """The size it recommended last; 0 before its first recommendation."""
        return self._recommended
