"""Audit events: who changed what, when, why, from what to what."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts: the author of a request, or a part of the service.

    Attributes:
        name: the API key's name, `api` without keys, or a part of the service.
        request_id: the HTTP request's id; None for the service's own actions.
    """

    name: str
    request_id: str | None = None


ADVISOR = Actor(name="advisor")
ISOLATION_AUDIT = Actor(name="isolation-audit")
LOCK_GUARD = Actor(name="lock-guard")
LEADERSHIP = Actor(name="leadership")
LOCAL_NODE = Actor(name="local-node")
POLLER = Actor(name="poller")
RECONCILER = Actor(name="reconciler")
SERVICE_ACTORS = (
    ADVISOR,
    ISOLATION_AUDIT,
    LEADERSHIP,
    LOCAL_NODE,
    LOCK_GUARD,
    POLLER,
    RECONCILER,
)


_SERVICE_NAMES = frozenset(actor.name for actor in SERVICE_ACTORS)


class Origin(StrEnum):
    """What caused a change."""

    REQUEST = "request"
    SERVICE = "service"
    """The service itself: it evicted a pool, or applied a recommendation."""

    @classmethod
    def of(cls, actor: Actor) -> Self:
        return cls.SERVICE if actor.name in _SERVICE_NAMES else cls.REQUEST


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One change. `before` and `after` hold JSON values and never a secret.

    Attributes:
        id: its number in the catalog, None until it is stored.
        action: a dotted verb such as `tenant.created`, `pool.resized`, `pool.evicted`.
    """

    at: datetime
    actor: Actor
    action: str
    tenant: str | None = None
    pool: str | None = None
    reason: str | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    id: int | None = None
