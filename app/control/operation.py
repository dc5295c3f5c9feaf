"""An operation is a plan and its execution, under a lock; a dry run returns the plan."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar
from weakref import WeakValueDictionary

from app.domain.errors import Unavailable
from app.domain.plan import Plan

T = TypeVar("T")
R = TypeVar("R")

_HOLD_DEADLINE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFor(Plan, Generic[T]):
    """A plan with its subject, so that its execution looks nothing up again."""

    subject: T

    @classmethod
    def of(cls, subject: T, *parts: Plan) -> Self:
        """Join all *parts* into one plan, in their order."""
        whole = sum(parts, Plan())
        return cls(
            subject=subject,
            steps=whole.steps,
            effects=whole.effects,
            warnings=whole.warnings,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[T, R]):
    """A change that is planned, then executed under its lock. `await operation` does both.

    Attributes:
        plan: returns what it would do now, or raises if that is impossible; changes nothing.
        execute: carries out a plan that was made under the lock.
        lock: serialises operations on the same thing.
        needs_catalog: whether it is refused while the catalog is unreachable.
    """

    plan: Callable[[], Awaitable[PlanFor[T]]]
    execute: Callable[[PlanFor[T]], Awaitable[R]]
    lock: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    needs_catalog: bool = False

    async def run(self) -> R:
        async with self.lock():
            return await self.execute(await self.plan())

    def __await__(self) -> Generator[Any, None, R]:
        return self.run().__await__()


class KeyedLocks:
    """A lock for every tenant and pool, so that each has one change at a time.

    An unused one takes no memory.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Hold the lock of *key*: `async with locks.hold("acme"):`.

        Raises:
            Unavailable: another task held it for too long.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with asyncio.timeout(_HOLD_DEADLINE):
                await lock.acquire()
        except TimeoutError as error:
            raise Unavailable(f"Another change of {key} is still in progress.") from error
        try:
            yield
        finally:
            lock.release()

    @asynccontextmanager
    async def hold_if_free(self, key: str) -> AsyncIterator[bool]:
        """Hold the lock of *key* unless another task has or awaits it; yields whether it is held.

        For work that a later tick can do as well: `async with locks.hold_if_free("acme") as held:`.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        is_ours = False
        with suppress(TimeoutError):
            # A free lock is taken without a pause. One that was just released may have an heir
            # already.
            async with asyncio.timeout(0.0):
                is_ours = await lock.acquire()
        try:
            yield is_ours
        finally:
            if is_ours:
                lock.release()

    def is_held(self, key: str) -> bool:
        lock = self._locks.get(key)
        return lock is not None and lock.locked()
