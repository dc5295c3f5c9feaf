"""A server's lock table, and which back-ends to cancel or terminate before it is full.

Postgres keeps the locks of all its sessions in one table of fixed size. Once that is full, no
session gets another lock: no write and no login succeeds. Pure: facts in, signals out.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# Seconds for a cancelled statement to release its locks before its connection is terminated.
GRACE = 1.0

BackendKey = tuple[int, datetime]
"""A back-end's process id and start time, because process ids are reused."""


class BackendSignal(StrEnum):
    """A signal to a back-end: pg_cancel_backend or pg_terminate_backend."""

    CANCEL_STATEMENT = "statement"
    TERMINATE_CONNECTION = "connection"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """A tenant's back-end with more locks than one session's part of the table.

    Attributes:
        role: the tenant's role that it logged in as.
        owner: whose it is; the locks of all back-ends of an owner count together.
        locks: lock table entries it holds.
        is_active: whether it runs a statement now.
    """

    backend: BackendKey
    role: str
    owner: str
    locks: int
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LockTable:
    """How full a server's lock table is, and which tenants' back-ends hold most of it.

    Attributes:
        capacity: the planned number of locks: max_locks_per_transaction for each session.
        used: locks held or awaited now, by any session.
        holders: tenants' back-ends that hold more than max_locks_per_transaction.
    """

    capacity: int
    used: float
    holders: tuple[LockHolder, ...] = ()

    @property
    def utilization(self) -> float:
        """The fraction in use; it can exceed 1 because Postgres has some reserve."""
        return self.used / self.capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class SentSignal:
    """The signal that a back-end was sent, and when, in monotonic seconds.

    None: it was only noticed.
    """

    signal: BackendSignal | None
    sent_at: float


def choose_signals(
    table: LockTable, *, limit: float, sent: Mapping[BackendKey, SentSignal], now: float
) -> dict[LockHolder, BackendSignal | None]:
    """Choose the signals that bring the use of *table* down to *limit*, and no others.

    The owner with the most locks comes first, and of its back-ends the one with the most. First its
    statement is cancelled; if it still holds its locks after `GRACE`, its connection is terminated.
    A back-end that runs no statement gets the same time to release its locks: its entry is None, it
    was only noticed. Back-ends that are about to release their locks are not in the result.

    *limit* is a fraction, 0 to 1; *now* is in monotonic seconds. *sent* holds what was sent to
    back-ends before, as long as they have held as many locks at every reading since.
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
