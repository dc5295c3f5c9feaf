"""Isolation audit: checks that each tenant has the isolation that its strategy promises.

It audits all tenants of a server at every health check interval, and in between those that were
just provisioned or whose pool was just opened. That takes one connection and a few queries per
server, however many tenants it has. It undoes what a role did to itself; it reports everything
else, and leaves it to people.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from weakref import WeakSet

import structlog

from app.control import audit_events
from app.control.audit_outbox import AuditOutbox
from app.control.pools.role_limits import RoleLimits
from app.control.time_slices import in_slices
from app.domain.audit import ISOLATION_AUDIT, AuditEvent
from app.domain.errors import ProvisioningFailed, Unavailable
from app.domain.isolation_checks import (
    AuditCheck,
    Finding,
    Inspection,
    IsolationReport,
    Severity,
    find_violations,
)
from app.domain.isolation_facts import ExcessGrant
from app.domain.tenant import OBJECT_PREFIX, PoolStrategy, TenantSpec
from app.pools.isolation.inspection import inspect
from app.pools.isolation.repair import Repair, repair, revoke
from app.pools.manager import TenantPoolManager
from app.pools.pool import Pool
from app.pools.servers.server import Server
from app.pools.tenant_state import TenantState

AUDIT_DEADLINE = 20.0
"""Seconds that one audit of a server's tenants may take."""
_REPAIRABLE = (AuditCheck.SETTINGS, AuditCheck.CONNECTION_LIMIT, AuditCheck.EXTENSION_SCHEMAS)
# Seconds until a repeated repair of the same role is recorded again.
_RECORD_AGAIN = 3600.0

_STARTED = monotonic()

_log = structlog.get_logger(__name__)


class IsolationAudit:
    def __init__(
        self,
        manager: TenantPoolManager,
        limits: RoleLimits,
        outbox: AuditOutbox,
        *,
        extension_schemas: Sequence[str] = (),
    ) -> None:
        """Every per_tenant tenant may use *extension_schemas*."""
        self._extension_schemas = extension_schemas
        self._manager = manager
        self._limits = limits
        self._outbox = outbox
        # By server: when all its tenants are due, unless there was an outage after this generation.
        self._next: dict[str, tuple[int, float]] = {}
        self._seen: WeakSet[Pool] = WeakSet()
        self._recorded_at: dict[tuple[str, str], float] = {}
        # By server: the tenants just provisioned, and the task that audits them.
        self._provisioned: defaultdict[str, list[TenantState]] = defaultdict(list)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run_once(self) -> None:
        opened = await self._opened()
        servers = list(self._manager.servers.values())
        due = [(server, await self._due(server, opened)) for server in servers]
        async with asyncio.TaskGroup() as group:
            for server, states in due:
                name = f"check: isolation on {server.name}"
                group.create_task(self.audit(server, states), name=name)

    async def _opened(self) -> set[str]:
        """The pools opened since the last audit, on any server."""
        opened = set()
        async for pool in in_slices(list(self._manager.pools())):
            if pool not in self._seen:
                self._seen.add(pool)
                opened.add(pool.pool_id)
        return opened

    async def _due(self, server: Server, opened: set[str]) -> list[TenantState]:
        if not server.is_available:
            return []
        now = monotonic()
        generation, at = self._next.get(server.name, (server.generation, now))
        # Another server may have taken over, and have lost the latest changes.
        all_are_due = now >= at or generation != server.generation
        if all_are_due:
            interval = self._manager.config(PoolStrategy.PER_TENANT).health_check_interval
            self._next[server.name] = server.generation, now + interval
        due = []
        async for state in in_slices(list(self._manager.tenants.values())):
            spec = state.tenant.spec
            is_due = all_are_due or state.isolation is None or spec.pool_id in opened
            if is_due and spec.server == server.name and state.tenant.is_usable:
                due.append(state)
        return due

    async def audit_provisioned(self, server: Server, state: TenantState) -> None:
        """Audit a newly provisioned tenant, together with those provisioned at the same time."""
        waiting = self._provisioned[server.name]
        waiting.append(state)
        async with self._turns[server.name]:
            if state in waiting:  # else the previous audit included it
                due = waiting.copy()
                waiting.clear()
                await self.audit(server, due)

    async def audit_pool(self, server: Server, pool_id: str) -> None:
        """Audit all tenants of a pool."""
        states = in_slices(list(self._manager.tenants.values()))
        await self.audit(
            server,
            [
                state
                async for state in states
                if state.tenant.spec.pool_id == pool_id and state.tenant.is_usable
            ],
        )

    async def audit(self, server: Server, states: Iterable[TenantState]) -> None:
        """Audit the roles of these tenants of *server*, and report on each tenant.

        A tenant that cannot be audited now keeps its last report.
        """
        by_pool: dict[str, list[TenantState]] = {}
        async for state in in_slices(list(states)):
            by_pool.setdefault(state.tenant.spec.pool_id, []).append(state)
        if not by_pool or not server.is_available:
            return
        try:
            async with asyncio.timeout(AUDIT_DEADLINE):
                versions = {
                    pool_id: self._password_versions(server, one)
                    async for pool_id, [one, *_] in in_slices(by_pool.items())
                }
                found = await self._inspect(server, [one for one, *_ in by_pool.values()])
                repairs = await self._report(server, by_pool, found, versions)
                if repairs:
                    await self._repair(server, repairs)
                grants = [each for each in found.excess_grants if self._is_due(each, found)]
                if grants:
                    await self._revoke(server, grants)
        except (Unavailable, ProvisioningFailed, TimeoutError) as error:
            _log.warning("isolation audit failed", server=server.name, reason=str(error))

    async def _inspect(self, server: Server, states: list[TenantState]) -> Inspection:
        roles: dict[PoolStrategy, set[str]] = {strategy: set() for strategy in PoolStrategy}
        async for state in in_slices(states):
            spec = state.tenant.spec
            roles[spec.strategy].add(self._manager.isolations[spec.strategy].role(spec))
        async with server.admin() as connection:
            return await inspect(
                connection,
                in_schema=roles[PoolStrategy.PER_TENANT],
                in_database=roles[PoolStrategy.PER_DATABASE],
                shared=next(iter(roles[PoolStrategy.SHARED]), None),
                extension_schemas=self._extension_schemas,
                open_databases=server.open_databases,
            )

    async def _report(
        self,
        server: Server,
        by_pool: dict[str, list[TenantState]],
        found: Inspection,
        versions: Mapping[str, frozenset[int]],
    ) -> dict[str, Repair]:
        """Judge each pool's role for all its tenants; return the needed repairs by pool.

        *versions*: those that each role's password could have before the inspection.
        """
        checked_at, checked_at_monotonic = datetime.now(UTC), monotonic()
        repairs: dict[str, Repair] = {}
        async for pool_id, states in in_slices(by_pool.items()):
            spec, limit = states[0].tenant.spec, self._limits.limit_for(states[0])
            isolation = self._manager.isolations[spec.strategy]
            role, home = isolation.role(spec), isolation.database(server, spec)
            findings = find_violations(
                found,
                spec.strategy,
                role,
                home=home,
                connection_limit=limit,
                # A rotation may have ended since.
                password_versions=versions[pool_id] | self._password_versions(server, states[0]),
                password_key=isolation.key_fingerprint,
                uid=None if spec.is_shared else str(states[0].tenant.uid),
            )
            _log_new(states[0], role, findings)
            report = IsolationReport(
                findings=findings,
                checked_at=checked_at,
                checked_at_monotonic=checked_at_monotonic,
            )
            for state in states:
                state.report_isolation(report)
            failed = {each.check for each in findings if each.severity is not Severity.NOT_CHECKED}
            if not failed.isdisjoint(_REPAIRABLE):
                repairs[pool_id] = self._repair_of(states[0], role, home, failed, found)
        return repairs

    def _repair_of(
        self,
        state: TenantState,
        role: str,
        home: str,
        failed: Collection[AuditCheck],
        found: Inspection,
    ) -> Repair:
        """The repair of *role*, whose tenants live in *home*, after it *failed* these checks."""
        has_schema = state.tenant.spec.strategy is PoolStrategy.PER_TENANT
        return Repair(
            role=role,
            reset_settings=AuditCheck.SETTINGS in failed,
            search_path_database=home if has_schema else None,
            schemas=self._extension_schemas,
            grant_usage_on=found.roles[role].unusable_schemas if role in found.roles else (),
            connection_limit=(
                partial(self._limits.limit_for, state)
                if AuditCheck.CONNECTION_LIMIT in failed
                else None
            ),
        )

    def _password_versions(self, server: Server, state: TenantState) -> frozenset[int]:
        spec = state.tenant.spec
        return self._manager.isolations[spec.strategy].password_versions(server, spec)

    async def _repair(self, server: Server, repairs: dict[str, Repair]) -> None:
        refused = await repair(server, repairs.values())
        for pool_id, each in repairs.items():
            if each in refused:
                _log.warning("isolation not repaired", role=each.role)
            elif each.reset_settings:
                # Connections opened since then still have those settings.
                pool = self._manager.find(pool_id)
                if pool is not None:
                    pool.recycle()
                event = audit_events.role_settings_reset(each.role, pool_id, ISOLATION_AUDIT)
                self._record(each.role, event)

    def _is_due(self, grant: ExcessGrant, found: Inspection) -> bool:
        """Whether *grant* is on the object of a tenant just inspected, or of a deleted tenant."""
        owner = grant.name.removeprefix(OBJECT_PREFIX)
        return grant.name in found.roles or owner not in self._manager.tenants

    async def _revoke(self, server: Server, grants: Sequence[ExcessGrant]) -> None:
        refused = await revoke(server, grants)
        for each in grants:
            if each in refused:
                _log.warning("isolation not repaired", role=each.name)
            else:
                event = audit_events.grants_revoked(
                    each.kind, each.name, each.grantees, ISOLATION_AUDIT
                )
                self._record(each.name, event)

    def _record(self, role: str, event: AuditEvent) -> None:
        """Record *event*, unless the same repair of this role was recorded recently."""
        key, now = (event.action, role), monotonic()
        if now - self._recorded_at.get(key, -_RECORD_AGAIN) >= _RECORD_AGAIN:
            self._recorded_at[key] = now
            self._outbox.enqueue(event)


def oldest_audit_age(manager: TenantPoolManager) -> float:
    """Age in seconds of the oldest last audit of any tenant; 0 without tenants.

    For a tenant that was never audited, its provisioning or the start of this process counts.
    """
    now, wall = monotonic(), datetime.now(UTC)
    ages = [0.0]
    for state in manager.tenants.values():
        provisioned_at, report = state.tenant.provisioned_at, state.isolation
        if provisioned_at is None or state.tenant.deleting:
            continue
        if report is not None:
            ages.append(now - report.checked_at_monotonic)
        else:
            ages.append(min(now - _STARTED, (wall - provisioned_at).total_seconds()))
    return max(ages)


def findings_of(manager: TenantPoolManager) -> Iterator[tuple[TenantSpec, Finding] | None]:
    """All findings of the last audits; a shared role's findings once, with one of its tenants.

    None before each tenant, so that no step takes long: tenants may come and go between two.
    """
    seen: set[str] = set()
    for state in list(manager.tenants.values()):
        yield None
        spec, report = state.tenant.spec, state.isolation
        if report is None or spec.pool_id in seen:
            continue
        seen.add(spec.pool_id)
        for finding in report.findings:
            yield spec, finding


def _log_new(state: TenantState, role: str, findings: tuple[Finding, ...]) -> None:
    known = state.isolation.findings if state.isolation else ()
    for finding in findings:
        if finding not in known:
            _log.warning(
                "isolation finding",
                role=role,
                check=finding.check,
                severity=finding.severity,
                detail=finding.detail,
            )
