"""One fault of an instance after another: one serves within the budget, and loses nothing.

`make chaos` injects many in random order and prints what it sees.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.runtime.server import ProcessStatus
from tests.fixtures.chaos import FAULTS, chance, inject
from tests.fixtures.instances import GLANCE, TENANT, Instance, Instances, two_instances
from tests.fixtures.postgres import Database
from tests.fixtures.processes import kill
from tests.fixtures.served import NO_ANSWER
from tests.fixtures.waiting import eventually

# After that long an instance is no longer trusted, and is taken for abandoned.
_LONG_AGO = 11.0


async def kill_the_active(instances: Instances) -> None:
    """Kill it; its successor ends what it left on the servers."""
    active, other = await instances.active(), await instances.other()
    await kill(active.running.process)
    if not FAULTS:  # nobody is left who has the dead one's trust
        await instances.age(_LONG_AGO)
    await eventually(other.has_leases, every=GLANCE)


async def pause_the_active(instances: Instances) -> None:
    """Pause it; when it wakes up, it serves nobody and writes nothing."""
    active, other = await instances.active(), await instances.other()
    active.running.process.send_signal(signal.SIGSTOP)
    late = [asyncio.create_task(_ask_late(active, method)) for method in ("GET", "PUT", "POST")]
    await eventually(other.has_leases, every=GLANCE)
    active.running.process.send_signal(signal.SIGCONT)
    assert await active.running.process.wait() == ProcessStatus.LEADERSHIP_LOST
    # 0: it closed the connection.
    assert set(await asyncio.gather(*late)) <= {503, 0}


async def _ask_late(active: Instance, method: str) -> int:
    path = {"GET": "/v1/tenants", "PUT": "/v1/tenants/late", "POST": f"/v1/tenants/{TENANT}/query"}
    body = {"GET": None, "PUT": {"strategy": "per_tenant"}, "POST": {"sql": "SELECT 42"}}
    try:
        response = await active.running.client.request(method, path[method], json=body[method])
    except NO_ANSWER:
        return 0
    return response.status_code


async def stop_the_active(instances: Instances) -> None:
    """Stop it; it hands over and ends in order, and no request through the other one fails."""
    active, other = await instances.active(), await instances.other()
    answers = set()

    async def ask() -> None:
        while active.running.process.returncode is None:
            answers.add(await other.running.query(TENANT, "SELECT 42"))

    asking = asyncio.create_task(ask())
    active.running.process.terminate()
    assert await active.running.process.wait() == ProcessStatus.STOPPED
    await asking
    assert answers == {200}


async def cut_the_active_off_from_the_catalog(instances: Instances) -> None:
    """Cut it off; another one takes over after its trust has ended."""
    active, other = await instances.active(), await instances.other()
    if chance.random() < 0.5:
        active.to_catalog.black_hole()
    else:
        await active.to_catalog.cut()
    await eventually(lambda: _is_active(instances, other), every=GLANCE)
    await eventually(other.has_leases, every=GLANCE)
    await active.to_catalog.pass_through()
    assert await active.running.process.wait() == ProcessStatus.LEADERSHIP_LOST


async def _is_active(instances: Instances, instance: Instance) -> bool:
    return await instances.active() is instance


async def cut_off_the_server(instances: Instances) -> None:
    """Cut off the server; nobody takes over, and connections are lent when it is back."""
    instances.to_server.black_hole()
    await asyncio.sleep(chance.uniform(0, 3))
    await instances.to_server.reset()
    await instances.to_server.pass_through()


async def restart_the_catalog(instances: Instances) -> None:
    """Restart it; whoever takes the lock first goes on, even the same one; another one ends."""
    before = await instances.active()
    for each in instances.all:
        each.to_catalog.refuse()
    async with replace(instances.catalog, database="postgres").connected() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1",
            instances.catalog.database,
        )
    await asyncio.sleep(chance.uniform(0, 3) if FAULTS else 0)
    for each in instances.all:
        await each.to_catalog.pass_through()
    async with instances.catalog.connected() as connection:
        began = await connection.fetchval("SELECT clock_timestamp()")

        async def is_settled() -> bool:
            renewed = await connection.fetchval("SELECT renewed_at > $1 FROM leadership", began)
            has_ended = before.running.process.returncode is not None
            return bool(renewed) and (has_ended or await instances.active() is before)

        await eventually(is_settled, every=GLANCE)


Fault = Callable[[Instances], Awaitable[None]]

EACH_ONCE: list[Fault] = [
    restart_the_catalog,
    pause_the_active,
    kill_the_active,
    cut_the_active_off_from_the_catalog,
    stop_the_active,
]
ALL: list[Fault] = [*EACH_ONCE, cut_off_the_server]


@pytest.mark.long(40)
async def test_one_instance_serves_whatever_happens_to_the_other(
    database: Database, catalog_database: Database, scrub_roles: None, tmp_path: Path
) -> None:
    async with two_instances(database, catalog_database, tmp_path) as instances:
        await inject(instances, each_once=EACH_ONCE, at_random=ALL, recover=instances.recover)
        assert instances.writers.epoch == instances.epoch or not FAULTS
        assert sum(instances.advice.acknowledged.values())
        tenants = (await (await instances.active()).running.client.get("/v1/tenants")).json()
        assert [each["id"] for each in tenants["items"]] == [TENANT]
