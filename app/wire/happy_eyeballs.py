"""Happy Eyeballs (RFC 8305): connects to the first working address of a server.

The next address is tried when one has failed, or has been silent for a moment. The whole login is
raced: a listener may accept connections and never answer, and a standby answers but is useless.
While a server that has answered is at work, no further address is tried.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import asyncpg

from app.wire.errors import LocalFailure, ServerIsStandby, ServerRejected

# The "Connection Attempt Delay" of RFC 8305, section 5, in seconds.
_STAGGER = 0.25


class LoginAttempt(Protocol):
    """A login at one address."""

    @property
    def has_answered(self) -> bool:
        """Whether the server has sent a complete message."""

    async def run(self) -> asyncpg.Connection:
        """Log in."""


A = TypeVar("A", bound=LoginAttempt)


async def first_success(
    attempts: Iterable[A],
    *,
    timeout: float,
    timeout_error: Callable[[Iterable[A]], Exception],
    on_abandoned: Callable[[asyncio.Task[asyncpg.Connection], A], None] | None = None,
) -> tuple[asyncpg.Connection, A]:
    """Return the first connection that opens, and its attempt; abandon the others.

    Args:
        attempts: the attempts in order; at least one.
        timeout: seconds for all of them together.
        timeout_error: makes the error for the attempts that are still running then.
        on_abandoned: gets each attempt that is still running if none has succeeded; by default
            `abandon`.

    Raises:
        Exception: the most informative error of the attempts, or *timeout_error*.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    waiting = deque(attempts)
    running: dict[asyncio.Task[asyncpg.Connection], A] = {}
    give_up: Callable[[asyncio.Task[asyncpg.Connection], A], None] = on_abandoned or abandon
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
                attempt = running.pop(task)
                if (error := task.exception()) is None:
                    give_up = abandon
                    return task.result(), attempt
                errors.append(error)
            if running and loop.time() >= deadline:
                errors.append(timeout_error(running.values()))
                break
        raise max(errors, key=_weight)
    finally:
        # Not awaited: a cancellation would lose the connection that is returned.
        for task, attempt in running.items():
            give_up(task, attempt)


def abandon(task: asyncio.Task[asyncpg.Connection], _: object = None) -> None:
    """Cancel an attempt; if it opens a connection anyway, close it."""
    task.add_done_callback(_close)
    task.cancel()


def _close(task: asyncio.Task[asyncpg.Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


def _weight(error: BaseException) -> int:
    """How much the error says about the server: a standby's says nothing about the primary."""
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
