"""A recommendation with a life: from the tick that made it to what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from app.domain.advisor import PoolSizingRecommendation
from app.domain.pool import PoolMetrics


class RecommendationStatus(StrEnum):
    """What became of it."""

    OPEN = "open"
    APPLIED = "applied"
    DISMISSED = "dismissed"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Advice about one pool, kept in the catalog.

    Attributes:
        tenant: whose pool it is, None for a shared pool.
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
