"""The principal of a request: who sent it, and what they may access."""

from dataclasses import dataclass
from typing import Self

from app.api.auth.api_key import ApiKey
from app.api.auth.key_scope import KeyScope


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The sender of a request.

    Attributes:
        name: the key's name; `api` while no keys are in use.
        scopes: all their scopes, including implied ones.
        tenants: the only tenants they can access; None: all.
        node: the node whose agent they are; None: not an agent.
        key_id: the key's id, which is never reused, as a name may be; None without a key.
        requests_per_second: the key's own rate limit; None: the service's.
    """

    name: str
    scopes: frozenset[KeyScope]
    tenants: frozenset[str] | None = None
    node: str | None = None
    key_id: str | None = None
    requests_per_second: int | None = None

    @classmethod
    def of_key(cls, key: ApiKey) -> Self:
        return cls(
            name=key.name,
            scopes=key.all_scopes,
            tenants=None if key.tenants is None else frozenset(key.tenants),
            node=key.node,
            key_id=key.id,
            requests_per_second=key.requests_per_second,
        )

    @property
    def can_read_all(self) -> bool:
        """Whether they may read data of the whole service, not only of some tenants."""
        return self.tenants is None and KeyScope.READ in self.scopes

    def can_access(self, tenant: str | None) -> bool:
        """Whether they can access this tenant. None stands for what belongs to no single tenant."""
        return self.tenants is None or tenant in self.tenants


# A program on this machine, while no keys are in use.
UNRESTRICTED = Principal(name="api", scopes=frozenset(KeyScope))
# A sender without a valid key, on the paths that need none.
ANONYMOUS = Principal(name="anonymous", scopes=frozenset())
