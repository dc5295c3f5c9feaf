"""The HTTP application, and the instance of the service behind it.

`create_app(settings)` builds everything and starts nothing; the application's lifespan does.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import structlog
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from pydantic import AnyHttpUrl

from app import __version__
from app.api.assembly import assemble, provide
from app.api.auth.application_logins import ApplicationLogins
from app.api.auth.authenticator import Authenticator
from app.api.auth.key_file import KeyFile
from app.api.auth.rate_limits import RateLimits
from app.api.http.response_cache import ResponseCache
from app.api.routes.about import Links
from app.api.telemetry.service_metrics import ServiceCollector
from app.api.views.pool import PoolViews
from app.api.views.readiness import ServiceReadiness, max_poll_age
from app.api.views.tenant import TenantViews
from app.runtime import configuration
from app.runtime.background_tasks import TICK_DEADLINE
from app.runtime.lifecycle import (
    STARTUP_ERRORS,
    one_of_several,
    only_instance,
    startup_error_message,
)
from app.runtime.wiring import Service
from app.settings import Settings

# A snapshot is stale after this many polls.
_STALE_POLLS = 2

# FastAPI's own tracing would hand requests and errors, with a tenant's data in them, to whatever
# OpenTelemetry provider the process has, and looks for one at every request. Ours is in
# `api/telemetry`.
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}

_log = structlog.get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """Build the application for *settings*.

    Serving it starts everything: `app.runtime.lifecycle`.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        begin_serving = partial(_begin_serving, app, settings)
        async with AsyncExitStack() as stack:
            try:
                app.state.authenticator.load_keys()
                if settings.advertise_url is None:
                    begin_serving(await stack.enter_async_context(only_instance(settings)))
                else:
                    await stack.enter_async_context(one_of_several(app, settings, begin_serving))
            except STARTUP_ERRORS as error:
                app.state.refusal = startup_error_message(error)
                _log.critical("cannot start", reason=app.state.refusal)
                raise
            yield

    app = FastAPI(
        title="Poolkeeper",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry=_NO_TELEMETRY,
    )
    keys = KeyFile(settings.keys_path, required=settings.requires_keys)
    limits = RateLimits(
        settings.rate_limit,
        credential_per_second=settings.sql_rate_limit,
        credential_burst=settings.max_waiting,
    )
    app.state.authenticator = Authenticator(keys, limits)
    assemble(
        app,
        trusted_hosts=configuration.trusted_hosts(settings),
        request_deadline=settings.request_deadline_seconds,
        require_if_match=settings.require_if_match,
        serves_sql=settings.sql_endpoint,
        sql_origins=settings.sql_origins,
    )
    return app


def _begin_serving(app: FastAPI, settings: Settings, service: Service) -> None:
    """Give the routes of *app* the objects they depend on."""
    app.state.service, app.state.election = service, service.election
    app.state.readiness = ServiceReadiness(
        manager=service.manager,
        catalog=service.catalog,
        poller=service.poller,
        supervisor=service.supervisor,
        keys=app.state.authenticator.keys,
        max_poll_age=max_poll_age(settings.poll_interval_seconds, TICK_DEADLINE),
        audit_interval=settings.health_check_interval_seconds,
    )
    if (clients := getattr(app.state, "clients", None)) is not None:
        service.streams.limit_to(clients.limit // 2)
    app.state.authenticator.begin_serving()
    provide(app, *_objects_of_routes(app, settings, service))


def _objects_of_routes(app: FastAPI, settings: Settings, service: Service) -> list[object]:
    """List the objects that routes can depend on."""
    manager, catalog, poller = service.manager, service.catalog, service.poller
    advisor, poll_interval = service.advisor_loop, settings.poll_interval_seconds
    return [
        *vars(service).values(),
        ResponseCache(service.snapshots, stale_after=_STALE_POLLS * poll_interval),
        Links(
            documents_url=_address(settings.documents_url),
            grafana_url=_address(settings.grafana_url),
        ),
        ApplicationLogins(service.credentials),
        TenantViews(manager, catalog, service.fleet, service.query_limits),
        PoolViews(manager, catalog, advisor, service.fleet),
        ServiceCollector(
            state=app.state,
            manager=manager,
            lock_guards=service.lock_guards,
            advisor=advisor,
            catalog=catalog,
            poller=poller,
            lag=service.lag,
            outbox=service.audit_outbox,
            election=service.election,
            fleet=service.fleet,
        ),
    ]


def _address(url: AnyHttpUrl | None) -> str | None:
    return None if url is None else str(url)
