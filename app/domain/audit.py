"""The audit trail's entry: who changed what, when, why, from what to what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """On whose behalf something is done: a person's request, or a part of the service.

    Attributes:
        name: `api`, `advisor`, `poller` or `reconciler`; with keys, the key's name.
        request_id: the HTTP request it came with, None for the service's own doing.
    """

    name: str
    request_id: str | None = None


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
