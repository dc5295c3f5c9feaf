"""A creation whose commit was not confirmed can be repeated, and still only one caller wins."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from app.catalog import in_doubt_writes
from app.catalog.catalog import Catalog
from app.catalog.database import Database
from app.domain.advisor import PoolPressureMonitorConfig
from app.domain.advisor_settings import AdvisorRule, AdvisorSettings
from app.domain.errors import CatalogUnavailable, StaleVersion
from app.domain.nodes.declaration import NodeSpec
from app.domain.pool import PoolSize
from app.domain.tenant import AdvisorMode
from tests.catalog.values import event, spec
from tests.fixtures.control import Control, spec_of

Create = Callable[[Catalog, int | None], Awaitable[object]]

SETTINGS = AdvisorSettings(
    rule=AdvisorRule.HYSTERESIS,
    mode=AdvisorMode.RECOMMEND,
    hysteresis=PoolPressureMonitorConfig(),
)


def lose_responses(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException] = CatalogUnavailable
) -> None:
    """Let commits succeed without telling anybody."""
    begin = Database.transaction

    @asynccontextmanager
    async def transaction(self: Database) -> AsyncIterator[AsyncConnection]:
        async with begin(self) as connection:
            yield connection
        raise error

    monkeypatch.setattr(Database, "transaction", transaction)


async def create_tenant(catalog: Catalog, expected: int | None) -> object:
    return await catalog.tenants.save(spec(), event=event(), expected_generation=expected)


async def create_node(catalog: Catalog, expected: int | None) -> object:
    return await catalog.nodes.save(
        NodeSpec(name="edge"),
        paused=False,
        draining=False,
        event=event(),
        expected_generation=expected,
    )


async def change_pool(catalog: Catalog, expected: int | None) -> object:
    return await catalog.pools.save(
        "acme", PoolSize(), pause=None, event=event(), expected_generation=expected
    )


async def save_settings(catalog: Catalog, expected: int | None) -> object:
    return await catalog.advisor.save(SETTINGS, event=event(), expected_generation=expected)


@pytest.mark.parametrize("create", [create_tenant, create_node, change_pool, save_settings])
@pytest.mark.parametrize("expected", [0, None])
async def test_nobody_was_told_and_so_the_next_caller_is_the_first(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, create: Create, expected: int | None
) -> None:
    with monkeypatch.context() as patched:
        lose_responses(patched)
        with pytest.raises(CatalogUnavailable):
            await create(catalog, expected)
    await create(catalog, 0)
    with pytest.raises(StaleVersion):
        await create(catalog, 0)
    assert len(await catalog.audit_log.page()) == 1


@pytest.mark.parametrize("expected", [1, None])
async def test_what_exists_cannot_be_created_while_a_change_of_it_is_in_doubt(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, expected: int | None
) -> None:
    await catalog.tenants.save(spec("acme"), event=event(), expected_generation=0)
    with monkeypatch.context() as patched:
        lose_responses(patched)
        with pytest.raises(CatalogUnavailable):
            await catalog.tenants.save(
                replace(spec("acme"), weight=2), event=event(), expected_generation=expected
            )
    with pytest.raises(StaleVersion):
        await catalog.tenants.save(
            replace(spec("acme"), weight=3), event=event(), expected_generation=0
        )


async def test_a_creation_can_be_repeated_until_a_response_arrives(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        lose_responses(patched)
        for weight in (1, 2):
            with pytest.raises(CatalogUnavailable):
                await catalog.tenants.save(
                    replace(spec("acme"), weight=weight), event=event(), expected_generation=0
                )
    await catalog.tenants.save(spec("acme"), event=event(), expected_generation=0)
    with pytest.raises(StaleVersion):
        await catalog.tenants.save(spec("acme"), event=event(), expected_generation=0)


async def test_what_is_not_shown_can_be_created(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        lose_responses(patched)
        with pytest.raises(CatalogUnavailable):
            await control.declare(spec_of("acme"), expect=lambda _: 0)
    assert "acme" not in control.manager.tenants
    # So can another desired state than before.
    changed = spec_of("acme", weight=2)
    tenant, _ = await control.declare(changed, expect=lambda _: 0)
    assert control.state("acme").tenant == tenant
    with pytest.raises(StaleVersion):
        await control.declare(changed, expect=lambda _: 0)


@pytest.mark.parametrize("error", [CatalogUnavailable, asyncio.CancelledError])
async def test_it_is_in_doubt_until_it_is_read(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    monkeypatch.setattr(in_doubt_writes, "REPEATED_WITHIN", 0.0)
    with monkeypatch.context() as patched:
        lose_responses(patched, error)
        with pytest.raises(error):
            await catalog.tenants.save(spec("acme"), event=event(), expected_generation=0)
    assert list(catalog.tenants.in_doubt) == ["acme"]
    stored = await catalog.tenants.read(spec("acme").id)
    assert stored is not None
    assert not catalog.tenants.in_doubt
