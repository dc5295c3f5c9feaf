"""One connection out of several ways to a server, without waiting for those that do not answer.

After RFC 8305: the next way is tried when one has failed, or has been silent for a moment. What
is raced is the whole login, for a listener may take connections and never answer, and a standby
answers and is of no use. A way that has answered is waited for: the server works on it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import asyncpg

from app.wire.errors import LocalFailure, ServerIsStandby, ServerRejected

# "Connection Attempt Delay" of RFC 8305, section 5, in seconds.
_STAGGER = 0.25


class LoginAttempt(Protocol):
    """One way."""

    @property
    def has_answered(self) -> bool:
        """Whether the server has answered on it."""

    async def run(self) -> asyncpg.Connection:
        """Go it to its end."""


A = TypeVar("A", bound=LoginAttempt)


async def first_success(
    attempts: Iterable[A],
    *,
    timeout: float,
    timeout_error: Callable[[Iterable[A]], Exception],
    on_abandoned: Callable[[asyncio.Task[asyncpg.Connection], A], None] | None = None,
) -> tuple[asyncpg.Connection, A]:
    """The first connection that one of *attempts* brings, and which; the others are given up.

    Args:
        attempts: in the order in which to try them; at least one.
        timeout: for all of them together, in seconds.
        timeout_error: the error that says that the time is over, from those still under way.
        on_abandoned: gets each that is under way when none has come; without it, it is hung up.

    Raises:
        Exception: what says most of those errors that the attempts raised, `late` among them.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    waiting = deque(attempts)
    running: dict[asyncio.Task[asyncpg.Connection], A] = {}
    given_up: Callable[[asyncio.Task[asyncpg.Connection], A], None] = on_abandoned or abandon
    errors: list[BaseException] = []
    try:
        while waiting or running:
            if waiting and not any(attempt.has_answered for attempt in running.values()):
                attempt = waiting.popleft()
                running[asyncio.create_task(attempt.run(), name="log in")] = attempt
            left = deadline - loop.time()
            pause = min(_STAGGER, left) if waiting else left
            done, _ = await asyncio.wait(
                running, timeout=max(0, pause), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                attempt = running[task]
                if (error := task.exception()) is None:
                    del running[task]
                    given_up = abandon
                    return task.result(), attempt
                errors.append(error)
                del running[task]
            if running and loop.time() >= deadline:
                errors.append(timeout_error(running.values()))
                break
        raise max(errors, key=_weight)
    finally:
        # Not waited for: whoever cancels that would lose the connection that is returned.
        for task, attempt in running.items():
            given_up(task, attempt)


def abandon(task: asyncio.Task[asyncpg.Connection], _: object = None) -> None:
    """Give an attempt up; what it brings all the same is closed."""
    task.add_done_callback(_close)
    task.cancel()


def _close(task: asyncio.Task[asyncpg.Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


def _weight(error: BaseException) -> int:
    """How much it says about the server: a standby nothing about the primary, silence little."""
    match error:
        case ServerIsStandby():
            return 0
        case LocalFailure():
            return 1
        case ServerRejected():
            return 3
        case OSError() | asyncpg.CannotConnectNowError():
            return 2
    return 4
