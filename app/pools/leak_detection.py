"""Leases held for so long that their borrower may have forgotten them: who, since when, where."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from time import monotonic
from types import CodeType
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from app.pools.connection import PooledConnection

_log = structlog.get_logger(__name__)


class Borrower:
    """The task that entered a lease, and where it did; resolved only on demand.

    Attributes:
        statement: what it runs, as far as known; empty if not.
        asked_at: when it asked for a connection, in monotonic seconds.
    """

    __slots__ = ("_code", "_instruction", "_task", "asked_at", "statement")

    def __init__(self, statement: str = "") -> None:
        """Note which coroutine awaits the calling function. Cheap: no stack is walked or read."""
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


def find_leak_suspects(
    leased: Iterable[PooledConnection], now: float, *, threshold: float, pool_id: str
) -> list[LeakSuspect]:
    """Leases held for over *threshold* seconds at *now*, oldest first; each is logged once."""
    held = [connection for connection in leased if connection.leased_at < now - threshold]
    held.sort(key=lambda connection: connection.leased_at)
    suspects = [connection.leak_suspect(now) for connection in held]
    for connection, suspect in zip(held, suspects, strict=True):
        if not connection.leak_reported:
            connection.mark_leak_reported()
            _log.warning("suspected leak", pool=pool_id, **asdict(suspect))
    return suspects
