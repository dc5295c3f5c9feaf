"""What a newly active instance does on the servers before it opens a connection there."""

import asyncio
from collections import defaultdict

import structlog

from app.control.leadership.trust import Trust
from app.control.time_slices import in_slices
from app.domain.leadership import admin_name, client_name
from app.pools.manager import TenantPoolManager
from app.pools.servers.orphaned_backends import Predecessor

_STILL_TRUSTED = "The instance that was active before may still use it; wait some seconds."

_log = structlog.get_logger(__name__)


async def start_servers(
    manager: TenantPoolManager,
    trust: Trust,
    predecessor: str | None,
    *,
    has_nodes: bool = False,
) -> None:
    """Contact every server once no earlier instance uses it.

    If the *predecessor* did not stop cleanly, wait until its trust has ended, then terminate its
    back-ends on the servers. The tenants whose roles it used, the provisioned ones, must be known:
    any other role may belong to another installation. Nodes keep working in the meantime.
    """
    servers = manager.servers.values()
    if trust.wait:
        _log.info("waiting for the end of the predecessor's trust", seconds=round(trust.wait, 1))
        for server in servers:
            server.hold_off(_STILL_TRUSTED)
        await asyncio.sleep(trust.wait)
    left: dict[str, Predecessor | None] = {server.name: None for server in servers}
    if predecessor is not None:
        logins: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        async for state in in_slices(list(manager.tenants.values())):
            spec = state.tenant.spec
            home = manager.servers.get(spec.server)
            if home is not None and state.tenant.provisioned_at is not None:
                isolation = manager.isolations[spec.strategy]
                logins[spec.server].add((isolation.role(spec), isolation.database(home, spec)))
        name = admin_name(client_name(predecessor))
        left = {
            each: Predecessor(
                logins=frozenset(logins[each]), admin_name=name, shares_logins=has_nodes
            )
            for each in left
        }
    await asyncio.gather(*(server.start(left[server.name]) for server in servers))
