"""The forms of values, and what an error says about one that does not match."""

from typing import Annotated

from pydantic import Field, SecretStr

from app.domain.tenant import TENANT_ID_PATTERN

_MIN_KEY_LENGTH = 32
# What manifests have in place of secrets.
_PLACEHOLDER = "CHANGE-ME"

_SCHEMA_NAME = "^[a-z_][a-z0-9_$]{0,62}$"
_HOST_NAME = r"^(\*|(\*\.)?[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])$"
_ORIGIN = r"^(\*|https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?)$"

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Size = Annotated[int, Field(ge=1, le=10_000)]
TenantName = Annotated[str, Field(pattern=TENANT_ID_PATTERN, max_length=48)]
ServerName = Annotated[str, Field(pattern=TENANT_ID_PATTERN)]
SchemaName = Annotated[str, Field(pattern=_SCHEMA_NAME)]
HostName = Annotated[str, Field(pattern=_HOST_NAME)]
Origin = Annotated[str, Field(pattern=_ORIGIN)]

SENTENCES = {
    _HOST_NAME: "Must be a host name without a scheme or a port, `*.` and a name, or `*`.",
    _ORIGIN: "Must be an origin such as https://app.example.com, without a path, or `*`.",
    _SCHEMA_NAME: "Must be a schema's name: a-z, 0-9, `_` and `$`, at most 63 characters.",
    TENANT_ID_PATTERN: "Must be a tenant's id: a-z, 0-9 and inner hyphens.",
}
"""What values must look like, by the pattern that they do not match."""


def weakness_of(key: SecretStr) -> str | None:
    """Say why a key for tenants' passwords is too weak; None if it seems not to be."""
    if _PLACEHOLDER in key.get_secret_value().upper():
        return (
            f"everybody knows the placeholder {_PLACEHOLDER};"
            " `openssl rand -hex 32` generates a secret key"
        )
    if len(key) < _MIN_KEY_LENGTH:
        return f"at least {_MIN_KEY_LENGTH} characters are required"
    return None
