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
from pydantic import Field, dataclasses

# Enough to see a pattern; 1000 tenants take about 20 MB.
_MOST_KEPT = 50
_MOST_TENANTS = 1000
# Log lines of one tenant per minute: every refusal of an ordinary incident, but no flood.
_MOST_LOGGED = 60
_WINDOW_SECONDS = 60.0

_log = structlog.get_logger(__name__)


# A data class: 50,000 models would take three times the memory.
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RefusalView:
    """A request that was answered with a problem."""

    id: int = Field(description="Grows with each refusal.", examples=[42])
    at: datetime = Field(examples=["2026-11-20T09:12:34Z"])
    tenant: str | None = Field(
        description="The tenant in the path; null if there is none, or if the caller cannot access "
        "it.",
        examples=["acme"],
    )
    actor: str | None = Field(
        description="Name of the API key; null if the request was not authenticated.",
        examples=["checkout"],
    )
    method: str = Field(examples=["POST"])
    path: str = Field(examples=["/v1/tenants/acme/query"])
    status: int = Field(examples=[503])
    code: str = Field(description="The problem's code.", examples=["pool-timeout"])
    detail: str = Field(
        description="The problem's detail, and the first of its errors; for a failed statement, "
        "only its SQLSTATE.",
        examples=["No connection of pool acme became free in 5 s."],
    )
    request_id: str | None = Field(
        description="ID of the request, as in its response and in the log.",
        examples=["5d1c4a2e8b7f4c6d"],
    )


@dataclass(slots=True)
class _Trace:
    """The latest refusals of one tenant, and the number logged in this minute."""

    latest: deque[RefusalView] = field(default_factory=lambda: deque(maxlen=_MOST_KEPT))
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
        """Keep a refusal, with the fields of `RefusalView`, and log it."""
        refusal = RefusalView(id=next(self._ids), at=datetime.now(UTC), tenant=tenant, **fields)  # type: ignore[arg-type]
        trace = self._traces.setdefault(tenant, _Trace())
        self._traces.move_to_end(tenant)
        if len(self._traces) > _MOST_TENANTS:
            self._traces.popitem(last=False)
        trace.latest.append(refusal)
        self._log(refusal, trace)

    def latest(self, before_id: int | None = None) -> Iterator[RefusalView]:
        """Newest first; only those before *before_id*, if given."""
        for refusal in heapq.merge(
            *(reversed(trace.latest) for trace in self._traces.values()),
            key=lambda refusal: -refusal.id,
        ):
            if before_id is None or refusal.id < before_id:
                yield refusal

    def _log(self, refusal: RefusalView, trace: _Trace) -> None:
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
