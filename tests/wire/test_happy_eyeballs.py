"""One of several ways is taken, and nothing is left of the others."""

import asyncio
from typing import cast

import asyncpg
import pytest

from app.wire.errors import ConnectTimeout, LocalFailure, ServerIsStandby, ServerRejected
from app.wire.happy_eyeballs import first_success
from tests.fixtures.waiting import eventually


class Way:
    """A way that connects or fails when a test says so."""

    def __init__(self, outcome: Exception | None = None, *, has_answered: bool = False) -> None:
        self.has_answered = has_answered
        self.began = self.ended = self.closed = False
        self.over = asyncio.Event()
        self._outcome = outcome

    def terminate(self) -> None:
        self.closed = True

    async def run(self) -> asyncpg.Connection:
        self.began = True
        try:
            await self.over.wait()
        finally:
            self.ended = True
        if self._outcome is not None:
            raise self._outcome
        return cast("asyncpg.Connection", self)


def failed(error: Exception) -> Way:
    way = Way(error)
    way.over.set()
    return way


async def race(*ways: Way, timeout: float = 30) -> Way:
    """The way that won."""
    _, winner = await first_success(
        ways, timeout=timeout, timeout_error=lambda _: ConnectTimeout("late")
    )
    return winner


async def test_the_next_begins_when_one_has_failed_or_is_silent() -> None:
    silent, good, spare = Way(), Way(), Way()
    good.over.set()
    assert await race(failed(OSError()), silent, good, spare) is good
    assert silent.began
    assert not spare.began
    await eventually(lambda: silent.ended)


async def test_a_way_that_was_answered_is_waited_for() -> None:
    answered, spare = Way(has_answered=True), Way()
    with pytest.raises(ConnectTimeout, match="late"):
        await race(answered, spare, timeout=0.6)
    assert not spare.began


async def test_of_two_that_come_at_once_one_is_closed() -> None:
    one, other = Way(), Way()
    racing = asyncio.create_task(race(one, other))
    await eventually(lambda: one.began and other.began)
    one.over.set()
    other.over.set()
    winner = await racing
    assert not winner.closed
    await eventually(lambda: one.closed or other.closed)


async def test_who_gives_up_leaves_nothing_open() -> None:
    came, silent = Way(), Way()
    racing = asyncio.create_task(race(came, silent))
    await eventually(lambda: came.began and silent.began)
    came.over.set()
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    await eventually(lambda: came.ended and silent.ended)


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([ServerIsStandby("standby"), ConnectTimeout("silent")], "silent"),
        ([LocalFailure("no route"), ConnectionRefusedError("closed")], "closed"),
        ([ConnectionRefusedError("closed"), ServerRejected("no TLS")], "no TLS"),
        ([ConnectTimeout("silent"), asyncpg.InvalidPasswordError("password")], "password"),
        ([asyncpg.CannotConnectNowError("starting"), ServerRejected("no TLS")], "no TLS"),
        ([ServerIsStandby("standby"), LocalFailure("no route")], "no route"),
    ],
)
async def test_the_most_informative_error_is_raised(errors: list[Exception], told: str) -> None:
    for order in (errors, errors[::-1]):
        with pytest.raises(Exception, match=told):
            await race(*map(failed, order))
