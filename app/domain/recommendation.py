"""A stored recommendation and its lifecycle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from app.domain.advisor import Placement, PoolSizingRecommendation
from app.domain.audit import Actor, AuditEvent
from app.domain.pool import PoolMetrics

MAX_LIFETIME: Final = timedelta(days=1)
"""Every recommendation expires after this."""


class RecommendationKind(StrEnum):
    """What is recommended."""

    RESIZE = "resize"
    """Another size for a pool."""

    PLACEMENT = "placement"
    """Another kind of pool for a tenant; a person decides, since its data moves too."""


class RecommendationStatus(StrEnum):
    """Where it is in its lifecycle."""

    OPEN = "open"
    APPLIED = "applied"
    DISMISSED = "dismissed"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    UNDONE = "undone"
    """It was applied, and reverted because it did not pay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Advice about one pool, or one tenant, kept in the catalog.

    Attributes:
        pool_id: the pool it is about; of a placement, the one that serves the tenant now.
        tenant: whose pool it is, None for a shared pool; of a placement, who should move.
        advice: the size and why; of a placement, the present size and why to move.
        placement: the kind of pool to move to, if it is about a placement.
        max_size: the pool's max_size in force when the advice was given.
        metrics: the sample it rests on.
        expires_at: when it expires.
        closed_at, closed_by: when and by whom it was closed.
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
        return RecommendationKind.RESIZE if self.placement is None else RecommendationKind.PLACEMENT

    @property
    def subject(self) -> str:
        """What at most one open recommendation is about; no pool's name has a colon."""
        return self.pool_id if self.placement is None else f"placement:{self.tenant}"

    def closed(self, status: RecommendationStatus, by: str, at: datetime) -> Recommendation:
        """The same, closed by the actor named *by*."""
        return replace(self, status=status, closed_by=by, closed_at=at)

    def closing_event(self, actor: Actor) -> AuditEvent:
        """The event that records how this one, which is closed, was closed by *actor*."""
        assert self.closed_at is not None  # noqa: S101 - it is closed
        same = {"id": str(self.id), "placement": self.placement}
        return AuditEvent(
            at=self.closed_at,
            actor=actor,
            action=f"recommendation.{self.status}",
            tenant=self.tenant,
            pool=self.pool_id,
            reason=self.advice.reason,
            before={**same, "new_size": self.max_size, "status": RecommendationStatus.OPEN},
            after={**same, "new_size": self.advice.new_size, "status": self.status},
        )
