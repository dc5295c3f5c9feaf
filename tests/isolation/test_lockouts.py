"""Provisioning and rotating repair whatever locks a tenant out, or say why they cannot."""

from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from app.domain.errors import NotProvisioned, ProvisioningFailed, ServerFull
from app.domain.tenant import PoolStrategy
from tests.fixtures.control import PERSON, Control, spec_of
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

PER_TENANT, PER_DATABASE = PoolStrategy.PER_TENANT, PoolStrategy.PER_DATABASE

# By the tenant itself.
OWN = {
    PER_TENANT: (
        "ALTER ROLE CURRENT_USER PASSWORD 'mine'",
        "ALTER ROLE CURRENT_USER SET search_path = nowhere",
        "REVOKE ALL ON SCHEMA tenant_acme FROM tenant_acme",
    ),
    PER_DATABASE: (
        "REVOKE CONNECT ON DATABASE tenant_acme FROM tenant_acme",
        "REVOKE ALL ON DATABASE tenant_acme FROM tenant_acme, PUBLIC",
        "ALTER DATABASE tenant_acme CONNECTION LIMIT 0",
        "ALTER DATABASE tenant_acme SET role = 'pg_monitor'",
        "ALTER DATABASE tenant_acme SET statement_timeout = 1",
        "ALTER ROLE CURRENT_USER PASSWORD NULL",
    ),
}
# By a superuser.
OF_OTHERS = {
    PER_TENANT: (
        "ALTER ROLE tenant_acme NOLOGIN",
        "ALTER ROLE tenant_acme VALID UNTIL '2001-01-01'",
        "REVOKE CONNECT ON DATABASE {home} FROM tenant_acme",
    ),
    PER_DATABASE: (
        "ALTER DATABASE tenant_acme ALLOW_CONNECTIONS false",
        "REVOKE CONNECT ON DATABASE tenant_acme FROM tenant_acme",
    ),
}
REPAIRS = ("provision", "adopt", "rotate")
CASES = [
    pytest.param(strategy, statement, own, id=f"{strategy} {statement}")
    for table, own in ((OWN, True), (OF_OTHERS, False))
    for strategy, statements in table.items()
    for statement in statements
]


async def repaired(control: Control, how: str) -> None:
    if how == "rotate":
        await control.rotation.rotate(control.state("acme"), PERSON)
    else:
        await control.provisioning.provision(control.state("acme"), PERSON, adopt=how == "adopt")


@pytest.mark.parametrize(("strategy", "lock_out", "own"), CASES)
async def test_what_says_that_it_repairs_a_lock_out_does(
    control: Control, database: Database, strategy: PoolStrategy, lock_out: str, *, own: bool
) -> None:
    await control.tenant("acme", strategy)
    for how in REPAIRS:
        if how == "rotate" and "SCHEMA" in lock_out:
            continue  # not a matter of the login
        if own:
            async with control.manager.lease("acme") as connection:
                await connection.execute(lock_out)
        else:
            async with database.connected() as admin:
                await admin.execute(lock_out.format(home=database.database))
        await repaired(control, how)
        pool = control.manager.find("acme")
        if pool is not None:
            pool.recycle()
        async with control.manager.lease("acme") as connection:
            assert await connection.fetchval("SELECT 42") == 42


@pytest.mark.parametrize("how", REPAIRS)
async def test_what_a_tenant_sets_for_its_database_and_locks_nobody_out_stays(
    control: Control, database: Database, how: str
) -> None:
    await control.tenant("acme", PER_DATABASE)
    async with control.manager.lease("acme") as connection:
        await connection.execute("ALTER DATABASE tenant_acme SET search_path = app, public")
        await connection.execute("ALTER DATABASE tenant_acme SET work_mem = '32MB'")
        await connection.execute("ALTER DATABASE tenant_acme SET row_security = off")
        await connection.execute("ALTER DATABASE tenant_acme SET statement_timeout = '1.5 min'")
        await connection.execute("ALTER DATABASE tenant_acme SET lock_timeout = 1")
        if connection.get_server_version().major >= 17:
            await connection.execute("ALTER DATABASE tenant_acme SET transaction_timeout = 0")
        await connection.execute(
            "ALTER DATABASE tenant_acme SET idle_in_transaction_session_timeout = 1"
        )
    await repaired(control, how)
    async with database.connected() as admin:
        settings = await admin.fetchval(
            "SELECT setconfig FROM pg_db_role_setting JOIN pg_database ON oid = setdatabase "
            "WHERE datname = 'tenant_acme' AND setrole = 0"
        )
    assert [each for each in settings if not each.startswith("transaction_")] == [
        "search_path=app, public",
        "work_mem=32MB",
        "statement_timeout=1.5 min",
        "lock_timeout=1",
    ]


@pytest.mark.parametrize("strategy", PoolStrategy)
async def test_a_login_that_stays_refused_is_reported_with_its_reason(
    control: Control, database: Database, strategy: PoolStrategy
) -> None:
    await control.declare(spec_of("acme", strategy))
    isolation, server = control.manager.isolations[strategy], control.manager.servers["local"]
    spec = control.manager.tenants.state("acme").tenant.spec
    if strategy is PER_DATABASE:
        await isolation.provision(server, control.manager.tenants.state("acme").tenant, adopt=False)
    home = replace(database, database=isolation.database(server, spec))
    async with home.connected() as admin:
        await admin.execute(
            f"""
            CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF session_user = '{isolation.role(spec)}' THEN RAISE 'not today'; END IF;
            END $$;
            CREATE EVENT TRIGGER refuse ON login EXECUTE FUNCTION public.refuse();
            ALTER EVENT TRIGGER refuse ENABLE ALWAYS;
            """
        )
        with pytest.raises(ProvisioningFailed, match=r"cannot log in.*P0001"):
            await control.provisioning.provision(control.state("acme"), PERSON)
        with pytest.raises(NotProvisioned):
            control.manager.lease("acme")
        await admin.execute("ALTER EVENT TRIGGER refuse DISABLE")
        await control.provisioning.provision(control.state("acme"), PERSON)
        await admin.execute("ALTER EVENT TRIGGER refuse ENABLE ALWAYS")
        with pytest.raises(ProvisioningFailed, match="cannot log in"):
            await control.rotation.rotate(control.state("acme"), PERSON, whole_pool=True)
        await admin.execute("DROP EVENT TRIGGER refuse")
    await control.rotation.rotate(control.state("acme"), PERSON, whole_pool=True)
    async with control.manager.lease("acme") as connection:
        assert await connection.fetchval("SELECT 42") == 42


async def test_a_role_at_its_connection_limit_is_reported(
    control: Control, database: Database
) -> None:
    manager, spec = control.manager, (await control.tenant("acme")).spec
    server, isolation = manager.servers["local"], manager.isolations[spec.strategy]
    async with AsyncExitStack() as stack:
        for _ in range(isolation.connection_limit(manager.desired.most_connections(spec))):
            connection = await server.connect(isolation.login(server, spec))
            stack.push_async_callback(connection.close)
        with pytest.raises(ServerFull, match="could not be tried"):
            await control.rotation.rotate(control.state("acme"), PERSON)
    async with database.connected() as admin:
        count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenant_acme'"

        async def have_ended() -> bool:
            return not await admin.fetchval(count)

        await eventually(have_ended)
    await control.provisioning.provision(control.state("acme"), PERSON)
    await control.rotation.rotate(control.state("acme"), PERSON)
