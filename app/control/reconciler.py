"""Reconciler: compares desired with actual state, and finishes interrupted changes.

After a restart or an outage it opens the pools with a min_size, applies changes of size, finishes
deletions and rotations, stores what could not be stored, and reads what may have been stored. It
also makes up for rotations that a failover undid, stores when credentials were used, and renews
verifiers of an earlier version.
"""

from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from app.catalog.catalog import Catalog
from app.control.audit_outbox import AuditOutbox
from app.control.independent_steps import IndependentSteps
from app.control.pools.convergence import PoolConvergence
from app.control.pools.unsaved_changes import UnsavedChanges
from app.control.server_queues import work_off
from app.control.tenants.application_credentials import ApplicationCredentials
from app.control.tenants.deletion import TenantDeletions
from app.control.tenants.password_rotation import PasswordRotation
from app.control.tenants.verifier_renewal import VerifierRenewal
from app.control.time_slices import in_slices
from app.domain.audit import RECONCILER
from app.domain.errors import CatalogUnavailable, PoolkeeperError
from app.pools.manager import TenantPoolManager

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileReport:
    """The result of one comparison."""

    steps: int
    deletions_finished: int
    rotations_finished: int
    verifiers_renewed: int
    changes_saved: int


class Reconciler:
    """Runs one comparison after another."""

    def __init__(
        self,
        manager: TenantPoolManager,
        convergence: PoolConvergence,
        deletions: TenantDeletions,
        rotation: PasswordRotation,
        verifiers: VerifierRenewal,
        *,
        readers: Sequence[Callable[[], Coroutine[Any, Any, None]]],
        unsaved: UnsavedChanges,
        credentials: ApplicationCredentials,
        outbox: AuditOutbox,
        catalog: Catalog,
    ) -> None:
        """*readers* take over what the catalog may have stored although its response was lost."""
        self._manager = manager
        self._readers = readers
        self._convergence = convergence
        self._deletions = deletions
        self._rotation = rotation
        self._verifiers = verifiers
        self._unsaved = unsaved
        self._credentials = credentials
        self._outbox = outbox
        self._catalog = catalog

    async def run_once(self) -> ReconcileReport:
        """Compare and act; the next tick tries again what is impossible now.

        A failure that nobody expected is raised once the other steps are done.
        """
        steps = IndependentSteps("reconcile")
        saved: int | None = 0
        is_reached = False
        try:
            await steps.run(self._catalog.ping(), expected=CatalogUnavailable)
            saved = await self._with_catalog(steps, self._unsaved.save())
            await self._with_catalog(steps, self._credentials.save_uses())
            await self._with_catalog(steps, self._outbox.flush())
            for read_in_doubt in self._readers:
                await self._with_catalog(steps, read_in_doubt())
            is_reached = True
        except CatalogUnavailable as error:
            _log.warning("catalog unavailable", reason=error.detail)
        pools = iter(list(self._manager.desired))
        # If it fails unexpectedly for a pool, it goes on with those that are left.
        while (converged := await steps.run(self._converge(pools))) is None:
            pass
        # Rotations and deletions may wait for a server; no other pool waits for them.
        rotated = await steps.run(self._rotation.finish_rotations())
        restored = await steps.run(self._rotation.restore_lost())
        renewed = await steps.run(self._verifiers.renew())
        deleted = await steps.run(self._finish_deletions()) if is_reached else 0
        steps.end()
        return ReconcileReport(
            steps=converged,
            deletions_finished=deleted or 0,
            rotations_finished=(rotated or 0) + (restored or 0),
            verifiers_renewed=renewed or 0,
            changes_saved=saved or 0,
        )

    async def _with_catalog(
        self, steps: IndependentSteps, step: Coroutine[Any, Any, T]
    ) -> T | None:
        """Run *step*; None if it failed alone, as for a table that cannot be used.

        Raises:
            CatalogUnavailable: the catalog does not answer, so later steps would meet that, too.
        """
        try:
            return await steps.run(step, expected=CatalogUnavailable)
        except CatalogUnavailable as error:
            await steps.run(self._catalog.ping(), expected=CatalogUnavailable)
            _log.warning("catalog unavailable", reason=error.detail)
            return None

    async def _converge(self, pools: Iterator[str]) -> int:
        steps = 0
        async for pool_id in in_slices(pools):
            desired = self._manager.desired.get(pool_id)  # the present one
            state = self._manager.tenants.of_pool(pool_id)
            if desired is None or state is None or not state.tenant.is_usable:
                continue
            try:
                steps += await self._convergence.converge(state, desired)
            except PoolkeeperError as error:
                _log.warning("pool not converged", pool=pool_id, reason=error.detail)
        return steps

    async def _finish_deletions(self) -> int:
        deleting: dict[str, list[str]] = defaultdict(list)
        for tenant_id, state in self._manager.tenants.items():
            if state.tenant.deleting:
                deleting[state.tenant.spec.server].append(tenant_id)
        return await work_off(
            deleting, lambda tenant_id: self._deletions.finish(tenant_id, RECONCILER)
        )
