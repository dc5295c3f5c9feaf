"""The cache: what it keeps, what goes first, and that a naive one would do the same."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.pools.lru import Entry, TenantLruCache

IDLE_TIMEOUT = 60.0


class Clock:
    """Monotonic seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> TenantLruCache[str, int]:
    """Three entries, inserted ten seconds apart."""
    cache: TenantLruCache[str, int] = TenantLruCache(3, IDLE_TIMEOUT, clock=clock)
    for value, key in enumerate("abc", start=1):
        cache.insert(key, value)
        clock.now += 10
    return cache


Cache = TenantLruCache[str, int]


def entry_of(cache: Cache, key: str) -> Entry[str, int]:
    """What `insert` returned for it."""
    return cache._entries[key]


def test_an_insert_beyond_the_capacity_costs_the_least_recently_used(cache: Cache) -> None:
    assert len(cache) == 3
    assert cache.get("a") == 1
    assert cache.is_full
    assert cache.evict_one() == (2, False)
    cache.insert("d", 4)
    assert len(cache) == 3
    assert cache.get("a") == 1
    assert "b" not in cache


def test_entries_go_in_the_order_of_their_last_use(cache: Cache) -> None:
    cache.get("b")
    cache.get("a")
    assert [cache.evict_one() for _ in range(4)] == [(3, False), (2, False), (1, False), None]
    assert len(cache) == 0


@pytest.mark.parametrize(
    "look", [TenantLruCache.peek, TenantLruCache.__contains__, TenantLruCache.access_count]
)
def test_looking_is_no_use(cache: Cache, look: Callable[[Cache, str], object]) -> None:
    look(cache, "a")
    assert cache.access_count("a") == 1
    assert cache.evict_one() == (1, False)


def test_what_is_not_here_is_none(cache: Cache) -> None:
    assert (cache.get("x"), cache.peek("x"), cache.remove("x")) == (None, None, None)
    assert (cache.access_count("x"), "x" in cache) == (0, False)


def test_an_access_count_begins_with_the_insert_and_starts_anew_with_the_next(
    cache: Cache,
) -> None:
    assert cache.access_count("a") == 1
    cache.get("a")
    cache.get("a")
    assert cache.access_count("a") == 3
    cache.insert("a", 9)
    assert (cache.access_count("a"), cache.peek("a"), len(cache)) == (1, 9, 3)


def test_a_pinned_entry_is_never_evicted(cache: Cache, clock: Clock) -> None:
    entry_of(cache, "a").pin()
    clock.now += 10 * IDLE_TIMEOUT
    assert sorted(cache.evict_expired()) == [2, 3]
    assert cache.evict_one() is None
    assert list(cache) == [1]


def test_an_entry_pinned_twice_is_unpinned_twice(cache: Cache) -> None:
    entry_of(cache, "a").pin()
    entry_of(cache, "a").pin()
    entry_of(cache, "a").unpin()
    assert [cache.evict_one() for _ in range(3)] == [(2, False), (3, False), None]
    entry_of(cache, "a").unpin()
    assert cache.evict_one() == (1, False)


def test_the_last_unpin_is_a_use(cache: Cache, clock: Clock) -> None:
    entry_of(cache, "a").pin()
    assert cache.evict_one() == (2, False)
    clock.now += IDLE_TIMEOUT + 1
    entry_of(cache, "a").unpin()
    assert cache.evict_expired() == [3]
    assert cache.evict_one() == (1, False)


def test_using_a_pinned_entry_does_not_make_it_evictable(cache: Cache) -> None:
    entry_of(cache, "a").pin()
    cache.get("a")
    assert [cache.evict_one() for _ in range(3)] == [(2, False), (3, False), None]


def test_a_pinned_entry_can_be_taken_out_and_its_unpin_is_ignored(cache: Cache) -> None:
    entry = entry_of(cache, "a")
    entry.pin()
    assert cache.remove("a") == 1
    entry.unpin()
    assert "a" not in cache
    assert cache.evict_one() == (2, False)


@pytest.mark.parametrize(
    "take_out", [lambda cache: cache.remove("a"), TenantLruCache.evict_one], ids=["remove", "evict"]
)
def test_whoever_still_holds_an_entry_taken_out_cannot_disturb_its_successor(
    cache: Cache, take_out: Callable[[Cache], object]
) -> None:
    gone = entry_of(cache, "a")
    take_out(cache)
    new = cache.insert("a", 9)
    gone.pin()
    gone.unpin()
    gone.unpin()
    gone.use()
    new.pin()
    assert [cache.evict_one() for _ in range(3)] == [(2, False), (3, False), None]
    new.unpin()
    assert cache.evict_one() == (9, False)


def test_an_entry_is_expired_only_after_more_than_the_timeout(cache: Cache, clock: Clock) -> None:
    clock.now = 1000.0 + IDLE_TIMEOUT
    assert cache.evict_expired() == []
    clock.now += 0.001
    assert cache.evict_expired() == [1]
    clock.now += 10
    assert cache.evict_one() == (2, True)
    assert cache.evict_one() == (3, False)


@dataclass(eq=False)
class Kept:
    """One entry of the naive cache."""

    key: str
    value: int
    last_access: float
    uses: int = 1
    pins: int = 0


class LruMachine(RuleBasedStateMachine):
    """Every sequence of uses, against a list in the order of last use."""

    keys = st.sampled_from("abcdef")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.cache: Cache = TenantLruCache(4, IDLE_TIMEOUT, clock=self.clock)
        self.kept: list[Kept] = []
        self.serial = 0
        self.gone: list[Entry[str, int]] = []

    def find(self, key: str) -> Kept | None:
        return next((kept for kept in self.kept if kept.key == key), None)

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

    @rule(key=keys)
    def insert(self, key: str) -> None:
        if key not in self.cache and self.cache.is_full:
            self.evict_one()
        if key not in self.cache and self.cache.is_full:
            return
        self.serial += 1
        self.kept = [kept for kept in self.kept if kept.key != key]
        self.kept.append(Kept(key, self.serial, self.clock.now))
        self.cache.insert(key, self.serial)

    @rule(key=keys)
    def get(self, key: str) -> None:
        kept = self.find(key)
        assert self.cache.get(key) == (kept.value if kept else None)
        if kept:
            kept.uses += 1
            self.used(kept)

    @rule(key=keys)
    def remove(self, key: str) -> None:
        kept = self.find(key)
        if kept:
            self.gone.append(entry_of(self.cache, key))
            self.kept.remove(kept)
        assert self.cache.remove(key) == (kept.value if kept else None)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def use_what_is_gone(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.gone))
        gone.pin()
        gone.use()
        gone.unpin()

    @rule(key=keys)
    def pin(self, key: str) -> None:
        if kept := self.find(key):
            entry_of(self.cache, key).pin()
            kept.pins += 1

    @rule(key=keys)
    def unpin(self, key: str) -> None:
        kept = self.find(key)
        if kept and kept.pins:
            entry_of(self.cache, key).unpin()
            kept.pins -= 1
            if not kept.pins:
                self.used(kept)

    @rule()
    def evict_one(self) -> None:
        expected = next(iter(self.evictable()), None)
        evicted = self.cache.evict_one()
        if expected is None:
            assert evicted is None
        else:
            assert evicted == (expected.value, self.is_expired(expected))
            self.kept.remove(expected)

    @precondition(lambda self: any(self.is_expired(kept) for kept in self.kept))
    @rule()
    def evict_expired(self) -> None:
        expired = [kept for kept in self.evictable() if self.is_expired(kept)]
        assert self.cache.evict_expired() == [kept.value for kept in expired]
        self.kept = [kept for kept in self.kept if kept not in expired]

    @invariant()
    def both_hold_the_same(self) -> None:
        assert len(self.cache) == len(self.kept) <= self.cache.max_size
        assert sorted(self.cache) == sorted(kept.value for kept in self.kept)
        for kept in self.kept:
            assert kept.key in self.cache
            assert self.cache.peek(kept.key) == kept.value
            assert self.cache.access_count(kept.key) == kept.uses

    @invariant()
    def it_is_full_at_its_capacity(self) -> None:
        assert self.cache.is_full == (len(self.kept) == self.cache.max_size)


TestAnySequenceOfUses = LruMachine.TestCase
