"""The connect gate: how many open at a time, and whose attempt is next."""

import asyncio

from app.pools.connect_limiter import ConnectLimiter


class Attempts:
    """Attempts that stay inside the gate until told to leave."""

    def __init__(self, limit: int) -> None:
        self.gate = ConnectLimiter(limit)
        self.inside: list[str] = []
        self.leave: dict[str, asyncio.Event] = {}

    async def attempt(self, name: str, *, first: bool) -> None:
        async with self.gate.slot(first=first):
            self.inside.append(name)
            try:
                await self.leave[name].wait()
            finally:
                self.inside.remove(name)

    async def begin(self, *names: str, first: bool = False) -> list[asyncio.Task[None]]:
        for name in names:
            self.leave[name] = asyncio.Event()
        tasks = [asyncio.create_task(self.attempt(name, first=first)) for name in names]
        await turns()
        return tasks

    async def end(self, *names: str) -> None:
        for name in names:
            self.leave[name].set()
        await turns()


async def turns() -> None:
    """Let everything happen that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_last_place_is_left_to_those_who_go_first() -> None:
    attempts = Attempts(3)
    tasks = await attempts.begin("a", "b", "c")
    assert attempts.inside == ["a", "b"]
    tasks += await attempts.begin("modest", first=True)
    assert attempts.inside == ["a", "b", "modest"]
    await attempts.end("a", "b", "c", "modest")
    await asyncio.gather(*tasks)


async def test_who_goes_first_overtakes_the_queue_in_order_of_coming() -> None:
    attempts = Attempts(1)
    tasks = await attempts.begin("a", "b")
    tasks += await attempts.begin("x", "y", first=True)
    for now, following in (("a", ["x"]), ("x", ["y"]), ("y", ["b"])):
        await attempts.end(now)
        assert attempts.inside == following
    await attempts.end("b")
    await asyncio.gather(*tasks)


async def test_who_gives_up_leaves_its_place_to_the_next() -> None:
    attempts = Attempts(1)
    tasks = await attempts.begin("a", "b", "c")
    tasks[1].cancel()
    await attempts.end("a")
    assert attempts.inside == ["c"]
    tasks[2].cancel()
    await turns()
    tasks += await attempts.begin("d")
    assert attempts.inside == ["d"]
    await attempts.end("d")
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_place_given_in_the_moment_of_giving_up_is_given_back() -> None:
    attempts = Attempts(1)
    tasks = await attempts.begin("a", "b", "c")
    attempts.leave["a"].set()
    await asyncio.sleep(0)
    tasks[1].cancel()
    await turns()
    assert attempts.inside == ["c"]
    await attempts.end("c")
    await asyncio.gather(*tasks, return_exceptions=True)
