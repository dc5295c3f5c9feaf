"""Leak detection: leases held so long that the borrower may have forgotten them."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict, dataclass
from itertools import islice
from time import monotonic
from types import CodeType
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from app.pools.pool import Pool

_log = structlog.get_logger(__name__)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakSuspect:
    """A lease older than its pool's threshold.

    Attributes:
        tenant: the borrowing tenant.
        task: name of the borrowing task.
        taken_at: file and line of its code.
        age_seconds: how old the lease is.
        pid: process id of the connection's back-end.
    """

    tenant: str
    task: str
    taken_at: str
    age_seconds: float
    pid: int


def leak_suspects(pool: Pool, now: float) -> list[LeakSuspect]:
    """Leases older than the leak threshold at *now*, oldest first; each is logged once."""
    since = now - pool.config.leak_threshold
    held = [each for each in pool.connections.leased if each.leased_at < since]
    held.sort(key=lambda connection: connection.leased_at)
    suspects = [connection.leak_suspect(now) for connection in held]
    for connection, suspect in zip(held, suspects, strict=True):
        if not connection.leak_reported:
            connection.mark_leak_reported()
            _log.warning("suspected leak", pool=pool.pool_id, **asdict(suspect))
    return suspects
