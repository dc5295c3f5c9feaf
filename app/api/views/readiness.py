"""Whether an instance is ready, by named checks.

An unreachable tenant server does not make the service unready: it serves the others.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from heapq import nsmallest
from math import inf
from time import monotonic
from typing import Annotated, Literal, Protocol, Self

from pydantic import BaseModel, Field

from app.api.auth.key_file import KeyFile
from app.api.auth.principal import Principal
from app.catalog.catalog import Catalog
from app.control.background import Supervisor
from app.control.leadership.election import Election
from app.control.monitoring.isolation_audit import AUDIT_DEADLINE, findings_of, oldest_audit_age
from app.control.monitoring.poller import Poller
from app.control.time_slices import in_slices
from app.domain.errors import CatalogUnavailable, CatalogUnusable
from app.domain.isolation_checks import Severity
from app.domain.leadership import RENEWS_WITHIN, InstanceState, key_refusal
from app.pools.manager import TenantPoolManager

# A poll or an audit may be skipped twice before it counts as late.
_INTERVALS = 3
# Anybody may ask, so expensive checks run at most this often, in seconds.
_CACHE_SECONDS = 1.0
# In seconds: a proxy that checks /readyz each second waits no longer than that.
_PING_DEADLINE = 0.5
# In seconds: an active instance that cannot be reached may be slow, or be ending.
_UNREACHED_SECONDS = 3.0
# Maximum number of tenants with a critical finding that are named.
_MAX_NAMES = 5


class ReadinessCheck(BaseModel):
    """The result of one check."""

    name: str = Field(examples=["catalog"])
    ok: bool = Field(examples=[True])
    required: bool = Field(
        description="Whether the service is not ready when this check fails.", examples=[True]
    )
    detail: str | None = Field(
        description="Null without an API key of scope read, or with one that is bound to tenants.",
        examples=["The catalog responds."],
    )
    # Not shown: whether it fails because what it knows is too old.
    is_outdated: bool = Field(default=False, exclude=True)


class Readiness(BaseModel):
    """Whether the service can do all of its work, and the checks behind it."""

    status: Literal["ready", "not_ready"] = Field(examples=["ready"])
    checks: Annotated[list[ReadinessCheck], Field(min_length=1)]

    @classmethod
    def of(cls, results: list[ReadinessCheck], principal: Principal) -> Self:
        """The results, as far as *principal* may see them."""
        if not principal.can_read_all:
            results = [result.model_copy(update={"detail": None}) for result in results]
        is_ready = all(result.ok for result in results if result.required)
        return cls(status="ready" if is_ready else "not_ready", checks=results)


class ReadinessChecks(Protocol):
    """The checks of `/readyz`."""

    async def run(self) -> list[ReadinessCheck]: ...


class StandbyReadiness:
    """The checks of an instance that is not active: whether it can forward, or take over."""

    def __init__(
        self,
        election: Election,
        find_trouble: Callable[[], Awaitable[str | None]],
        *,
        is_stopping: bool = False,
    ) -> None:
        """Ask *election*, and at most once a second why this instance cannot forward.

        *is_stopping*: whether it should get no more requests, although it may still be active.
        """
        self._election = election
        self._find_trouble = find_trouble
        self._is_stopping = is_stopping
        self._lock = asyncio.Lock()
        self._trouble: str | None = None
        self._asked_at = self._missed_since = -inf

    async def run(self) -> list[ReadinessCheck]:
        election = self._election
        state = InstanceState.STOPPING if self._is_stopping else election.state
        detail = f"State {state}. {election.active_instance}"
        if election.trouble is not None:
            detail += f" {election.trouble}"
        can_serve = election.trouble is None or election.active_url is not None
        is_ok = can_serve and state is not InstanceState.STOPPING
        different = key_refusal(election.record, election.keys())
        keys = different or "No active instance has others."
        return [
            _required("leadership", ok=is_ok, detail=detail),
            _required("keys", ok=different is None, detail=keys),
            await self._check_active_instance(),
        ]

    async def _check_active_instance(self) -> ReadinessCheck:
        """Required only while no failure of the active instance explains that it does not answer.

        If it has failed, this instance can still take over, and holds requests until then.
        """
        async with self._lock:
            if monotonic() - self._asked_at >= _CACHE_SECONDS:
                is_serving = self._election.is_serving
                self._trouble = None if is_serving else await self._find_trouble()
                was_reached, self._asked_at = self._missed_since == inf, monotonic()
                if self._trouble is None:
                    self._missed_since = inf
                elif was_reached:
                    self._missed_since = self._asked_at
        if self._trouble is None:
            return _informative("active_instance", ok=True, detail="It answers.")
        detail = f"{self._election.active_instance} {self._trouble}"
        return ReadinessCheck(
            name="active_instance", ok=False, required=self._is_cut_off(), detail=detail
        )

    def _is_cut_off(self) -> bool:
        """Whether the active instance works, and this one has not reached it for a while."""
        election, record = self._election, self._election.record
        works = (
            election.trouble is None
            and election.active_url is not None
            and record is not None
            and record.age <= RENEWS_WITHIN
        )
        return works and monotonic() - self._missed_since >= _UNREACHED_SECONDS


@dataclass(slots=True, kw_only=True)
class ServiceReadiness:
    """The checks of the active instance.

    Attributes:
        max_poll_age: seconds after which polls are late.
        audit_interval: seconds between audits.
    """

    manager: TenantPoolManager
    catalog: Catalog
    poller: Poller
    supervisor: Supervisor
    keys: KeyFile
    max_poll_age: float
    audit_interval: float
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _cached: tuple[ReadinessCheck, ReadinessCheck] | None = field(default=None, init=False)
    _cached_at: float = field(default=0.0, init=False)

    async def run(self) -> list[ReadinessCheck]:
        catalog, isolation = await self._expensive()
        return [
            catalog,
            self._check_poller(),
            self._check_background_tasks(),
            self._check_servers(),
            isolation,
            self._check_keys(),
        ]

    async def _expensive(self) -> tuple[ReadinessCheck, ReadinessCheck]:
        """The checks that ask the catalog and go through all tenants, at most a second old."""
        async with self._lock:
            if self._cached is None or monotonic() - self._cached_at >= _CACHE_SECONDS:
                self._cached = await self._check_catalog(), await self._check_isolation()
                self._cached_at = monotonic()
            return self._cached

    async def _check_catalog(self) -> ReadinessCheck:
        """Not required: pools keep serving without it, and no other instance would serve better."""
        problem = self.catalog.write_problem
        try:
            async with asyncio.timeout(_PING_DEADLINE):
                await self.catalog.check_tables()
        except (CatalogUnavailable, CatalogUnusable) as error:
            problem = error.detail
        except TimeoutError:
            problem = f"The catalog did not respond within {_PING_DEADLINE:g} s."
        return _informative(
            "catalog", ok=problem is None, detail=problem or "The catalog responds."
        )

    def _check_poller(self) -> ReadinessCheck:
        last_at = self.poller.last_at
        if last_at is None:
            return _required("poller", ok=False, detail="No poll has ended yet.")
        age = monotonic() - last_at
        return _required(
            "poller", ok=age <= self.max_poll_age, detail=f"The last poll ended {age:.1f} s ago."
        )

    def _check_background_tasks(self) -> ReadinessCheck:
        dead = self.supervisor.dead
        detail = "All of them run." if dead is None else f"Background task {dead} died."
        return _required("loops", ok=dead is None, detail=detail)

    def _check_keys(self) -> ReadinessCheck:
        keys = self.keys
        detail = keys.problem or f"Keys: {len(keys)}."
        if not keys.is_enforced:
            detail = "No API keys: only local programs can connect, with full access."
        return _informative("keys", ok=keys.problem is None, detail=detail)

    async def _check_isolation(self) -> ReadinessCheck:
        severities: Counter[Severity] = Counter()
        critical: set[str] = set()
        async for found in in_slices(findings_of(self.manager)):
            if found is None:
                continue
            spec, finding = found
            severities[finding.severity] += 1
            if finding.severity is Severity.CRITICAL:
                critical.add(str(spec.id))
        count = severities.total()
        detail = "1 finding." if count == 1 else f"{count} findings."
        if critical:
            names = ", ".join(nsmallest(_MAX_NAMES, critical))
            detail += f" Critical findings for {len(critical)} tenants or their roles: {names}."
        age = oldest_audit_age(self.manager)
        is_fresh = age <= _INTERVALS * self.audit_interval + AUDIT_DEADLINE
        detail += f" The oldest audit is {age:.0f} s old" + ("." if is_fresh else ", too old.")
        is_complete = not severities[Severity.NOT_CHECKED]
        if not is_complete:
            detail += " Some checks could not run."
        return ReadinessCheck(
            name="isolation",
            ok=not critical and is_fresh and is_complete,
            required=False,
            detail=detail,
            is_outdated=not is_fresh,
        )

    def _check_servers(self) -> ReadinessCheck:
        servers = self.manager.servers
        unavailable = sorted(name for name, server in servers.items() if not server.is_available)
        degraded = [
            f"{name}: {servers[name].last_error}"
            for name in sorted(servers)
            if servers[name].is_degraded
        ]
        well = len(servers) - len(unavailable) - len(degraded)
        detail = f"{well} of {len(servers)} open new connections."
        if unavailable:
            detail += f" Unavailable: {', '.join(unavailable)}."
        if degraded:
            detail += f" Serving, but opening no new connections: {' '.join(degraded)}"
        read_only = sorted(
            name for name, server in servers.items() if server.limits and server.limits.read_only
        )
        if read_only:
            detail += f" Read-only (default_transaction_read_only is on): {', '.join(read_only)}."
        return _informative("servers", ok=not (unavailable or degraded or read_only), detail=detail)


def max_poll_age(interval: float, deadline: float) -> float:
    """Seconds after which polls are late, from their *interval* and the *deadline* of one."""
    return _INTERVALS * interval + deadline


def _required(name: str, *, ok: bool, detail: str) -> ReadinessCheck:
    return ReadinessCheck(name=name, ok=ok, required=True, detail=detail)


def _informative(name: str, *, ok: bool, detail: str) -> ReadinessCheck:
    return ReadinessCheck(name=name, ok=ok, required=False, detail=detail)
