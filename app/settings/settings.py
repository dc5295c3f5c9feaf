"""The settings: one field each, with unit, default and reason, and the rules between them.

`loading` and `toml` read them. Durations are seconds and sizes are connections, unless the name
says otherwise.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import AnyHttpUrl, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.domain.loopback import is_loopback
from app.domain.tenant import OBJECT_PREFIX, PoolStrategy
from app.settings.endpoint import (
    CatalogSettings,
    Port,
    ServerSettings,
    read_secret,
)
from app.settings.errors import ENV_DELIMITER, ENV_PREFIX, SettingsError, setting_name
from app.settings.forms import (
    HostName,
    Origin,
    SchemaName,
    Seconds,
    ServerName,
    Size,
    TenantName,
    weakness_of,
)
from app.settings.separated import Separated
from app.settings.toml import read_toml

EMBEDDED_SERVER = "local"


class Settings(BaseSettings):
    """Everything that an operator can configure; immutable once read.

    Arguments override the environment (`POOLKEEPER_*`), which overrides the TOML file
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
    """Address to listen on. The default is loopback; other addresses need API keys."""

    port: Port = 8080
    """TCP port to listen on; 8080, a common port for HTTP services."""

    data_dir: Path = Path(".poolkeeper")
    """Directory of the embedded Postgres and of generated secrets, relative to the working
    directory."""

    advertise_url: AnyHttpUrl | None = None
    """URL under which other instances of the service reach this one, such as
    `http://10.0.0.7:8080`. If set, several instances may run on one catalog: one is active, the
    others are standbys. By default none: a second instance is refused."""

    keys_file: Path | None = None
    """File with the API keys, written by `poolkeeper keys create`; by default keys.json in
    data_dir."""

    rate_limit: int = Field(default=200, ge=0, le=1_000_000)
    """Maximum requests per second of a key without a limit of its own; 0 means unlimited. 200
    leaves capacity for other keys on two cores."""

    trusted_hosts: Separated[list[HostName] | None] = None
    """Host names that callers may use in the Host header, such as
    `pools.example.com,poolkeeper.default.svc`; `*.example.com` and `*` are allowed. By default
    loopback names when listening on loopback, which prevents DNS rebinding, else all. `/livez` and
    `/readyz` answer under any name."""

    request_deadline_seconds: Seconds = 60.0
    """Maximum time for a request's body to arrive, and again for its response; 60 s, as long as
    typical callers wait. Queries, deletions and evictions get their own time in addition."""

    header_timeout_seconds: Seconds = 10.0
    """Maximum time for the headers of a request to arrive. 10 s suffice on any network; a silent
    connection costs a file descriptor."""

    keep_alive_seconds: int = Field(default=75, ge=1, le=3600)
    """Maximum idle time of an HTTP connection between two requests; 75 s, as in nginx. It must be
    longer than the idle timeout of clients (httpx: 5 s) and proxies: else requests fail that are
    sent at the moment the connection closes."""

    send_timeout_seconds: Seconds = 60.0
    """Maximum time that a client may read nothing of a response before its connection closes; 60
    s, as in nginx."""

    max_http_connections: int | None = Field(default=None, ge=16, le=60_000)
    """Maximum number of HTTP connections; by default the limit of open files minus those for
    Postgres, at most 10000."""

    require_if_match: bool = False
    """Whether changes of existing resources must send If-Match or If-None-Match. Off, for scripts
    that only declare."""

    log_format: Literal["auto", "json", "console"] = "auto"
    """`json`: one event per line; `console`: text for people; `auto`: console if stderr is a
    terminal, else json."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Minimum severity of logged events. INFO logs every change and every refused
    request, but no other request of a tenant."""

    shutdown_seconds: Seconds = 5.0
    """Time that leases get to end after SIGTERM; 5 s fits into any orchestrator's grace period."""

    shutdown_delay_seconds: float = Field(default=5.0, ge=0, le=300, allow_inf_nan=False)
    """Time after SIGTERM during which an instance with standbys is not ready and forwards requests
    to its successor before it closes its port; 5 s suffice for a proxy that checks `/readyz` each
    second. Without POOLKEEPER_ADVERTISE_URL there is no delay."""

    secret_key: SecretStr | None = None
    """Key from which tenants' login passwords are derived, at least 32 characters; from the
    environment only."""

    secret_key_file: Path | None = None
    """File with that key. If neither is set, a key is generated in data_dir, readable by the
    service's user only."""

    # --- servers and tenants -----------------------------------------------------------------

    servers: dict[ServerName, ServerSettings] = {}
    """Postgres servers by name. Without any, one embedded server named local is started."""

    catalog: CatalogSettings | None = None
    """Where the service stores its own data; required with servers, embedded without."""

    embedded_max_connections: int = Field(default=100, ge=20, le=10_000)
    """max_connections of the embedded server; 100, the default of Postgres."""

    default_server: str | None = None
    """Server of tenants that name none; by default the only server, if there is only one."""

    default_strategy: PoolStrategy = PoolStrategy.SHARED
    """Strategy of tenants that name none; shared, because it needs the fewest connections."""

    extension_schemas: Separated[list[SchemaName]] = []
    """Schemas with extensions that every per_tenant tenant may use and finds after its own schema.
    Empty, because the operator must create the schemas and their extensions."""

    query_on_shared: bool | None = None
    """Whether shared tenants may use the query endpoint; by default on the embedded server
    only."""

    sql_endpoint: bool = True
    """Whether `POST /sql` serves Neon's serverless driver. On, because every request needs the
    password of an application credential, and there are none by default."""

    sql_rate_limit: int = Field(default=200, ge=0, le=1_000_000)
    """Maximum requests per second of an application credential at `POST /sql`; 0 means unlimited.
    200 leaves capacity for other applications on two cores. Functions start together: as many
    requests as may wait for a pool (max_waiting) may come at once, if fewer came before."""

    sql_origins: Separated[list[Origin]] = []
    """Sites whose pages may call `POST /sql` from a browser, such as `https://app.example.com`; `*`
    allows all. Empty, because everyone who opens a page can read the password that it
    sends."""

    # --- pools -------------------------------------------------------------------------------

    shared_pool_size: Size = 20
    """Maximum connections of a server's shared pool; 20 for all its tenants together."""

    per_tenant_max_pools: Size = 100
    """Maximum number of open per_tenant pools; beyond it the least recently used idle one is
    evicted. While all are busy, callers of other tenants wait in order, up to their timeout."""

    per_tenant_pool_size: Size = 5
    """Maximum connections of a per_tenant pool; 5, the advisor's lower bound."""

    per_database_max_databases: Size = 50
    """Maximum number of open per_database pools; 50, because each back-end caches its database's
    catalogs."""

    per_database_pool_size: Size = 5
    """Maximum connections of a per_database pool; 5, the advisor's lower bound."""

    warmup_size: int = Field(default=1, ge=0, le=10_000)
    """Connections opened with a pool; 1, so the first borrower rarely waits for a login."""

    idle_timeout_seconds: Seconds = 300.0
    """Idle time after which a connection closes; 300 s covers the time a user reads a page."""

    max_lifetime_seconds: Seconds = 1800.0
    """Age at which a connection is replaced; 1800 s limits the memory that a back-end
    accumulates."""

    health_check: bool = True
    """Whether idle connections are checked; on, because a dead connection fails a borrower."""

    health_check_interval_seconds: Seconds = 30.0
    """Time between two checks of an idle connection; 30 s notices a restart before most users
    do."""

    acquire_timeout_seconds: float = Field(default=5.0, gt=0, le=300)
    """Maximum time that a borrower waits for a connection; 5 s, about as long as a user waits.
    While connections are scarce, tenants take turns within about 65 % of this time."""

    max_waiting: int = Field(default=1000, ge=0, le=100_000)
    """Maximum number of borrowers that wait for one pool; beyond 1000, waiting helps no one."""

    callers_of_paused_pools: Literal["wait", "refuse"] = "wait"
    """`wait`: until the pool is resumed or their time ends; `refuse`: at once. Both end in the code
    pool-paused. They wait, as with PgBouncer's PAUSE, so that a short pause fails nobody."""

    leak_threshold_seconds: Seconds = 60.0
    """Age at which a lease is reported as a suspected leak; 60 s exceeds ordinary transactions."""

    catalog_timeout_seconds: float = Field(default=3.0, ge=0.1, le=60)
    """Maximum time of one operation on the catalog; after it the catalog counts as unavailable. 3 s
    exceeds each operation on a busy catalog, and a caller still waits for it."""

    connect_timeout_seconds: float = Field(default=5.0, gt=0, le=300)
    """Maximum time of one login; 5 s covers TLS and SCRAM on a busy server."""

    max_connecting: int | None = Field(default=None, ge=1, le=1000)
    """Maximum number of concurrent logins on one server; by default twice this machine's cores,
    because SCRAM is CPU-bound."""

    lock_table_limit: float = Field(default=0.5, ge=0, le=1)
    """Share of a server's lock table above which the statement of the tenant with the most locks
    is cancelled, then its connection terminated; 0.5 leaves room for other sessions, 0 means no
    limit."""

    query_timeout_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Maximum duration of a statement of the query endpoint; 30 s, as long as proxies wait for a
    response."""

    query_max_rows: int = Field(default=1000, ge=1, le=100_000)
    """Maximum number of rows that the query endpoint returns; 1000, as many as a person can look
    at."""

    # --- the node beside the service ---------------------------------------------------------

    node: Literal["off", "auto"] = "off"
    """`auto`: run a PgBouncer node on loopback, if there is a PgBouncer on the path; without one
    the service still works, and the node's `problem` says what is missing. It ends with the
    service: its clients are disconnected, and have no connections for seconds, at each restart;
    those of a separate `poolkeeper node` do not notice. Off, because nodes usually run beside
    applications; `make run` and `make demo` set `auto`."""

    node_port: Port = 6432
    """TCP port of that node; 6432, the default of PgBouncer."""

    # --- loops and the advisor ---------------------------------------------------------------

    poll_interval_seconds: Seconds = 5.0
    """Time between two measurements of all pools; 5 s, a pace that a person can follow."""

    reconcile_interval_seconds: Seconds = 10.0
    """Time between two comparisons of desired and actual state; 10 s limits how
    long a difference lasts after an outage."""

    metrics_tenants: int = Field(default=200, ge=0, le=10_000)
    """Number of tenants with metrics of their own, those with the most demand; 200, because each
    has nine series. The rest is summed up as `_other`."""

    metrics_tenants_always: Separated[list[TenantName]] = []
    """Tenants that always have metrics of their own."""

    otlp_endpoint: AnyHttpUrl | None = None
    """URL to which the pools' metrics are pushed after each poll, by OTLP over HTTP, such as
    `http://collector:4318/v1/metrics`; by default none. Needs the extra `otel`."""

    grafana_url: AnyHttpUrl | None = None
    """Address of a Grafana with the dashboards of `monitoring/grafana`; the page links to them. By
    default none."""

    documents_url: AnyHttpUrl | None = None
    """Address of these documents, or of your own runbook; the page links to it. By default none."""

    max_streams: int = Field(default=1000, ge=0, le=100_000)
    """Maximum number of clients that follow the statistics stream; 1000 take about 60 MB if none
    of them reads. At most half of the HTTP connections."""

    stats_window_seconds: Seconds = 300.0
    """Rolling window of the percentiles; after 300 s a burst no longer counts."""

    sample_retention_hours: float = Field(default=2.0, gt=0, le=8760)
    """Hours for which every poll is stored; 2 show an incident in full detail. An hour takes 140
    kB for a busy tenant, 12 kB for an idle one."""

    minute_retention_days: float = Field(default=7.0, gt=0, le=3660)
    """Days for which samples per minute are stored; 7 show the same day of last week. A day takes
    280 kB for a tenant with an open pool."""

    hour_retention_days: float = Field(default=400.0, gt=0, le=3660)
    """Days for which samples per hour and per day are stored; 400 show the same month of last
    year. A day takes 4.7 kB for a tenant with an open pool."""

    budget_margin: int = Field(default=5, ge=0, le=10_000)
    """Connections of each server that are left to other clients; 5 leave room for psql."""

    advisor_mode: Literal["off", "recommend", "apply"] = "recommend"
    """How recommendations are handled: `off` makes none, `recommend` waits for a person, `apply`
    applies them."""

    advisor_rule: Literal["demand", "hysteresis"] = "demand"
    """Rule that computes sizes; demand, because it makes a tenth as many callers late as
    hysteresis."""

    advisor_interval_seconds: float | None = Field(default=None, ge=0.1, le=86_400)
    """Time between two evaluations by the advisor; by default 5 s for demand, which grows pools at
    once, and 30 s for hysteresis, as published."""

    advisor_samples: int = Field(default=3, ge=1, le=1000)
    """Consecutive samples that must agree before hysteresis recommends a change; 3, as
    published."""

    advisor_resizes_per_minute: int = Field(default=60, ge=1, le=100_000)
    """Maximum number of resizes per minute that the advisor applies on one server; 60 spread a
    storm over minutes."""

    advisor_cooldown_seconds: float = Field(default=900.0, ge=0, le=86_400)
    """Time after a person's resize during which the advisor does not touch the pool; 900 s, time
    to watch the effect."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the TOML file; the first one that has a key wins.

        Raises:
            SettingsError: the TOML file cannot be read, or holds a secret.
        """
        return init_settings, env_settings, InitSettingsSource(settings_cls, read_toml())

    @field_validator("extension_schemas")
    @classmethod
    def _exclude_tenants_and_system_schemas(cls, schemas: list[str]) -> list[str]:
        for schema in schemas:
            if schema.startswith(("pg_", OBJECT_PREFIX)) or schema == "information_schema":
                raise ValueError("Tenants' schemas and Postgres' own schemas are not allowed")
        return schemas

    @field_validator("secret_key")
    @classmethod
    def _check_strength(cls, key: SecretStr | None) -> SecretStr | None:
        problem = None if key is None else weakness_of(key)
        if problem is not None:
            raise ValueError(f"{problem[0].upper()}{problem[1:]}")
        return key

    @field_validator("advertise_url")
    @classmethod
    def _check_advertise_url(cls, url: AnyHttpUrl | None) -> AnyHttpUrl | None:
        if url is None:
            return None
        if url.username or url.password or url.query or url.fragment or url.path not in (None, "/"):
            raise ValueError("Only a scheme, a host and a port are allowed")
        return url

    @field_validator("otlp_endpoint")
    @classmethod
    def _exclude_credentials(cls, url: AnyHttpUrl | None) -> AnyHttpUrl | None:
        if url is not None and (url.username or url.password):
            raise ValueError("Credentials belong in OTEL_EXPORTER_OTLP_HEADERS")
        return url

    @field_validator("grafana_url", "documents_url")
    @classmethod
    def _is_public(cls, url: AnyHttpUrl | None) -> AnyHttpUrl | None:
        if url is not None and (url.username or url.password):
            raise ValueError("Everyone who uses the page sees it: no credentials")
        return url

    @model_validator(mode="after")
    def _check_secret_key(self) -> Self:
        if self.secret_key is not None and self.secret_key_file is not None:
            key, file = setting_name("secret_key"), setting_name("secret_key_file")
            raise ValueError(f"Give at most one of {key} and {file}")
        return self

    @model_validator(mode="after")
    def _check_replicas(self) -> Self:
        if self.advertise_url is not None:
            key = setting_name("advertise_url")
            if not self.servers:
                raise ValueError(f"{key}: Requires declared servers; the embedded one serves one")
            if self.secret_key is None and self.secret_key_file is None:
                names = " or ".join(map(setting_name, ("secret_key", "secret_key_file")))
                raise ValueError(f"{key}: Requires {names}, the same for all instances")
        return self

    @model_validator(mode="after")
    def _check_catalog(self) -> Self:
        if self.servers and self.catalog is None:
            raise ValueError(f"{setting_name('catalog')}: Required if servers are declared")
        if self.catalog is not None and not self.servers:
            raise ValueError(
                f"{setting_name('catalog')}: Requires declared servers;"
                " the embedded server has its own catalog"
            )
        return self

    @model_validator(mode="after")
    def _check_default_server(self) -> Self:
        known = list(self.servers) or [EMBEDDED_SERVER]
        if self.default_server is not None and self.default_server not in known:
            key = setting_name("default_server")
            raise ValueError(f"{key}: Not a declared server; declared: {', '.join(known)}")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    @property
    def keys_path(self) -> Path:
        """The key file; it need not exist."""
        return self.keys_file or self.data_dir / "keys.json"

    @property
    def requires_keys(self) -> bool:
        """Whether the service must not start without API keys."""
        return self.keys_file is not None or not self.is_loopback

    @property
    def is_embedded(self) -> bool:
        """Whether the service runs its own Postgres."""
        return not self.servers

    def read_secret_key(self) -> SecretStr | None:
        """Return the key for tenants' passwords; None if it is not configured.

        Raises:
            SettingsError: its file cannot be read, or the key in it is too short.
        """
        if self.secret_key_file is None:
            return self.secret_key
        key = read_secret(self.secret_key_file)
        problem = weakness_of(key)
        if problem is not None:
            raise SettingsError(f"Cannot use {self.secret_key_file}: {problem}.")
        return key
