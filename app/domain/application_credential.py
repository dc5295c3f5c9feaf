"""Credentials of applications: a name and a password with which to connect as a tenant."""

from dataclasses import dataclass, field
from datetime import datetime

from app.domain.tenant import TenantId

SCRAM_ITERATIONS = 4096
"""SCRAM iterations of their verifiers: Postgres' own default. pgjdbc refuses fewer."""

MAX_CREDENTIALS = 20
"""The most credentials of one tenant: one for each application, and some to replace them by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationCredential:
    """A name and a password of a tenant.

    Attributes:
        name: a slug, unique among those of the tenant.
        verifier: derived from the password, as Postgres stores it; the password is not stored.
        expires_at: from then on the credential is refused; None: never.
        last_used_at: its last use, to the minute; None: no use was seen.
    """

    tenant: TenantId
    name: str
    verifier: str = field(repr=False)
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None

    @property
    def user(self) -> str:
        """The name to log in with. It is unambiguous: no tenant id has a dot."""
        return f"{self.tenant}.{self.name}"

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now
