"""Reconciler: compares what is wanted with what is, and finishes what was interrupted.

After a restart or an outage it opens the pools that keep connections, resizes what was
resized meanwhile, ends deletions, stores what could not be stored, and makes sure that this
service is still the only one on its catalog.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from app.catalog.leadership import Leadership
from app.control.audit.outbox import AuditOutbox
from app.control.keeper import Keeper
from app.control.pools.desired_state import DesiredPoolState
from app.control.tenants.provisioning import TenantProvisioning
from app.domain.audit import Actor
from app.domain.errors import CatalogUnavailable, PoolkeeperError
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState

RECONCILER = Actor(name="reconciler")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileReport:
    """What one comparison did."""

    steps: int
    deletions_finished: int
    rotations_finished: int
    changes_saved: int


class Reconciler:
    """One comparison after the other."""

    def __init__(
        self,
        manager: TenantPoolManager,
        keeper: Keeper,
        provisioning: TenantProvisioning,
        desired_pool_state: DesiredPoolState,
        *,
        outbox: AuditOutbox,
        leadership: Leadership,
    ) -> None:
        """Bring pools to what *wishes* say, and what others left undone to its end."""
        self._manager = manager
        self._keeper = keeper
        self._provisioning = provisioning
        self._wishes = desired_pool_state
        self._journal = outbox
        self._sole = leadership

    async def run_once(self) -> ReconcileReport:
        """Compare and act, once; what cannot be done now is tried again at the next turn.

        Raises:
            CatalogInUse: another service has taken over this catalog.
        """
        saved = deleted = 0
        is_reached = False
        self._journal.enqueue(*self._wishes.take_unrecorded())
        try:
            await self._sole.check()
            saved = await self._wishes.save_unsaved()
            await self._journal.flush()
            is_reached = True
        except CatalogUnavailable as error:
            _log.warning("catalog unavailable", reason=error.detail)
        steps = await self._converge()
        # Rotations and deletions may wait for a server; nobody else's pool is to wait for that.
        rotated = await self._provisioning.finish_rotations()
        if is_reached:
            deleted = await self._finish_deletions()
        return ReconcileReport(
            steps=steps,
            deletions_finished=deleted,
            rotations_finished=rotated,
            changes_saved=saved,
        )

    async def _finish_deletions(self) -> int:
        deleting = [
            tenant_id
            for tenant_id, account in self._manager.tenant_states.items()
            if account.tenant.deleting
        ]
        return sum(
            [await self._keeper.finish_deletion(tenant_id, RECONCILER) for tenant_id in deleting]
        )

    async def _converge(self) -> int:
        steps = 0
        for pool_id, desired in list(self._manager.desired.items()):
            account = self._manager.tenant_state_for_pool(pool_id)
            if account is None or not _is_usable(account):
                continue
            if not self._wishes.plan(account, desired):
                continue
            try:
                steps += len(await self._wishes.converge(account, desired))
            except PoolkeeperError as error:
                _log.warning("pool not converged", pool=pool_id, reason=error.detail)
        return steps


def _is_usable(account: TenantState) -> bool:
    return account.tenant.provisioned_at is not None and not account.tenant.deleting
