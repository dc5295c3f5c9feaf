"""Leak detection: leases held so long that the borrower may have forgotten them."""

from dataclasses import asdict, dataclass

import structlog

from app.pools.connection import PooledConnection
from app.pools.pool import Pool

_log = structlog.get_logger(__name__)


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
    suspects = [_suspect(connection, now) for connection in held]
    for connection, suspect in zip(held, suspects, strict=True):
        if not connection.leak_reported:
            connection.mark_leak_reported()
            _log.warning("suspected leak", pool=pool.pool_id, **asdict(suspect))
    return suspects


def _suspect(connection: PooledConnection, now: float) -> LeakSuspect:
    tenant_state, borrower = connection.tenant_state, connection.borrower
    return LeakSuspect(
        tenant=str(tenant_state.tenant.spec.id) if tenant_state else "",
        task=borrower.task if borrower else "",
        taken_at=borrower.taken_at if borrower else "",
        age_seconds=now - connection.leased_at,
        pid=connection.pid,
    )
