"""A server's lock table, and whom to end before it is full.

Postgres keeps the locks of all its sessions in one table of fixed size. Once that is full, no
session gets another lock: no write, no login, of nobody. Pure: facts in, endings out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# Seconds that a cancelled statement has to give up its locks before its connection is ended.
GRACE = 1.0

BackendKey = tuple[int, datetime]
"""A back-end's process id and its start, for process ids are used again."""


class BackendSignal(StrEnum):
    """What is ended of a back-end."""

    STATEMENT = "statement"
    CONNECTION = "connection"


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """A tenant's back-end with more locks than the table has for each session.

    Attributes:
        backend: which one.
        role: the tenant's role that it logged in as.
        owner: whose it is; back-ends of one owner are judged together.
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
    """How full a server's lock table is, and which tenants' back-ends hold much of it.

    Attributes:
        capacity: locks that Postgres plans for: max_locks_per_transaction for each session.
        used: locks held or awaited now, whoever holds them.
        holders: tenants' back-ends that hold more than max_locks_per_transaction.
    """

    capacity: int
    used: float
    holders: tuple[LockHolder, ...] = ()

    @property
    def utilization(self) -> float:
        """How much of it is used; Postgres has some room beyond 1."""
        return self.used / self.capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class SentSignal:
    """What was ended of a back-end, and when, in monotonic seconds."""

    signal: BackendSignal | None
    sent_at: float


def choose_signals(
    table: LockTable, *, limit: float, sent: Mapping[BackendKey, SentSignal], now: float
) -> dict[LockHolder, BackendSignal | None]:
    """What to end, so that at most *limit* of *table* is used: no more than that takes.

    The owner with the most locks comes first, and of its back-ends the one with the most. Its
    statement is ended; if it holds its locks still after `GRACE`, its connection. A back-end
    that runs nothing has no statement to end: it has the same time to give up its locks.

    Args:
        table: the facts.
        limit: share of the table, 0 to 1.
        sent: what was noticed or ended of these back-ends, in looks before this one in each of
            which they held as much.
        now: monotonic seconds.

    Returns:
        What to end of whom; None to only remember that it was noticed. Those that stay as they
        are, for their locks are on their way back, are not in it.
    """
    surplus = table.used - limit * table.capacity
    owned: Counter[str] = Counter()
    for holder in table.holders:
        owned[holder.owner] += holder.locks
    endings: dict[LockHolder, BackendSignal | None] = {}
    for holder in sorted(table.holders, key=lambda each: (-owned[each.owner], -each.locks)):
        if surplus <= 0:
            break
        surplus -= holder.locks
        before = sent.get(holder.backend)
        if before is None:
            endings[holder] = BackendSignal.STATEMENT if holder.is_active else None
        elif before.signal is not BackendSignal.CONNECTION and now - before.sent_at >= GRACE:
            endings[holder] = BackendSignal.CONNECTION
    return endings
