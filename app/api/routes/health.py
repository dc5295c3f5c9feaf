"""Liveness without I/O, and readiness with named checks.

One tenant server that is down turns nothing red: the others are served. What to do about a
service that is not ready is its orchestrator's business.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api.auth.authenticator import Authenticator
from app.api.http.dependencies import AuthenticatorDep, PrincipalDep, Service, ServiceDep
from app.api.http.error_responses import problem_responses
from app.control.monitoring.isolation_audit import findings_of, oldest_audit_age
from app.domain.errors import CatalogUnavailable
from app.domain.isolation_policy import Severity

# A poll may skip two turns and then take as long as it is allowed to.
_INTERVALS = 3
# What a look at all tenants of a server may take, in seconds.
_LOOK_DEADLINE = 20.0
# Anybody may ask: what takes long is looked at once in so many seconds.
_FRESH_SECONDS = 1.0
# Of tenants with a critical finding, as many are named.
_MOST_NAMES = 5

# They read no input and raise nothing that is foreseen.
_UNFORESEEN: dict[int | str, dict[str, Any]] = {500: problem_responses()[500]}

router = APIRouter(tags=["health"])


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"] = Field(examples=["alive"])


class ReadinessCheck(BaseModel):
    """One thing that was looked at."""

    name: str = Field(examples=["catalog"])
    ok: bool = Field(examples=[True])
    required: bool = Field(
        description="Whether the service is not ready without it.", examples=[True]
    )
    detail: str | None = Field(
        description="Null without a key that may read, or with one that is bound to tenants.",
        examples=["It answers."],
    )


class Readiness(BaseModel):
    """Whether the service can do all of its work, and what that was concluded from."""

    status: Literal["ready", "not_ready"] = Field(examples=["ready"])
    checks: Annotated[list[ReadinessCheck], Field(min_length=1)]


class CachedChecks:
    """The checks that ask the catalog and go through all tenants, made once for all who ask."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = asyncio.Lock()
        self._found: tuple[ReadinessCheck, ReadinessCheck] | None = None
        self._at = 0.0

    async def get(self, service: Service) -> tuple[ReadinessCheck, ReadinessCheck]:
        """The catalog's check and that of isolation, at most a second old."""
        async with self._lock:
            if self._found is None or monotonic() - self._at >= _FRESH_SECONDS:
                self._found = await _catalog(service), _isolation(service)
                self._at = monotonic()
            return self._found


@router.get("/livez", summary="Tell whether the process answers", responses=_UNFORESEEN)
async def livez() -> Liveness:
    """Answers as long as the process can; touches neither Postgres nor the disk."""
    return Liveness(status="alive")


@router.get(
    "/readyz",
    summary="Tell whether the service is ready",
    # The key is optional here: more is told with it.
    openapi_extra={"security": [{}, {"key": ["read"]}]},
    responses=_UNFORESEEN
    | {503: {"model": Readiness, "description": "Not ready; `checks` says why."}},
)
async def readyz(
    request: Request,
    service: ServiceDep,
    door: AuthenticatorDep,
    caller: PrincipalDep,
    response: Response,
) -> Readiness:
    """Asks the catalog, once a second at most, and looks at the loops and the servers.

    While the catalog is away running pools go on, but nothing can be changed: the service is not
    ready. Servers, isolation and keys are told for information only.
    """
    costly: CachedChecks = request.app.state.costly
    catalog, isolation = await costly.get(service)
    checks = [
        catalog,
        _poller(service),
        _loops(service),
        _servers(service),
        isolation,
        _keys(door),
    ]
    if not caller.can_read_all:
        checks = [check.model_copy(update={"detail": None}) for check in checks]
    ready = all(check.ok for check in checks if check.required)
    response.headers["Cache-Control"] = "no-store"
    response.status_code = 200 if ready else 503
    return Readiness(status="ready" if ready else "not_ready", checks=checks)


async def _catalog(service: Service) -> ReadinessCheck:
    try:
        await service.catalog.ping()
    except CatalogUnavailable as error:
        return ReadinessCheck(name="catalog", ok=False, required=True, detail=error.detail)
    return ReadinessCheck(name="catalog", ok=True, required=True, detail="It answers.")


def _poller(service: Service) -> ReadinessCheck:
    last_at = service.poller.last_at
    if last_at is None:
        return ReadinessCheck(
            name="poller", ok=False, required=True, detail="No poll has ended yet."
        )
    age = monotonic() - last_at
    limits = service.limits
    return ReadinessCheck(
        name="poller",
        ok=age <= _INTERVALS * limits.poll_interval + limits.poll_deadline,
        required=True,
        detail=f"The last poll ended {age:.1f} s ago.",
    )


def _loops(service: Service) -> ReadinessCheck:
    dead = service.supervisor.dead
    detail = "All of them run." if dead is None else f"The loop {dead} has died."
    return ReadinessCheck(name="loops", ok=dead is None, required=True, detail=detail)


def _keys(door: Authenticator) -> ReadinessCheck:
    keys = door.keys
    detail = keys.problem or f"{len(keys)} in force."
    if not keys.is_enforced:
        detail = "There are none: only this machine may call, and may do everything."
    return ReadinessCheck(name="keys", ok=keys.problem is None, required=False, detail=detail)


def _isolation(service: Service) -> ReadinessCheck:
    found = list(findings_of(service.manager))
    critical = sorted({str(spec.id) for spec, one in found if one.severity is Severity.CRITICAL})
    detail = f"{len(found)} findings."
    if critical:
        shown = ", ".join(critical[:_MOST_NAMES])
        detail += f" Critical ones concern {len(critical)} tenants or their role: {shown}."
    age = oldest_audit_age(service.manager)
    is_fresh = age <= _INTERVALS * service.limits.health_check_interval + _LOOK_DEADLINE
    detail += f" The oldest check is {age:.0f} s old" + ("." if is_fresh else ", which is too old.")
    is_known = all(one.severity is not Severity.NOT_CHECKED for _, one in found)
    if not is_known:
        detail += " Some checks could not be made."
    ok = not critical and is_fresh and is_known
    return ReadinessCheck(name="isolation", ok=ok, required=False, detail=detail)


def _servers(service: Service) -> ReadinessCheck:
    servers = service.manager.servers
    away = sorted(name for name, server in servers.items() if not server.is_available)
    detail = f"{len(servers) - len(away)} of {len(servers)} available."
    if away:
        detail += f" Unavailable: {', '.join(away)}."
    strained = [
        f"{name}: {servers[name].last_error}"
        for name in sorted(servers)
        if servers[name].is_degraded
    ]
    if strained:
        detail += f" Serving, but opening no new connections: {' '.join(strained)}"
    locked = sorted(
        name for name, server in servers.items() if server.limits and server.limits.read_only
    )
    if locked:
        detail += f" Read-only (default_transaction_read_only is on): {', '.join(locked)}."
    return ReadinessCheck(
        name="servers", ok=not (away or strained or locked), required=False, detail=detail
    )
