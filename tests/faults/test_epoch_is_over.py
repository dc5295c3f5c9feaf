"""Another epoch has begun: whatever an instance still does, it writes nothing to the catalog."""

from contextlib import suppress

import pytest

from app.domain.errors import CatalogUnavailable
from tests.catalog.values import event, recommendation
from tests.fixtures.app import Api, ApiWith
from tests.fixtures.postgres import Database
from tests.fixtures.writers import TABLES, note_writers

REFUSED = {404, 503}


async def do_everything(api: Api, name: str, size: int) -> set[int]:
    """Do everything that writes, by requests and otherwise; returns the requests' statuses."""
    service = api.service
    mode = "recommend" if size % 2 else "off"
    statuses = [
        (await api.client.request(method, f"/v1{path}", json=body)).status_code
        for method, path, body in (
            ("PUT", f"/tenants/{name}", {"strategy": "per_tenant"}),
            ("PUT", "/tenants/acme/pool", {"max_size": size}),
            ("POST", "/tenants/acme/rotate-credentials", None),
            ("PUT", "/nodes/edge", {"labels": {"size": str(size)}}),
            ("PUT", "/advisor", {"mode": mode}),
            ("DELETE", f"/tenants/{name}", None),
        )
    ]

    async def give_node_more() -> None:
        node = service.fleet.nodes["edge"]
        node.largest = {"local": size}
        await service.fleet.begin_session(node)

    for write in (
        service.node_feed.refresh,
        give_node_more,
        lambda: service.catalog.recommendations.add(recommendation()),
        lambda: service.audit_outbox.record(event()),
        service.poller.run_once,
        service.retention.run_once,
        service.reconciler.run_once,
        service.health_checks.run_once,
        service.advisor_loop.tick,
    ):
        with suppress(CatalogUnavailable):
            await write()
    return set(statuses)


async def test_nothing_that_an_instance_does_is_written_in_another_epoch(
    api_with: ApiWith, catalog_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.runtime.lifecycle.stop_process", lambda: None)
    async with (
        api_with() as api,
        catalog_database.connected() as connection,
    ):
        await api.tenant("acme")
        await note_writers(catalog_database)

        async def written() -> set[str]:
            rows = await connection.fetch("DELETE FROM written RETURNING relation")
            return {relation for [relation] in rows}

        assert not REFUSED & await do_everything(api, "first", 3)
        assert await written() == TABLES
        await connection.execute("UPDATE leadership SET epoch = 7, holder = 'another'")
        assert await do_everything(api, "second", 4) <= REFUSED
        assert await written() == set()
    assert await written_at_the_end(catalog_database) == 0


async def written_at_the_end(catalog: Database) -> int:
    """What an instance writes last."""
    async with catalog.connected() as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM written")
        return count
