"""The only wiring: builds every object of the service, starts them in order, stops them.

`create_app(settings)` starts nothing; the application's lifespan does. On the way down it is
the same backwards: loops, then pools, then what they stand on, the embedded Postgres last.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app import __version__, api
from app.api.auth import Door
from app.api.deps import Limits, Service
from app.api.exposition import Exposition
from app.api.hosts import LOOPBACK_NAMES
from app.api.key_file import BadKeyFile, KeyFile
from app.api.rate import RateLimits
from app.api.streams import Streams
from app.catalog.catalog import Catalog
from app.catalog.migrate import migrate
from app.catalog.sole import SoleService
from app.control.advice_book import AdviceBook
from app.control.advising import Advising
from app.control.checker import Checker
from app.control.journal import Journal
from app.control.keeper import Keeper
from app.control.lock_guard import LockGuard
from app.control.locks import KeyedLocks
from app.control.obeying import Caution, Obeying
from app.control.observing import Observing
from app.control.operations import Operations
from app.control.poller import Poller, PollReport
from app.control.previews import Previews
from app.control.provisioning import Provisioning
from app.control.reconciler import Reconciler
from app.control.role_limits import RoleLimits
from app.control.roll_up import RollUp
from app.control.self_check import SelfCheck
from app.control.snapshots import Snapshots
from app.control.ticker import Loops, run_every
from app.control.wishes import PoolWishes
from app.domain.advisor import PoolPressureMonitorConfig
from app.domain.desired import AdvisorRule, AdvisorSettings
from app.domain.errors import PoolkeeperError
from app.domain.mode import AdvisorMode
from app.domain.pool import PoolConfig, PoolLimits
from app.domain.sample import Resolution
from app.domain.tenant import PoolStrategy
from app.embedded import EmbeddedPostgres, EmbeddedPostgresError
from app.pools.isolation import Isolation, PerDatabase, PerTenant, Shared
from app.pools.isolation.credentials import Credentials
from app.pools.manager import TenantPoolManager
from app.pools.server import Server
from app.pools.server_load import ServerLoads
from app.postgres import Postgres, find_postgres
from app.secret_key import keep_secret_key
from app.settings import Settings, SettingsError

if TYPE_CHECKING:
    from app.api.otlp import Otlp

# Requests have had their time when pools are closed; what is left then is cut soon.
_LAST_LEASES_DEADLINE = 1.0
_TICK_DEADLINE = 60.0
_CHECK_EVERY = 5.0
_ROLL_UP_EVERY = 10.0
_LOOK_AFTER_EMBEDDED_EVERY = 1.0
_LOOK_AT_LOCKS_EVERY = 0.25
# What the servers do is looked at a few times for each look of the advisor.
_LOOKS_PER_INTERVAL = 3
_LOOK_AT_MOST_EVERY = 1.0

# Why it cannot start, in a sentence.
REFUSALS = (PoolkeeperError, EmbeddedPostgresError, SettingsError, BadKeyFile, OSError)

_log = structlog.get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The application for *settings*; serving it starts everything, see `running`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                app.state.door.open()
                app.state.service = await stack.enter_async_context(running(settings))
            except REFUSALS as error:
                app.state.refusal = reason_of(error)
                _log.critical("cannot start", reason=app.state.refusal)
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
    keys = KeyFile(settings.keys_path, required=settings.must_have_keys)
    app.state.door = Door(keys, RateLimits(settings.rate_limit))
    api.assemble(
        app,
        trusted_hosts=_trusted_hosts(settings),
        request_deadline=settings.request_deadline_seconds,
        require_if_match=settings.require_if_match,
    )
    return app


def reason_of(refusal: Exception) -> str:
    """The sentence of one of the `REFUSALS`."""
    if isinstance(refusal, OSError) and refusal.filename and refusal.strerror:
        return f"Cannot use {refusal.filename}: {refusal.strerror}."
    return str(refusal)


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
        stack.push_async_callback(service.operations.close, _LAST_LEASES_DEADLINE)
        stack.push_async_callback(service.manager.close, _LAST_LEASES_DEADLINE)
        for guard in service.lock_guards.values():
            stack.callback(guard.close)
        stack.push_async_callback(service.loops.stop)
        stack.callback(service.snapshots.end)
        otlp = _otlp(settings)
        if otlp is not None:
            stack.callback(otlp.close)
        _start_loops(settings, service, postgres.embedded, otlp)
        yield service


async def _assemble(
    settings: Settings, postgres: Postgres, catalog: Catalog, sole: SoleService
) -> Service:
    credentials = _credentials(settings)
    manager = TenantPoolManager(
        postgres.servers,
        _pool_configs(settings),
        _isolations(settings, credentials),
        stats_window=settings.stats_window_seconds,
    )
    locks = KeyedLocks()
    journal = Journal(catalog)
    wishes = PoolWishes(catalog, manager, locks)
    limits = RoleLimits(manager)
    keeper = Keeper(catalog, manager, wishes, limits, locks)
    self_check = SelfCheck(manager, limits, journal, extension_schemas=settings.extension_schemas)
    provisioning = Provisioning(catalog, manager, credentials, self_check, locks)
    loads = ServerLoads(postgres.servers)
    book = AdviceBook(catalog, manager)
    obeying = Obeying(catalog, manager, keeper, book, _caution(settings))
    observing = Observing(manager, loads)
    advising = Advising(
        catalog,
        manager,
        _advisor_settings(settings),
        observing=observing,
        book=book,
        obeying=obeying,
    )
    operations = Operations(manager, keeper, journal)
    snapshots = Snapshots(manager, catalog, postgres.lag)
    poller = Poller(catalog, manager, advising, journal, snapshots)
    await provisioning.load()
    await keeper.load()
    await advising.load()
    return Service(
        manager=manager,
        keeper=keeper,
        provisioning=provisioning,
        wishes=wishes,
        operations=operations,
        advising=advising,
        obeying=obeying,
        observing=observing,
        loads=loads,
        previews=Previews(manager, wishes, operations, advising, obeying),
        poller=poller,
        roll_up=RollUp(catalog, poller, retention=_retention(settings)),
        checker=Checker(manager, self_check),
        reconciler=Reconciler(manager, keeper, provisioning, wishes, journal=journal, sole=sole),
        journal=journal,
        lock_guards=_lock_guards(settings, manager, journal),
        catalog=catalog,
        loops=Loops(on_death=lambda: os.kill(os.getpid(), signal.SIGTERM)),
        lag=postgres.lag,
        snapshots=snapshots,
        exposition=Exposition(settings.metrics_tenants, settings.metrics_tenants_always),
        streams=Streams(snapshots, settings.max_streams),
        limits=_limits(settings, postgres.servers),
    )


def _lock_guards(
    settings: Settings, manager: TenantPoolManager, journal: Journal
) -> dict[str, LockGuard]:
    limit = settings.lock_table_limit
    if not limit:
        return {}
    return {
        name: LockGuard(server, manager, journal, limit=limit)
        for name, server in manager.servers.items()
    }


def _otlp(settings: Settings) -> Otlp | None:
    if settings.otlp_endpoint is None:
        return None
    try:
        from app.api.otlp import Otlp  # noqa: PLC0415 - what it needs is an extra
    except ModuleNotFoundError as error:
        raise SettingsError(f"otlp_endpoint needs the extra poolkeeper[otel]: {error}.") from error
    return Otlp(str(settings.otlp_endpoint))


def _start_loops(
    settings: Settings, service: Service, embedded: EmbeddedPostgres | None, otlp: Otlp | None
) -> None:
    def poll_interval() -> float:
        return min(settings.poll_interval_seconds, service.advising.settings.interval)

    def look_interval() -> float:
        return max(_LOOK_AT_MOST_EVERY, service.advising.settings.interval / _LOOKS_PER_INTERVAL)

    async def poll() -> PollReport:
        report = await service.poller.run_once()
        if service.snapshots.beat is not None:
            await service.exposition.prepare(service.snapshots.beat)
        return report

    def roll_up_interval() -> float:
        return max(poll_interval(), _ROLL_UP_EVERY)

    loops: dict[str, tuple[Callable[[], float], Callable[[], Awaitable[object]]]] = {
        "poll": (poll_interval, poll),
        "roll-up": (roll_up_interval, service.roll_up.run_once),
        "server load": (look_interval, service.loads.look),
        "check": (lambda: _CHECK_EVERY, service.checker.run_once),
        "reconcile": (lambda: settings.reconcile_interval_seconds, service.reconciler.run_once),
    }
    for name, guard in service.lock_guards.items():
        loops[f"locks on {name}"] = (lambda: _LOOK_AT_LOCKS_EVERY, guard.look)
    if otlp is not None:
        push = partial(otlp.push, service.exposition)
        loops["otlp"] = (poll_interval, push)
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


def _credentials(settings: Settings) -> Credentials:
    given = settings.read_secret_key()
    return Credentials(
        given.get_secret_value().encode() if given else keep_secret_key(settings.data_dir)
    )


def _isolations(settings: Settings, credentials: Credentials) -> dict[PoolStrategy, Isolation]:
    return {
        PoolStrategy.SHARED: Shared(credentials),
        PoolStrategy.PER_TENANT: PerTenant(credentials, settings.extension_schemas),
        PoolStrategy.PER_DATABASE: PerDatabase(credentials),
    }


def _advisor_settings(settings: Settings) -> AdvisorSettings:
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


def _caution(settings: Settings) -> Caution:
    return Caution(
        resizes_per_minute=settings.advisor_resizes_per_minute,
        cooldown=settings.advisor_cooldown_seconds,
    )


def _retention(settings: Settings) -> dict[Resolution, timedelta]:
    return {
        Resolution.RAW: timedelta(hours=settings.sample_retention_hours),
        Resolution.MINUTE: timedelta(days=settings.minute_retention_days),
        Resolution.HOUR: timedelta(days=settings.hour_retention_days),
    }


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
        health_check_interval=settings.health_check_interval_seconds,
    )


def _trusted_hosts(settings: Settings) -> list[str]:
    """Beyond this machine keys are needed, and no page of another site has one."""
    if settings.trusted_hosts is not None:
        return settings.trusted_hosts
    return [*LOOPBACK_NAMES, settings.host] if settings.is_loopback else ["*"]


def _operation_id(route: APIRoute) -> str:
    return route.name
