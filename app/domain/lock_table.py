"""A server's lock table, and which backends to cancel or terminate before it is full.

Postgres keeps the locks of all its sessions in one table of fixed size. Once that is full, no
session gets another lock: no write and no login succeeds. Pure: facts in, signals out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# Seconds that a cancelled statement has to release its locks before its connection is terminated.
GRACE = 1.0

BackendKey = tuple[int, datetime]
"""A backend's process id and its start, for process ids are reused."""


class BackendSignal(StrEnum):
    """As of pg_cancel_backend and pg_terminate_backend."""

    CANCEL_STATEMENT = "statement"
    TERMINATE_CONNECTION = "connection"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """A tenant's backend with more locks than the table has for each session.

    Attributes:
        role: the tenant's role that it logged in as.
        owner: whose it is; the locks of one owner's backends count together.
        locks: entries of the lock table that it holds.
        is_active: whether it runs a statement now.
    """

    backend: BackendKey
    role: str
    owner: str
    locks: int
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LockTable:
    """How full a server's lock table is, and which tenants' backends hold much of it.

    Attributes:
        capacity: locks that Postgres plans for: max_locks_per_transaction for each session.
        used: locks held or awaited now, by any session.
        holders: tenants' backends that hold more than max_locks_per_transaction.
    """

    capacity: int
    used: float
    holders: tuple[LockHolder, ...] = ()

    @property
    def utilization(self) -> float:
        """Its used fraction; Postgres has some room beyond 1."""
        return self.used / self.capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class SentSignal:
    """What a backend was sent, and when, in monotonic seconds; None if it was only noticed."""

    signal: BackendSignal | None
    sent_at: float


def choose_signals(
    table: LockTable, *, limit: float, sent: Mapping[BackendKey, SentSignal], now: float
) -> dict[LockHolder, BackendSignal | None]:
    """The signals to send so that at most *limit* of *table* is used, and no others.

    The owner with the most locks comes first, and of its backends the one with the most. Its
    statement is cancelled; if it still holds its locks after `GRACE`, its connection is terminated.
    A backend that runs no statement has the same time to release its locks: it gets None, and is
    only noticed. Those that are about to release their locks are not in the result.

    *limit* is a fraction, 0 to 1, *now* in monotonic seconds; *sent* holds what backends were sent
    before, as long as they have held as much at every reading since.
    """
    terminate = BackendSignal.TERMINATE_CONNECTION
    surplus = table.used - limit * table.capacity
    owned: Counter[str] = Counter()
    for holder in table.holders:
        owned[holder.owner] += holder.locks
    signals: dict[LockHolder, BackendSignal | None] = {}
    for holder in sorted(table.holders, key=lambda each: (-owned[each.owner], -each.locks)):
        if surplus <= 0:
            break
        surplus -= holder.locks
        before = sent.get(holder.backend)
        if before is None:
            signals[holder] = BackendSignal.CANCEL_STATEMENT if holder.is_active else None
        elif before.signal is not terminate and now - before.sent_at >= GRACE:
            signals[holder] = terminate
    return signals
