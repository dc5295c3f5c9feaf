"""A stored recommendation and its lifecycle."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self
from uuid import UUID

from app.domain.advisor import Placement, PoolSizingRecommendation
from app.domain.audit import Actor, AuditEvent
from app.domain.pool import PoolMetrics

MAX_LIFETIME: Final = timedelta(days=1)
"""Every recommendation expires after this time."""


class RecommendationKind(StrEnum):
    """What is recommended."""

    RESIZE = "resize"
    """Another size for a pool."""

    PLACEMENT = "placement"
    """Another kind of pool for a tenant. A person decides, because the tenant's data must move."""


class RecommendationStatus(StrEnum):
    """A recommendation's state in its life cycle."""

    OPEN = "open"
    APPLIED = "applied"
    DISMISSED = "dismissed"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    UNDONE = "undone"
    """It was applied, then reverted because it did not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Advice about a pool or a tenant, stored in the catalog.

    Attributes:
        pool_id: the pool it is about; for a placement, the pool that serves the tenant now.
        tenant: the pool's tenant, None for a shared pool; for a placement, the tenant to move.
        advice: the size and the reason; for a placement, the current size and the reason to move.
        placement: the kind of pool to move to; None unless it is a placement.
        max_size: the pool's max_size in force when the advice was given.
        metrics: the sample it is based on.
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
        """What it is about.

        Each subject has at most one open recommendation. No pool has a colon.
        """
        return self.pool_id if self.placement is None else f"placement:{self.tenant}"

    def closed(self, status: RecommendationStatus, by: str, at: datetime) -> Self:
        """The same recommendation, closed by the actor named *by*."""
        return replace(self, status=status, closed_by=by, closed_at=at)

    def closing_event(self, actor: Actor) -> AuditEvent:
        """The audit event for its closing by *actor*."""
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
