"""An operation is a plan and its execution, under a lock; a dry run returns the plan."""

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from app.domain.plan import Plan

T = TypeVar("T")
R = TypeVar("R")

Expectation = Callable[[T | None], int | None]
"""What a change expects of the present value, which is None if there is none.

It returns the generation that the catalog must find, 0 for no row and None for any, or raises
StaleVersion. Plans ask it: under the lock, so that nobody replaces the value in between.
"""


def any_version(_: object) -> None:
    """Expect nothing."""


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
