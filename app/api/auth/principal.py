"""Who asks, and what of the service exists for them."""

from __future__ import annotations

from dataclasses import dataclass

from app.api.auth.api_key import INCLUDED_SCOPES, ApiKey, KeyScope


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whoever sent a request.

    Attributes:
        name: the key's name; `api` when no keys are in use.
        scopes: everything they may do.
        tenants: the only ones that exist for them; None: all.
        key_id: of their key; a name can be given again, an id cannot.
    """

    name: str
    scopes: frozenset[KeyScope]
    tenants: frozenset[str] | None = None
    key_id: str | None = None

    @classmethod
    def of_key(cls, key: ApiKey) -> Principal:
        """Whoever holds *key*."""
        return cls(
            name=key.name,
            scopes=frozenset().union(*(INCLUDED_SCOPES[scope] for scope in key.scopes)),
            tenants=None if key.tenants is None else frozenset(key.tenants),
            key_id=key.id,
        )

    @property
    def can_read_all(self) -> bool:
        """Whether the whole service is theirs to read."""
        return self.tenants is None and KeyScope.READ in self.scopes

    def can_access(self, tenant: str | None) -> bool:
        """Whether this tenant exists for them; None stands for what belongs to no single one."""
        return self.tenants is None or tenant in self.tenants


# A program on this machine, while no keys are in use.
UNRESTRICTED = Principal(name="api", scopes=frozenset(KeyScope))
ANONYMOUS = Principal(name="nobody", scopes=frozenset())
