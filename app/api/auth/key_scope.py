"""The permissions of API keys. Without pydantic, so that `poolkeeper keys` starts fast."""

from collections.abc import Mapping
from enum import StrEnum


class KeyScope(StrEnum):
    """A permission of an API key."""

    READ = "read"
    OPERATE = "operate"
    QUERY = "query"
    ADMIN = "admin"
    NODE = "node"
    """The agent of one node: it gets passwords of tenants' roles."""


# The right to change something includes the right to read it. Only QUERY reads tenants' data.
INCLUDED_SCOPES: Mapping[KeyScope, frozenset[KeyScope]] = {
    KeyScope.OPERATE: frozenset({KeyScope.READ}),
    KeyScope.ADMIN: frozenset({KeyScope.OPERATE, KeyScope.READ}),
}
