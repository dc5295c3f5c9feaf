"""Credentials of applications: created, found, used and revoked, also without the catalog."""

import asyncio
import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from app.control.tenants import application_credentials
from app.control.tenants.application_credentials import ApplicationCredentials
from app.domain.application_credential import MAX_CREDENTIALS
from app.domain.errors import (
    CatalogUnavailable,
    CredentialExists,
    CredentialNotFound,
    StrategyNotOnNodes,
    TenantDeleting,
    TenantNotFound,
    TooManyCredentials,
)
from app.domain.plan import PlanAction
from app.domain.tenant import PoolStrategy, TenantId
from tests.fixtures.control import PERSON, Control, spec_of

ACME = TenantId("acme")


@pytest.fixture
async def acme(control: Control) -> Control:
    """A declared tenant with a role of its own."""
    await control.declare(spec_of("acme"))
    return control


def is_password(password: str, verifier: str) -> bool:
    """Whether a SCRAM verifier (RFC 5803) is of this password."""
    mechanism, stretching, keys = verifier.split("$")
    iterations, salt = stretching.split(":")
    assert (mechanism, iterations) == ("SCRAM-SHA-256", "4096")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), 4096)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return base64.b64decode(keys.split(":")[0]) == hashlib.sha256(client_key).digest()


async def create(control: Control, name: str = "web", days: float | None = None) -> str:
    """Create a credential of acme; returns its password."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    state = control.state("acme")
    issued = await control.credentials.create(state, name, PERSON, expires_at=expires_at)
    return issued.password


async def test_an_application_is_found_by_its_user_name(acme: Control) -> None:
    password = await create(acme)
    found = acme.credentials.find("acme.web")
    assert found is not None
    assert (found.tenant, found.name) == ("acme", "web")
    assert is_password(password, found.verifier)
    assert not is_password(password[:-1], found.verifier)
    assert len(base64.urlsafe_b64decode(f"{password}=")) == 32
    for user in ("acme", "acme.", "acme.we", "acme.web.", ".web", "", "acme.WEB", "other.web"):
        assert acme.credentials.find(user) is None, user
    [event] = await acme.catalog.audit_log.page(action="credential.created")
    assert (event.tenant, event.actor) == ("acme", PERSON)
    assert event.after == {"user": "acme.web", "expires_at": None}


async def test_what_is_stored_is_known_again_after_a_restart(acme: Control) -> None:
    await create(acme, "web", days=1)
    await create(acme, "jobs")
    again = ApplicationCredentials(acme.catalog, acme.manager, acme.locks)
    await again.load()
    assert again.of(ACME) == acme.credentials.of(ACME)
    assert [each.name for each in again.of(ACME)] == ["jobs", "web"]
    assert again.find("acme.web") is not None


async def test_an_expired_one_is_refused_but_listed(acme: Control) -> None:
    await create(acme, days=-1)
    assert acme.credentials.find("acme.web") is None
    assert [each.user for each in acme.credentials.of(ACME)] == ["acme.web"]


async def test_a_revoked_password_stays_refused_under_the_same_name(acme: Control) -> None:
    old = await create(acme)
    revoked = await acme.credentials.revoke(acme.credentials.get(ACME, "web"), PERSON)
    assert acme.credentials.find("acme.web") is None
    with pytest.raises(CredentialNotFound):
        await acme.credentials.revoke(revoked, PERSON)
    new = await create(acme)
    found = acme.credentials.find("acme.web")
    assert found is not None
    assert is_password(new, found.verifier)
    assert not is_password(old, found.verifier)
    # A request that meant the first one.
    with pytest.raises(CredentialNotFound):
        await acme.credentials.revoke(revoked, PERSON)
    assert acme.credentials.find("acme.web") == found
    expected = ["tenant.created", *(f"credential.{each}" for each in ("created", "revoked"))]
    assert await acme.actions() == [*expected, "credential.created"]


async def test_of_fifty_who_create_the_same_one_does(acme: Control) -> None:
    outcomes = await asyncio.gather(*(create(acme) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(each, CredentialExists) for each in outcomes) == 49
    assert (await acme.actions()).count("credential.created") == 1


async def test_a_tenant_has_a_limited_number(acme: Control) -> None:
    for number in range(MAX_CREDENTIALS):
        await create(acme, f"n{number}")
    with pytest.raises(TooManyCredentials):
        await create(acme)
    await acme.credentials.revoke(acme.credentials.get(ACME, "n0"), PERSON)
    await create(acme)


async def test_a_shared_tenant_gets_none_and_the_reason(control: Control) -> None:
    await control.declare(spec_of("acme", PoolStrategy.SHARED))
    with pytest.raises(StrategyNotOnNodes, match="other tenants' rows"):
        await create(control)
    assert await control.catalog.application_credentials.load() == ()


async def test_a_deleted_tenant_leaves_none_to_a_later_one_of_its_name(acme: Control) -> None:
    await create(acme)
    acme.credentials.used(acme.credentials.get(ACME, "web"))
    deletion = acme.deletions.delete(acme.state("acme"), PERSON, deadline=0)
    steps = [(step.action, step.target) for step in (await deletion.plan()).steps]
    assert steps[-2:] == [
        (PlanAction.FORGET, "credential acme.web"),
        (PlanAction.FORGET, "tenant acme"),
    ]
    await deletion
    [event] = await acme.catalog.audit_log.page(action="tenant.deleted")
    assert event.after == {"revoked": ["acme.web"]}
    await acme.declare(spec_of("acme"))
    assert acme.credentials.find("acme.web") is None
    assert acme.credentials.of(ACME) == []
    assert await acme.credentials.save_uses() == 0
    assert await acme.catalog.application_credentials.load() == ()


async def test_a_tenant_that_is_being_deleted_admits_no_one(acme: Control) -> None:
    await create(acme)
    state, [event] = acme.state("acme"), await acme.catalog.audit_log.page(limit=1)
    acme.manager.put_tenant(await acme.catalog.tenants.mark_deleting(ACME, event=event))
    assert acme.credentials.find("acme.web") is None
    with pytest.raises(TenantDeleting):
        await acme.credentials.create(state, "jobs", PERSON)
    await acme.deletions.finish("acme", PERSON)
    with pytest.raises(TenantNotFound):
        await acme.credentials.create(state, "jobs", PERSON)


async def test_known_ones_work_while_the_catalog_is_away(acme: Control) -> None:
    await create(acme)
    found = acme.credentials.find("acme.web")
    assert found is not None
    await acme.proxy.cut()
    with pytest.raises(CatalogUnavailable):
        await create(acme, "jobs")
    with pytest.raises(CatalogUnavailable):
        await acme.credentials.revoke(found, PERSON)
    assert acme.credentials.find("acme.jobs") is None
    assert acme.credentials.find("acme.web") == found
    acme.credentials.used(found)
    await acme.reconciler.run_once()
    await acme.proxy.pass_through()
    await acme.reconciler.run_once()
    [stored] = await acme.catalog.application_credentials.load()
    assert stored.last_used_at is not None
    assert stored == acme.credentials.find("acme.web")


async def test_a_use_is_noted_once_a_minute(acme: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    await create(acme)
    web = acme.credentials.get(ACME, "web")
    before = datetime.now(UTC)
    acme.credentials.used(web)
    first = acme.credentials.get(ACME, "web").last_used_at
    assert first is not None
    assert before <= first <= datetime.now(UTC)
    assert await acme.credentials.save_uses() == 1
    acme.credentials.used(web)
    assert await acme.credentials.save_uses() == 0
    monkeypatch.setattr(application_credentials, "_USE_PRECISION", timedelta(0))
    acme.credentials.used(web)
    assert await acme.credentials.save_uses() == 1
    [stored] = await acme.catalog.application_credentials.load()
    assert stored.last_used_at is not None
    assert stored.last_used_at > first


async def test_uses_are_stored_in_batches(acme: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application_credentials, "_BATCH", 2)
    for name in "abc":
        await create(acme, name)
        acme.credentials.used(acme.credentials.get(ACME, name))
    assert await acme.credentials.save_uses() == 3
    stored = await acme.catalog.application_credentials.load()
    assert None not in [each.last_used_at for each in stored]


async def test_a_use_is_of_its_own_credential_only(acme: Control) -> None:
    await create(acme)
    revoked = acme.credentials.get(ACME, "web")
    await acme.credentials.revoke(revoked, PERSON)
    acme.credentials.used(revoked)
    await create(acme)
    acme.credentials.used(revoked)
    assert acme.credentials.get(ACME, "web").last_used_at is None
    assert await acme.credentials.save_uses() == 0


async def test_neither_the_log_nor_a_representation_has_a_secret(acme: Control) -> None:
    with structlog.testing.capture_logs() as logged:
        issued = await acme.credentials.create(acme.state("acme"), "web", PERSON)
        await acme.credentials.revoke(issued.credential, PERSON)
    events = await acme.catalog.audit_log.page()
    seen = f"{logged} {events} {issued!r} {acme.credentials!r}"
    assert "credential.created" in seen
    assert issued.password not in seen
    assert issued.credential.verifier not in seen
