"""The callers that hold a connection or wait for one now, like PgBouncer's `SHOW CLIENTS`."""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from app.pools.borrower import Borrower
from app.pools.pool import Pool
from app.pools.registry import SlotWaiter
from app.pools.tenant_state import TenantState

# A keyword, an unquoted name, a parameter or an operator: none can hold a tenant's data.
_HARMLESS = re.compile(
    r"[^\W\d]\w*|\$\d+(?!\w)|[\s(),.;:*=<>+%|&!~^\[\]@#?]|-(?!-)|/(?!\*)", re.ASCII
)
_LONGEST_SHOWN = 200


class CallerState(StrEnum):
    """Whether a caller holds a connection or waits for one."""

    ACTIVE = "active"
    WAITING = "waiting"


class Caller(NamedTuple):
    """A caller that holds a connection or waits for one.

    Attributes:
        pool_id, server: the pool and the server of the connection.
        since: when it got the connection, or asked for one; in monotonic seconds.
        borrower: the task and its statement, if known.
        pid: process id of its connection's back-end, if it has a connection.
        position: its place among the waiting callers of its tenant, from 1.
    """

    pool_id: str
    server: str
    state: CallerState
    tenant: TenantState
    since: float
    borrower: Borrower | None
    pid: int | None = None
    position: int | None = None


def callers(pool: Pool) -> Iterator[Caller]:
    """All of *pool*'s callers, in no particular order."""
    for connection in pool.connections.leased:
        if (tenant := connection.tenant_state) is not None:
            yield Caller(
                *(pool.pool_id, pool.server.name, CallerState.ACTIVE),
                *(tenant, connection.leased_at, connection.borrower),
                pid=connection.pid,
            )
    for waiter, position in pool.waiters.positions():
        yield Caller(
            *(pool.pool_id, pool.server.name, CallerState.WAITING),
            *(waiter.tenant_state, waiter.asked_at, waiter.borrower),
            position=position,
        )


def slot_callers(waiters: Iterable[SlotWaiter]) -> Iterator[Caller]:
    """The callers that wait until a pool can be opened, in their order."""
    for position, waiter in enumerate(waiters, start=1):
        spec = waiter.tenant_state.tenant.spec
        yield Caller(
            *(spec.pool_id, spec.server, CallerState.WAITING),
            *(waiter.tenant_state, waiter.asked_at, waiter.borrower),
            position=waiter.tenant_state.waiting + position,
        )


def redacted(statement: str) -> str:
    """The beginning of *statement*, up to its first literal, quoted name or comment.

    So the shown part cannot contain a tenant's data.
    """
    beginning = statement[:_LONGEST_SHOWN]
    end = 0
    while found := _HARMLESS.match(beginning, end):
        end = found.end()
    words = " ".join(beginning[:end].split())
    return words if end == len(statement) else f"{words} …".lstrip()
