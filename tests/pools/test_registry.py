"""The registry of open pools: what it keeps and what it evicts first, against a naive one."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.domain.errors import PoolLimitReached
from app.domain.eviction import EvictionReason
from app.domain.pool import PoolConfig, PoolSize
from app.pools.pool import Pool
from app.pools.registry import PoolRegistry
from tests.fixtures.clock import Clock
from tests.fixtures.pools import account

IDLE_TIMEOUT = 60.0
IDLE, LRU = EvictionReason.IDLE, EvictionReason.LRU


class Registry(PoolRegistry):
    """A registry of pools that are only names, and what it has evicted."""

    def __init__(self, capacity: int) -> None:
        self.evicted: list[tuple[str, EvictionReason]] = []
        config = PoolConfig.per_tenant(idle_timeout=IDLE_TIMEOUT)
        super().__init__(config, capacity=capacity, evict=self._note)

    def _note(self, pool: Pool, reason: EvictionReason) -> None:
        self.evicted.append((pool.pool_id, reason))

    def opened(self, pool_id: str, *, min_size: int = 0) -> Pool:
        """Add a pool that has just opened."""
        pool = cast("Pool", NamedPool(pool_id, PoolSize(min_size=min_size)))
        self.add(pool)
        return pool

    @property
    def ids(self) -> list[str]:
        return sorted(pool.pool_id for pool in self)


@dataclass(eq=False)
class NamedPool:
    """What the registry reads of a pool."""

    pool_id: str
    size: PoolSize


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("app.pools.registry.monotonic", clock)
    return clock


@pytest.fixture
def registry(clock: Clock) -> Registry:
    """A registry of three pools, opened ten seconds apart; it holds no more."""
    registry = Registry(3)
    for pool_id in "abc":
        registry.opened(pool_id)
        clock.now += 10
    return registry


@pytest.fixture
def wait() -> Iterator[Callable[[Registry, str], None]]:
    loop = asyncio.new_event_loop()

    def wait(registry: Registry, pool_id: str) -> None:
        loop.run_until_complete(registry.wait_for_slot(account(pool_id), 0))

    yield wait
    loop.close()


Wait = Callable[[Registry, str], None]


def pool_of(registry: Registry, pool_id: str) -> Pool:
    pool = registry.find(pool_id)
    assert pool is not None
    return pool


def test_a_pool_beyond_the_capacity_evicts_the_least_recently_used(
    registry: Registry, wait: Wait
) -> None:
    registry.use("a")
    wait(registry, "d")
    assert registry.evicted == [("b", LRU)]
    registry.opened("d")
    assert registry.ids == ["a", "c", "d"]


def test_a_pool_that_is_open_needs_no_slot(registry: Registry, wait: Wait) -> None:
    wait(registry, "a")
    assert (registry.ids, registry.evicted) == (["a", "b", "c"], [])


@pytest.mark.parametrize("look", [PoolRegistry.find, PoolRegistry.access_count])
def test_looking_is_no_use(
    registry: Registry, wait: Wait, look: Callable[[PoolRegistry, str], object]
) -> None:
    look(registry, "a")
    assert registry.access_count("a") == 1
    wait(registry, "d")
    assert registry.evicted == [("a", LRU)]


def test_a_pool_that_is_not_open_is_none(registry: Registry) -> None:
    assert (registry.use("x"), registry.find("x"), registry.access_count("x")) == (None, None, 0)


def test_an_access_count_starts_again_with_each_opening(
    registry: Registry,
) -> None:
    registry.use("a")
    registry.use("a")
    assert registry.access_count("a") == 3
    assert registry.remove(pool_of(registry, "a"))
    registry.opened("a")
    assert registry.access_count("a") == 1


def test_a_pinned_pool_is_never_evicted(registry: Registry, clock: Clock, wait: Wait) -> None:
    registry.pin(pool_of(registry, "a"))
    clock.now += 10 * IDLE_TIMEOUT
    assert [pool.pool_id for pool in registry.expired()] == ["b", "c"]
    list(registry.evict_expired())
    assert registry.evicted == [("b", IDLE), ("c", IDLE)]
    for pool_id in "de":
        registry.opened(pool_id, min_size=1)
    with pytest.raises(PoolLimitReached, match="All 3 pools of strategy per_tenant are busy"):
        wait(registry, "f")


def test_a_pool_pinned_twice_is_unpinned_twice(registry: Registry, wait: Wait) -> None:
    pool = pool_of(registry, "a")
    registry.pin(pool)
    registry.pin(pool)
    registry.unpin(pool)
    wait(registry, "d")
    assert registry.evicted == [("b", LRU)]
    registry.unpin(pool)
    registry.opened("d")
    wait(registry, "e")
    wait(registry, "f")
    assert registry.evicted == [("b", LRU), ("c", LRU)]


def test_the_last_unpin_is_a_use(registry: Registry, clock: Clock) -> None:
    pool = pool_of(registry, "a")
    registry.pin(pool)
    clock.now += IDLE_TIMEOUT + 1
    registry.unpin(pool)
    list(registry.evict_expired())
    assert registry.ids == ["a"]


def test_a_pool_taken_out_cannot_disturb_its_successor(registry: Registry, wait: Wait) -> None:
    gone = pool_of(registry, "a")
    registry.pin(gone)
    assert registry.remove(gone)
    assert not registry.remove(gone)
    new = registry.opened("a")
    registry.unpin(gone)
    registry.pin(gone)
    registry.pin(new)
    wait(registry, "d")
    assert registry.evicted == [("b", LRU)]
    assert registry.find("a") is new


def test_a_pool_is_expired_only_after_more_than_the_timeout(
    registry: Registry, clock: Clock, wait: Wait
) -> None:
    clock.now = 1000.0 + IDLE_TIMEOUT
    assert not list(registry.evict_expired())
    clock.now += 0.001
    list(registry.evict_expired())
    registry.opened("d")
    clock.now += 10
    wait(registry, "e")
    assert registry.evicted == [("a", IDLE), ("b", IDLE)]


async def test_slots_go_to_those_who_wait_in_the_order_in_which_they_came(
    registry: Registry,
) -> None:
    pools = [pool_of(registry, name) for name in "abc"]
    for pool in pools:
        registry.pin(pool)
    got: list[str] = []

    async def newcomer(pool_id: str) -> None:
        await registry.wait_for_slot(account(pool_id), 60)
        got.append(pool_id)
        registry.pin(registry.opened(pool_id))

    tasks = [asyncio.create_task(newcomer(pool_id)) for pool_id in "defg"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    for pool in pools:
        registry.unpin(pool)
    await asyncio.wait(tasks)
    assert got == ["d", "f", "g"]
    assert registry.ids == ["d", "f", "g"]
    assert not registry._queue
    assert not registry.awaited


@dataclass(eq=False)
class Kept:
    """An entry of the naive registry."""

    pool: Pool
    last_access: float
    uses: int = 1
    pins: int = 0


class RegistryMachine(RuleBasedStateMachine):
    """Every sequence of uses, against a list in the order of last use."""

    ids = st.sampled_from("abcdef")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("app.pools.registry.monotonic", self.clock)
        self.loop = asyncio.new_event_loop()
        self.registry = Registry(4)
        self.kept: list[Kept] = []
        self.gone: list[Pool] = []

    def teardown(self) -> None:
        self.loop.close()
        self.patch.undo()

    def find(self, pool_id: str) -> Kept | None:
        return next((kept for kept in self.kept if kept.pool.pool_id == pool_id), None)

    def used(self, kept: Kept) -> None:
        kept.last_access = self.clock.now
        self.kept.remove(kept)
        self.kept.append(kept)

    def evictable(self) -> list[Kept]:
        return [kept for kept in self.kept if not kept.pins]

    def is_expired(self, kept: Kept) -> bool:
        return self.clock.now - kept.last_access > IDLE_TIMEOUT

    @rule(seconds=st.sampled_from([0.0, 1.0, 30.0, 60.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(pool_id=ids, min_size=st.sampled_from([0, 0, 0, 1]))
    def open(self, pool_id: str, min_size: int) -> None:
        if self.find(pool_id):
            return
        self.registry.evicted.clear()
        victim = next(iter(self.evictable()), None) if len(self.kept) == 4 else None
        if victim is None and len(self.kept) == 4:
            with pytest.raises(PoolLimitReached):
                self.loop.run_until_complete(self.registry.wait_for_slot(account(pool_id), 0))
            return
        self.loop.run_until_complete(self.registry.wait_for_slot(account(pool_id), 0))
        if victim:
            reason = IDLE if self.is_expired(victim) else LRU
            assert self.registry.evicted == [(victim.pool.pool_id, reason)]
            self.kept.remove(victim)
            self.gone.append(victim.pool)
        pool = self.registry.opened(pool_id, min_size=min_size)
        self.kept.append(Kept(pool, self.clock.now, pins=min_size))

    @rule(pool_id=ids)
    def use(self, pool_id: str) -> None:
        kept = self.find(pool_id)
        assert self.registry.use(pool_id) is (kept.pool if kept else None)
        if kept:
            kept.uses += 1
            self.used(kept)

    @rule(pool_id=ids)
    def remove(self, pool_id: str) -> None:
        if kept := self.find(pool_id):
            assert self.registry.remove(kept.pool)
            self.kept.remove(kept)
            self.gone.append(kept.pool)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def use_what_is_gone(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.gone))
        self.registry.pin(gone)
        self.registry.unpin(gone)
        assert not self.registry.remove(gone)

    @rule(pool_id=ids)
    def pin(self, pool_id: str) -> None:
        if kept := self.find(pool_id):
            self.registry.pin(kept.pool)
            kept.pins += 1

    @rule(pool_id=ids)
    def unpin(self, pool_id: str) -> None:
        kept = self.find(pool_id)
        if kept and kept.pins:
            self.registry.unpin(kept.pool)
            kept.pins -= 1
            if not kept.pins:
                self.used(kept)

    @precondition(lambda self: any(self.is_expired(kept) for kept in self.kept))
    @rule()
    def evict_expired(self) -> None:
        expired = [kept for kept in self.evictable() if self.is_expired(kept)]
        assert self.registry.expired() == [kept.pool for kept in expired]
        assert list(self.registry.evict_expired()) == [kept.pool for kept in expired]
        self.kept = [kept for kept in self.kept if kept not in expired]
        self.gone += [kept.pool for kept in expired]

    @invariant()
    def both_hold_the_same(self) -> None:
        assert len(self.registry) == len(self.kept) <= 4
        assert self.registry.ids == sorted(kept.pool.pool_id for kept in self.kept)
        for kept in self.kept:
            assert self.registry.find(kept.pool.pool_id) is kept.pool
            assert self.registry.access_count(kept.pool.pool_id) == kept.uses


TestAnySequenceOfUses = RegistryMachine.TestCase
