"""Refused requests: one log line each, and the latest of each tenant in memory.

A flood from one tenant neither hides other tenants' refusals nor fills the log.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from time import monotonic

import structlog

# Enough to see a pattern; 1000 tenants take about 20 MB.
_MOST_KEPT = 50
_MOST_TENANTS = 1000
# Log lines of one tenant per minute: every refusal of an ordinary incident, but no flood.
_MOST_LOGGED = 60
_WINDOW_SECONDS = 60.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that was answered with a problem.

    Attributes:
        id: grows with each refusal, from 1.
        tenant: the tenant in the request's path; None if the caller cannot access such a tenant.
        actor: name of the API key; None before authentication.
    """

    id: int
    at: datetime
    tenant: str | None
    actor: str | None
    method: str
    path: str
    status: int
    code: str
    detail: str
    request_id: str | None


@dataclass(slots=True)
class _Trace:
    """The latest refusals of one tenant, and the number logged in this minute."""

    latest: deque[Refusal] = field(default_factory=lambda: deque(maxlen=_MOST_KEPT))
    window_ends: float = 0.0
    logged: int = 0
    not_logged: int = 0


class Refusals:
    """The latest refusals by tenant; those without a tenant are kept in the same way."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._ids = count(1)
        # The tenant with the oldest latest refusal comes first.
        self._traces: OrderedDict[str | None, _Trace] = OrderedDict()

    def note(self, tenant: str | None, **fields: object) -> None:
        """Keep a refusal, with the fields of `Refusal`, and log it."""
        refusal = Refusal(id=next(self._ids), at=datetime.now(UTC), tenant=tenant, **fields)  # type: ignore[arg-type]
        trace = self._traces.setdefault(tenant, _Trace())
        self._traces.move_to_end(tenant)
        if len(self._traces) > _MOST_TENANTS:
            self._traces.popitem(last=False)
        trace.latest.append(refusal)
        self._log(refusal, trace)

    def latest(self, before_id: int | None = None) -> Iterator[Refusal]:
        """Newest first; only those before *before_id*, if given."""
        for refusal in heapq.merge(
            *(reversed(trace.latest) for trace in self._traces.values()),
            key=lambda refusal: -refusal.id,
        ):
            if before_id is None or refusal.id < before_id:
                yield refusal

    def _log(self, refusal: Refusal, trace: _Trace) -> None:
        now = self._clock()
        if now >= trace.window_ends:
            if trace.not_logged:
                _log.info("refusals not logged", tenant=refusal.tenant, count=trace.not_logged)
            trace.window_ends, trace.logged, trace.not_logged = now + _WINDOW_SECONDS, 0, 0
        if trace.logged >= _MOST_LOGGED:
            trace.not_logged += 1
            return
        trace.logged += 1
        _log.info(
            "request refused",
            tenant=refusal.tenant,
            code=refusal.code,
            status=refusal.status,
            actor=refusal.actor,
            method=refusal.method,
            path=refusal.path,
        )
