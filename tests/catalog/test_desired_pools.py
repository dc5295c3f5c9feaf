"""A pool's desired state is stored, changed and deleted with the rules of desired state."""

import asyncio

import pytest
from sqlalchemy.exc import DBAPIError

from app.catalog.catalog import Catalog
from app.domain.desired_pool import Pause
from app.domain.errors import StaleVersion
from app.domain.pool import PoolSize
from tests.catalog.values import NOON, actions, event, refused_event

PAUSE = Pause(since=NOON, by="ops")
SIZE = PoolSize(min_size=1, max_size=8, warmup_size=2)


async def test_what_was_asked_is_loaded_as_it_was_saved(catalog: Catalog) -> None:
    first, created = await catalog.pools.save(
        "shared@local", SIZE, pause=PAUSE, event=event("pool.created")
    )
    assert created
    assert (first.pool_id, first.size, first.pause) == ("shared@local", SIZE, PAUSE)
    assert first.generation == 1
    assert await catalog.pools.load() == (first,)


async def test_only_a_change_grows_the_generation(catalog: Catalog) -> None:
    first = await catalog.pools.save("acme", SIZE, pause=None, event=event("pool.created"))
    again = await catalog.pools.save("acme", SIZE, pause=None, event=event("no"))
    assert again == (first[0], False)
    paused, created = await catalog.pools.save(
        "acme", SIZE, pause=PAUSE, event=event("pool.paused"), expected_generation=1
    )
    assert (paused.generation, paused.paused, created) == (2, True, False)
    with pytest.raises(StaleVersion):
        await catalog.pools.save(
            "acme", PoolSize(), pause=None, event=event("no"), expected_generation=1
        )
    assert await actions(catalog) == ["pool.paused", "pool.created"]


async def test_the_number_of_recyclings_is_stored(catalog: Catalog) -> None:
    await catalog.pools.save("acme", SIZE, pause=None)
    stored, _ = await catalog.pools.save("acme", SIZE, pause=None, recycles=3)
    assert stored.recycles == 3
    assert await catalog.pools.load() == (stored,)


async def test_a_pool_that_was_never_changed_has_generation_zero(catalog: Catalog) -> None:
    with pytest.raises(StaleVersion):
        await catalog.pools.save("acme", SIZE, pause=None, event=event("no"), expected_generation=1)
    outcomes = await asyncio.gather(
        *(
            catalog.pools.save(
                "acme", SIZE, pause=None, event=event("pool.created"), expected_generation=0
            )
            for _ in range(5)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, StaleVersion) for outcome in outcomes) == 4
    assert await actions(catalog) == ["pool.created"]


async def test_no_change_without_its_event(catalog: Catalog) -> None:
    first, _ = await catalog.pools.save("acme", SIZE, pause=None, event=event("pool.created"))
    with pytest.raises(DBAPIError):
        await catalog.pools.save("acme", PoolSize(), pause=None, event=refused_event())
    assert await catalog.pools.load() == (first,)
