"""Credentials of applications are stored with their events, and their uses without one."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import DBAPIError

from app.catalog.catalog import Catalog
from app.catalog.database import CatalogAddress
from app.domain.application_credential import ApplicationCredential
from app.domain.errors import LeadershipLost
from app.domain.tenant import TenantId
from tests.catalog.values import ACME, NOON, actions, event, refused_event, spec


async def save(
    catalog: Catalog, name: str = "web", verifier: str = "v", tenant: TenantId = ACME
) -> ApplicationCredential:
    created = event("credential.created")
    return await catalog.application_credentials.save(
        tenant, name, verifier, expires_at=None, event=created
    )


async def test_a_credential_is_loaded_as_it_was_saved(catalog: Catalog) -> None:
    created, expiry = event("credential.created"), NOON + timedelta(days=90)
    web = await catalog.application_credentials.save(
        ACME, "web", "v", expires_at=expiry, event=created
    )
    assert (web.user, web.verifier, web.expires_at) == ("acme.web", "v", expiry)
    assert web.created_at.utcoffset() is not None
    assert web.last_used_at is None
    assert await catalog.application_credentials.load() == (web,)
    assert await actions(catalog) == ["credential.created"]


async def test_one_that_nobody_was_told_of_is_replaced(catalog: Catalog) -> None:
    """A commit that was not confirmed may have happened: the same request works again."""
    first = await save(catalog)
    await catalog.application_credentials.save_uses([replace(first, last_used_at=NOON)])
    second = await save(catalog, verifier="w")
    assert (second.verifier, second.last_used_at) == ("w", None)
    assert second.created_at > first.created_at
    assert await catalog.application_credentials.load() == (second,)


async def test_uses_are_stored_of_those_that_are_still_the_same(catalog: Catalog) -> None:
    web, jobs, old = [await save(catalog, name) for name in ("web", "jobs", "old")]
    new = await save(catalog, "old")
    used = [replace(each, last_used_at=NOON) for each in (web, jobs, old)]
    await catalog.application_credentials.save_uses(used)
    assert await catalog.application_credentials.load() == (used[1], new, used[0])
    assert await actions(catalog) == ["credential.created"] * 4


async def test_a_deletion_is_recorded_once(catalog: Catalog) -> None:
    web, jobs = await save(catalog, "web"), await save(catalog, "jobs")
    for action in ("credential.revoked", "no"):
        await catalog.application_credentials.delete(web, event=event(action))
    assert await catalog.application_credentials.load() == (jobs,)
    assert (await actions(catalog))[0] == "credential.revoked"


async def test_a_deleted_tenant_takes_its_credentials_along(catalog: Catalog) -> None:
    for name in ("acme", "acme2"):
        await catalog.tenants.save(spec(name), event=event())
    await save(catalog)
    other = await save(catalog, tenant=TenantId("acme2"))
    await catalog.tenants.delete(ACME, event=event("tenant.deleted"))
    assert await catalog.application_credentials.load() == (other,)


async def test_no_change_without_its_event(catalog: Catalog) -> None:
    web = await save(catalog)
    with pytest.raises(DBAPIError):
        await catalog.application_credentials.save(
            ACME, "jobs", "v", expires_at=None, event=refused_event()
        )
    with pytest.raises(DBAPIError):
        await catalog.application_credentials.delete(web, event=refused_event())
    assert await catalog.application_credentials.load() == (web,)


async def test_an_instance_that_is_no_longer_active_writes_none(
    catalog: Catalog, catalog_address: CatalogAddress
) -> None:
    web = await save(catalog)
    late = Catalog(catalog_address, epoch=77, deadline=10.0)
    try:
        with pytest.raises(LeadershipLost):
            await save(late, "jobs")
        with pytest.raises(LeadershipLost):
            await late.application_credentials.save_uses([replace(web, last_used_at=NOON)])
        with pytest.raises(LeadershipLost):
            await late.application_credentials.delete(web, event=event("no"))
    finally:
        await late.close()
    assert await catalog.application_credentials.load() == (web,)
