"""What the callers of a tenant wait for, from what its pool and its server look like; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.cli.client.table import pool_state

Document = Mapping[str, Any]


def waits_for(  # noqa: PLR0911 - one for each cause
    numbers: Document, tenant: Document, pool: Document | None, server: Document | None
) -> str:
    """One phrase; *numbers* are the tenant's statistics."""
    if pool is not None and pool["pause"]:
        return f"the pool to be resumed: {pool_state(pool)}"
    if server is not None and server["state"] != "available":
        return f"server {server['name']}, which is unavailable: {server['last_error']}"
    if not numbers["waiting_requests"]:
        return "nothing"
    limit = tenant["max_leases"]
    if limit is not None and numbers["active_connections"] >= limit:
        return f"its own leases: it may have {limit} at a time (max_leases)"
    if numbers["pool_state"] == "closed":
        return "another pool to close: as many are open as may be (pool-limit-reached)"
    if pool is None or pool["size"] == 0:
        return "the pool to open"
    most = pool["desired"]["max_size"]
    if pool["active"] >= most:
        return f"a lease to end: all {most} connections of the pool are on lease (max_size)"
    if server is not None and server["used"] >= server["budget"]:
        return (
            f"a connection of another pool: {server['used']} of the {server['budget']} "
            f"connections of server {server['name']} are in use"
        )
    return "a connection to be opened, or its turn"
