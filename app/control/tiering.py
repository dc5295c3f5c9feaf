"""Tiering: watches for hours what each tenant asks of its pool, and suggests another kind.

Measures; `app.domain.advisor.tiering` judges. Nothing here moves anybody.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.domain.advisor import MoveSuggestion, TenantLoad, TieringConfig, suggest
from app.pools.account import TenantAccount
from app.pools.manager import TenantPoolManager


class Tiering:
    """Two marks of every tenant's leases: loads are measured from the older one."""

    def __init__(self, manager: TenantPoolManager, config: TieringConfig | None = None) -> None:
        """Watch *manager*'s tenants; nothing is said before `least_seconds` of it."""
        self._manager = manager
        self._config = config or TieringConfig()
        self._older: dict[str, tuple[float, float]] = {}
        self._newer: dict[str, tuple[float, float]] = {}
        self._marked_at: float | None = None

    def mark(self, now: float) -> None:
        """Note where everybody stands, if it is time to."""
        accounts = self._manager.accounts
        is_due = self._marked_at is None or now - self._marked_at >= self._config.least_seconds
        if is_due:
            self._older, self._newer, self._marked_at = self._newer, {}, now
        for name, account in accounts.items():
            if name not in self._newer and (is_due or name not in self._older):
                self._newer[name] = (now, account.recorder.total_hold)

    def suggestions(self, now: float) -> Iterator[tuple[TenantAccount, MoveSuggestion]]:
        """Who should move where; of those with a pool of their own, whose pool is open."""
        for pool in list(self._manager.pools()):
            account = self._manager.accounts.get(pool.pool_id)
            if account is not None and (found := self._of(account, now)):
                yield account, found
        for account in self._manager.recently_active():
            if found := self._of(account, now):
                yield account, found

    def _of(self, account: TenantAccount, now: float) -> MoveSuggestion | None:
        name = account.tenant.spec.id
        mark = self._older.get(name) or self._newer.get(name)
        if mark is None:
            return None
        since, held = mark
        seconds = now - since
        if seconds < self._config.least_seconds or account.recorder.total_hold < held:
            return None
        load = TenantLoad(
            strategy=account.tenant.spec.strategy,
            seconds=seconds,
            offered_load=(account.recorder.total_hold - held) / seconds,
            late_share=account.recorder.late_share(PATIENCE, now),
        )
        return suggest(self._config, load)


PATIENCE = 0.1
"""Seconds: a tenant of a shared pool that waits longer than this is late."""
