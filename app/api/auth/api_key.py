"""An API key: whose it is, what it may do, and the hash by which it is known again.

The key itself is told once, when it is made, and kept nowhere. It is 256 random bits, which
nobody finds by trying: a slow hash, made for what people think up, would protect it no better
than SHA-256 and cost every request.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from app.domain.audit import SERVICE_ACTORS
from app.domain.tenant import TENANT_ID_PATTERN

_PREFIX = "poolkeeper"
_TOKEN = re.compile(rf"{_PREFIX}_([0-9a-f]{{8}})_[0-9a-f]{{64}}")
# In the audit trail these are the service itself, and whoever calls without a key.
_TAKEN_NAMES = frozenset({"api", "nobody", *(actor.name for actor in SERVICE_ACTORS)})


class KeyScope(StrEnum):
    """What a key may do."""

    READ = "read"
    OPERATE = "operate"
    QUERY = "query"
    ADMIN = "admin"


# Whoever may change something may see it. Nobody reads tenants' data by being an administrator.
INCLUDED_SCOPES: Mapping[KeyScope, frozenset[KeyScope]] = {
    KeyScope.READ: frozenset({KeyScope.READ}),
    KeyScope.OPERATE: frozenset({KeyScope.OPERATE, KeyScope.READ}),
    KeyScope.QUERY: frozenset({KeyScope.QUERY}),
    KeyScope.ADMIN: frozenset({KeyScope.ADMIN, KeyScope.OPERATE, KeyScope.READ}),
}


def _is_free(name: str) -> str:
    if name in _TAKEN_NAMES:
        raise ValueError("This name is taken by the service itself")
    return name


KeyName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=48),
    AfterValidator(_is_free),
]
TenantName = Annotated[str, Field(pattern=TENANT_ID_PATTERN, max_length=48)]


class ApiKey(BaseModel):
    """What is kept of a key.

    Attributes:
        name: for the log and the audit trail; a key's alone.
        id: the part of the key by which it is found; no secret.
        sha256: of the whole key, in hexadecimal.
        scopes: what it may do.
        tenants: those it is bound to, and to which no other exists; None: it is bound to none.
        created_at: when it was made.
        expires_at: from then on it is refused; None: never.
        requests_per_second: instead of the service's own limit; None: that one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: KeyName
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[KeyScope, ...], Field(min_length=1)]
    tenants: Annotated[tuple[TenantName, ...], Field(min_length=1)] | None = None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    requests_per_second: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    @property
    def digest(self) -> bytes:
        """What the digest of a token must be to be this key."""
        return bytes.fromhex(self.sha256)


def new_token() -> str:
    """A new key, as its owner sends it: a prefix for scanners of secrets, its id, 256 bits."""
    return f"{_PREFIX}_{secrets.token_hex(4)}_{secrets.token_hex(32)}"


def key_id_of(token: str) -> str | None:
    """The id inside a key; None if *token* is none."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else None


def token_digest(token: str) -> bytes:
    """The SHA-256 of a key."""
    return hashlib.sha256(token.encode("ascii")).digest()


def api_key_for(
    token: str,
    *,
    name: str,
    scopes: tuple[KeyScope, ...],
    created_at: datetime,
    tenants: tuple[str, ...] = (),
    expires_at: datetime | None = None,
    requests_per_second: int | None = None,
) -> ApiKey:
    """What to keep of a new *token*.

    Raises:
        ValidationError: a name, a tenant or a number is none.
    """
    return ApiKey(
        name=name,
        id=key_id_of(token) or "",
        sha256=token_digest(token).hex(),
        scopes=tuple(dict.fromkeys(scopes)),
        tenants=tuple(dict.fromkeys(tenants)) or None,
        created_at=created_at,
        expires_at=expires_at,
        requests_per_second=requests_per_second,
    )
