"""An API key: its owner, its scopes, and the hash that identifies it.

The key itself is shown once, when it is created, and is not stored. It has 256 random bits: a slow
password hash would protect it no better than SHA-256, and would cost time in every request.
"""

import hashlib
import re
import secrets
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from app.api.auth.key_scope import INCLUDED_SCOPES, KeyScope
from app.domain.audit import SERVICE_ACTORS
from app.domain.tenant import TENANT_ID_PATTERN

_PREFIX = "poolkeeper"
_TOKEN = re.compile(rf"{_PREFIX}_([0-9a-f]{{8}})_[0-9a-f]{{64}}")
# In the audit trail, these names stand for the service itself and for callers without a key.
_RESERVED_NAMES = frozenset({"anonymous", "api", *(actor.name for actor in SERVICE_ACTORS)})


def _not_reserved(name: str) -> str:
    if name in _RESERVED_NAMES:
        raise ValueError("The service itself uses this name")
    return name


KeyName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=48),
    AfterValidator(_not_reserved),
]
TenantName = Annotated[str, Field(pattern=TENANT_ID_PATTERN, max_length=48)]


class ApiKey(BaseModel):
    """A key as it is stored.

    Attributes:
        name: unique; appears in the log and the audit trail.
        id: the part of the key that identifies it; not secret.
        sha256: hash of the whole key, in hexadecimal.
        scopes: its permissions.
        tenants: the only tenants that it can access; None: all.
        node: the node whose agent uses it; set if it has the scope `node`, and only then.
        created_at, expires_at: from *expires_at* on it is refused; None: it never expires.
        requests_per_second: its own rate limit; None: the service's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: KeyName
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[KeyScope, ...], Field(min_length=1)]
    tenants: Annotated[tuple[TenantName, ...], Field(min_length=1)] | None = None
    node: TenantName | None = None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    requests_per_second: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    @model_validator(mode="after")
    def _check_node(self) -> Self:
        if (self.node is not None) is not (KeyScope.NODE in self.scopes):
            raise ValueError("The scope node needs the name of a node, and no other scope has one")
        if self.node is not None and (len(self.scopes) > 1 or self.tenants is not None):
            raise ValueError("A key of a node has no other scope, and no tenants")
        return self

    @cached_property
    def all_scopes(self) -> frozenset[KeyScope]:
        """Its scopes, and those that they include."""
        included = (INCLUDED_SCOPES.get(scope, ()) for scope in self.scopes)
        return frozenset(self.scopes).union(*included)

    @cached_property
    def digest(self) -> bytes:
        return bytes.fromhex(self.sha256)


def new_token() -> str:
    """Create a key in its owner's form: a prefix for secret scanners, its id, 256 random bits."""
    return f"{_PREFIX}_{secrets.token_hex(4)}_{secrets.token_hex(32)}"


def key_id_of(token: str) -> str | None:
    """The id inside a key; None if *token* is not a key."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else None


def token_digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii")).digest()


def api_key_for(
    token: str, *, scopes: Iterable[KeyScope], tenants: Iterable[str] = (), **fields: Any
) -> ApiKey:
    """Create the stored form of a new *token*, with the other *fields* of a key.

    Raises:
        ValidationError: a name, a tenant or a number is invalid.
    """
    return ApiKey(
        id=key_id_of(token) or "",
        sha256=token_digest(token).hex(),
        scopes=tuple(dict.fromkeys(scopes)),
        tenants=tuple(dict.fromkeys(tenants)) or None,
        **fields,
    )
