"""Whose login is next, and that none holds the others up."""

from __future__ import annotations

import asyncio

import pytest

from app.pools.connect_limiter import ConnectLimiter
from tests.fixtures.waiting import eventually


class Logins:
    """Logins that begin when the limiter lets them, and end when a test says so."""

    def __init__(self, limiter: ConnectLimiter) -> None:
        self.limiter = limiter
        self.inside: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._over: dict[str, asyncio.Event] = {}

    def ask(self, name: str, *, first: bool = False) -> None:
        self._over[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._log_in(name, first=first), name=name)

    async def _log_in(self, name: str, *, first: bool) -> None:
        async with self.limiter.slot(first=first):
            self.inside.append(name)
            try:
                await self._over[name].wait()
            finally:
                self.inside.remove(name)

    async def end(self) -> None:
        for over in self._over.values():
            over.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        assert self.limiter._inside == set()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_last_place_is_left_to_those_who_are_first() -> None:
    logins = Logins(ConnectLimiter(3, long=60))
    for name in "abc":
        logins.ask(name)
    await settled()
    assert logins.inside == ["a", "b"]
    logins.ask("first", first=True)
    await settled()
    assert logins.inside == ["a", "b", "first"]
    logins.tasks["a"].cancel()
    await settled()
    assert logins.inside == ["b", "first"]
    logins.tasks["first"].cancel()
    await settled()
    assert logins.inside == ["b", "c"]
    await logins.end()


@pytest.mark.parametrize("limit", [1, 2, 4])
async def test_logins_that_hang_give_their_places_up(limit: int) -> None:
    logins = Logins(ConnectLimiter(limit, long=0.01))
    for number in range(3 * limit):
        logins.ask(f"hangs {number}")
    logins.ask("well")
    await eventually(lambda: "well" in logins.inside)
    assert len(logins.inside) == 3 * limit + 1
    await logins.end()


async def test_whoever_is_cancelled_takes_no_place() -> None:
    limiter = ConnectLimiter(1, long=60)
    logins = Logins(limiter)
    logins.ask("inside")
    await settled()
    for name in ("waits", "waits too"):
        logins.ask(name)
    await settled()
    logins.tasks["waits"].cancel()
    logins._over["inside"].set()
    await settled()
    assert logins.inside == ["waits too"]
    await logins.end()


async def test_who_goes_first_overtakes_the_queue_in_order_of_coming() -> None:
    logins = Logins(ConnectLimiter(1, long=60))
    for name in "ab":
        logins.ask(name)
    for name in "xy":
        logins.ask(name, first=True)
    await settled()
    for now, following in (("a", ["x"]), ("x", ["y"]), ("y", ["b"])):
        logins._over[now].set()
        await settled()
        assert logins.inside == following
    await logins.end()


async def test_a_place_given_in_the_moment_of_giving_up_is_given_back() -> None:
    logins = Logins(ConnectLimiter(1, long=60))
    for name in "abc":
        logins.ask(name)
    await settled()
    logins._over["a"].set()
    await asyncio.sleep(0)
    logins.tasks["b"].cancel()
    await settled()
    assert logins.inside == ["c"]
    await logins.end()
