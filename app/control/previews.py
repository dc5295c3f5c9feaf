"""Plans of applying and dismissing recommendations, and of changing the advisor."""

from __future__ import annotations

from uuid import UUID

from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.advisor.recommendation_applier import RecommendationApplier
from app.control.audit import audit_events
from app.control.pools.changes import PoolChanges
from app.domain.audit import Actor
from app.domain.desired_state import AdvisorSettings
from app.domain.errors import RecommendationClosed
from app.domain.plan import Plan, plan_record
from app.domain.recommendation import RecommendationStatus

_NOBODY = Actor(name="dry run")


class Previews:
    """What each change would do now. Each method raises what the change itself would."""

    def __init__(
        self,
        changes: PoolChanges,
        advisor_loop: AdvisorLoop,
        applier: RecommendationApplier,
    ) -> None:
        self._changes = changes
        self._advisor_loop = advisor_loop
        self._applier = applier

    def put_advisor(self, settings: AdvisorSettings) -> Plan:
        event = audit_events.advisor_saved(self._advisor_loop.settings, settings, _NOBODY)
        return plan_record("advisor", event.before, event.after)

    async def close_recommendation(
        self, recommendation_id: UUID, status: RecommendationStatus
    ) -> Plan:
        """Applying a recommendation, or dismissing it."""
        found = await self._applier.get_open(recommendation_id)
        event = audit_events.recommendation_closed(found, status, _NOBODY)
        closing = plan_record(f"recommendation {recommendation_id}", event.before, event.after)
        if status is not RecommendationStatus.APPLIED:
            return closing
        decision = self._applier.decide(found)
        if decision.outdated_reason:
            raise RecommendationClosed(decision.outdated_reason)
        if decision.already_applied:
            return closing
        resize = self._changes.resize(
            decision.account, decision.new_size, _NOBODY, reason=decision.reason
        )
        return await resize.plan() + closing
