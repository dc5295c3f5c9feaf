"""Schemas for extensions: every per_tenant tenant can use them, and creates nothing there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.control.monitoring.isolation_audit import IsolationAudit
from app.control.pools.role_limits import RoleLimits
from app.domain.isolation_checks import AuditCheck, Severity
from app.settings import Settings
from tests.fixtures.app import Api, ok, problem, serving
from tests.fixtures.postgres import Database
from tests.fixtures.waiting import eventually

_SCHEMAS = ["extensions", "more"]


@pytest.fixture
async def prepared(database: Database, scrub_roles: None) -> Database:
    """The tenants' database, with an extension in a schema of its own."""
    async with database.connected() as admin:
        await admin.execute("CREATE SCHEMA extensions; CREATE EXTENSION citext SCHEMA extensions")
        await admin.execute("CREATE SCHEMA more")
    return database


@asynccontextmanager
async def service(
    tenants: Database, catalog: Database, data_dir: Path, schemas: list[str] | None = None
) -> AsyncIterator[Api]:
    schemas = _SCHEMAS if schemas is None else schemas
    async with serving(tenants, catalog, data_dir, extension_schemas=schemas) as api:
        yield api


@pytest.fixture
async def api(prepared: Database, catalog_database: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with service(prepared, catalog_database, tmp_path) as api:
        yield api


async def found(api: Api, tenant: str) -> dict[AuditCheck, Severity]:
    """The findings of an audit of the tenant now."""
    manager = api.service.manager
    state = manager.tenants.state(tenant)
    check = IsolationAudit(
        manager,
        RoleLimits(api.service.manager),
        api.service.audit_outbox,
        extension_schemas=_SCHEMAS,
    )
    await check.audit(manager.servers["local"], [state])
    assert state.isolation is not None
    return {finding.check: finding.severity for finding in state.isolation.findings}


async def compares_as_citext(api: Api, url: str) -> bool:
    """Whether a column of the type is compared with the type's own operator."""
    sql = "create table if not exists names as select 'Ann'::extensions.citext as name"
    ok(await api.query(url, sql, read_only=False))
    return await api.value(url, "select count(*) from names where name = 'aNN'") == 1


async def test_an_extensions_operators_are_found(api: Api) -> None:
    url = await api.tenant("acme")
    assert await compares_as_citext(api, url)
    path = await api.value(url, "show search_path")
    assert isinstance(path, str)
    assert path.startswith('"tenant_acme", "extensions", "more"')
    assert await api.value(url, "select current_schema()") == "tenant_acme"
    refused = problem(
        await api.query(url, "create table extensions.t ()", read_only=False),
        422,
        "statement-failed",
    )
    assert refused["sqlstate"] == "42501"
    assert await found(api, "acme") == {}


async def test_a_tenant_from_before_the_setting_gets_usage(
    prepared: Database, catalog_database: Database, tmp_path: Path
) -> None:
    async with service(prepared, catalog_database, tmp_path, []) as api:
        url = await api.tenant("acme")
        # What is silently wrong without it.
        refused = await api.query(url, "select 'a'::extensions.citext")
        assert problem(refused, 422, "statement-failed")["sqlstate"] == "42501"
    async with service(prepared, catalog_database, tmp_path) as api:

        async def is_repaired() -> bool:
            """Whether an audit, this one or the service's own, has granted it."""
            return not await found(api, "acme")

        await eventually(is_repaired)
        assert await compares_as_citext(api, url)


async def test_a_grant_that_was_taken_back_is_repaired(api: Api, prepared: Database) -> None:
    url = await api.tenant("acme")
    async with prepared.connected() as admin:
        await admin.execute("REVOKE ALL ON SCHEMA extensions FROM tenant_acme")
    assert await found(api, "acme") == {AuditCheck.EXTENSION_SCHEMAS: Severity.WARNING}
    assert await found(api, "acme") == {}
    assert await compares_as_citext(api, url)


async def test_a_schema_that_does_not_exist_is_named(api: Api, prepared: Database) -> None:
    await api.tenant("acme")
    async with prepared.connected() as admin:
        await admin.execute("DROP SCHEMA more")
    assert await found(api, "acme") == {AuditCheck.EXTENSION_SCHEMAS: Severity.WARNING}
    ok(await api.client.put("/v1/tenants/later", json={"strategy": "per_tenant"}), 201)
    response = await api.client.post("/v1/tenants/later/provision")
    refused = problem(response, 409, "provisioning-failed")
    assert "The schema more in `extension_schemas` does not exist" in refused["detail"]


@pytest.mark.parametrize(
    "opened", ["GRANT CREATE ON SCHEMA more TO PUBLIC", "ALTER SCHEMA more OWNER TO tenant_acme"]
)
async def test_a_schema_that_tenants_may_create_in_is_refused(
    api: Api, prepared: Database, opened: str
) -> None:
    await api.tenant("acme")
    async with prepared.connected() as admin:
        await admin.execute(opened)
        assert await found(api, "acme") == {AuditCheck.EXTENSION_SCHEMAS: Severity.CRITICAL}
        response = await api.client.post("/v1/tenants/acme/provision")
        assert "may create objects" in problem(response, 409, "provisioning-failed")["detail"]
        await admin.execute("ALTER SCHEMA more OWNER TO postgres")
        await admin.execute("REVOKE CREATE ON SCHEMA more FROM PUBLIC, tenant_acme")
    ok(await api.client.post("/v1/tenants/acme/provision"))
    assert await found(api, "acme") == {}


async def test_other_strategies_are_not_concerned(api: Api, prepared: Database) -> None:
    await api.tenant("own", "per_database")
    await api.tenant("one", "shared")
    async with prepared.connected() as admin:
        await admin.execute("DROP SCHEMA more")
    assert AuditCheck.EXTENSION_SCHEMAS not in await found(api, "own")
    assert AuditCheck.EXTENSION_SCHEMAS not in await found(api, "one")


@pytest.mark.parametrize("name", ["pg_catalog", "information_schema", "tenant_a", "A", 'a"b', ""])
def test_a_schema_that_cannot_be_for_extensions_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Settings(extension_schemas=[name])
