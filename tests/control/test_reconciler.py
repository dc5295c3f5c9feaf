"""The reconciler finishes what a crash or an outage interrupted."""

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from app.catalog.catalog import Catalog
from app.control import keyed_locks, server_queues
from app.control.audit_outbox import AuditOutbox
from app.control.pools.convergence import PoolConvergence
from app.control.pools.unsaved_changes import UnsavedChanges
from app.control.tenants import deletion as tenant_deletion
from app.control.tenants import password_rotation
from app.control.tenants.application_credentials import ApplicationCredentials
from app.control.tenants.password_rotation import PasswordRotation
from app.control.tenants.provisioning import lock_of_role
from app.control.tenants.verifier_renewal import VerifierRenewal
from app.domain.audit import RECONCILER
from app.domain.desired_pool import DesiredPool, Pause, PoolChange
from app.domain.errors import CatalogUnavailable, PoolLimitReached, ServerUnavailable
from app.domain.pool import PoolSize, PoolState
from app.domain.tenant import PoolStrategy, TenantId
from app.pools.pool import Pool
from app.pools.servers import admin_connections
from app.pools.tenant_state import TenantState
from tests.fixtures.control import PERSON, Control
from tests.fixtures.locks import inherited
from tests.fixtures.pools import pool_of, tenant
from tests.fixtures.postgres import Database
from tests.fixtures.turns import counted_turns
from tests.fixtures.waiting import eventually


async def test_only_pools_that_keep_connections_are_opened_by_it(control: Control) -> None:
    await control.tenant("kept")
    await control.tenant("lazy")
    for name, minimum in (("kept", 1), ("lazy", 0)):
        await control.catalog.pools.save(
            name,
            PoolSize(min_size=minimum, max_size=3),
            pause=None,
            event=(await control.catalog.audit_log.page())[0],
        )
    await control.load()
    report = await control.reconciler.run_once()
    assert report.steps == 1
    assert control.manager.find("lazy") is None
    pool = pool_of(control.manager, "kept")
    await eventually(lambda: pool.metrics.idle_connections == 1)
    assert (await control.reconciler.run_once()).steps == 0


async def test_an_open_pool_follows_what_was_stored(control: Control) -> None:
    await control.tenant("acme")
    outcome = await control.pool_operations.put(
        control.state("acme"), PoolChange(max_size=3), PERSON
    )
    event = (await control.catalog.audit_log.page())[0]
    await control.catalog.pools.save(
        "acme", PoolSize(max_size=7), pause=Pause(since=event.at, by="ops"), event=event
    )
    await control.load()
    assert (await control.reconciler.run_once()).steps == 2
    assert outcome.pool is not None
    assert (outcome.pool.size.max_size, outcome.pool.state) == (7, PoolState.PAUSED)


async def test_an_interrupted_deletion_is_finished(control: Control) -> None:
    await control.tenant("acme")
    event = (await control.catalog.audit_log.page())[0]
    state = control.manager.tenants.state("acme")
    await control.catalog.tenants.mark_deleting(state.tenant.spec.id, event=event)
    await control.load()
    report = await control.reconciler.run_once()
    assert report.deletions_finished == 1
    assert await control.catalog.tenants.load() == ()
    async with control.manager.servers["local"].admin() as admin:
        assert not await admin.fetchval(
            "select rolcanlogin from pg_roles where rolname = 'tenant_acme'"
        )


@pytest.mark.parametrize(
    ("of", "step"),
    [
        (Catalog, "ping"),
        (UnsavedChanges, "save"),
        (ApplicationCredentials, "save_uses"),
        (AuditOutbox, "flush"),
        (PoolConvergence, "converge"),
        (PasswordRotation, "finish_rotations"),
        (PasswordRotation, "restore_lost"),
        (VerifierRenewal, "renew"),
    ],
)
async def test_no_step_waits_for_the_success_of_an_earlier_one(
    control: Control, monkeypatch: pytest.MonkeyPatch, of: type, step: str
) -> None:
    for name in ("kept", "leaving"):
        await control.tenant(name)
    event = (await control.catalog.audit_log.page())[0]
    await control.catalog.tenants.mark_deleting(TenantId("leaving"), event=event)
    await control.catalog.pools.save("kept", PoolSize(min_size=1, max_size=3), pause=None)
    await control.load()

    async def fail(*_: object) -> int:
        raise AssertionError(step)

    with monkeypatch.context() as patched:
        patched.setattr(of, step, fail)
        with pytest.raises(ExceptionGroup) as failed:
            await control.reconciler.run_once()
    assert failed.group_contains(AssertionError, match=step)
    assert await control.catalog.tenants.load() == (control.state("kept").tenant,)
    report = await control.reconciler.run_once()
    assert report.deletions_finished == 0


async def test_a_step_whose_table_cannot_be_used_keeps_no_other_from_the_catalog(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("leaving")
    event = (await control.catalog.audit_log.page())[0]
    await control.catalog.tenants.mark_deleting(TenantId("leaving"), event=event)
    await control.load()

    async def fail(*_: object) -> int:
        raise CatalogUnavailable

    for of, step in ((UnsavedChanges, "save"), (ApplicationCredentials, "save_uses")):
        monkeypatch.setattr(of, step, fail)
    assert (await control.reconciler.run_once()).deletions_finished == 1
    assert await control.catalog.tenants.load() == ()


async def test_a_pool_that_fails_unexpectedly_keeps_no_other_from_converging(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("acme", "beta", "gamma")
    for name in names:
        await control.tenant(name)
        await control.catalog.pools.save(name, PoolSize(min_size=1, max_size=3), pause=None)
    await control.load()
    converge = control.convergence.converge

    async def fail_for_one(state: TenantState, desired: DesiredPool) -> int:
        if desired.pool_id == "beta":
            raise AssertionError(desired.pool_id)
        return await converge(state, desired)

    monkeypatch.setattr(control.convergence, "converge", fail_for_one)
    with pytest.raises(ExceptionGroup) as failed:
        await control.reconciler.run_once()
    assert failed.group_contains(AssertionError, match="beta")
    assert [name for name in names if control.manager.find(name)] == ["acme", "gamma"]


async def held(lock: AbstractAsyncContextManager[None], until: asyncio.Event) -> None:
    """Hold a lock as a slow change would."""
    async with lock:
        await until.wait()


async def test_an_active_deletion_keeps_no_pool_from_converging(control: Control) -> None:
    await control.tenant("leaving")
    await control.tenant("kept")
    event = (await control.catalog.audit_log.page())[0]
    await control.catalog.tenants.mark_deleting(TenantId("leaving"), event=event)
    await control.catalog.pools.save("kept", PoolSize(min_size=1, max_size=3), pause=None)
    await control.load()
    done = asyncio.Event()
    deletion = asyncio.create_task(held(control.locks.hold("leaving"), done))
    await eventually(lambda: control.locks.is_held("leaving"))
    async with asyncio.timeout(180):
        report = await control.reconciler.run_once()
    assert (report.steps, report.deletions_finished) == (1, 0)
    done.set()
    await deletion
    assert (await control.reconciler.run_once()).deletions_finished == 1


async def test_a_server_that_hangs_delays_a_deletion_only_for_a_while(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")

    async def hang(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(tenant_deletion, "_DISABLE_LOGIN_DEADLINE", 0.0)
        patched.setattr(control.manager.isolations[PoolStrategy.PER_TENANT], "disable_login", hang)
        deletion = await control.deletions.delete(control.state("acme"), PERSON, deadline=0)
    assert not deletion.login_disabled
    assert (await control.reconciler.run_once()).deletions_finished == 1


async def test_a_change_under_way_is_not_waited_for(control: Control) -> None:
    await control.tenant("acme")
    await control.catalog.pools.save("acme", PoolSize(min_size=1, max_size=3), pause=None)
    await control.load()
    async with control.locks.hold("acme"), asyncio.timeout(180):
        assert (await control.reconciler.run_once()).steps == 0
    assert (await control.reconciler.run_once()).steps == 1


async def test_pools_converge_before_rotations_are_finished(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("kept")
    event = (await control.catalog.audit_log.page())[0]
    size = PoolSize(min_size=1, max_size=3)
    await control.catalog.pools.save("kept", size, pause=None, event=event)
    await control.load()
    was_open = False

    async def finish(_: PasswordRotation) -> int:
        nonlocal was_open
        was_open = control.manager.find("kept") is not None
        return 0

    monkeypatch.setattr(PasswordRotation, "finish_rotations", finish)
    await control.reconciler.run_once()
    assert was_open


async def interrupted_rotation(
    control: Control, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant whose new password Postgres does not have yet."""

    async def fails(*_: object, **__: object) -> None:
        raise ServerUnavailable("Not now.")

    await control.tenant(name)
    isolation = control.manager.isolations[PoolStrategy.PER_TENANT]
    with monkeypatch.context() as patched:
        patched.setattr(isolation, "rotate_password", fails)
        with pytest.raises(ServerUnavailable):
            await control.rotation.rotate(control.state(name), PERSON)


async def test_a_rotation_that_was_made_in_the_meantime_is_not_finished_again(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await interrupted_rotation(control, "acme", monkeypatch)

    async def rotate_first(*work: Any) -> int:
        await control.rotation.rotate(control.state("acme"), PERSON)
        return await server_queues.work_off(*work)

    monkeypatch.setattr(password_rotation, "work_off", rotate_first)
    assert await control.rotation.finish_rotations() == 0
    await control.audit_outbox.flush()
    assert "pool.password_restored" not in await control.actions()


async def test_a_lock_that_goes_from_one_change_to_the_next_ends_no_tick(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("acme", "beta"):
        await interrupted_rotation(control, name, monkeypatch)
    await control.pool_operations.put(control.state("acme"), PoolChange(), PERSON)
    await control.proxy.cut()
    await control.pool_operations.pause(control.state("acme"), PERSON, paused=True)
    await control.proxy.pass_through()
    # Whoever waits for a lock waits in vain.
    async with inherited(control.locks, "acme"):
        monkeypatch.setattr(keyed_locks, "_HOLD_DEADLINE", 0.0)
        assert await control.rotation.finish_rotations() == 1
    monkeypatch.undo()
    async with inherited(control.locks, "acme"):
        monkeypatch.setattr(keyed_locks, "_HOLD_DEADLINE", 0.0)
        assert await control.unsaved_changes.save() == 0
    monkeypatch.undo()
    async with inherited(control.locks, "acme"):
        monkeypatch.setattr(keyed_locks, "_HOLD_DEADLINE", 0.0)
        assert not await control.deletions.finish("acme", RECONCILER)
    monkeypatch.undo()
    report = await control.reconciler.run_once()
    assert (report.rotations_finished, report.changes_saved) == (1, 1)


async def test_a_role_that_is_being_changed_keeps_no_rotation_waiting(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("acme", "beta"):
        await interrupted_rotation(control, name, monkeypatch)
    monkeypatch.setattr(keyed_locks, "_HOLD_DEADLINE", None)
    async with (
        control.locks.hold(lock_of_role("local", "tenant_acme")),
        asyncio.timeout(180),
    ):
        assert await control.rotation.finish_rotations() == 1
    assert await control.rotation.finish_rotations() == 1


async def test_a_tenant_that_holds_its_own_role_keeps_no_other_waiting(
    control: Control, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("acme", "beta"):
        await interrupted_rotation(control, name, monkeypatch)
    await control.tenant("gone")
    event = (await control.catalog.audit_log.page())[0]
    await control.catalog.tenants.mark_deleting(TenantId("gone"), event=event)
    await control.load()
    # Whoever waits for a tenant's transaction waits in vain.
    monkeypatch.setitem(admin_connections._SETTINGS, "lock_timeout", "0")
    control.manager.server("local").admins.renew()
    monkeypatch.setattr(password_rotation, "_ROTATE_DEADLINE", None)
    monkeypatch.setattr(tenant_deletion, "_DISABLE_LOGIN_DEADLINE", None)
    async with database.connected() as stranger, asyncio.timeout(180):
        holding = stranger.transaction()
        await holding.start()
        for role in ("tenant_acme", "tenant_gone"):
            await stranger.execute(f"ALTER ROLE {role} CONNECTION LIMIT 7")
        report = await control.reconciler.run_once()
        assert (report.rotations_finished, report.deletions_finished) == (1, 0)
        await holding.rollback()
    report = await control.reconciler.run_once()
    assert (report.rotations_finished, report.deletions_finished) == (1, 1)


async def test_others_have_their_turn_while_it_looks_at_all_pools(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(350):
        control.manager.put_tenant(tenant(f"t{number}", PoolStrategy.PER_TENANT))
        control.manager.desired.put(desired_pool(f"t{number}"))
    convergence = control.convergence
    async with counted_turns() as turns:
        monkeypatch.setattr(convergence, "converge", turns.counted(convergence.converge))
        assert (await control.reconciler.run_once()).steps == 0
    assert turns.calls == 350
    assert turns.most <= 100


async def test_a_change_that_is_made_while_pools_converge_is_not_undone(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("acme", "beta"):
        await control.tenant(name)
        await control.pool_operations.put(control.state(name), PoolChange(max_size=3), PERSON)
    converge = control.convergence.converge

    async def change_the_other(state: TenantState, desired: DesiredPool) -> int:
        if state.tenant.spec.id == "acme":
            other = control.state("beta")
            await control.pool_operations.put(other, PoolChange(max_size=7), PERSON)
        return await converge(state, desired)

    async with control.manager.lease("beta"):
        monkeypatch.setattr(control.convergence, "converge", change_the_other)
        await control.reconciler.run_once()
        pool = pool_of(control.manager, "beta")
        assert pool.size.max_size == 7


def desired_pool(name: str) -> DesiredPool:
    return DesiredPool(
        pool_id=name, size=PoolSize(), pause=None, generation=1, updated_at=datetime.now(UTC)
    )


async def test_a_password_set_while_the_catalog_goes_away_is_recorded_later(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    await control.tenant("acme")
    isolation = control.manager.isolations[PoolStrategy.PER_TENANT]
    rotate_password = isolation.rotate_password

    async def rotate_in_an_outage(*arguments: Any, **options: Any) -> None:
        await rotate_password(*arguments, **options)
        await control.proxy.cut()

    with monkeypatch.context() as patched:
        patched.setattr(isolation, "rotate_password", rotate_in_an_outage)
        await control.rotation.rotate(control.state("acme"), PERSON)
    async with control.manager.lease("acme") as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await control.proxy.pass_through()
    [wanted] = await control.catalog.password_versions.load()
    assert not wanted.applied
    assert (await control.reconciler.run_once()).rotations_finished == 1
    [applied] = await control.catalog.password_versions.load()
    assert applied == replace(wanted, applied=True)


async def test_a_pool_that_cannot_converge_keeps_no_other_from_it(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("full", "kept"):
        await control.tenant(name)
        await control.catalog.pools.save(name, PoolSize(min_size=1, max_size=3), pause=None)
    await control.load()
    open_pool = control.manager.open_pool

    async def no_slot_for_one(state: TenantState, timeout: float) -> Pool:
        if state is control.state("full"):
            raise PoolLimitReached
        return await open_pool(state, timeout)

    with monkeypatch.context() as patched:
        patched.setattr(control.manager, "open_pool", no_slot_for_one)
        assert (await control.reconciler.run_once()).steps == 1
    assert control.manager.find("kept") is not None
    assert (await control.reconciler.run_once()).steps == 1
    assert control.manager.find("full") is not None
