"""An operation is a plan and its execution; a dry run returns the plan."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.domain.plan import Plan

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFor(Plan, Generic[T]):
    """A plan with what it was made for, so that its execution looks nothing up again."""

    subject: T

    @classmethod
    def of(cls, subject: T, *parts: Plan) -> PlanFor[T]:
        """One plan of all *parts*, in their order."""
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
        plan: what it would do now; raises whatever stands in the way and changes nothing.
        execute: follows a plan that was made under the lock.
        lock: makes operations on the same thing take turns.
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
