"""From settings to servers: the declared ones and the catalog's, or an embedded one.

After that it owns nothing: `app.runtime.lifecycle` starts and stops everything.
"""

import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from app.catalog.database import CONNECTIONS, CatalogAddress
from app.domain.leadership import admin_name
from app.embedded import EmbeddedPostgres
from app.pools.event_loop_lag import EventLoopLag
from app.pools.servers.server import Server
from app.settings import (
    EMBEDDED_SERVER,
    CatalogSettings,
    Endpoint,
    ServerSettings,
    Settings,
    SettingsError,
)
from app.wire import Login, Tls

CATALOG_CONNECTIONS = CONNECTIONS + 1
"""The catalog's connections to its server: its pool, and the connection with the service's lock."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The tenants' servers, the catalog, and the embedded Postgres, if there is one."""

    servers: Mapping[str, Server]
    catalog: CatalogAddress
    lag: EventLoopLag
    embedded: EmbeddedPostgres | None = None


async def start_topology(
    settings: Settings,
    stack: AsyncExitStack,
    *,
    client: str = "poolkeeper",
    may_connect: Callable[[], bool] = lambda: True,
) -> Topology:
    """Create the declared servers, or start the embedded one, which *stack* stops.

    Args:
        settings: define the servers and the catalog.
        stack: stops an embedded server.
        client: prefix of the names of the service's own connections.
        may_connect: returns whether servers may be used now.

    Raises:
        EmbeddedPostgresError, SettingsError: it cannot be started, or a secret cannot be read.
    """
    lag = EventLoopLag()
    build = partial(_server, settings, client=client, may_connect=may_connect, lag=lag)
    if settings.catalog is not None and not settings.is_embedded:
        declared = {
            name: _declared_server(settings, name, server, build)
            for name, server in settings.servers.items()
        }
        catalog = CatalogAddress(**_login("the catalog", settings.catalog), client=client)
        return Topology(servers=declared, catalog=catalog, lag=lag)
    embedded = EmbeddedPostgres(
        settings.data_dir, max_connections=settings.embedded_max_connections
    )
    stack.push_async_callback(embedded.stop)
    started = await embedded.start()
    login: dict[str, Any] = {
        each: getattr(started, each) for each in ("host", "port", "user", "password")
    }
    admin = Login(**login, database=started.tenant_database)
    address = CatalogAddress(**login, database=started.catalog_database, client=client)
    local = build(
        EMBEDDED_SERVER,
        admin,
        settings.budget_margin,
        catalog_connections=CATALOG_CONNECTIONS,
        cores=os.cpu_count(),
    )
    servers = {EMBEDDED_SERVER: local}
    return Topology(servers=servers, catalog=address, lag=lag, embedded=embedded)


def _declared_server(
    settings: Settings, name: str, declared: ServerSettings, build: Callable[..., Server]
) -> Server:
    margin = declared.budget_margin
    catalog = settings.catalog
    has_catalog = catalog is not None and (catalog.host, catalog.port) == (
        declared.host,
        declared.port,
    )
    admin = Login(**_login(f"server {name}", declared))
    cores = declared.cores or (os.cpu_count() if declared.is_local else None)
    return build(
        name,
        admin,
        settings.budget_margin if margin is None else margin,
        catalog_connections=CATALOG_CONNECTIONS if has_catalog else 0,
        budget=declared.budget,
        cores=cores,
        open_databases=declared.open_databases,
    )


def _server(
    settings: Settings,
    name: str,
    admin: Login,
    margin: int,
    *,
    catalog_connections: int,
    client: str,
    may_connect: Callable[[], bool],
    lag: EventLoopLag,
    budget: int | None = None,
    cores: int | None = None,
    open_databases: Iterable[str] = (),
) -> Server:
    return Server(
        name,
        replace(admin, settings={"application_name": admin_name(client)}),
        max_connecting=settings.max_connecting or 2 * (os.cpu_count() or 1),
        kept_free=margin,
        fixed_budget=budget,
        catalog_connections=catalog_connections,
        connect_timeout=settings.connect_timeout_seconds,
        acquire_timeout=settings.acquire_timeout_seconds,
        lag=lag,
        cores=cores,
        open_databases=open_databases,
        may_connect=may_connect,
    )


def _login(name: str, endpoint: ServerSettings | CatalogSettings) -> dict[str, Any]:
    return {
        "host": endpoint.host,
        "port": endpoint.port,
        "user": endpoint.user,
        "password": endpoint.read_password().get_secret_value(),
        "database": endpoint.database,
        "tls": _tls(name, endpoint),
    }


def _tls(name: str, endpoint: Endpoint) -> Tls:
    """How to use TLS with server *name*.

    Never with a file that asyncpg finds in a home directory.
    """
    if endpoint.tls != "verify-full" and not endpoint.is_local:
        _log.warning("connections are not protected", to=name, tls=endpoint.tls)
    match endpoint.tls:
        case "disable":
            return False
        case "require":
            unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            unverified.check_hostname = False
            unverified.verify_mode = ssl.CERT_NONE
            return unverified
        case "verify-full":
            try:
                return ssl.create_default_context(cafile=endpoint.tls_ca_file)
            except OSError as error:  # an SSLError is an OSError, too
                raise SettingsError(
                    f"Cannot use {endpoint.tls_ca_file}: {error.strerror}."
                ) from error
