"""What a new active instance does on the servers before it opens any connection there."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import structlog

from app.control.leadership.trust import Trust
from app.domain.leadership import admin_name, client_name
from app.pools.manager import TenantPoolManager
from app.pools.orphaned_backends import Predecessor

_STILL_TRUSTED = "The instance that was active before may still use it; wait some seconds."

_log = structlog.get_logger(__name__)


async def start_servers(manager: TenantPoolManager, trust: Trust, predecessor: str | None) -> None:
    """Contact every server, once no earlier instance uses it.

    If that one, the *predecessor*, did not end in order, its trust is waited out, and what it has
    left on the servers is ended. The tenants must be known, whose roles it used.
    """
    servers = manager.servers.values()
    if trust.wait:
        _log.info("waiting for the end of the predecessor's trust", seconds=round(trust.wait, 1))
        for server in servers:
            server.last_error = _STILL_TRUSTED
        await asyncio.sleep(trust.wait)
    left: dict[str, Predecessor | None] = {server.name: None for server in servers}
    if predecessor is not None:
        roles: defaultdict[str, set[str]] = defaultdict(set)
        for state in manager.tenant_states.values():
            spec = state.tenant.spec
            roles[spec.server].add(manager.isolations[spec.strategy].role(spec))
        name = admin_name(client_name(predecessor))
        left = {
            server: Predecessor(roles=frozenset(roles[server]), admin_name=name) for server in left
        }
    await asyncio.gather(*(server.start(left[server.name]) for server in servers))
