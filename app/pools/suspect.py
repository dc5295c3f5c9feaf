"""Leases held for so long that their borrower may have forgotten them: who, since when, where."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import NamedTuple


class Borrower(NamedTuple):
    """The task that entered a lease, and the line where it did."""

    task: str
    file: str
    line: int

    @classmethod
    def of_caller(cls) -> Borrower:
        """Whoever awaits the function that calls this one. Cheap: no stack is walked or read."""
        frame = sys._getframe(2)  # noqa: SLF001 - the documented way, and the only quick one
        task = asyncio.current_task()
        return cls(task.get_name() if task else "", frame.f_code.co_filename, frame.f_lineno)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakSuspect:
    """A lease older than its pool's threshold.

    Attributes:
        tenant: who borrowed.
        task: name of the task that did.
        taken_at: file and line where it did.
        age_seconds: how old the lease is.
        pid: the connection's back-end.
    """

    tenant: str
    task: str
    taken_at: str
    age_seconds: float
    pid: int
