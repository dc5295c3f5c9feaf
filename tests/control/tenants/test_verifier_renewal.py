"""Verifiers of an earlier version are renewed; only the audit log shows it."""

from contextlib import suppress

import pytest

from app.control.tenants import verifier_renewal
from app.control.tenants.provisioning import lock_of_role
from app.domain.scram import scram_verifier
from app.domain.tenant import PoolStrategy
from tests.fixtures.control import PERSON, Control
from tests.fixtures.load import load_on
from tests.fixtures.pools import ROLE_PASSWORDS, pool_of, use

ALL = pytest.mark.parametrize("strategy", PoolStrategy)
OLD, NEW = "SCRAM-SHA-256$4096", "SCRAM-SHA-256$1"
RENEWED = "pool.verifier_renewed"


def role_of(control: Control, name: str) -> str:
    spec = control.state(name).tenant.spec
    return control.manager.isolations[spec.strategy].role(spec)


async def verifier_of(control: Control, name: str) -> str:
    async with control.manager.servers["local"].admin() as admin:
        found = await admin.fetchval(
            "SELECT rolpassword FROM pg_authid WHERE rolname = $1", role_of(control, name)
        )
    return str(found)


async def grow_old(control: Control, name: str) -> None:
    """Give the tenant's role the verifier of an earlier version, and log in once."""
    role = role_of(control, name)
    old = scram_verifier(ROLE_PASSWORDS.password("local", role), iterations=4096)
    async with control.manager.servers["local"].admin() as admin:
        await admin.execute(f"ALTER ROLE {role} PASSWORD '{old}'")
    if pool := control.manager.find(control.state(name).tenant.spec.pool_id):
        pool.recycle()
    await use(control.manager, name)


@ALL
async def test_an_old_verifier_is_renewed_once_and_the_password_stays(
    control: Control, strategy: PoolStrategy
) -> None:
    await control.tenant("acme", strategy)
    await grow_old(control, "acme")
    version = ROLE_PASSWORDS.password_version("local", role_of(control, "acme"))
    assert (await verifier_of(control, "acme")).startswith(f"{OLD}:")
    assert (await control.reconciler.run_once()).verifiers_renewed == 1
    renewed = await verifier_of(control, "acme")
    assert renewed.startswith(f"{NEW}:")
    pool = control.manager.find(control.state("acme").tenant.spec.pool_id)
    assert pool is not None
    pool.recycle()
    await use(control.manager, "acme")
    assert (await control.reconciler.run_once()).verifiers_renewed == 0
    assert await verifier_of(control, "acme") == renewed
    assert ROLE_PASSWORDS.password_version("local", role_of(control, "acme")) == version
    assert (await control.actions()).count(RENEWED) == 1


async def test_a_new_role_needs_no_renewal(control: Control) -> None:
    await control.tenant("acme")
    await use(control.manager, "acme")
    assert (await verifier_of(control, "acme")).startswith(f"{NEW}:")
    assert (await control.reconciler.run_once()).verifiers_renewed == 0


async def test_no_lease_fails_meanwhile(control: Control) -> None:
    await control.tenant("acme")
    async with load_on(control.manager, "acme", clients=8) as load:
        for _ in range(5):
            await grow_old(control, "acme")
            await control.reconciler.run_once()
            pool = pool_of(control.manager, "acme")
            pool.recycle()
            await load.goes_on(20)
    assert load.failures == []
    assert (await verifier_of(control, "acme")).startswith(f"{NEW}:")


async def test_a_tick_renews_a_batch_and_the_next_one_the_rest(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier_renewal, "_BATCH", 2)
    for name in "abc":
        await control.tenant(name)
        await grow_old(control, name)
    counts = [(await control.reconciler.run_once()).verifiers_renewed for _ in range(3)]
    assert counts == [2, 1, 0]
    for name in "abc":
        assert (await verifier_of(control, name)).startswith(f"{NEW}:")


async def test_a_role_whose_password_is_being_changed_is_left_alone(control: Control) -> None:
    await control.tenant("acme")
    await grow_old(control, "acme")
    async with control.locks.hold(lock_of_role("local", role_of(control, "acme"))):
        assert (await control.reconciler.run_once()).verifiers_renewed == 0
    assert (await control.reconciler.run_once()).verifiers_renewed == 1


class _RolledBackError(Exception):
    """The borrower's own error."""


async def test_a_tenant_that_holds_its_own_role_delays_no_other(control: Control) -> None:
    """Its open transaction has changed the role, so Postgres refuses for now."""
    for name in "ab":
        await control.tenant(name)
        await grow_old(control, name)
    with suppress(_RolledBackError):
        async with control.manager.lease("a") as connection:
            await connection.execute("ALTER ROLE CURRENT_USER PASSWORD NULL")
            assert (await control.reconciler.run_once()).verifiers_renewed == 1
            assert (await verifier_of(control, "b")).startswith(f"{NEW}:")
            raise _RolledBackError
    assert (await verifier_of(control, "a")).startswith(f"{OLD}:")
    # The next login shows that it is still needed.
    await grow_old(control, "a")
    assert (await control.reconciler.run_once()).verifiers_renewed == 1


async def test_a_deleted_tenant_is_forgotten(control: Control) -> None:
    await control.tenant("acme")
    await grow_old(control, "acme")
    await control.deletions.delete(control.state("acme"), PERSON, deadline=60)
    assert (await control.reconciler.run_once()).verifiers_renewed == 0
    assert not control.manager.connectors.stretched
