"""A pause while the catalog is down: it holds, and is stored and recorded afterwards."""

from app.domain.desired_pool import PoolChange
from tests.fixtures.control import PERSON, Control


async def test_changes_made_in_an_outage_are_recorded_as_they_were(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_operations.put(control.state("acme"), PoolChange(), PERSON)
    await control.proxy.cut()
    for paused in (True, True, False):
        await control.pool_operations.pause(control.state("acme"), PERSON, paused=paused)
    await control.reconciler.run_once()
    assert [one.action for one in control.audit_outbox.pending] == ["pool.paused", "pool.resumed"]
    await control.proxy.pass_through()
    await control.reconciler.run_once()
    resumed, paused_event, declared = await control.catalog.audit_log.page(pool="acme")
    assert [resumed.action, paused_event.action] == ["pool.resumed", "pool.paused"]
    assert (paused_event.tenant, paused_event.actor) == ("acme", PERSON)
    assert paused_event.before == declared.after


async def test_a_change_undone_after_an_outage_is_recorded_too(control: Control) -> None:
    await control.tenant("acme")
    await control.pool_operations.put(control.state("acme"), PoolChange(), PERSON)
    await control.proxy.cut()
    await control.pool_operations.pause(control.state("acme"), PERSON, paused=True)
    await control.proxy.pass_through()
    await control.pool_operations.pause(control.state("acme"), PERSON, paused=False)
    await control.reconciler.run_once()
    assert (await control.actions(pool="acme"))[1:] == ["pool.paused", "pool.resumed"]
