"""Leases held for so long that their borrower may have forgotten them: who, since when, where."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from itertools import islice
from types import CodeType
from typing import Any


class Borrower:
    """The task that entered a lease, and where it did; resolved only on demand.

    Attributes:
        statement: what it runs, as far as known; empty if not.
    """

    __slots__ = ("_code", "_instruction", "_task", "statement")

    def __init__(self, statement: str = "") -> None:
        """Note which coroutine awaits the calling function. Cheap: no stack is walked or read."""
        self.statement = statement
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
        """File and line."""
        # Two bytes an instruction, each with the line it belongs to.
        at = next(islice(self._code.co_positions(), self._instruction // 2, None), (None,))
        return f"{self._code.co_filename}:{at[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakSuspect:
    """A lease older than its pool's threshold.

    Attributes:
        tenant: who borrowed.
        task: name of the task that did.
        taken_at: file and line where it did.
        age_seconds: how old the lease is.
        pid: the connection's backend.
    """

    tenant: str
    task: str
    taken_at: str
    age_seconds: float
    pid: int
