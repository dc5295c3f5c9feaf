"""Credentials of applications: a name and a password, by which one connects as a tenant."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from app.domain.tenant import TenantId

SCRAM_ITERATIONS = 4096
"""Of their verifiers: PostgreSQL's own number. pgjdbc refuses fewer."""

MAX_CREDENTIALS = 20
"""Of one tenant: enough to give each application its own, and to replace them one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationCredential:
    """A name and a password of a tenant.

    Attributes:
        name: a slug, unique among those of the tenant.
        verifier: of the password, as Postgres stores it; the password itself is stored nowhere.
        expires_at: it is refused from then on; None: never.
        last_used_at: to the minute; None: no use of it was seen.
    """

    tenant: TenantId
    name: str
    verifier: str = field(repr=False)
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None

    @property
    def user(self) -> str:
        """The name to log in with; unambiguous, because a tenant's id has no dot."""
        return f"{self.tenant}.{self.name}"

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now
