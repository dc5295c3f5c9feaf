"""Address and credentials of a Postgres: a declared server, or the catalog.

Passwords come from the environment or a secret file and stay inside SecretStr.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from app.domain.loopback import is_loopback
from app.settings.errors import SettingsError
from app.settings.separated import Separated

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=63)]
# Without `prefer`, which an attacker in between can downgrade.
TlsMode = Literal["disable", "require", "verify-full"]


class Endpoint(BaseModel):
    """A Postgres server as the operator declared it; the API cannot add or change one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    host: str = Field(min_length=1)
    """Host name, address, or directory of a Unix socket; every address of a name is tried. No
    default, so that a missing setting connects nowhere."""

    port: Port = 5432
    """TCP port; 5432, the default of Postgres."""

    user: Name
    """Login role of the service; no default."""

    password: SecretStr | None = None
    """Password of that role; from the environment only, never from the TOML file."""

    password_file: Path | None = None
    """File with the password, for mounted secrets; read at start, a final newline is dropped."""

    tls: TlsMode = "verify-full"
    """TLS mode; verify-full, because credentials travel over the connection. `require` encrypts
    but accepts any certificate; both weaker modes log a warning for other machines."""

    tls_ca_file: Path | None = None
    """PEM file with the trusted certificate authorities; by default those of the system."""

    @model_validator(mode="after")
    def _check_password(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("Give exactly one of password and password_file")
        return self

    @model_validator(mode="after")
    def _check_ca_file(self) -> Self:
        if self.tls_ca_file is not None and self.tls != "verify-full":
            raise ValueError("tls_ca_file requires tls = verify-full")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the host is a loopback address or a Unix socket."""
        return self.host.startswith("/") or is_loopback(self.host)

    def read_password(self) -> SecretStr:
        """Return the password, from its file if it has one.

        Raises:
            SettingsError: the file cannot be read, or is empty.
        """
        if self.password is not None:
            return self.password
        assert self.password_file is not None  # noqa: S101 - the validator wants one of the two
        return read_secret(self.password_file)


class ServerSettings(Endpoint):
    """A server that hosts tenants."""

    database: Name = "postgres"
    """Database of shared and per_tenant tenants and of the admin connection; postgres exists on
    every server."""

    budget: int | None = Field(default=None, ge=1)
    """Maximum number of the service's connections on this server; by default computed from
    max_connections."""

    budget_margin: int | None = Field(default=None, ge=0)
    """Connections on this server that are left to other clients; by default the service's
    budget_margin."""

    cores: int | None = Field(default=None, ge=1, le=100_000)
    """Processor cores of the server's machine, beyond which more concurrent statements do not
    help; by default this machine's if the server runs on it, else unknown."""

    open_databases: Separated[list[Name]] = []
    """Other databases to which everyone may connect, such as those of a provider, who alone could
    revoke it: they are no finding. By default each one is, because tenants could use it."""


class CatalogSettings(Endpoint):
    """The database of the service's own data."""

    database: Name = "poolkeeper"
    """The catalog's own database, separate from tenants' data."""


def read_secret(path: Path) -> SecretStr:
    """Read a secret from a file, without its final newline.

    Raises:
        SettingsError: the file cannot be read, or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError:
        # Without the cause, which contains the bytes of the secret.
        raise SettingsError(f"Cannot read {path}: not UTF-8 text.") from None
    if not text:
        raise SettingsError(f"Cannot use {path}: it is empty.")
    return SecretStr(text)
