"""One tenant's login or database is gone: it gets an error; others and the server do not."""

import pytest

from app.domain.errors import TenantLoginFailed
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from tests.fixtures.pools import provisioned
from tests.fixtures.postgres import Database

FAULTS = {
    "no login": "ALTER ROLE tenant_bad NOLOGIN",
    "another password": "ALTER ROLE tenant_bad PASSWORD 'another'",
    "no role": "ALTER ROLE tenant_bad RENAME TO tenant_gone",
    "no database": "ALTER DATABASE tenant_bad RENAME TO tenant_gone",
    "closed database": "ALTER DATABASE tenant_bad ALLOW_CONNECTIONS false",
    "forbidden database": "REVOKE ALL ON DATABASE tenant_bad FROM tenant_bad",
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_tenant_gets_an_error_and_no_other_notices(
    manager: TenantPoolManager, database: Database, fault: str
) -> None:
    await provisioned(manager, "bad", PoolStrategy.PER_DATABASE)
    await provisioned(manager, "good", PoolStrategy.PER_DATABASE)
    server = manager.servers["local"]
    async with manager.lease("good"):
        pass
    async with database.connected() as admin:
        await admin.execute(FAULTS[fault])
        if fault == "forbidden database":
            await admin.execute("ALTER DATABASE tenant_bad OWNER TO CURRENT_USER")
    for _ in range(2):
        with pytest.raises(TenantLoginFailed, match="Postgres refused the login") as raised:
            async with manager.lease("bad"):
                pass
        is_password = fault in {"another password", "no role"}
        assert raised.value.detail.endswith("poolkeeper tenants rotate bad") is is_password
        assert manager.isolations[PoolStrategy.PER_DATABASE].login(
            server, manager.tenants.state("bad").tenant.spec
        ).password not in repr(raised.value)
        spec = manager.tenants.state("bad").tenant.spec
        assert manager.connectors.refusal(spec) == raised.value.detail
    assert manager.connectors.refusal(manager.tenants.state("good").tenant.spec) is None
    assert server.is_available
    assert server.generation == 0
    async with manager.lease("good") as connection:
        assert await connection.fetchval("SELECT 42") == 42


async def test_of_a_shared_role_each_tenant_gets_an_error_that_names_no_other(
    manager: TenantPoolManager, database: Database
) -> None:
    for name in ("first", "second"):
        await provisioned(manager, name, PoolStrategy.SHARED)
    async with database.connected() as admin:
        await admin.execute("ALTER ROLE poolkeeper_shared PASSWORD 'another'")
    for name in ("first", "second"):
        with pytest.raises(TenantLoginFailed, match=r"tenants rotate TENANT --shared$"):
            async with manager.lease(name):
                pass


async def test_provisioning_again_repairs_a_login(
    manager: TenantPoolManager, database: Database
) -> None:
    state = await provisioned(manager, "bad")
    async with database.connected() as admin:
        await admin.execute("ALTER ROLE tenant_bad NOLOGIN PASSWORD 'another'")
    with pytest.raises(TenantLoginFailed):
        async with manager.lease("bad"):
            pass
    await manager.isolations[PoolStrategy.PER_TENANT].provision(
        manager.servers["local"], state.tenant, adopt=False
    )
    async with manager.lease("bad") as connection:
        assert await connection.fetchval("SELECT 42") == 42
