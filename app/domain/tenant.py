"""A tenant: its id, its strategy, what an operator declared, and how far that is carried out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self
from uuid import UUID

from app.domain.errors import InvalidTenantId, NotProvisioned, PoolIsShared, TenantDeleting

TENANT_ID_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$"
RESERVED_IDS = frozenset(
    {
        "information-schema",
        "pgbouncer",  # on a node, the name of its console
        "poolkeeper",
        "postgres",
        "public",
        "template0",
        "template1",
    }
)
# With this prefix the longest id stays under Postgres' 63 bytes for any name.
OBJECT_PREFIX = "tenant_"

_MATCHES = re.compile(TENANT_ID_PATTERN.removesuffix("$") + r"\Z").match
_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class TenantId(str):
    """A validated slug: it matches the pattern and is not reserved.

    Raises:
        InvalidTenantId: for anything else.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not _MATCHES(text):
            raise InvalidTenantId
        if text in RESERVED_IDS or text.startswith("pg-"):
            raise InvalidTenantId(f"The name {text} is reserved.")
        return super().__new__(cls, text)

    @property
    def object_name(self) -> str:
        """The name of this tenant's role and of its schema or database."""
        return OBJECT_PREFIX + self


def may_be_tenant_id(text: str) -> bool:
    """Whether *text* has the form of a tenant id, reserved or not."""
    return _MATCHES(text) is not None


class PoolStrategy(StrEnum):
    """How a tenant is separated from the others."""

    SHARED = "shared"
    """One pool per server; the tenant's context is set for each lease; row-level isolation."""

    PER_TENANT = "per_tenant"
    """A pool, a schema and a login role of its own."""

    PER_DATABASE = "per_database"
    """A pool, a database and a login role of its own."""


class AdvisorMode(StrEnum):
    """How recommendations are handled."""

    OFF = "off"
    RECOMMEND = "recommend"
    APPLY = "apply"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSpec:
    """A tenant as an operator declares it.

    Attributes:
        server: name of the declared server it lives on; immutable.
        strategy: how it is isolated; immutable.
        weight: relative share when connections are scarce, 1..1000.
        max_leases: maximum number of leases at a time, those on nodes included; None: no limit.
        advisor_mode: how recommendations for its own pool are handled; None: as for the service.
    """

    id: TenantId
    server: str
    strategy: PoolStrategy
    weight: int = 1
    max_leases: int | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    advisor_mode: AdvisorMode | None = None

    @property
    def pool_id(self) -> str:
        """The pool that serves this tenant; shared pools have an '@' in their id, tenants never."""
        return shared_pool_id(self.server) if self.is_shared else str(self.id)

    @property
    def is_shared(self) -> bool:
        """Whether it leases from the server's shared pool."""
        return self.strategy is PoolStrategy.SHARED

    def usable(self, max_size: int) -> int:
        """The maximum number of connections that it can use if its pool may have *max_size*."""
        return min(self.max_leases or max_size, max_size)

    def check_scope(self, *, whole_pool: bool) -> None:
        """Refuse to change a shared pool on behalf of one tenant.

        Raises:
            PoolIsShared: unless *whole_pool* is set.
        """
        if self.is_shared and not whole_pool:
            raise PoolIsShared

    def as_dict(self) -> dict[str, Any]:
        """Every field, as JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return values | {"labels": dict(self.labels)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `as_dict`; other keys are ignored."""
        mode = values["advisor_mode"]
        typed = {
            "id": TenantId(values["id"]),
            "strategy": PoolStrategy(values["strategy"]),
            "labels": MappingProxyType(values["labels"]),
            "advisor_mode": None if mode is None else AdvisorMode(mode),
        }
        return cls(**{each.name: values[each.name] for each in fields(cls)} | typed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant as declared, and its progress.

    Attributes:
        spec: what the operator declared.
        uid: marks its database objects. A later tenant of the same name has another uid, so it
            never gets its predecessor's data by accident.
        generation: grows with every change of the spec.
        provisioned_at: when its role and its schema or database were created; None before.
        deleting: it is being deleted, and its login may not be disabled yet.
    """

    spec: TenantSpec
    uid: UUID
    generation: int
    provisioned_at: datetime | None
    deleting: bool
    created_at: datetime
    updated_at: datetime

    @property
    def is_usable(self) -> bool:
        """Whether its database objects exist and it is not being deleted."""
        return self.provisioned_at is not None and not self.deleting

    def check_not_deleting(self) -> None:
        """Refuse a change to it while it is being deleted.

        Raises:
            TenantDeleting
        """
        if self.deleting:
            raise TenantDeleting

    def check_usable(self) -> None:
        """Refuse work on its pool unless `is_usable`.

        Raises:
            TenantDeleting, NotProvisioned
        """
        self.check_not_deleting()
        if self.provisioned_at is None:
            raise NotProvisioned(f"Tenant {self.spec.id} has not been provisioned.")


def shared_pool_id(server: str) -> str:
    """The id of *server*'s one shared pool."""
    return f"shared@{server}"


def tenant_of_pool(pool_id: str) -> str | None:
    """The tenant that owns a pool; None if it is shared."""
    return None if "@" in pool_id else pool_id
