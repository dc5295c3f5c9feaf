"""The three strategies do what their names say, and provisioning takes only what is its own."""

import asyncio
from dataclasses import replace
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.domain.errors import ObjectsExist, ProvisioningFailed, ServerUnavailable, TenantLoginFailed
from app.domain.tenant import PoolStrategy, Tenant
from app.embedded import EmbeddedPostgres
from app.pools.isolation import (
    IsolationStrategy,
    PerDatabaseIsolation,
    PerTenantIsolation,
    SharedIsolation,
    objects,
)
from app.pools.isolation.shared import SHARED_ROLE
from app.pools.manager import TenantPoolManager
from app.pools.servers import server_limits
from tests.fixtures.pools import (
    ROLE_PASSWORDS,
    login_to,
    manager_on,
    pool_of,
    provisioned,
    started_server,
    tenant,
)
from tests.fixtures.postgres import Database
from tests.fixtures.private_postgres import superuser_of

OWN = (PoolStrategy.PER_TENANT, PoolStrategy.PER_DATABASE)


async def provision(
    manager: TenantPoolManager,
    name: str,
    strategy: PoolStrategy,
    *,
    uid: UUID | None = None,
    adopt: bool = False,
) -> tuple[Tenant, list[str]]:
    new = tenant(name, strategy, uid=uid)
    names = await manager.isolations[strategy].provision(manager.servers["local"], new, adopt=adopt)
    return new, names


async def test_shared_tenants_share_a_role_and_each_sees_its_own_rows(
    manager: TenantPoolManager, database: Database
) -> None:
    for name in ("a", "b"):
        await provisioned(manager, name, PoolStrategy.SHARED)
    async with database.connected() as admin:
        await admin.execute("""
            CREATE TABLE note (tenant text DEFAULT current_setting('app.tenant_id', true), n int);
            ALTER TABLE note ENABLE ROW LEVEL SECURITY;
            CREATE POLICY own ON note USING (tenant = current_setting('app.tenant_id', true));
            GRANT ALL ON note TO poolkeeper_shared
        """)
    for name in ("a", "b"):
        async with manager.lease(name) as connection:
            await connection.execute("INSERT INTO note (n) VALUES (1)")
    for name in ("a", "b"):
        async with manager.lease(name) as connection:
            rows = await connection.fetch("SELECT tenant, current_user AS role FROM note")
            assert [tuple(row) for row in rows] == [(name, SHARED_ROLE)]
    assert manager.active_pools == 1
    async with database.connected() as admin:
        assert await admin.fetchval("SELECT count(*) FROM note") == 2


async def test_a_tenant_of_its_own_schema_works_in_it_by_default(
    manager: TenantPoolManager, database: Database
) -> None:
    await provisioned(manager, "acme-1", PoolStrategy.PER_TENANT)
    async with manager.lease("acme-1") as connection:
        await connection.execute("CREATE TABLE note (id int)")
        assert await connection.fetchval("SELECT current_user") == "tenant_acme-1"
        assert await connection.fetchval("SELECT current_database()") == database.database
        assert await connection.fetchval("SHOW application_name") == "poolkeeper/acme-1"
    async with database.connected() as admin:
        assert await admin.fetchval('SELECT count(*) FROM "tenant_acme-1".note') == 0


async def test_a_tenant_of_its_own_database_works_in_it(manager: TenantPoolManager) -> None:
    await provisioned(manager, "acme-1", PoolStrategy.PER_DATABASE)
    async with manager.lease("acme-1") as connection:
        await connection.execute("CREATE TABLE note (id int)")
        assert await connection.fetchval("SELECT current_user") == "tenant_acme-1"
        assert await connection.fetchval("SELECT current_database()") == "tenant_acme-1"


async def test_a_tenant_of_its_own_database_chooses_its_search_path(
    manager: TenantPoolManager,
) -> None:
    """In the service's pools as on nodes."""
    new, _ = await provision(manager, "acme", PoolStrategy.PER_DATABASE)
    manager.put_tenant(new)
    async with manager.lease("acme") as connection:
        assert await connection.fetchval("SHOW search_path") == '"$user", public'
        await connection.execute("CREATE SCHEMA app")
        await connection.execute("CREATE TABLE app.note AS SELECT 42 AS id")
        await connection.execute("ALTER DATABASE tenant_acme SET search_path = app, public")
    pool_of(manager, "acme").recycle()
    for _ in range(2):
        async with manager.lease("acme") as connection:
            assert await connection.fetchval("SELECT id FROM note") == 42
            await connection.execute("SET search_path = public")


async def test_a_tenant_cannot_read_another_ones_schema(manager: TenantPoolManager) -> None:
    await provisioned(manager, "a")
    await provisioned(manager, "b")
    async with manager.lease("a") as connection:
        await connection.execute("CREATE TABLE secret AS SELECT 42 AS answer")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with manager.lease("b") as connection:
            await connection.fetch("SELECT * FROM tenant_a.secret")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with manager.lease("b") as connection:
            await connection.execute("SET ROLE tenant_a")


async def test_a_tenant_cannot_enter_another_ones_database(manager: TenantPoolManager) -> None:
    await provisioned(manager, "a", PoolStrategy.PER_DATABASE)
    await provisioned(manager, "b", PoolStrategy.PER_TENANT)
    await provisioned(manager, "c", PoolStrategy.SHARED)
    server = manager.servers["local"]
    for name, strategy in (("b", PoolStrategy.PER_TENANT), ("c", PoolStrategy.SHARED)):
        login = manager.isolations[strategy].login(server, manager.tenants.state(name).tenant.spec)
        with pytest.raises(TenantLoginFailed, match="may not connect"):
            await server.connect(login.for_database("tenant_a"))
    own = manager.isolations[PoolStrategy.PER_DATABASE].login(
        server, manager.tenants.state("a").tenant.spec
    )
    with pytest.raises(TenantLoginFailed):
        await server.connect(own.for_database(server.admins.login.database))


async def test_a_tenants_role_has_no_privilege_beyond_its_own(
    manager: TenantPoolManager, database: Database
) -> None:
    for name, strategy in zip("abc", PoolStrategy, strict=True):
        await provisioned(manager, name, strategy)
    async with database.connected() as admin:
        powerful = await admin.fetchval("""
            SELECT count(*) FROM pg_roles WHERE rolname ~ '^(tenant|poolkeeper)_' AND
            (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)
        """)
    assert powerful == 0


@pytest.mark.parametrize("strategy", PoolStrategy)
async def test_provisioning_again_changes_nothing_and_keeps_data(
    manager: TenantPoolManager, strategy: PoolStrategy
) -> None:
    new, names = await provision(manager, "acme", strategy)
    manager.put_tenant(new)
    if strategy in OWN:
        async with manager.lease("acme") as connection:
            await connection.execute("CREATE TABLE note AS SELECT 42 AS id")
    again = await manager.isolations[strategy].provision(manager.servers["local"], new, adopt=False)
    assert again == names
    if strategy in OWN:
        async with manager.lease("acme") as connection:
            assert await connection.fetchval("SELECT id FROM note") == 42


@pytest.mark.parametrize("strategy", PoolStrategy)
async def test_provisioning_twice_at_once_is_no_conflict(
    manager: TenantPoolManager, strategy: PoolStrategy
) -> None:
    uid = uuid4()
    await asyncio.gather(*(provision(manager, "acme", strategy, uid=uid) for _ in range(2)))


@pytest.mark.parametrize("strategy", OWN)
async def test_a_later_tenant_of_the_same_name_does_not_get_the_data_by_accident(
    manager: TenantPoolManager, strategy: PoolStrategy
) -> None:
    first, _ = await provision(manager, "acme", strategy)
    earlier = "was created for an earlier tenant of the same id; adopt=true takes it over"
    with pytest.raises(ObjectsExist, match=earlier):
        await provision(manager, "acme", strategy)
    manager.put_tenant(first)
    async with manager.lease("acme") as connection:
        await connection.execute("CREATE TABLE note AS SELECT 42 AS id")
    second, _ = await provision(manager, "acme", strategy, adopt=True)
    with pytest.raises(ObjectsExist):
        await manager.isolations[strategy].provision(manager.servers["local"], first, adopt=False)
    manager.put_tenant(second)
    async with manager.lease("acme") as connection:
        assert await connection.fetchval("SELECT id FROM note") == 42


@pytest.mark.parametrize(
    ("strategy", "object_sql"),
    [
        (PoolStrategy.PER_TENANT, "CREATE SCHEMA tenant_acme"),
        (PoolStrategy.PER_TENANT, "CREATE ROLE tenant_acme"),
        (PoolStrategy.PER_DATABASE, "CREATE DATABASE tenant_acme"),
        (PoolStrategy.PER_DATABASE, "CREATE ROLE tenant_acme"),
        (PoolStrategy.SHARED, "CREATE ROLE poolkeeper_shared SUPERUSER"),
    ],
)
async def test_an_existing_object_is_adopted_only_on_request(
    manager: TenantPoolManager, database: Database, strategy: PoolStrategy, object_sql: str
) -> None:
    async with database.connected() as admin:
        await admin.execute(object_sql)
        with pytest.raises(ObjectsExist, match="was not created for this tenant; adopt=true"):
            await provision(manager, "acme", strategy)
        made = await admin.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = 'tenant_acme'")
        assert made == ("ROLE tenant" in object_sql)
        new, _ = await provision(manager, "acme", strategy, adopt=True)
        assert not await admin.fetchval(
            "SELECT bool_or(rolsuper) FROM pg_roles WHERE rolname ~ '^(tenant|poolkeeper)_'"
        )
    manager.put_tenant(new)
    async with manager.lease("acme") as connection:
        assert await connection.fetchval("SELECT 42") == 42


async def test_the_shared_role_of_another_installation_is_not_taken_over_silently(
    manager: TenantPoolManager, database: Database, postgres_server: Database
) -> None:
    await provisioned(manager, "acme", PoolStrategy.SHARED)
    await postgres_server.administer("CREATE DATABASE elsewhere")
    try:
        async with manager_on(replace(database, database="elsewhere")) as other:
            with pytest.raises(ObjectsExist, match="shared tenants of another installation"):
                await provision(other, "beta", PoolStrategy.SHARED)
            strategy = other.isolations[PoolStrategy.SHARED]
            beta = tenant("beta", PoolStrategy.SHARED)
            with pytest.raises(ObjectsExist, match="shared tenants of another installation"):
                await strategy.rotate_password(other.servers["local"], beta, 2)
            await provision(other, "beta", PoolStrategy.SHARED, adopt=True)
            with pytest.raises(ObjectsExist, match="shared tenants of another installation"):
                await provision(manager, "acme", PoolStrategy.SHARED)
    finally:
        await postgres_server.administer("DROP DATABASE elsewhere WITH (FORCE)")


async def test_a_shared_role_that_an_earlier_version_marked_belongs_to_who_needs_it_first(
    manager: TenantPoolManager, database: Database
) -> None:
    async with database.connected() as admin:
        await admin.execute(f"""
            CREATE ROLE {SHARED_ROLE};
            COMMENT ON ROLE {SHARED_ROLE} IS 'poolkeeper shared role, password 1'
        """)
        await provisioned(manager, "acme", PoolStrategy.SHARED)
        mark = await admin.fetchval(
            "SELECT shobj_description($1::regrole, 'pg_authid')", SHARED_ROLE
        )
    key = ROLE_PASSWORDS.key_fingerprint
    assert mark == f"poolkeeper shared role of database {database.database}, password 1, key {key}"


async def test_a_database_left_unmarked_by_a_crash_is_known_as_the_tenants(
    manager: TenantPoolManager, database: Database
) -> None:
    new, _ = await provision(manager, "acme", PoolStrategy.PER_DATABASE)
    async with database.connected() as admin:
        await admin.execute("COMMENT ON DATABASE tenant_acme IS NULL")
        await admin.execute("ALTER DATABASE tenant_acme ALLOW_CONNECTIONS false")
    await manager.isolations[PoolStrategy.PER_DATABASE].provision(
        manager.servers["local"], new, adopt=False
    )
    manager.put_tenant(new)
    async with manager.lease("acme") as connection:
        assert await connection.fetchval("SELECT 42") == 42


@pytest.mark.parametrize("strategy", OWN)
async def test_retiring_takes_the_login_away_and_keeps_the_data(
    manager: TenantPoolManager, strategy: PoolStrategy, database: Database
) -> None:
    new, _ = await provision(manager, "acme", strategy)
    manager.put_tenant(new)
    async with manager.lease("acme") as connection:
        await connection.execute("CREATE TABLE note AS SELECT 42 AS id")
    pool = pool_of(manager, "acme")
    await pool.drain(0)
    server, isolation = manager.servers["local"], manager.isolations[strategy]
    await isolation.disable_login(server, new)
    await isolation.disable_login(server, new)
    with pytest.raises(TenantLoginFailed, match="may not log in"):
        await server.connect(isolation.login(server, new.spec))
    where = "tenant_acme" if strategy is PoolStrategy.PER_DATABASE else database.database
    table = "public.note" if strategy is PoolStrategy.PER_DATABASE else "tenant_acme.note"
    async with replace(database, database=where).connected() as admin:
        assert await admin.fetchval(f"SELECT id FROM {table}") == 42


async def test_retiring_touches_no_role_of_somebody_else(
    manager: TenantPoolManager, database: Database
) -> None:
    async with database.connected() as admin:
        await admin.execute("CREATE ROLE tenant_acme LOGIN")
        for strategy in PoolStrategy:
            await manager.isolations[strategy].disable_login(
                manager.servers["local"], tenant("acme", strategy)
            )
        assert await admin.fetchval(
            "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'tenant_acme'"
        )


@pytest.mark.parametrize("self_grant", ["", "set", "inherit", "set, inherit"])
async def test_a_role_that_may_create_roles_and_databases_is_admin_enough(
    database: Database, scrub_roles: None, self_grant: str
) -> None:
    async with database.connected() as admin:
        await admin.execute("CREATE ROLE tenant_admin LOGIN CREATEROLE CREATEDB PASSWORD 'modest'")
        if self_grant:
            if admin.get_server_version() < (16,):
                pytest.skip("There is no createrole_self_grant before 16.")
            setting = f"SET createrole_self_grant = '{self_grant}'"
            await admin.execute(f"ALTER ROLE tenant_admin {setting}")
        await admin.execute(f"ALTER DATABASE {database.database} OWNER TO tenant_admin")
    modest = replace(database, user="tenant_admin", password="modest")
    async with manager_on(modest) as manager:
        for name, strategy in zip("abc", PoolStrategy, strict=True):
            for _ in range(2):
                new, _ = await provision(manager, name, strategy, uid=uuid4(), adopt=True)
            manager.put_tenant(new)
            async with manager.lease(name) as connection:
                assert await connection.fetchval("SELECT 42") == 42
            await manager.isolations[strategy].disable_login(manager.servers["local"], new)
    async with database.connected() as admin:
        await admin.execute(f"ALTER DATABASE {database.database} OWNER TO CURRENT_USER")


@pytest.mark.parametrize(
    ("strategy", "made"),
    [
        (PoolStrategy.PER_TENANT, "SCHEMA"),
        (PoolStrategy.PER_DATABASE, "DATABASE"),
        (PoolStrategy.PER_TENANT, "ROLE"),
        (PoolStrategy.PER_DATABASE, "ROLE"),
    ],
)
async def test_an_object_that_the_admin_may_not_change_is_named_before_anything_is_changed(
    database: Database, scrub_roles: None, strategy: PoolStrategy, made: str
) -> None:
    async with database.connected() as admin:
        if made == "ROLE" and admin.get_server_version() < (16,):
            pytest.skip("CREATEROLE suffices before 16")
        await admin.execute("CREATE ROLE tenant_admin LOGIN CREATEROLE CREATEDB PASSWORD 'modest'")
        await admin.execute(f"ALTER DATABASE {database.database} OWNER TO tenant_admin")
        await admin.execute(f"CREATE {made} tenant_acme")
        modest = replace(database, user="tenant_admin", password="modest")
        async with manager_on(modest) as manager:
            server, isolation = manager.servers["local"], manager.isolations[strategy]
            acme = tenant("acme", strategy)
            with pytest.raises(ProvisioningFailed, match=f"{made.lower()} tenant_acme ") as planned:
                await isolation.plan_provisioning(server, acme, adopt=True)
            with pytest.raises(ProvisioningFailed) as refused:
                await isolation.provision(server, acme, adopt=True)
            assert refused.value.detail == planned.value.detail
            roles = await admin.fetchval(
                "SELECT count(*) FROM pg_roles WHERE rolname ~ '^tenant_a'"
            )
            assert roles == 1 + (made == "ROLE")  # the admin and what was there
            _, _, remedy = refused.value.detail.partition("Run as a superuser: ")
            await admin.execute(remedy)
            adopted, _ = await provision(manager, "acme", strategy, adopt=True)
            manager.put_tenant(adopted)
            async with manager.lease("acme") as connection:
                assert await connection.fetchval("SELECT 42") == 42
        await admin.execute(f"ALTER DATABASE {database.database} OWNER TO CURRENT_USER")


@pytest.mark.parametrize(
    ("strategy", "made"),
    [
        (PoolStrategy.PER_TENANT, "SCHEMA tenant_acme AUTHORIZATION"),
        (PoolStrategy.PER_DATABASE, "DATABASE tenant_acme OWNER"),
    ],
)
async def test_what_a_role_owns_is_adopted_with_the_role(
    database: Database, scrub_roles: None, strategy: PoolStrategy, made: str
) -> None:
    """An admin gets the rights of a role that it may change with the provisioning itself."""
    async with database.connected() as admin:
        await admin.execute("CREATE ROLE tenant_admin LOGIN CREATEROLE CREATEDB PASSWORD 'modest'")
        await admin.execute(f"ALTER DATABASE {database.database} OWNER TO tenant_admin")
        await admin.execute("SET ROLE tenant_admin; CREATE ROLE tenant_acme; RESET ROLE")
        await admin.execute(f"CREATE {made} tenant_acme")
        modest = replace(database, user="tenant_admin", password="modest")
        async with manager_on(modest) as manager:
            adopted, _ = await provision(manager, "acme", strategy, adopt=True)
            manager.put_tenant(adopted)
            async with manager.lease("acme") as connection:
                assert await connection.fetchval("SELECT 42") == 42
        await admin.execute(f"ALTER DATABASE {database.database} OWNER TO CURRENT_USER")


async def test_an_admin_that_inherits_nothing_gets_the_command_that_helps(
    database: Database, scrub_roles: None
) -> None:
    async with database.connected() as admin:
        await admin.execute(
            "CREATE ROLE tenant_aloof LOGIN CREATEROLE CREATEDB NOINHERIT PASSWORD 'aloof'"
        )
        await admin.execute(f"ALTER DATABASE {database.database} OWNER TO tenant_aloof")
        async with manager_on(replace(database, user="tenant_aloof", password="aloof")) as manager:
            for name, strategy in zip("abc", PoolStrategy, strict=True):
                with pytest.raises(ProvisioningFailed, match="ALTER ROLE tenant_aloof INHERIT;"):
                    await provision(manager, name, strategy)
            await admin.execute("ALTER ROLE tenant_aloof INHERIT")
            for name, strategy in zip("abc", PoolStrategy, strict=True):
                await provision(manager, name, strategy)
        await admin.execute(f"ALTER DATABASE {database.database} OWNER TO CURRENT_USER")


async def test_what_postgres_refuses_is_reported(database: Database, scrub_roles: None) -> None:
    async with database.connected() as admin:
        await admin.execute("CREATE ROLE tenant_nobody LOGIN PASSWORD 'weak'")
        await admin.execute(f"GRANT CONNECT ON DATABASE {database.database} TO tenant_nobody")
    weak = replace(database, user="tenant_nobody", password="weak")
    async with started_server(weak) as server:
        isolations: list[IsolationStrategy] = [
            SharedIsolation(ROLE_PASSWORDS),
            PerTenantIsolation(ROLE_PASSWORDS),
            PerDatabaseIsolation(ROLE_PASSWORDS),
        ]
        for strategy, isolation in zip(PoolStrategy, isolations, strict=True):
            with pytest.raises(ProvisioningFailed, match=r"permission denied.*doctor"):
                await isolation.provision(server, tenant("acme", strategy), adopt=False)


async def test_a_server_that_is_away_is_reported(database: Database) -> None:
    async with started_server(replace(database, port=1)) as server:
        with pytest.raises(ServerUnavailable):
            await PerTenantIsolation(ROLE_PASSWORDS).provision(
                server, tenant("acme", PoolStrategy.PER_TENANT), adopt=False
            )


async def test_no_password_is_in_the_servers_log(private_postgres: EmbeddedPostgres) -> None:
    database = await superuser_of(private_postgres)
    async with database.connected() as admin:
        await admin.execute("ALTER SYSTEM SET log_statement = 'all'")
        await admin.execute("ALTER SYSTEM SET log_parameter_max_length = -1")
        await admin.execute("SELECT pg_reload_conf()")
    async with manager_on(database) as manager:
        for name, strategy in zip("abc", PoolStrategy, strict=True):
            await provisioned(manager, name, strategy)
            async with manager.lease(name) as connection:
                await connection.fetchval("SELECT 'the log shows this'")
    log = (private_postgres._directory.path / "postgres.log").read_text(encoding="utf-8")
    assert "the log shows this" in log
    assert "CREATE ROLE" in log
    for role in ("tenant_b", "tenant_c", SHARED_ROLE):
        password = ROLE_PASSWORDS.password("local", role)
        assert password not in log
        assert password not in repr(ROLE_PASSWORDS)
    assert database.password not in repr(login_to(database))


@pytest.mark.parametrize("kind", OWN)
async def test_tenants_work_on_a_server_that_cannot_check_whether_clients_have_gone(
    database: Database, scrub_roles: None, monkeypatch: pytest.MonkeyPatch, kind: PoolStrategy
) -> None:
    """On Windows, Postgres refuses every interval as it refuses a negative one everywhere."""
    asked, put = server_limits._ASK, objects._CHECK_CLIENTS
    monkeypatch.setattr(server_limits, "_ASK", asked.replace("= 1000", "= -1"))
    monkeypatch.setattr(objects, "_CHECK_CLIENTS", put.replace("= 50", "= -1"))
    refused = {"client_connection_check_interval": "-1"}
    monkeypatch.setattr("app.pools.isolation.strategy._CHECK_CLIENTS", refused)
    async with manager_on(database) as manager:
        limits = manager.servers["local"].limits
        assert limits is not None
        assert not limits.checks_clients
        await provisioned(manager, "acme", kind)
        async with manager.lease("acme") as connection:
            assert await connection.fetchval("SELECT session_user") == "tenant_acme"
