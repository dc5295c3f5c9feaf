"""A password is rotated without an error for a borrower; an interrupted rotation is finished."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.control.reconciler import Reconciler
from app.control.server_queues import work_off
from app.control.tenants.password_rotation import PasswordRotation
from app.domain.errors import (
    CatalogUnavailable,
    PoolIsShared,
    SchemaMissing,
    ServerUnavailable,
    TenantLoginFailed,
)
from app.domain.isolation_checks import AuditCheck, Finding, Severity
from app.domain.tenant import PoolStrategy
from app.pools.isolation.role_passwords import RolePasswords
from tests.fixtures.control import PERSON, Control
from tests.fixtures.load import load_on
from tests.fixtures.pools import ROLE_PASSWORDS
from tests.fixtures.postgres import Database

ALL = pytest.mark.parametrize("strategy", PoolStrategy)
OWN = pytest.mark.parametrize("strategy", [PoolStrategy.PER_TENANT, PoolStrategy.PER_DATABASE])


async def works(control: Control) -> bool:
    """Whether a new connection can be opened."""
    pool = control.manager.find("acme") or control.manager.find("shared@local")
    if pool is not None:
        pool.recycle()
    async with control.manager.lease("acme") as connection:
        return bool(await connection.fetchval("SELECT 42") == 42)


@ALL
async def test_borrowers_go_on_while_the_password_changes_and_the_old_one_is_dead(
    control: Control, strategy: PoolStrategy
) -> None:
    tenant = await control.tenant("acme", strategy)
    server, isolation = control.manager.servers["local"], control.manager.isolations[strategy]
    old = isolation.login(server, tenant.spec)
    async with control.manager.lease("acme") as connection:
        before = connection.get_server_pid()
        rotation = await control.rotation.rotate(control.state("acme"), PERSON, whole_pool=True)
        assert (rotation.role, rotation.version) == (isolation.role(tenant.spec), 2)
        assert await connection.fetchval("SELECT 42") == 42
    with pytest.raises(TenantLoginFailed):
        await server.connect(old)
    async with control.manager.lease("acme") as connection:
        assert connection.get_server_pid() != before
    async with load_on(control.manager, "acme", clients=8) as load:
        for _ in range(5):
            await control.rotation.rotate(control.state("acme"), PERSON, whole_pool=True)
            await load.goes_on(20)
    assert load.failures == []
    assert (await control.actions()).count("tenant.credentials_rotated") == 6


async def test_a_server_that_does_not_answer_ends_a_rotation_before_it_changes_anything(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")

    async def silent(*_: Any, **__: Any) -> int:
        await asyncio.Event().wait()
        return 0

    isolation = control.manager.isolations[PoolStrategy.PER_TENANT]
    monkeypatch.setattr(isolation, "marked_password_version", silent)
    monkeypatch.setattr("app.control.tenants.password_rotation._LOOK_UP_DEADLINE", 0.05)
    async with asyncio.timeout(60):
        with pytest.raises(ServerUnavailable, match="too long to answer"):
            await control.rotation.rotate(control.state("acme"), PERSON)
    assert await control.catalog.password_versions.load() == ()
    assert await works(control)


async def test_a_pool_opened_just_then_fails_no_borrower(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres has the new password, and we do not know that yet."""
    await control.tenant("acme")
    isolation = control.manager.isolations[PoolStrategy.PER_TENANT]
    server = control.manager.servers["local"]
    renew, connect = isolation.rotate_password, server.connect
    refused = asyncio.Event()
    borrowed: list[asyncio.Task[bool]] = []

    async def noticed(*arguments: Any, **terms: Any) -> asyncpg.Connection:
        try:
            return await connect(*arguments, **terms)
        except TenantLoginFailed:
            refused.set()
            raise

    async def slowly(*arguments: Any, **terms: Any) -> None:
        await renew(*arguments, **terms)
        borrowed.append(asyncio.create_task(works(control), name="borrower"))
        async with asyncio.timeout(180):
            await refused.wait()

    monkeypatch.setattr(server, "connect", noticed)
    monkeypatch.setattr(isolation, "rotate_password", slowly)
    await control.rotation.rotate(control.state("acme"), PERSON)
    assert await borrowed[0]


@OWN
async def test_rotation_restores_access_of_a_tenant_that_locked_itself_out(
    control: Control, strategy: PoolStrategy
) -> None:
    await control.tenant("acme", strategy)
    async with control.manager.lease("acme") as connection:
        await connection.execute("ALTER ROLE CURRENT_USER PASSWORD 'evil'")
        await connection.execute("ALTER ROLE CURRENT_USER SET work_mem = '64kB'")
        if strategy is PoolStrategy.PER_DATABASE:
            own = "ALTER DATABASE tenant_acme"
            await connection.execute(f"{own} SET local_preload_libraries = 'none_such'")
            await connection.execute(f"{own} CONNECTION LIMIT 0")
    with pytest.raises(TenantLoginFailed):
        await works(control)
    await control.rotation.rotate(control.state("acme"), PERSON)
    assert await works(control)


@OWN
async def test_rotation_restores_access_of_a_tenant_that_was_deleted_after_the_backup(
    control: Control, strategy: PoolStrategy
) -> None:
    tenant = await control.tenant("acme", strategy)
    server = control.manager.servers["local"]
    await control.manager.isolations[strategy].disable_login(server, tenant)
    with pytest.raises(TenantLoginFailed):
        await works(control)
    await control.rotation.rotate(control.state("acme"), PERSON)
    assert await works(control)


async def test_without_its_schema_a_rotation_says_to_provision_the_tenant(
    control: Control, database: Database
) -> None:
    """Also when the role is gone: it is created, and logs in, and has nothing to work in."""
    await control.tenant("acme")
    async with database.connected() as somebody:
        await somebody.execute("DROP OWNED BY tenant_acme; DROP ROLE tenant_acme")
    with pytest.raises(SchemaMissing, match=r"tenant_acme .* Provision the tenant again\.$"):
        await control.rotation.rotate(control.state("acme"), PERSON)
    await control.provisioning.provision(control.state("acme"), PERSON)
    assert await works(control)


async def test_a_shared_role_is_rotated_only_for_all_its_tenants(control: Control) -> None:
    await control.tenant("acme", PoolStrategy.SHARED)
    with pytest.raises(PoolIsShared):
        await control.rotation.rotate(control.state("acme"), PERSON)
    rotation = await control.rotation.rotate(control.state("acme"), PERSON, whole_pool=True)
    assert rotation.tenants == 1


@ALL
async def test_a_rotation_that_a_restored_catalog_does_not_know_is_found(
    control: Control, strategy: PoolStrategy
) -> None:
    await control.tenant("acme", strategy)
    is_shared = strategy is PoolStrategy.SHARED
    role = "poolkeeper_shared" if is_shared else "tenant_acme"
    before = ROLE_PASSWORDS.password_version("local", role)
    await control.rotation.rotate(control.state("acme"), PERSON, whole_pool=is_shared)
    assert await password_findings(control) == []
    # As after a restart on the catalog of before.
    ROLE_PASSWORDS.set_password_version("local", role, before)
    ROLE_PASSWORDS._next.clear()
    [finding] = await password_findings(control)
    assert finding.severity is Severity.CRITICAL
    named = "TENANT --shared" if is_shared else "acme"
    assert finding.detail.endswith(f"run: poolkeeper tenants rotate {named}")
    await control.rotation.rotate(control.state("acme"), PERSON, whole_pool=is_shared)
    # Nobody waits for the next audit to see that it is mended.
    report = control.state("acme").isolation
    assert report is not None
    assert AuditCheck.PASSWORD not in {each.check for each in report.findings}
    assert await password_findings(control) == []
    assert await works(control)


@ALL
async def test_after_a_restore_of_the_catalog_no_password_that_was_rotated_away_is_valid_again(
    control: Control, catalog_database: Database, strategy: PoolStrategy
) -> None:
    await control.tenant("acme", strategy)
    is_shared = strategy is PoolStrategy.SHARED
    state = control.state("acme")
    first = await control.rotation.rotate(state, PERSON, whole_pool=is_shared)
    latest = await control.rotation.rotate(state, PERSON, whole_pool=is_shared)
    assert latest.version == first.version + 1
    async with catalog_database.connected() as connection:
        await connection.execute("DELETE FROM credentials")
    ROLE_PASSWORDS.set_password_version("local", latest.role, 1)
    rotation = await control.rotation.rotate(state, PERSON, whole_pool=is_shared)
    assert rotation.version == latest.version + 1
    assert await works(control)


@ALL
async def test_provisioning_after_a_restore_of_the_catalog_keeps_the_later_password(
    control: Control, catalog_database: Database, strategy: PoolStrategy
) -> None:
    await control.tenant("acme", strategy)
    is_shared = strategy is PoolStrategy.SHARED
    state = control.state("acme")
    server, isolation = control.manager.servers["local"], control.manager.isolations[strategy]
    old = isolation.login(server, state.tenant.spec)
    latest = await control.rotation.rotate(state, PERSON, whole_pool=is_shared)
    async with catalog_database.connected() as connection:
        await connection.execute("DELETE FROM credentials")
    ROLE_PASSWORDS.set_password_version("local", latest.role, 1)
    ROLE_PASSWORDS._next.clear()
    assert len(await password_findings(control)) == 1
    await control.provisioning.provision(state, PERSON)
    assert state.isolation is not None
    assert AuditCheck.PASSWORD not in {each.check for each in state.isolation.findings}
    assert await works(control)
    # The one that was rotated away stays dead, and later ones are new.
    with pytest.raises(TenantLoginFailed):
        await server.connect(old)
    [stored] = await control.catalog.password_versions.load()
    assert (stored.version, stored.applied) == (latest.version, True)
    rotation = await control.rotation.rotate(state, PERSON, whole_pool=is_shared)
    assert rotation.version == latest.version + 1


async def test_whoever_adopts_a_role_keeps_no_password_that_was_rotated_away(
    control: Control, catalog_database: Database
) -> None:
    tenant = await control.tenant("acme")
    latest = await control.rotation.rotate(control.state("acme"), PERSON)
    # As after a restore of a backup from before the tenant: it is declared again.
    async with catalog_database.connected() as connection:
        await connection.execute("DELETE FROM credentials")
    ROLE_PASSWORDS.set_password_version("local", latest.role, 1)
    control.manager.put_tenant(replace(tenant, uid=uuid4()))
    await control.provisioning.provision(control.state("acme"), PERSON, adopt=True)
    assert ROLE_PASSWORDS.password_version("local", latest.role) == latest.version
    assert await works(control)


@ALL
async def test_a_rotation_that_a_failover_of_the_server_lost_is_made_again(
    control: Control, strategy: PoolStrategy
) -> None:
    tenant = await control.tenant("acme", strategy)
    state, server = control.state("acme"), control.manager.servers["local"]
    rotation = await control.rotation.rotate(state, PERSON, whole_pool=tenant.spec.is_shared)
    await control.manager.isolations[strategy].rotate_password(server, tenant, rotation.version - 1)
    with pytest.raises(TenantLoginFailed):
        await works(control)
    assert len(await password_findings(control)) == 1
    assert await control.rotation.restore_lost() == 1
    assert await works(control)
    assert await control.rotation.restore_lost() == 0
    [stored] = await control.catalog.password_versions.load()
    assert (stored.version, stored.applied) == (rotation.version, True)


@ALL
async def test_a_rotation_that_a_failover_of_the_catalog_lost_is_known_again(
    control: Control, catalog_database: Database, strategy: PoolStrategy
) -> None:
    tenant = await control.tenant("acme", strategy)
    state = control.state("acme")
    rotation = await control.rotation.rotate(state, PERSON, whole_pool=tenant.spec.is_shared)
    # As after a restart on the catalog of before.
    async with catalog_database.connected() as connection:
        await connection.execute("DELETE FROM credentials")
    ROLE_PASSWORDS.set_password_version("local", rotation.role, rotation.version - 1)
    ROLE_PASSWORDS._next.clear()
    assert len(await password_findings(control)) == 1
    assert await control.rotation.restore_lost() == 1
    assert await works(control)
    assert await password_findings(control) == []
    [stored] = await control.catalog.password_versions.load()
    assert (stored.version, stored.applied) == (rotation.version, True)
    await control.audit_outbox.flush()
    assert "pool.password_restored" in await control.actions()


@ALL
async def test_a_pending_rotation_of_a_restored_catalog_brings_no_earlier_password_back(
    control: Control, catalog_database: Database, strategy: PoolStrategy
) -> None:
    tenant = await control.tenant("acme", strategy)
    server, isolation = control.manager.servers["local"], control.manager.isolations[strategy]
    for _ in range(2):
        pending = isolation.login(server, tenant.spec)
        latest = await control.rotation.rotate(control.state("acme"), PERSON, whole_pool=True)
    # As after a restart on a backup that was made while the first of them was under way.
    async with catalog_database.connected() as connection:
        await connection.execute("UPDATE credentials SET version = 2, applied = false")
    await control.rotation.load()
    assert await control.rotation.finish_rotations() == 1
    assert await works(control)
    with pytest.raises(TenantLoginFailed):
        await server.connect(pending)
    [stored] = await control.catalog.password_versions.load()
    assert (stored.version, stored.applied) == (latest.version, True) == (3, True)
    assert await control.rotation.finish_rotations() == 0
    await control.audit_outbox.flush()
    assert "pool.password_restored" in await control.actions()


async def test_a_rotation_is_made_again_once_although_its_finding_stays(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit may fail just then."""
    await lose_rotation(control)

    async def fails(*_: object) -> None:
        pass

    monkeypatch.setattr(control.rotation, "_audit_isolation", fails)
    assert [await control.rotation.restore_lost() for _ in range(2)] == [1, 0]
    await control.audit_outbox.flush()
    assert (await control.actions()).count("pool.password_restored") == 1


async def test_a_rotation_that_is_not_finished_yet_is_not_given_up_for_a_lost_one(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await control.tenant("acme")
    state, server = control.state("acme"), control.manager.servers["local"]
    known = (await control.rotation.rotate(state, PERSON)).version
    isolation = control.manager.isolations[PoolStrategy.PER_TENANT]
    await isolation.rotate_password(server, tenant, known - 1)

    async def fails(*_: Any, **__: Any) -> None:
        raise ServerUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(isolation, "rotate_password", fails)
        with pytest.raises(ServerUnavailable):
            await control.rotation.rotate(state, PERSON)
    assert len(await password_findings(control)) == 1
    assert await control.rotation.restore_lost() == 0
    assert await control.rotation.finish_rotations() == 1
    assert await isolation.marked_password_version(server, tenant) == known + 1


async def test_no_password_is_set_for_a_tenant_that_is_being_deleted(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, state = await lose_rotation(control), control.state("acme")

    async def after_a_while(*arguments: Any) -> int:
        state.tenant = replace(state.tenant, deleting=True)
        return await work_off(*arguments)

    monkeypatch.setattr("app.control.tenants.password_rotation.work_off", after_a_while)
    assert await control.rotation.restore_lost() == 0
    isolation = control.manager.isolations[PoolStrategy.PER_TENANT]
    server = control.manager.servers["local"]
    assert await isolation.marked_password_version(server, state.tenant) == lost - 1


async def test_a_rotation_that_follows_one_of_unknown_outcome_is_no_finding(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    state = control.state("acme")
    isolation = control.manager.isolations[PoolStrategy.PER_TENANT]
    rotate = isolation.rotate_password

    async def rotate_and_lose_the_answer(*args: Any, **keywords: Any) -> None:
        await rotate(*args, **keywords)
        raise TimeoutError

    async def rotate_nothing(*_: Any, **__: Any) -> None:
        raise TimeoutError

    for outcome in (rotate_and_lose_the_answer, rotate_nothing):
        with monkeypatch.context() as patch:
            patch.setattr(isolation, "rotate_password", outcome)
            with pytest.raises(ServerUnavailable):
                await control.rotation.rotate(state, PERSON)
        assert await password_findings(control) == []
    await control.rotation.rotate(state, PERSON)
    assert await password_findings(control) == []
    assert await works(control)


async def lose_rotation(control: Control) -> int:
    """Undo a rotation on the server, as a failover may; return the version that it had made."""
    tenant = await control.tenant("acme")
    rotation = await control.rotation.rotate(control.state("acme"), PERSON)
    isolation = control.manager.isolations[PoolStrategy.PER_TENANT]
    await isolation.rotate_password(control.manager.servers["local"], tenant, rotation.version - 1)
    assert len(await password_findings(control)) == 1
    return rotation.version


async def password_findings(control: Control) -> list[Finding]:
    state = control.state("acme")
    await control.isolation_audit.audit(control.manager.servers["local"], [state])
    assert state.isolation is not None
    return [each for each in state.isolation.findings if each.check is AuditCheck.PASSWORD]


@pytest.mark.parametrize("done", [False, True], ids=["before Postgres", "after Postgres"])
async def test_a_crash_between_the_steps_is_made_up_for_after_a_restart(
    control: Control, monkeypatch: pytest.MonkeyPatch, *, done: bool
) -> None:
    await control.tenant("acme")
    isolation = control.manager.isolations[PoolStrategy.PER_TENANT]
    renew = isolation.rotate_password

    async def breaks(*arguments: Any, **terms: Any) -> None:
        if done:
            await renew(*arguments, **terms)
        raise ServerUnavailable("The service was killed.")

    with monkeypatch.context() as patched:
        patched.setattr(isolation, "rotate_password", breaks)
        with pytest.raises(ServerUnavailable):
            await control.rotation.rotate(control.state("acme"), PERSON)
    ROLE_PASSWORDS._versions.clear()
    restarted = PasswordRotation(
        control.catalog,
        control.manager,
        ROLE_PASSWORDS,
        control.locks,
        control.audit_outbox,
        without_logins=control.node_feed.without_logins,
        audit_isolation=control.isolation_audit.audit_pool,
    )
    await restarted.load()
    assert await restarted.finish_rotations() == 1
    assert ROLE_PASSWORDS.password_version("local", "tenant_acme") == 2
    assert await works(control)
    assert await restarted.finish_rotations() == 0
    ROLE_PASSWORDS._versions.clear()
    await restarted.load()
    assert await works(control)


async def test_the_reconciler_finishes_a_rotation(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    isolation = control.manager.isolations[PoolStrategy.PER_TENANT]

    async def fails(*_: object, **__: object) -> None:
        raise ServerUnavailable("Not now.")

    with monkeypatch.context() as patched:
        patched.setattr(isolation, "rotate_password", fails)
        with pytest.raises(ServerUnavailable):
            await control.rotation.rotate(control.state("acme"), PERSON)
        assert await works(control), "the old password holds until the new one is known to"
    assert isinstance(control.reconciler, Reconciler)
    report = await control.reconciler.run_once()
    assert report.rotations_finished == 1
    assert ROLE_PASSWORDS.password_version("local", "tenant_acme") == 2
    assert await works(control)


async def test_without_the_catalog_nothing_is_rotated(control: Control) -> None:
    await control.tenant("acme")
    await control.proxy.cut()
    with pytest.raises(CatalogUnavailable):
        await control.rotation.rotate(control.state("acme"), PERSON)
    assert ROLE_PASSWORDS.password_version("local", "tenant_acme") == 1
    assert await works(control)


async def test_provisioning_again_keeps_the_password_that_holds(control: Control) -> None:
    await control.tenant("acme")
    await control.rotation.rotate(control.state("acme"), PERSON)
    await control.provisioning.provision(control.state("acme"), PERSON)
    assert await works(control)


def test_every_version_is_another_password_and_none_can_be_guessed_from_another() -> None:
    credentials = RolePasswords(b"k" * 32)
    passwords = {credentials.password("s", "r", version) for version in (1, 2, 3)}
    assert len(passwords) == 3
    assert credentials.password("s", "r") == credentials.password("s", "r", 1)
    credentials.set_password_version("s", "r", 3)
    assert credentials.password("s", "r") == credentials.password("s", "r", 3)
    assert credentials.password("s", "other") == credentials.password("s", "other", 1)
