"""The SQL of docs/pgbouncer.md turns a database with an owner and a login into a tenant."""

import re
from dataclasses import replace
from pathlib import Path

from app.embedded import EmbeddedPostgres
from tests.docs.test_own_servers import NEW
from tests.fixtures.app import Api, ok, serving
from tests.fixtures.postgres import Database
from tests.fixtures.private_postgres import as_installed

DOCUMENT = (Path(__file__).parents[2] / "docs" / "pgbouncer.md").read_text()
_SQL = re.compile(r"^```sql\n(.*?)^```", re.MULTILINE | re.DOTALL)
HAND_OVER, INSIDE, END, SESSION = _SQL.findall(DOCUMENT)


async def test_an_existing_database_becomes_a_tenant_and_its_old_login_goes_on(
    private_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    admin = await as_installed(private_postgres)
    home = replace(admin, database="tenant_acme")
    web = replace(home, user="acme_web", password="old")
    ours = replace(admin, user="poolkeeper", password="secret")
    await run(admin, NEW)
    await run(
        admin,
        "CREATE ROLE acme_owner; CREATE ROLE acme_web LOGIN PASSWORD 'old';"
        "CREATE DATABASE acme OWNER acme_owner; ALTER DATABASE acme SET search_path = app, public",
    )
    await run(
        replace(admin, database="acme"),
        "SET ROLE acme_owner; CREATE SCHEMA app; CREATE TABLE app.notes AS SELECT 42 AS n;"
        "GRANT USAGE ON SCHEMA app TO acme_web; GRANT SELECT ON app.notes TO acme_web",
    )
    await run(admin, HAND_OVER)
    catalog = replace(ours, database="poolkeeper")
    async with serving(replace(ours, database="tenants"), catalog, tmp_path) as api:
        url = "/v1/tenants/acme"
        ok(await api.client.put(url, json={"strategy": "per_database"}), 201)
        ok(await api.client.post(f"{url}/provision", params={"adopt": True}))
        await run(home, INSIDE)
        async with web.connected() as connection:
            assert await connection.fetchval("SELECT n FROM notes") == 42
            await connection.execute(
                "INSERT INTO notes VALUES (43); CREATE TABLE app.later (n int)"
            )
        ok(await api.query(url, "insert into app.later select n from app.notes", read_only=False))
        assert await api.value(url, "select count(*) from app.later") == 2
        ok(await api.client.post(f"{url}/provision"))
        assert await findings(api, url) == ["closed_to_others"]
        await run(home, SESSION)
        async with replace(web, user="acme_session", password="secret").connected() as connection:
            await connection.execute("LISTEN events; ALTER TABLE later ADD more int")
        await run(admin, END)
        await run(admin, "DROP OWNED BY acme_session; DROP ROLE acme_session")
        ok(await api.client.post(f"{url}/provision"))
        assert await findings(api, url) == []


async def run(database: Database, script: str) -> None:
    """Run a script as psql does, one statement after the other."""
    async with database.connected() as connection:
        for statement in filter(None, map(str.strip, script.split(";"))):
            await connection.execute(statement)


async def findings(api: Api, url: str) -> list[str]:
    checks = ok(await api.client.get(url))["isolation"]["checks"]
    return [check["name"] for check in checks if not check["ok"]]
