"""What an advisor's rule says about one pool at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """Which way the size should go."""

    SCALE_UP = "scale_up"
    SCALE_DOWN = "scale_down"
    STABLE = "stable"


class ReasonCode(StrEnum):
    """Why; a closed list that programs may switch on."""

    QUEUE_ABOVE_TARGET = "queue_above_target"
    """More callers wait than the target, for enough samples in a row: grow."""

    IDLE_ABOVE_RATIO = "idle_above_ratio"
    """A larger share is idle than the threshold, for enough samples in a row: shrink."""

    COLLECTING_SAMPLES = "collecting_samples"
    """The condition holds, but not yet for enough samples in a row."""

    AT_MAXIMUM = "at_maximum"
    """Callers wait, but the pool is as large as it may become."""

    WITHIN_THRESHOLDS = "within_thresholds"
    """Neither threshold is exceeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSizingRecommendation:
    """A size, and why.

    Attributes:
        action: up, down, or stay.
        current_size: the size the rule started from: connections open now.
        new_size: the size it recommends; equal to current_size when stable.
        reason_code: for programs.
        reason: one sentence for a person.
    """

    action: Action
    current_size: int
    new_size: int
    reason_code: ReasonCode
    reason: str
