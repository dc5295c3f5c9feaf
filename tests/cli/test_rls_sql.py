"""The SQL of `poolkeeper rls-sql` works on Postgres and cannot be injected."""

import asyncpg
import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.rls_sql import POLICY, InvalidIdentifier, policies
from app.domain.tenant import PoolStrategy
from app.pools.manager import TenantPoolManager
from tests.fixtures.pools import provisioned
from tests.fixtures.postgres import Database


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["rls-sql", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_tenants_see_their_own_rows_only_and_the_sql_is_repeatable(
    manager: TenantPoolManager, database: Database
) -> None:
    for name in ("a", "b"):
        await provisioned(manager, name, PoolStrategy.SHARED)
    async with database.connected() as admin:
        await admin.execute('CREATE SCHEMA shop; CREATE TABLE shop."Line ""Items" ("Owner" text)')
        await admin.execute("CREATE TABLE orders (tenant_id varchar(48), n int)")
        await admin.execute("CREATE POLICY everything ON orders USING (true)")
        for _ in range(2):
            await admin.execute(printed("orders"))
            await admin.execute(printed('shop."Line ""Items"', "--column", '"Owner"'))
    for name in ("a", "b"):
        async with manager.lease(name) as connection:
            await connection.execute("INSERT INTO orders VALUES ($1, 1)", name)
            await connection.execute('INSERT INTO shop."Line ""Items" VALUES ($1)', name)
    async with manager.lease("a") as connection:
        assert [id_ for [id_] in await connection.fetch("SELECT tenant_id FROM orders")] == ["a"]
        assert await connection.execute('DELETE FROM shop."Line ""Items"') == "DELETE 1"
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with manager.lease("a") as connection:
            await connection.execute("INSERT INTO orders VALUES ('b', 1)")


async def test_without_a_tenant_there_are_no_rows_not_even_for_the_owner(
    database: Database, scrub_roles: None
) -> None:
    async with database.connected() as admin:
        await admin.execute("CREATE ROLE tenant_owner")
        await admin.execute("GRANT ALL ON SCHEMA public TO tenant_owner")
        await admin.execute("SET ROLE tenant_owner")
        await admin.execute("CREATE TABLE orders AS SELECT ''::text AS tenant_id")
        await admin.execute("RESET ROLE; CREATE ROLE tenant_user")
        await admin.execute(policies(["orders"], column="tenant_id", role="tenant_user"))
        for role in ("tenant_owner", "tenant_user"):
            await admin.execute(f"GRANT USAGE ON SCHEMA public TO {role}; SET ROLE {role}")
            assert await admin.fetchval("SELECT count(*) FROM orders") == 0
            async with admin.transaction():
                await admin.execute("SET LOCAL app.tenant_id = 'a'")
            assert await admin.fetchval("SHOW app.tenant_id") == ""
            assert await admin.fetchval("SELECT count(*) FROM orders") == 0
            await admin.execute("RESET ROLE")


@pytest.mark.parametrize(
    "table", ["", "a.b.c", "a b", "a;drop table b", 'a"', '"a', '"', "1a", "a.", "é\0", "x" * 64]
)
def test_an_invalid_table_name_is_refused(table: str) -> None:
    with pytest.raises(InvalidIdentifier):
        policies([table], column="tenant_id", role="r")
    result = CliRunner().invoke(cli, ["rls-sql", "--", table])
    assert result.exit_code == 2
    assert "CREATE POLICY" not in result.output


def test_identifiers_follow_the_rules_of_postgres() -> None:
    sql = policies(["Orders", '"Orders"', '"; drop table x; --"'], column="T", role='"R"')
    assert f'CREATE POLICY {POLICY} ON "orders" USING ("t"::text' in sql
    assert f'CREATE POLICY {POLICY} ON "Orders" USING' in sql
    assert 'ALTER TABLE "; drop table x; --" FORCE' in sql
    assert 'TO "R";' in sql
