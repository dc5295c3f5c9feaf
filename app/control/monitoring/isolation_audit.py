"""SelfCheck: looks whether each tenant's isolation still is what its strategy promises.

All tenants of a server at every health round, and in between those just provisioned or whose
pool was just opened: one connection and a few queries a server, however many tenants it has.
What a role did to itself is undone; everything else is told and left to people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from weakref import WeakSet

import structlog

from app.control.audit import audit_events
from app.control.audit.outbox import AuditOutbox
from app.control.pools.role_limits import RoleLimits
from app.domain.audit import ISOLATION_AUDIT, AuditEvent
from app.domain.errors import ProvisioningFailed, Unavailable
from app.domain.isolation import AuditCheck, Finding, IsolationReport, Severity, checks_of
from app.domain.isolation_policy import find_violations
from app.domain.tenant import OBJECT_PREFIX, PoolStrategy, TenantSpec
from app.pools.isolation.excess_grants import ExcessGrant, revoke
from app.pools.isolation.inspection import Inspection, inspect
from app.pools.isolation.repair import Repair, repair
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.server import Server
from app.pools.tenant_state import TenantState

_DEADLINE = 20.0
_MENDED = (AuditCheck.SETTINGS, AuditCheck.CONNECTION_LIMIT, AuditCheck.EXTENSION_SCHEMAS)
# After so many tenants the loop gets a turn.
_SLICE = 500
# Seconds until the audit trail is told again that the same was undone for the same role.
_TELL_AGAIN = 3600.0

_BEGAN = monotonic()

_log = structlog.get_logger(__name__)


class IsolationAudit:
    """One look after the other."""

    def __init__(
        self,
        manager: TenantPoolManager,
        limits: RoleLimits,
        journal: AuditOutbox,
        *,
        extension_schemas: Sequence[str] = (),
    ) -> None:
        """Look at *manager*'s tenants; what is undone is told in *journal*.

        Every per_tenant tenant may use *extension_schemas*.
        """
        self._extension_schemas = extension_schemas
        self._manager = manager
        self._limits = limits
        self._journal = journal
        self._next: dict[str, float] = {}
        self._seen: WeakSet[Pool] = WeakSet()
        self._told_at: dict[tuple[str, str], float] = {}

    async def run_once(self) -> None:
        """Look at what is due."""
        opened = await self._opened()
        servers = list(self._manager.servers.values())
        due = [(server, await self._due(server, opened)) for server in servers]
        async with asyncio.TaskGroup() as group:
            for server, accounts in due:
                look = self.audit(server, accounts)
                group.create_task(look, name=f"check: isolation on {server.name}")

    async def _opened(self) -> set[str]:
        """The pools opened since the last look, on any server."""
        opened = set()
        for count, pool in enumerate(list(self._manager.pools()), start=1):
            if pool not in self._seen:
                self._seen.add(pool)
                opened.add(pool.pool_id)
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        return opened

    async def _due(self, server: Server, opened: set[str]) -> list[TenantState]:
        now = monotonic()
        everybody = now >= self._next.get(server.name, now)
        if everybody:
            interval = self._manager.config(PoolStrategy.PER_TENANT).health_check_interval
            self._next[server.name] = now + interval
        due = []
        for count, account in enumerate(list(self._manager.tenant_states.values()), start=1):
            spec = account.tenant.spec
            is_due = everybody or account.isolation is None or spec.pool_id in opened
            if is_due and spec.server == server.name and _exists(account):
                due.append(account)
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        return due

    async def audit(self, server: Server, accounts: Iterable[TenantState]) -> None:
        """Look at the roles of these tenants of *server*, and report on each of its accounts.

        What cannot be looked at now keeps its last report.
        """
        by_pool: dict[str, list[TenantState]] = {}
        for account in accounts:
            by_pool.setdefault(account.tenant.spec.pool_id, []).append(account)
        if not by_pool or not server.is_available:
            return
        try:
            async with asyncio.timeout(_DEADLINE):
                found = await self._inspect(server, [one for one, *_ in by_pool.values()])
                repairs = await self._report(server, by_pool, found)
                if repairs:
                    await self._repair(server, repairs)
                opened = [each for each in found.excess_grants if self._is_due(each, found)]
                if opened:
                    await self._close(server, opened)
        except (Unavailable, ProvisioningFailed, TimeoutError) as error:
            _log.warning("isolation not checked", server=server.name, reason=str(error))

    async def _inspect(self, server: Server, accounts: list[TenantState]) -> Inspection:
        roles: dict[PoolStrategy, set[str]] = {strategy: set() for strategy in PoolStrategy}
        for account in accounts:
            spec = account.tenant.spec
            roles[spec.strategy].add(self._manager.isolations[spec.strategy].role(spec))
        async with server.admin() as connection:
            return await inspect(
                connection,
                in_schema=roles[PoolStrategy.PER_TENANT],
                in_database=roles[PoolStrategy.PER_DATABASE],
                shared=next(iter(roles[PoolStrategy.SHARED]), None),
                schemas=self._extension_schemas,
            )

    async def _report(
        self,
        server: Server,
        by_pool: dict[str, list[TenantState]],
        found: Inspection,
    ) -> dict[str, Repair]:
        """Judge each pool's role for all its tenants; what is to be mended, by pool."""
        checked_at, looked_at = datetime.now(UTC), monotonic()
        repairs: dict[str, Repair] = {}
        for count, (pool_id, accounts) in enumerate(by_pool.items(), start=1):
            spec, limit = accounts[0].tenant.spec, self._limits.limit_for(accounts[0])
            isolation = self._manager.isolations[spec.strategy]
            role, home = isolation.role(spec), isolation.database(server, spec)
            unchecked = found.unchecked
            if role in found.unchecked_roles:
                unchecked = dict.fromkeys(checks_of(spec.strategy), found.unchecked_roles[role])
            findings = find_violations(
                spec.strategy,
                role,
                found.roles.get(role),
                home=home,
                connection_limit=limit,
                shared=found.shared,
                unchecked=unchecked,
            )
            _tell_new(accounts[0], role, findings)
            for account in accounts:
                account.isolation = IsolationReport(
                    findings=findings, checked_at=checked_at, checked_at_monotonic=looked_at
                )
            failed = {each.check for each in findings if each.severity is not Severity.NOT_CHECKED}
            if not failed.isdisjoint(_MENDED):
                repairs[pool_id] = Repair(
                    role=role,
                    reset_settings=AuditCheck.SETTINGS in failed,
                    search_path_database=home if spec.strategy is PoolStrategy.PER_TENANT else None,
                    schemas=self._extension_schemas,
                    grant_usage_on=found.roles[role].extension_schemas.not_usable
                    if role in found.roles
                    else (),
                    connection_limit=(
                        partial(self._limits.limit_for, accounts[0])
                        if AuditCheck.CONNECTION_LIMIT in failed
                        else None
                    ),
                )
            if count % _SLICE == 0:
                await asyncio.sleep(0)
        return repairs

    async def _repair(self, server: Server, repairs: dict[str, Repair]) -> None:
        refused = await repair(server, repairs.values())
        for pool_id, each in repairs.items():
            if each.role in refused:
                _log.warning("isolation not repaired", role=each.role)
            elif each.reset_settings:
                # Connections opened since then have what was set.
                pool = self._manager.find(pool_id)
                if pool is not None:
                    pool.recycle()
                self._tell(
                    each.role, audit_events.role_settings_reset(each.role, pool_id, ISOLATION_AUDIT)
                )

    def _is_due(self, opening: ExcessGrant, found: Inspection) -> bool:
        """Whether *opening* belongs to somebody just looked at, or to nobody any more."""
        owner = opening.name.removeprefix(OBJECT_PREFIX)
        return opening.name in found.roles or owner not in self._manager.tenant_states

    async def _close(self, server: Server, opened: Sequence[ExcessGrant]) -> None:
        """Close what owners opened."""
        refused = await revoke(server, opened)
        for each in opened:
            if each in refused:
                _log.warning("isolation not repaired", role=each.name)
            else:
                event = audit_events.grants_revoked(each.kind, each.name, each.to, ISOLATION_AUDIT)
                self._tell(each.name, event)

    def _tell(self, role: str, event: AuditEvent) -> None:
        """Keep *event*, unless a role that does the same again and again was told of lately."""
        key, now = (event.action, role), monotonic()
        if now - self._told_at.get(key, -_TELL_AGAIN) >= _TELL_AGAIN:
            self._told_at[key] = now
            self._journal.enqueue(event)


def oldest_audit_age(manager: TenantPoolManager) -> float:
    """Seconds since the last look at the tenant that waits for the next one for longest; or 0.

    Who was never looked at waits since it was provisioned, or since this process began.
    """
    now, wall = monotonic(), datetime.now(UTC)
    ages = [0.0]
    for account in manager.tenant_states.values():
        provisioned_at, look = account.tenant.provisioned_at, account.isolation
        if look is not None and _exists(account):
            ages.append(now - look.checked_at_monotonic)
        elif provisioned_at is not None and not account.tenant.deleting:
            ages.append(min(now - _BEGAN, (wall - provisioned_at).total_seconds()))
    return max(ages)


def findings_of(manager: TenantPoolManager) -> Iterator[tuple[TenantSpec, Finding]]:
    """All findings of the last looks; those of a shared role once, with one of its tenants."""
    told_of: set[str] = set()
    for account in manager.tenant_states.values():
        spec, report = account.tenant.spec, account.isolation
        if report is None or spec.pool_id in told_of:
            continue
        told_of.add(spec.pool_id)
        for finding in report.findings:
            yield spec, finding


def _tell_new(account: TenantState, role: str, findings: tuple[Finding, ...]) -> None:
    known = account.isolation.findings if account.isolation else ()
    for finding in findings:
        if finding not in known:
            _log.warning(
                "isolation finding",
                role=role,
                check=finding.check,
                severity=finding.severity,
                detail=finding.detail,
            )


def _exists(account: TenantState) -> bool:
    return account.tenant.provisioned_at is not None and not account.tenant.deleting
