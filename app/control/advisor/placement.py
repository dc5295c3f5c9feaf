"""Tiering: watches for hours what each tenant asks of its pool, and suggests another kind.

Measures; `app.domain.advisor.placement` judges. Nothing here moves anybody.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.domain.advisor import PlacementConfig, PlacementSuggestion, TenantUsage, suggest_placement
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState


class PlacementAdvisor:
    """Two marks of every tenant's leases: loads are measured from the older one."""

    def __init__(self, manager: TenantPoolManager, config: PlacementConfig | None = None) -> None:
        """Watch *manager*'s tenants; nothing is said before `least_seconds` of it."""
        self._manager = manager
        self._config = config or PlacementConfig()
        self._older: dict[str, tuple[float, float]] = {}
        self._newer: dict[str, tuple[float, float]] = {}
        self._marked_at: float | None = None

    def take_marks(self, now: float) -> None:
        """Note where everybody stands, if it is time to."""
        accounts = self._manager.tenant_states
        is_due = self._marked_at is None or now - self._marked_at >= self._config.min_seconds
        if is_due:
            self._older, self._newer, self._marked_at = self._newer, {}, now
        for name, account in accounts.items():
            if name not in self._newer and (is_due or name not in self._older):
                self._newer[name] = (now, account.recorder.hold_seconds)

    def suggestions(self, now: float) -> Iterator[tuple[TenantState, PlacementSuggestion]]:
        """Who should move where; of those with a pool of their own, whose pool is open."""
        for pool in list(self._manager.pools()):
            account = self._manager.tenant_states.get(pool.pool_id)
            if account is not None and (found := self._of(account, now)):
                yield account, found
        for account in self._manager.recently_active_tenants():
            if found := self._of(account, now):
                yield account, found

    def _of(self, account: TenantState, now: float) -> PlacementSuggestion | None:
        name = account.tenant.spec.id
        mark = self._older.get(name) or self._newer.get(name)
        if mark is None:
            return None
        since, held = mark
        seconds = now - since
        if seconds < self._config.min_seconds or account.recorder.hold_seconds < held:
            return None
        load = TenantUsage(
            strategy=account.tenant.spec.strategy,
            seconds=seconds,
            offered_load=(account.recorder.hold_seconds - held) / seconds,
            late_share=account.recorder.late_share(SHARED_PATIENCE_SECONDS, now),
        )
        return suggest_placement(self._config, load)


SHARED_PATIENCE_SECONDS = 0.1
"""Seconds: a tenant of a shared pool that waits longer than this is late."""
