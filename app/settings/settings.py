"""The settings themselves: one field per knob, its unit, default and reason underneath.

Values and the rules between them; where they come from is `toml` and `loading`.
Durations are seconds, sizes are connections unless the name says otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AnyHttpUrl, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.domain.tenant import OBJECT_PREFIX, TENANT_ID_PATTERN, PoolStrategy
from app.settings.endpoint import (
    CatalogSettings,
    Port,
    ServerSettings,
    is_loopback,
    read_secret,
)
from app.settings.errors import ENV_DELIMITER, ENV_PREFIX, SettingsError, setting_name
from app.settings.toml import read_toml

EMBEDDED_SERVER = "local"
_SHORTEST_KEY = 32

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
TenantName = Annotated[str, Field(pattern=TENANT_ID_PATTERN, max_length=48)]
ServerName = Annotated[str, Field(pattern=TENANT_ID_PATTERN)]
SchemaName = Annotated[str, Field(pattern="^[a-z_][a-z0-9_$]{0,62}$")]
HostName = Annotated[str, Field(pattern=r"^(\*|(\*\.)?[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])$")]
Size = Annotated[int, Field(ge=1, le=10_000)]


class Settings(BaseSettings):
    """What an operator may decide; frozen once read.

    Arguments win over the environment (`POOLKEEPER_*`), which wins over the TOML file
    (`poolkeeper.toml` in the working directory, or the one `POOLKEEPER_CONFIG_FILE` names).
    """

    model_config = SettingsConfigDict(
        env_nested_delimiter=ENV_DELIMITER,
        env_prefix=ENV_PREFIX,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    # --- the service -------------------------------------------------------------------------

    host: str = "127.0.0.1"
    """Address to listen on; this machine only, until there are keys."""

    port: Port = 8080
    """TCP port to listen on; 8080 by custom."""

    data_dir: Path = Path(".poolkeeper")
    """Folder of the embedded Postgres and generated secrets; beside where one works."""

    keys_file: Path | None = None
    """File with the API keys, made by `poolkeeper keys new`; keys.json in data_dir by default."""

    rate_limit: int = Field(default=200, ge=0, le=1_000_000)
    """Most requests a second of one key that has no limit of its own; 200 leave the others theirs
    on two cores, 0 means no limit."""

    trusted_hosts: list[HostName] | None = None
    """Names callers may use in the Host header, `*.example.com` and `*` too; by default this
    machine's own when listening on loopback, so that no web page gets in by DNS, else all."""

    request_deadline_seconds: Seconds = 60.0
    """How long a request's body may take to arrive, and then its answer; 60 s, what callers wait.
    Queries, deletions and evictions get their own time on top."""

    header_timeout_seconds: Seconds = 10.0
    """How long the headers of a request may take to arrive, from the connection's beginning; 10 s
    suffice on any network, and silent connections cost a file descriptor each."""

    keep_alive_seconds: int = Field(default=5, ge=1, le=3600)
    """How long a connection may be unused between two requests; 5 s. Set it above the idle timeout
    of a proxy that stands before the service."""

    send_timeout_seconds: Seconds = 60.0
    """How long a client may read nothing of its answer before the connection is closed; 60 s, as
    nginx has it."""

    max_http_connections: int | None = Field(default=None, ge=16, le=60_000)
    """Most connections of HTTP clients; by default the open files that the system allows, less
    those for Postgres, and 10000 at most."""

    require_if_match: bool = False
    """Whether changes must say in If-Match which version they mean; off, for scripts that only
    declare."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """One JSON event a line, or text for people; auto looks whether stderr is a terminal."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severity that is logged; INFO tells every change and no request of a tenant."""

    shutdown_seconds: Seconds = 5.0
    """How long leases may go on after SIGTERM; 5 s fits inside any orchestrator's grace."""

    secret_key: SecretStr | None = None
    """Key from which tenants' login passwords are derived, 32 characters at least; from the
    environment only."""

    secret_key_file: Path | None = None
    """File with that key; when neither is given, one is made in data_dir, readable by us alone."""

    # --- servers and tenants -----------------------------------------------------------------

    servers: dict[ServerName, ServerSettings] = {}
    """Postgres servers by name; none means one embedded server, called local."""

    catalog: CatalogSettings | None = None
    """Where the service remembers; required with servers, embedded without."""

    embedded_max_connections: int = Field(default=100, ge=20, le=10_000)
    """The embedded server's max_connections; 100, as Postgres has it."""

    default_server: str | None = None
    """Server of tenants that name none; by default the only one there is."""

    default_strategy: PoolStrategy = PoolStrategy.SHARED
    """Strategy of tenants that name none; shared, the cheapest."""

    extension_schemas: list[SchemaName] = []
    """Schemas that every per_tenant tenant may use and finds after its own, for extensions; none,
    since somebody must make them and install the extensions there."""

    query_on_shared: bool | None = None
    """Whether shared tenants may use the query endpoint; by default on the embedded server only."""

    # --- pools -------------------------------------------------------------------------------

    shared_pool_size: Size = 20
    """Most connections of a server's shared pool; 20, for all its tenants together."""

    per_tenant_max_pools: Size = 100
    """Most live pools under per_tenant; beyond it the least recently used goes."""

    per_tenant_pool_size: Size = 5
    """Most connections of a per_tenant pool; 5, the advisor's lower bound."""

    per_database_max_databases: Size = 50
    """Most live pools under per_database; 50, because each back-end caches its own catalogs."""

    per_database_pool_size: Size = 5
    """Most connections of a per_database pool; 5, the advisor's lower bound."""

    warmup_size: int = Field(default=1, ge=0, le=10_000)
    """Connections opened with a pool; 1, so that the first borrower rarely waits for a login."""

    idle_timeout_seconds: Seconds = 300.0
    """How long a connection may be unused; 300 s outlasts a page being read."""

    max_lifetime_seconds: Seconds = 1800.0
    """Age at which a connection is replaced; 1800 s bounds the memory a back-end gathers."""

    health_check: bool = True
    """Whether idle connections are checked; on, since a dead one costs a borrower an error."""

    health_check_interval_seconds: Seconds = 30.0
    """Time between checks of an idle connection; 30 s finds a restart before most people do."""

    acquire_timeout_seconds: float = Field(default=5.0, gt=0, le=300)
    """How long a borrower waits for a connection; 5 s, and never for ever."""

    max_waiting: int = Field(default=1000, ge=0, le=100_000)
    """Most borrowers waiting on one pool; 1000, since beyond it waiting helps nobody."""

    leak_threshold_seconds: Seconds = 60.0
    """Age at which a lease is reported as a possible leak; 60 s is no ordinary transaction."""

    connect_timeout_seconds: float = Field(default=5.0, gt=0, le=300)
    """How long one login may take; 5 s covers TLS and SCRAM on a busy server."""

    max_connecting: int | None = Field(default=None, ge=1, le=1000)
    """Logins under way on one server; by default twice our cores, SCRAM being CPU work."""

    lock_table_limit: float = Field(default=0.5, ge=0, le=1)
    """Share of a server's lock table beyond which the tenant with the most locks loses its
    statement, then its connection; half leaves room for the rest, 0 means no limit."""

    query_timeout_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Longest statement of the query endpoint; 30 s, what proxies wait for a reply."""

    query_max_rows: int = Field(default=1000, ge=1, le=100_000)
    """Most rows the query endpoint returns; 1000, what one can look at."""

    # --- loops and the advisor ---------------------------------------------------------------

    poll_interval_seconds: Seconds = 5.0
    """Time between measurements of all pools; 5 s, what a person watching can follow."""

    reconcile_interval_seconds: Seconds = 10.0
    """Time between comparisons of desired with actual; 10 s, an outage's tail."""

    metrics_tenants: int = Field(default=200, ge=0, le=10_000)
    """Tenants with metrics of their own, those with the most demand; 200, since each is nine
    series. The rest is summed up as `_other`."""

    metrics_tenants_always: list[TenantName] = []
    """Tenants that always have metrics of their own, whatever the others do."""

    otlp_endpoint: AnyHttpUrl | None = None
    """Where metrics of pools are pushed to after each poll, by OTLP over HTTP, such as
    `http://collector:4318/v1/metrics`; by default nowhere. Needs the extra `otel`."""

    max_streams: int = Field(default=1000, ge=0, le=100_000)
    """Most programs and pages that may follow the statistics at a time; 1000, some 60 MB if
    none of them reads what it is sent. Half of the HTTP connections at most."""

    stats_window_seconds: Seconds = 300.0
    """Rolling window of the percentiles; 300 s forgets a burst within minutes."""

    sample_retention_hours: float = Field(default=2.0, gt=0, le=8760)
    """How long every poll is kept, in hours; 2 show an incident as it was. A busy tenant's polls
    take 140 kB an hour, those of one that stays idle 12."""

    minute_retention_days: float = Field(default=7.0, gt=0, le=3660)
    """How long polls are kept minute by minute, in days; 7 show the same day last week. A day of
    a tenant whose pool is open takes 280 kB."""

    hour_retention_days: float = Field(default=400.0, gt=0, le=3660)
    """How long polls are kept hour by hour, in days; 400 show the same month last year. A day of
    a tenant whose pool is open takes 4.3 kB."""

    budget_margin: int = Field(default=5, ge=0, le=10_000)
    """Connections of each server left for others; 5 let a person in with psql."""

    advisor_mode: Literal["off", "recommend", "apply"] = "recommend"
    """What becomes of advice; recommend changes nothing until a person says so."""

    advisor_rule: Literal["demand", "hysteresis"] = "demand"
    """How sizes are judged; demand, since it has a tenth of the late waits of hysteresis."""

    advisor_interval_seconds: float | None = Field(default=None, ge=0.1, le=86_400)
    """Time between two looks of the advisor; by default 5 s for demand, which grows at once, and
    30 s for hysteresis, as published."""

    advisor_samples: int = Field(default=3, ge=1, le=1000)
    """Samples in a row that must agree before hysteresis advises; 3, as published."""

    advisor_resizes_per_minute: int = Field(default=60, ge=1, le=100_000)
    """Most resizes a minute of one server by the advisor itself; 60 spread a storm over minutes."""

    advisor_cooldown_seconds: float = Field(default=900.0, ge=0, le=86_400)
    """How long the advisor leaves alone what a person sized; 900 s, one look at a dashboard."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the TOML file; the first that has a key wins.

        Raises:
            SettingsError: the TOML file cannot be read, or holds a secret.
        """
        return init_settings, env_settings, InitSettingsSource(settings_cls, read_toml())

    @field_validator("extension_schemas")
    @classmethod
    def _are_schemas_for_extensions(cls, schemas: list[str]) -> list[str]:
        for schema in schemas:
            if schema.startswith(("pg_", OBJECT_PREFIX)) or schema == "information_schema":
                raise ValueError("A tenant's own schema, or one of Postgres', cannot be named")
        return schemas

    @field_validator("secret_key")
    @classmethod
    def _is_hard_to_guess(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key) < _SHORTEST_KEY:
            raise ValueError(f"At least {_SHORTEST_KEY} characters are needed")
        return key

    @field_validator("otlp_endpoint")
    @classmethod
    def _holds_no_secret(cls, url: AnyHttpUrl | None) -> AnyHttpUrl | None:
        if url is not None and (url.username or url.password):
            raise ValueError("Give what proves who you are in OTEL_EXPORTER_OTLP_HEADERS")
        return url

    @model_validator(mode="after")
    def _has_one_secret_key_at_most(self) -> Self:
        if self.secret_key is not None and self.secret_key_file is not None:
            key, file = setting_name("secret_key"), setting_name("secret_key_file")
            raise ValueError(f"Give at most one of {key} and {file}")
        return self

    @model_validator(mode="after")
    def _has_a_catalog_with_its_servers(self) -> Self:
        if self.servers and self.catalog is None:
            raise ValueError(f"{setting_name('catalog')}: Required once servers are declared")
        if self.catalog is not None and not self.servers:
            raise ValueError(
                f"{setting_name('catalog')}: Of no use without declared servers;"
                " the embedded server has its own"
            )
        return self

    @model_validator(mode="after")
    def _knows_its_default_server(self) -> Self:
        known = list(self.servers) or [EMBEDDED_SERVER]
        if self.default_server is not None and self.default_server not in known:
            key = setting_name("default_server")
            raise ValueError(f"{key}: Not a declared server; there is {', '.join(known)}")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can call."""
        return is_loopback(self.host)

    @property
    def keys_path(self) -> Path:
        """Where the API keys are, if there are any."""
        return self.keys_file or self.data_dir / "keys.json"

    @property
    def requires_keys(self) -> bool:
        """Whether to serve nobody rather than without keys: they were asked for, or are needed."""
        return self.keys_file is not None or not self.is_loopback

    @property
    def is_embedded(self) -> bool:
        """Whether the service brings its own Postgres."""
        return not self.servers

    def read_secret_key(self) -> SecretStr | None:
        """Return the key for tenants' passwords; None when the operator gave none.

        Raises:
            SettingsError: its file cannot be read, or holds too short a key.
        """
        if self.secret_key_file is None:
            return self.secret_key
        key = read_secret(self.secret_key_file)
        if len(key) < _SHORTEST_KEY:
            raise SettingsError(
                f"Cannot use {self.secret_key_file}:"
                f" at least {_SHORTEST_KEY} characters are needed."
            )
        return key
