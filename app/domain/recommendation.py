"""A recommendation with a life: from the tick that made it to what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from app.domain.advisor import Placement, PoolSizingRecommendation
from app.domain.pool import PoolMetrics

MAX_LIFETIME: Final = timedelta(days=1)
"""After this every recommendation is out of date."""


class RecommendationKind(StrEnum):
    """What it is about."""

    RESIZE = "resize"
    """Another size for a pool."""

    PLACEMENT = "move"
    """Another kind of pool for a tenant; a person's decision, since its data moves along."""


class RecommendationStatus(StrEnum):
    """What became of it."""

    OPEN = "open"
    APPLIED = "applied"
    DISMISSED = "dismissed"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    UNDONE = "undone"
    """It was applied, and taken back because it did not pay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Advice about one pool, or one tenant, kept in the catalog.

    Attributes:
        pool_id: the pool it is about; of a move, the one that serves the tenant now.
        tenant: whose pool it is, None for a shared pool; of a move, who should move.
        advice: the size and why; of a move, the present size and why to move.
        move: where to, if it is about a move.
        max_size: the pool's max_size in force when the advice was given.
        metrics: the sample it rests on.
        expires_at: when it stops being open by itself.
        closed_at, closed_by: when and through whom it stopped being open.
    """

    id: UUID
    pool_id: str
    tenant: str | None
    rule: str
    advice: PoolSizingRecommendation
    max_size: int
    metrics: PoolMetrics
    status: RecommendationStatus
    created_at: datetime
    expires_at: datetime
    closed_at: datetime | None = None
    closed_by: str | None = None
    placement: Placement | None = None

    @property
    def kind(self) -> RecommendationKind:
        """What it is about."""
        return RecommendationKind.RESIZE if self.placement is None else RecommendationKind.PLACEMENT

    @property
    def subject(self) -> str:
        """Of what there is one open at a time; a colon is in no pool's name."""
        return self.pool_id if self.placement is None else f"move:{self.tenant}"
