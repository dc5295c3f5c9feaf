"""Names are resolved outside of the event loop, and independently of each other."""

import asyncio
import socket
from threading import Event, active_count

import pytest

from app.wire.resolver import Address, Resolver, interleave_families
from tests.fixtures.waiting import eventually

V4, V6 = socket.AF_INET, socket.AF_INET6


def v4(last: int) -> Address:
    return Address(V4, f"127.0.0.{last}", 5432)


def v6(last: int) -> Address:
    return Address(V6, f"::{last}", 5432)


def test_families_take_turns_and_nothing_comes_twice() -> None:
    assert interleave_families([v6(1), v6(1), v6(2), v6(3), v4(1), v4(1)]) == [
        v6(1),
        v4(1),
        v6(2),
        v6(3),
    ]
    assert interleave_families([]) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%lo"])
async def test_an_address_is_not_looked_up(host: str) -> None:
    def look_up(host: str, port: int) -> list[Address]:
        raise AssertionError(host)

    [address] = await Resolver(look_up).addresses(host, 5432)
    assert address == (V6 if ":" in host else V4, host, 5432)


async def test_the_address_that_worked_comes_first() -> None:
    resolver = Resolver(lambda *_: [v4(1), v4(2), v4(3)])
    resolver.prefer("db", 5432, v4(3))
    assert await resolver.addresses("db", 5432) == [v4(3), v4(1), v4(2)]
    resolver.prefer("db", 5432, v4(9))
    assert await resolver.addresses("db", 5432) == [v4(1), v4(2), v4(3)]


async def test_a_name_that_hangs_takes_one_thread_and_delays_no_other() -> None:
    response, asked = Event(), []

    def look_up(host: str, port: int) -> list[Address]:
        asked.append(host)
        if host == "hangs":
            response.wait(30)
        return [v4(1)]

    resolver, threads = Resolver(look_up), active_count()
    hanging = [asyncio.create_task(resolver.addresses("hangs", 5432)) for _ in range(100)]
    try:
        await eventually(lambda: asked == ["hangs"])
        hanging[0].cancel()
        for number in range(50):
            assert await resolver.addresses(f"name-{number}", 5432) == [v4(1)]
        assert asked.count("hangs") == 1
        await eventually(lambda: active_count() <= threads + 1)
        assert not any(task.done() for task in hanging[1:])
    finally:
        response.set()
    assert await asyncio.gather(*hanging[1:]) == [[v4(1)]] * 99
    assert await resolver.addresses("hangs", 5432) == [v4(1)]
    assert asked.count("hangs") == 2


async def test_a_failed_lookup_fails_all_waiters_and_the_next_one_asks_again() -> None:
    answers: list[list[Address] | OSError] = [[v4(1)], socket.gaierror(socket.EAI_AGAIN, "later")]

    def look_up(host: str, port: int) -> list[Address]:
        response = answers.pop()
        if isinstance(response, OSError):
            raise response
        return response

    resolver = Resolver(look_up)
    with pytest.raises(socket.gaierror, match="later"):
        await resolver.addresses("db", 5432)
    assert await resolver.addresses("db", 5432) == [v4(1)]


@pytest.mark.parametrize("host", ["", "no-such-name.invalid", "a..b", "x" * 64 + ".y", "sp ace"])
async def test_an_invalid_name_is_a_failed_lookup(host: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - which one is the system's business
        await Resolver().addresses(host, 5432)
