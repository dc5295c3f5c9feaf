"""The only wiring: builds every object of the service, starts them in order, stops them.

`create_app(settings)` starts nothing; the application's lifespan does. On the way down it is
the same backwards: loops, then pools, then what they stand on, the embedded Postgres last.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import structlog
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app import __version__, api
from app.api.deps import Limits, Service
from app.catalog.catalog import Catalog
from app.catalog.migrate import migrate
from app.catalog.sole import SoleService
from app.control.advising import Advising
from app.control.checker import Checker
from app.control.journal import Journal
from app.control.keeper import Keeper
from app.control.locks import KeyedLocks
from app.control.operations import Operations
from app.control.poller import Poller
from app.control.reconciler import Reconciler
from app.control.ticker import Loops, run_every
from app.control.wishes import PoolWishes
from app.domain.advisor import PoolPressureMonitorConfig
from app.domain.desired import AdvisorMode, AdvisorSettings
from app.domain.errors import PoolkeeperError
from app.domain.pool import PoolConfig, PoolLimits
from app.domain.tenant import PoolStrategy
from app.embedded import EmbeddedPostgres, EmbeddedPostgresError
from app.pools.isolation import Isolation, PerDatabase, PerTenant, Shared
from app.pools.isolation.credentials import Credentials
from app.pools.manager import TenantPoolManager
from app.pools.server import Server
from app.postgres import Postgres, find_postgres
from app.secret_key import keep_secret_key
from app.settings import Settings, SettingsError

# Requests have had their time when pools are closed; what is left then is cut soon.
_LAST_LEASES_DEADLINE = 1.0
_TICK_DEADLINE = 60.0
_CHECK_EVERY = 5.0
_LOOK_AFTER_EMBEDDED_EVERY = 1.0

_log = structlog.get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The application for *settings*; serving it starts everything, see `running`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                app.state.service = await stack.enter_async_context(running(settings))
            except (PoolkeeperError, EmbeddedPostgresError, SettingsError, OSError) as error:
                app.state.refusal = str(error)
                _log.critical("cannot start", reason=str(error))
                raise
            yield

    app = FastAPI(
        title="Poolkeeper",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
    )
    app.add_middleware(
        CorrelationIdMiddleware,
        header_name="X-Request-ID",
        generator=lambda: uuid4().hex,
        validator=_is_request_id,
        transformer=str,
    )
    api.assemble(app)
    return app


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """The service, from a started Postgres to its loops; stopped on leaving, safe to interrupt.

    Raises:
        EmbeddedPostgresError, CatalogUnavailable, CatalogInUse, SettingsError: it cannot start.
    """
    async with AsyncExitStack() as stack:
        postgres = await find_postgres(settings, stack)
        await migrate(postgres.catalog)
        sole = SoleService(postgres.catalog)
        stack.push_async_callback(sole.release)
        await sole.acquire()
        catalog = Catalog(postgres.catalog)
        stack.push_async_callback(catalog.close)
        for server in postgres.servers.values():
            stack.push_async_callback(server.close)
        await asyncio.gather(*(server.start() for server in postgres.servers.values()))
        service = await _assemble(settings, postgres, catalog, sole)
        stack.push_async_callback(service.journal.flush)
        stack.push_async_callback(service.manager.close, _LAST_LEASES_DEADLINE)
        stack.push_async_callback(service.loops.stop)
        _start_loops(settings, service, postgres.embedded)
        yield service


async def _assemble(
    settings: Settings, postgres: Postgres, catalog: Catalog, sole: SoleService
) -> Service:
    manager = TenantPoolManager(
        postgres.servers,
        _pool_configs(settings),
        _isolations(settings),
        stats_window=settings.stats_window_seconds,
    )
    locks = KeyedLocks()
    journal = Journal(catalog)
    wishes = PoolWishes(catalog, manager, locks)
    keeper = Keeper(catalog, manager, wishes, locks)
    advising = Advising(catalog, manager, keeper, _advisor_settings(settings))
    await keeper.load()
    await advising.load()
    return Service(
        manager=manager,
        keeper=keeper,
        wishes=wishes,
        operations=Operations(manager, keeper, journal),
        advising=advising,
        poller=Poller(
            catalog,
            manager,
            advising,
            journal,
            retention=timedelta(hours=settings.sample_retention_hours),
        ),
        checker=Checker(manager),
        reconciler=Reconciler(manager, keeper, wishes, journal, sole),
        journal=journal,
        catalog=catalog,
        loops=Loops(on_death=lambda: os.kill(os.getpid(), signal.SIGTERM)),
        lag=postgres.lag,
        limits=_limits(settings, postgres.servers),
    )


def _start_loops(settings: Settings, service: Service, embedded: EmbeddedPostgres | None) -> None:
    def poll_interval() -> float:
        advisor = service.advising.settings.config.tuning_interval_ms / 1000
        return min(settings.poll_interval_seconds, advisor)

    loops: dict[str, tuple[Callable[[], float], Callable[[], Awaitable[object]]]] = {
        "poll": (poll_interval, service.poller.run_once),
        "check": (lambda: _CHECK_EVERY, service.checker.run_once),
        "reconcile": (lambda: settings.reconcile_interval_seconds, service.reconciler.run_once),
    }
    if embedded is not None:
        loops["embedded"] = (lambda: _LOOK_AFTER_EMBEDDED_EVERY, embedded.look_after)
    service.loops.start("loop lag", service.lag.watch())
    for name, (interval, tick) in loops.items():
        service.loops.start(name, run_every(name, interval, tick, timeout=_TICK_DEADLINE))


def _pool_configs(settings: Settings) -> dict[PoolStrategy, PoolConfig]:
    limits: PoolLimits = {
        "warmup_size": settings.warmup_size,
        "idle_timeout": settings.idle_timeout_seconds,
        "max_lifetime": settings.max_lifetime_seconds,
        "health_check": settings.health_check,
        "health_check_interval": settings.health_check_interval_seconds,
        "acquire_timeout": settings.acquire_timeout_seconds,
        "max_waiting": settings.max_waiting,
        "leak_threshold": settings.leak_threshold_seconds,
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


def _isolations(settings: Settings) -> dict[PoolStrategy, Isolation]:
    given = settings.read_secret_key()
    key = given.get_secret_value().encode() if given else keep_secret_key(settings.data_dir)
    credentials = Credentials(key)
    return {
        PoolStrategy.SHARED: Shared(credentials),
        PoolStrategy.PER_TENANT: PerTenant(credentials),
        PoolStrategy.PER_DATABASE: PerDatabase(credentials),
    }


def _advisor_settings(settings: Settings) -> AdvisorSettings:
    mode = AdvisorMode(settings.advisor_mode)
    return AdvisorSettings(
        rule="hysteresis",
        mode=mode,
        config=PoolPressureMonitorConfig(
            enabled=mode is not AdvisorMode.OFF,
            tuning_interval_ms=round(settings.advisor_interval_seconds * 1000),
            samples_before_action=settings.advisor_samples,
        ),
    )


def _limits(settings: Settings, servers: Mapping[str, Server]) -> Limits:
    allowed = settings.query_on_shared
    if allowed is None:
        allowed = settings.is_embedded
    only = next(iter(servers)) if len(servers) == 1 else None
    return Limits(
        default_server=settings.default_server or only,
        default_strategy=settings.default_strategy,
        query_on_shared=frozenset(servers) if allowed else frozenset(),
        query_timeout=settings.query_timeout_seconds,
        query_max_rows=settings.query_max_rows,
        poll_interval=settings.poll_interval_seconds,
        poll_deadline=_TICK_DEADLINE,
    )


def _is_request_id(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", text) is not None


def _operation_id(route: APIRoute) -> str:
    return route.name
