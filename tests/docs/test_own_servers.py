"""The documents' SQL for own servers is sufficient: nothing fails, and nothing is found."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from app.embedded import EmbeddedPostgres
from app.pools.servers.admin_connections import ADMIN_CONNECTIONS
from app.runtime.topology import CATALOG_CONNECTIONS
from tests.fixtures.app import ok, serving
from tests.fixtures.private_postgres import as_installed

DOCUMENT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
NEW, EXISTING = re.findall(r"^```sql\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)[:2]


@pytest.mark.parametrize(
    ("database", "strategies"),
    [
        ("tenants", ["per_tenant", "per_database", "shared"]),
        ("app", ["per_tenant", "per_database", "shared"]),
        ("tenants", ["per_database"]),
    ],
)
async def test_the_documented_role_provisions_every_strategy_and_nothing_is_found(
    private_postgres: EmbeddedPostgres, tmp_path: Path, database: str, strategies: list[str]
) -> None:
    admin = await as_installed(private_postgres)
    async with admin.connected() as connection:
        for statement in filter(None, map(str.strip, NEW.split(";"))):
            if database == "tenants" or "DATABASE tenants" not in statement:
                await connection.execute(statement)
        if database == "app":
            await connection.execute("CREATE DATABASE app")
    if database == "app":
        async with replace(admin, database=database).connected() as connection:
            await connection.execute(EXISTING)
    ours = replace(admin, user="poolkeeper", password="secret")
    tenants, catalog = replace(ours, database=database), replace(ours, database="poolkeeper")
    async with serving(tenants, catalog, tmp_path) as api:
        for strategy in strategies:
            url = await api.tenant(strategy.replace("_", "-"), strategy)
            assert await api.value(url, "select 42") == 42
            isolation = ok(await api.client.get(url))["isolation"]
            assert isolation["checks"]
            assert [each for each in isolation["checks"] if not each["ok"]] == []
    async with replace(admin, database="poolkeeper").connected() as connection:
        assert not await connection.fetchval(
            "SELECT has_database_privilege('public', current_database(), 'CONNECT')"
        )


def test_the_parts_of_a_budget_are_as_documented() -> None:
    parts = (
        f"minus {ADMIN_CONNECTIONS} for administration, and minus {CATALOG_CONNECTIONS} for the "
        "catalog on its server."
    )
    assert parts in " ".join(DOCUMENT.split())
