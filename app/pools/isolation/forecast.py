"""What provisioning a tenant would create or mend, looked up without changing anything."""

from __future__ import annotations

from app.domain.desired_state import Tenant
from app.domain.tenant import PoolStrategy
from app.pools.isolation.objects import DatabaseObjects, mark_of
from app.pools.isolation.shared import SHARED_ROLE
from app.pools.server import Server

_OWN_OBJECTS = {
    PoolStrategy.SHARED: (),
    PoolStrategy.PER_TENANT: ("ROLE", "SCHEMA"),
    PoolStrategy.PER_DATABASE: ("ROLE", "DATABASE"),
}


async def plan_provisioning(server: Server, tenant: Tenant, *, adopt: bool) -> list[str]:
    """Name the objects that provisioning would create or mend.

    Raises:
        ObjectsExist: one of them was made for somebody else, and not *adopt*.
        ServerUnavailable: it cannot be reached.
    """
    spec = tenant.spec
    if spec.is_shared:
        return [f"role {SHARED_ROLE}"]
    name, mark = spec.id.object_name, mark_of(tenant)
    kinds = _OWN_OBJECTS[spec.strategy]
    async with server.admin() as connection:
        objects = DatabaseObjects(connection)
        for kind in reversed(kinds):  # as provisioning does: the role last
            await objects.exists(kind, name, mark=mark, adopt=adopt)
    return [f"{kind.lower()} {name}" for kind in kinds]
