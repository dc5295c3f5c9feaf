"""Who borrowed a connection: remembered cheaply for every lease, read only if somebody asks."""

import asyncio
import sys
from itertools import islice
from time import monotonic
from types import CodeType
from typing import Any


class Borrower:
    """The task that took a lease, and its line of code; both resolved on demand.

    Attributes:
        statement: the statement that it runs, if known; else empty.
        asked_at: when it asked for a connection, in monotonic seconds.
    """

    __slots__ = ("_code", "_instruction", "_task", "asked_at", "statement")

    def __init__(self, statement: str = "") -> None:
        """Remember the coroutine that awaits the calling function; cheap, no stack is walked."""
        self.statement = statement
        self.asked_at = monotonic()
        frame = sys._getframe(2)  # noqa: SLF001 - the documented way, and the only quick one
        self._code: CodeType = frame.f_code
        self._instruction = frame.f_lasti
        self._task: asyncio.Task[Any] | None = asyncio.current_task()

    @property
    def task(self) -> str:
        """The task's name."""
        return self._task.get_name() if self._task else ""

    @property
    def taken_at(self) -> str:
        """File and line of the code that took the lease."""
        # Two bytes per instruction; each instruction has its line.
        at = next(islice(self._code.co_positions(), self._instruction // 2, None), (None,))
        return f"{self._code.co_filename}:{at[0]}"
