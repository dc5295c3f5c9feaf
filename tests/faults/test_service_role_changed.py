"""The service's role loses its login, or its rights on a tenant's role, while the service runs."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.app import Api, ok, problem, serving
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

ROLE = "poolkeeper_service"
PASSWORD = "service-password"


@dataclass(frozen=True, slots=True)
class Site:
    """An application whose role is no superuser, and a superuser."""

    api: Api
    superuser: Database

    async def run(self, sql: str) -> None:
        async with self.superuser.connected() as connection:
            await connection.execute(sql)

    async def finding(self, check: str) -> dict[str, Any] | None:
        items = ok(await self.api.client.get("/v1/findings"))["items"]
        return next((each for each in items if each["check"] == check), None)

    async def audit(self) -> None:
        service = self.api.service
        server = service.manager.servers["local"]
        await service.isolation_audit.audit(server, list(service.manager.tenants.values()))


@pytest.fixture
async def site(
    scrub_roles: None, database: Database, catalog_database: Database, tmp_path: Path
) -> AsyncIterator[Site]:
    async with database.connected() as admin:
        await admin.execute(
            f"CREATE ROLE {ROLE} LOGIN CREATEROLE CREATEDB PASSWORD '{PASSWORD}';"
            f"ALTER DATABASE {database.database} OWNER TO {ROLE}"
        )
    modest = replace(database, user=ROLE, password=PASSWORD)
    async with serving(modest, catalog_database, tmp_path) as api:
        yield Site(api, database)
    async with database.connected() as admin:
        await admin.execute(f"ALTER DATABASE {database.database} OWNER TO CURRENT_USER")


async def test_a_role_whose_rights_it_lacks_is_a_finding_until_it_has_them(site: Site) -> None:
    acme = await site.api.tenant("acme")
    await site.audit()
    assert await site.finding("role") is None
    await site.run(f"REVOKE tenant_acme FROM {ROLE} CASCADE")
    await site.audit()
    await eventually(lambda: site.finding("role"))  # it is rendered once a second
    found = await site.finding("role")
    assert found is not None
    assert (found["severity"], found["tenants"]) == ("warning", ["acme"])
    assert "lacks the rights of role tenant_acme" in found["detail"]
    assert "end its sessions only as a member of pg_signal_backend" in found["detail"]
    # Callers go on.
    assert await site.api.value(acme, "select 1") == 1
    refused = await site.api.client.post(f"{acme}/provision")
    if refused.status_code != 200:  # before Postgres 16, it may take the rights by itself
        detail = problem(refused, 409, "provisioning-failed")["detail"]
        await site.run(detail.partition("Run as a superuser: ")[2])
        ok(await site.api.client.post(f"{acme}/provision"))
    await site.audit()

    async def is_gone() -> bool:
        return await site.finding("role") is None

    await eventually(is_gone)


@pytest.mark.parametrize(
    ("breaks", "mends", "cause"),
    [
        (f"PASSWORD '{PASSWORD}-2'", f"PASSWORD '{PASSWORD}'", "the password is wrong"),
        ("NOLOGIN", "LOGIN", "the role may not log in"),
    ],
    ids=["password", "login"],
)
async def test_a_login_that_is_refused_is_named_and_used_again_when_it_is_back(
    site: Site, breaks: str, mends: str, cause: str
) -> None:
    acme = await site.api.tenant("acme")
    await site.run(f"ALTER ROLE {ROLE} {breaks}")
    await site.run(
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{ROLE}'"
    )

    async def is_named() -> bool:
        refused = problem(
            await site.api.client.post(f"{acme}/rotate-credentials"), 503, "server-unavailable"
        )
        found = await site.finding("server")
        return found is not None and cause in found["detail"] and cause in refused["detail"]

    await eventually(is_named)
    await site.run(f"ALTER ROLE {ROLE} {mends}")

    async def is_well() -> bool:
        rotated = await site.api.client.post(f"{acme}/rotate-credentials")
        return rotated.status_code == 200 and await site.finding("server") is None

    await eventually(is_well)
    assert await site.api.value(acme, "select 1") == 1
