"""Where a Postgres is and who we are to it: a declared server, or the catalog.

Passwords come from the environment or a secret file and stay inside SecretStr. Nothing here
opens a connection.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from app.settings.errors import SettingsError

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=63)]
# Without `prefer`: whoever stands in between would only have to say no.
TlsMode = Literal["disable", "require", "verify-full"]


class Endpoint(BaseModel):
    """A Postgres server as the operator declared it; the API can neither add nor change one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    host: str = Field(min_length=1)
    """Host name, address, or the directory of a Unix socket. Each address of a name is tried.
    No default, so that nobody connects to the wrong one by silence."""

    port: Port = 5432
    """TCP port; 5432, as Postgres has it."""

    user: Name
    """Login role of the service; no default."""

    password: SecretStr | None = None
    """Password of that role; from the environment only, never from the TOML file."""

    password_file: Path | None = None
    """File that holds the password, for mounted secrets; read at start, a final newline dropped."""

    tls: TlsMode = "verify-full"
    """How the connection is protected; the strictest, because credentials travel over it.
    `require` encrypts and trusts anybody; both weaker modes are warned of beyond this machine."""

    tls_ca_file: Path | None = None
    """PEM file of the authorities to trust; none means those of the system."""

    @model_validator(mode="after")
    def _has_one_password(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("Give exactly one of password and password_file")
        return self

    @model_validator(mode="after")
    def _trusts_authorities_where_it_looks(self) -> Self:
        if self.tls_ca_file is not None and self.tls != "verify-full":
            raise ValueError("tls_ca_file is of use only where tls is verify-full")
        return self

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, by its name: a loopback address or a Unix socket."""
        return self.host.startswith("/") or is_loopback(self.host)

    def read_password(self) -> SecretStr:
        """Return the password, wherever it is kept.

        Raises:
            SettingsError: the file cannot be read, or is empty.
        """
        if self.password is not None:
            return self.password
        if self.password_file is None:  # pragma: no cover - the validator has made sure
            raise SettingsError("Neither password nor password_file is given.")
        return read_secret(self.password_file)


class ServerSettings(Endpoint):
    """A server that tenants live on."""

    database: Name = "postgres"
    """Where shared and per_tenant tenants live, and the admin connection's; postgres exists."""

    budget: int | None = Field(default=None, ge=1)
    """Most connections of the service here; by default computed from max_connections."""

    budget_margin: int | None = Field(default=None, ge=0)
    """Connections left for others here; by default the service's budget_margin."""

    cores: int | None = Field(default=None, ge=1, le=100_000)
    """Processors of its machine, beyond which running more at a time helps nobody; by default
    this machine's if the server is on it, else not known."""


class CatalogSettings(Endpoint):
    """Where the service remembers."""

    database: Name = "poolkeeper"
    """The catalog's own database, away from every tenant's data."""


def is_loopback(host: str) -> bool:
    """Whether *host* is this machine and nobody else's."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_secret(path: Path) -> SecretStr:
    """Read a secret from a file, less its final newline.

    Raises:
        SettingsError: the file cannot be read, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError:
        # Without the cause: it carries the bytes of the secret.
        raise SettingsError(f"Cannot read {path}: not UTF-8 text.") from None
    if not text:
        raise SettingsError(f"Cannot use {path}: it is empty.")
    return SecretStr(text)
