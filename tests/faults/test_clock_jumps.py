"""The wall clock is set two days forward or an hour back: nothing expires, no age is negative.

Everything in seconds uses the monotonic clock, which cannot be set; here every `datetime` of the
service is shifted.
"""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from types import ModuleType
from typing import Any
from unittest.mock import AsyncMock

import pytest

from app.domain.errors import CatalogUnavailable
from app.domain.history import Resolution
from app.pools.manager import TenantPoolManager
from tests.fixtures.app import Api, ok
from tests.fixtures.postgres import Database
from tests.fixtures.watch import watched

JUMPS = [timedelta(days=2), timedelta(hours=-1)]
_AGES = ("_seconds", "_ms", "size", "idle", "active", "waiting")


class _EveryDatetime(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Shift the service's wall clock by that much, from now on."""
    clocks: list[ModuleType] = []

    def set_by(shift: timedelta) -> None:
        class Shifted(datetime, metaclass=_EveryDatetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) + shift

        clocks.extend(
            module
            for name, module in sys.modules.items()
            if name.startswith("app.") and getattr(module, "datetime", None) is datetime
        )
        assert {"app.control.monitoring.poller", "app.pools.recorder"} <= {
            one.__name__ for one in clocks
        }
        for module in clocks:
            monkeypatch.setattr(module, "datetime", Shifted)

    return set_by


@pytest.mark.parametrize("shift", JUMPS, ids=["two days forward", "an hour back"])
async def test_nothing_expires_and_nothing_is_evicted(
    api: Api, database: Database, jump: Callable[[timedelta], None], shift: timedelta
) -> None:
    service, manager = api.service, api.service.manager
    async with watched(database, budget=manager.servers["local"].budget.limit):
        own, shared = await api.tenant("own"), await api.tenant("shared", "shared")
        for url in (own, shared):
            assert await api.value(url, "SELECT 42") == 42
        await service.poller.run_once()
        before = opened_and_closed(manager)
        jump(shift)
        for url in (own, shared):
            assert await api.value(url, "SELECT 42") == 42
        await service.health_checks.run_once()
        await service.poller.run_once()
        await service.reconciler.run_once()
        assert opened_and_closed(manager) == before
        assert manager.active_pools == 2
        assert not manager.evictions
        assert manager.servers["local"].is_available


@pytest.mark.parametrize("shift", JUMPS, ids=["two days forward", "an hour back"])
async def test_no_age_is_negative_in_any_answer(
    api: Api, jump: Callable[[timedelta], None], shift: timedelta
) -> None:
    own = await api.tenant("own")
    assert await api.value(own, "SELECT 42") == 42
    await api.service.poller.run_once()
    jump(shift)
    assert await api.value(own, "SELECT 42") == 42
    await api.service.poller.run_once()
    for path in ("/readyz", "/v1/pools", "/v1/stats", "/v1/servers", f"{own}/stats", f"{own}/pool"):
        found = list(ages(ok(await api.client.get(path))))
        assert found or path == "/readyz"
        assert [age for age in found if age[1] < 0] == []


@pytest.mark.parametrize(
    ("minutes", "failing"), [((0, 1, 2, 0, 1, 2, 3), ()), ((0, 1, 2, 0, 2, 1, 2, 3), (3, 4))]
)
async def test_what_is_used_after_the_clock_was_set_back_is_not_lost(
    api: Api,
    jump: Callable[[timedelta], None],
    monkeypatch: pytest.MonkeyPatch,
    *,
    minutes: tuple[int, ...],
    failing: tuple[int, ...],
) -> None:
    """Not even if the catalog could not sum it up before the clock was set back again."""
    own, service = await api.tenant("own"), api.service
    start = datetime.now(UTC)
    for poll, minute in enumerate(minutes):
        jump(timedelta(minutes=minute))
        assert await api.value(own, "SELECT 42") == 42
        await service.poller.run_once()
        with monkeypatch.context() as patch:
            if poll in failing:
                away = AsyncMock(side_effect=CatalogUnavailable("away"))
                patch.setattr(service.catalog.samples, "downsample", away)
            await service.retention.run_once()
    found = await service.catalog.samples.query_history(
        "own", start=start - timedelta(hours=1), end=start + timedelta(minutes=10), step=60
    )
    assert found.resolution is Resolution.MINUTE
    assert sum(point.acquired for point in found.points) == len(minutes)


def opened_and_closed(manager: TenantPoolManager) -> list[tuple[str, int, int]]:
    """The number of connections that each pool has opened and closed so far."""
    return [
        (pool.pool_id, pool.recorder.connections_opened, pool.recorder.connections_closed)
        for pool in manager.pools()
    ]


def ages(body: Any, name: str = "") -> Iterator[tuple[str, float]]:  # noqa: ANN401 - JSON
    """Every duration and every count in an answer, by name."""
    match body:
        case dict():
            for key, value in body.items():
                yield from ages(value, key)
        case list():
            for value in body:
                yield from ages(value, name)
        case int() | float() if name.endswith(_AGES):
            yield name, float(body)
