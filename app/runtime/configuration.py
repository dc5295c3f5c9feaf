"""Converts the settings into the arguments of the service's objects."""

from __future__ import annotations

import errno
import hmac
import json
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from app import __version__
from app.api.forwarding.forwarded_client import ForwardedClient
from app.api.http.dependencies import LONGEST_LEASE_DEADLINE, TenantDefaults
from app.api.http.request_checks import LOOPBACK_NAMES
from app.api.views.tenant import QueryLimits
from app.domain.advisor import PoolPressureMonitorConfig
from app.domain.advisor_settings import AdvisorRule, AdvisorSettings
from app.domain.history import Resolution
from app.domain.leadership import Instance
from app.domain.nodes.allotment import NO_ALLOTMENT
from app.domain.nodes.configuration import NodeServer
from app.domain.nodes.documents import LONGEST_POLL
from app.domain.pool import PoolConfig
from app.domain.tenant import AdvisorMode, PoolStrategy
from app.embedded.binaries import make_enterable
from app.embedded.data_directory import write_private_file
from app.pools.isolation import (
    IsolationStrategy,
    PerDatabaseIsolation,
    PerTenantIsolation,
    SharedIsolation,
)
from app.pools.isolation.role_passwords import RolePasswords
from app.pools.servers.server import Server
from app.settings import Settings, SettingsError

if TYPE_CHECKING:
    from app.api.telemetry.otlp import OtlpExporter

_KEY_BYTES = 32
# Seconds within which a due response reaches a standby.
_RESPONSE_MARGIN = 5.0
# Number of hexadecimal digits: enough to distinguish settings.
_FINGERPRINT = 16


def pool_configs(settings: Settings) -> dict[PoolStrategy, PoolConfig]:
    limits = {
        "warmup_size": settings.warmup_size,
        "idle_timeout": settings.idle_timeout_seconds,
        "max_lifetime": settings.max_lifetime_seconds,
        "health_check": settings.health_check,
        "health_check_interval": settings.health_check_interval_seconds,
        "acquire_timeout": settings.acquire_timeout_seconds,
        "max_waiting": settings.max_waiting,
        "leak_threshold": settings.leak_threshold_seconds,
        "refuses_when_paused": settings.callers_of_paused_pools == "refuse",
    }
    return {
        PoolStrategy.SHARED: PoolConfig.shared(settings.shared_pool_size, **limits),
        PoolStrategy.PER_TENANT: PoolConfig.per_tenant(
            settings.per_tenant_max_pools, settings.per_tenant_pool_size, **limits
        ),
        PoolStrategy.PER_DATABASE: PoolConfig.per_database(
            settings.per_database_max_databases, settings.per_database_pool_size, **limits
        ),
    }


def instance(settings: Settings) -> Instance:
    """Describe this process to other instances.

    Raises:
        SettingsError: the secret key cannot be read.
    """
    new = Instance(id=secrets.token_hex(4), version=__version__)
    key = settings.read_secret_key() if settings.advertise_url is not None else None
    if key is None:
        return new
    servers = {
        name: (server.host, server.port, server.database, server.user)
        for name, server in sorted(settings.servers.items())
    }
    secret = key.get_secret_value().encode()
    return replace(
        new,
        url=str(settings.advertise_url).rstrip("/"),
        secret_key=hmac.new(secret, b"instance", sha256).hexdigest()[:_FINGERPRINT],
        servers=sha256(json.dumps(servers).encode()).hexdigest()[:_FINGERPRINT],
    )


def forwarded_client(settings: Settings) -> ForwardedClient:
    """Create the signer of forwarded requests' clients.

    Raises:
        SettingsError: the secret key cannot be read.
    """
    key = settings.read_secret_key()
    return ForwardedClient(key.get_secret_value().encode() if key else secrets.token_bytes())


def role_passwords(settings: Settings) -> RolePasswords:
    given = settings.read_secret_key()
    return RolePasswords(
        given.get_secret_value().encode() if given else load_or_create_secret_key(settings.data_dir)
    )


def isolations(
    settings: Settings, role_passwords: RolePasswords
) -> dict[PoolStrategy, IsolationStrategy]:
    return {
        PoolStrategy.SHARED: SharedIsolation(role_passwords),
        PoolStrategy.PER_TENANT: PerTenantIsolation(role_passwords, settings.extension_schemas),
        PoolStrategy.PER_DATABASE: PerDatabaseIsolation(role_passwords),
    }


def advisor_settings(settings: Settings) -> AdvisorSettings:
    mode = AdvisorMode(settings.advisor_mode)
    advisor = AdvisorSettings(
        rule=AdvisorRule(settings.advisor_rule),
        mode=mode,
        hysteresis=PoolPressureMonitorConfig(
            enabled=mode is not AdvisorMode.OFF,
            samples_before_action=settings.advisor_samples,
        ),
    )
    if settings.advisor_interval_seconds is None:
        return advisor
    interval = round(settings.advisor_interval_seconds * 1000)
    return replace(
        advisor,
        demand_interval_ms=interval,
        hysteresis=replace(advisor.hysteresis, tuning_interval_ms=interval),
    )


def retention(settings: Settings) -> dict[Resolution, timedelta]:
    return {
        Resolution.RAW: timedelta(hours=settings.sample_retention_hours),
        Resolution.MINUTE: timedelta(days=settings.minute_retention_days),
        Resolution.HOUR: timedelta(days=settings.hour_retention_days),
        Resolution.DAY: timedelta(days=settings.hour_retention_days),
    }


def trusted_hosts(settings: Settings) -> list[str]:
    """The allowed Host headers.

    Beyond this machine all are: API keys protect against other sites' pages.
    """
    if settings.trusted_hosts is not None:
        return settings.trusted_hosts
    return [*LOOPBACK_NAMES, settings.host] if settings.is_loopback else ["*"]


def tenant_defaults(settings: Settings, servers: Mapping[str, Server]) -> TenantDefaults:
    only = next(iter(servers)) if len(servers) == 1 else None
    return TenantDefaults(
        server=settings.default_server or only, strategy=settings.default_strategy
    )


def node_servers(servers: Mapping[str, Server]) -> dict[str, NodeServer]:
    """The servers as nodes reach them: at the same addresses as this process."""
    found = {}
    for name, server in servers.items():
        login, mode = server.admins.login, "disable"
        if login.tls:
            mode = "require" if login.tls.verify_mode is ssl.CERT_NONE else "verify-full"
        found[name] = NodeServer(
            host=login.host, port=login.port, tls_mode=mode, allotment=NO_ALLOTMENT
        )
    return found


def query_limits(settings: Settings) -> QueryLimits:
    allowed = settings.query_on_shared
    return QueryLimits(
        timeout=settings.query_timeout_seconds,
        max_rows=settings.query_max_rows,
        allowed_on_shared=settings.is_embedded if allowed is None else allowed,
    )


def longest_wait(settings: Settings) -> float:
    """Seconds within which the response to any request begins, according to its deadlines.

    A body may take as long to arrive as its response may take to begin.
    """
    query = settings.query_timeout_seconds + settings.acquire_timeout_seconds
    longer = max(query, LONGEST_LEASE_DEADLINE, LONGEST_POLL)
    return 2 * settings.request_deadline_seconds + longer + _RESPONSE_MARGIN


def load_or_create_secret_key(data_dir: Path) -> bytes:
    """Load the key from which tenants' login passwords are derived, if the operator sets none.

    It is created once in *data_dir*, with mode 600. If it is lost, every tenant must be provisioned
    again to get a new password.

    Raises:
        OSError: it cannot be read or written, or is damaged.
    """
    path = data_dir / "secret-key"
    if not path.exists():
        make_enterable(data_dir)
        write_private_file(path, secrets.token_hex(_KEY_BYTES))
    path.chmod(0o600)
    key = path.read_bytes().strip()
    if not (key and key.isascii()):
        raise OSError(errno.EINVAL, "it is not a key that Poolkeeper created", str(path))
    return key


def otlp_exporter(settings: Settings) -> OtlpExporter | None:
    """Create the exporter of metrics, if an endpoint is configured.

    Raises:
        SettingsError: the extra `otel` is not installed.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        from app.api.telemetry.otlp import OtlpExporter  # noqa: PLC0415 - it is an extra
    except ModuleNotFoundError as error:
        raise SettingsError(f"otlp_endpoint needs the extra poolkeeper[otel]: {error}.") from error
    return OtlpExporter(str(settings.otlp_endpoint))
