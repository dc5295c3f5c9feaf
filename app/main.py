"""The composition root: builds every object of the service, starts and stops them in order.

`create_app(settings)` starts nothing; the application's lifespan does. It stops in reverse:
background tasks, then pools, then what they depend on, the embedded Postgres last.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import AnyHttpUrl

from app import __version__
from app.api.assembly import assemble, provide
from app.api.auth.authenticator import Authenticator
from app.api.auth.key_file import InvalidKeyFile, KeyFile
from app.api.auth.rate_limits import RateLimits
from app.api.forwarding.forwarder import Forwarder
from app.api.http.dependencies import TenantDefaults
from app.api.http.response_cache import ResponseCache
from app.api.routes.about import Links
from app.api.routes.health import ServiceReadiness, StandbyReadiness, max_poll_age
from app.api.routes.stats_stream import StatsStreams
from app.api.telemetry.prometheus import Exposition
from app.api.telemetry.service_metrics import ServiceCollector
from app.api.views.pool import PoolViews
from app.api.views.tenant import QueryLimits, TenantViews
from app.catalog.catalog import Catalog
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.advisor.auto_apply import AutoApply
from app.control.advisor.observer import Observer
from app.control.advisor.recommendation_applier import RecommendationApplier
from app.control.advisor.recommendation_store import RecommendationStore
from app.control.audit_events import AuditOutbox
from app.control.background import BackgroundTasks, Supervisor
from app.control.leadership.election import Election
from app.control.leadership.takeover import start_servers
from app.control.leadership.trust import Trust
from app.control.monitoring.health_checks import HealthChecks
from app.control.monitoring.isolation_audit import IsolationAudit
from app.control.monitoring.lock_guard import LockGuard
from app.control.monitoring.poller import Poller, PollReport
from app.control.monitoring.retention import SampleRetention
from app.control.monitoring.snapshot import Snapshots
from app.control.operation import KeyedLocks
from app.control.pools.desired_state import DesiredPoolState
from app.control.pools.operations import PoolOperations
from app.control.pools.role_limits import RoleLimits
from app.control.reconciler import Reconciler
from app.control.tenants.declaration import TenantDeclarations
from app.control.tenants.deletion import TenantDeletions
from app.control.tenants.provisioning import TenantProvisioning
from app.control.tenants.rotation import PasswordRotation
from app.control.tenants.verifier_renewal import VerifierRenewal
from app.domain.errors import PoolkeeperError
from app.domain.leadership import TRUST_SECONDS, Takeover, client_name
from app.embedded import EmbeddedPostgres, EmbeddedPostgresError
from app.pools.event_loop_lag import EventLoopLag
from app.pools.manager import TenantPoolManager
from app.pools.server_load import ServerLoads
from app.runtime import configuration
from app.runtime.topology import Topology, start_topology
from app.settings import Settings, SettingsError

if TYPE_CHECKING:
    from app.api.telemetry.otlp import OtlpExporter

# In seconds. Requests had their time before pools are closed; leases left then are cut soon.
_LAST_LEASES_DEADLINE = 1.0
_TICK_DEADLINE = 60.0
# A killed predecessor's lock may linger that long.
_LOCK_PATIENCE = 5.0
_CHECK_INTERVAL = 5.0
_RETENTION_INTERVAL = 10.0
_EMBEDDED_INTERVAL = 1.0
_LOCK_GUARD_INTERVAL = 0.25
_LOADS_PER_OBSERVATION = 3
_MIN_LOAD_INTERVAL = 1.0

# Polls after which a snapshot is stale.
_STALE_POLLS = 2

# Each is one sentence for the operator.
STARTUP_ERRORS = (PoolkeeperError, EmbeddedPostgresError, SettingsError, InvalidKeyFile, OSError)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Every object of a running service."""

    manager: TenantPoolManager
    declarations: TenantDeclarations
    deletions: TenantDeletions
    provisioning: TenantProvisioning
    rotation: PasswordRotation
    desired_pool_state: DesiredPoolState
    pool_operations: PoolOperations
    advisor_loop: AdvisorLoop
    recommendation_applier: RecommendationApplier
    observer: Observer
    loads: ServerLoads
    poller: Poller
    retention: SampleRetention
    health_checks: HealthChecks
    reconciler: Reconciler
    audit_outbox: AuditOutbox
    lock_guards: Mapping[str, LockGuard]
    catalog: Catalog
    election: Election
    supervisor: Supervisor
    lag: EventLoopLag
    snapshots: Snapshots
    exposition: Exposition
    streams: StatsStreams
    tenant_defaults: TenantDefaults
    query_limits: QueryLimits


def create_app(settings: Settings) -> FastAPI:
    """The application for *settings*; serving it starts everything, see `running_service`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                app.state.authenticator.load_keys()
                if settings.advertise_url is None:
                    service = await stack.enter_async_context(running_service(settings))
                    _begin_serving(app, settings, service)
                else:
                    await stack.enter_async_context(_one_of_several(app, settings))
            except STARTUP_ERRORS as error:
                app.state.refusal = startup_error_message(error)
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
    keys = KeyFile(settings.keys_path, required=settings.requires_keys)
    app.state.authenticator = Authenticator(keys, RateLimits(settings.rate_limit))
    assemble(
        app,
        trusted_hosts=configuration.trusted_hosts(settings),
        request_deadline=settings.request_deadline_seconds,
        require_if_match=settings.require_if_match,
    )
    return app


def startup_error_message(refusal: BaseException) -> str:
    """The sentence of one of the `STARTUP_ERRORS`."""
    if isinstance(refusal, OSError) and refusal.filename and refusal.strerror:
        return f"Cannot use {refusal.filename}: {refusal.strerror}."
    return str(refusal)


@asynccontextmanager
async def running_service(settings: Settings) -> AsyncIterator[Service]:
    """The service, from a started Postgres to its background tasks; stopped on leaving.

    Raises:
        EmbeddedPostgresError, CatalogUnavailable, CatalogInUse, SettingsError: it cannot start.
    """
    async with (
        _candidate(settings) as (postgres, election),
        _active_service(
            settings, postgres, election, await election.win(patience=_LOCK_PATIENCE)
        ) as service,
    ):
        yield service


@asynccontextmanager
async def _one_of_several(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    """An instance among others: active at once if no other one is, else as soon as that ends.

    Raises:
        CatalogUnavailable, CatalogInUse, CatalogUnusable, SettingsError: it cannot start.
    """
    client, keep_alive = configuration.forwarded_client(settings), settings.keep_alive_seconds / 2
    async with _candidate(settings) as (postgres, election), AsyncExitStack() as stack:
        forwarder = Forwarder(election, client, keep_alive=keep_alive)
        app.state.forwarder = forwarder
        stack.callback(forwarder.close)
        app.state.readiness = StandbyReadiness(election)

        async def serve(takeover: Takeover) -> None:
            service = await stack.enter_async_context(
                _active_service(settings, postgres, election, takeover)
            )
            _begin_serving(app, settings, service)

        takeover = await election.contend()
        if takeover is not None:
            await serve(takeover)
        else:
            _log.info("standing by", reason=election.active_instance)

            async def stand_by() -> None:
                await serve(await election.wait_to_win())

            waiting = asyncio.create_task(stand_by(), name="standby")
            waiting.add_done_callback(partial(_standby_ended, app))
            stack.push_async_callback(_end, waiting)
        yield


def _standby_ended(app: FastAPI, task: asyncio.Task[None]) -> None:
    """The instance is active now; if it could not become so, the process ends."""
    if task.cancelled() or (error := task.exception()) is None:
        return
    is_expected = isinstance(error, STARTUP_ERRORS)
    app.state.refusal = startup_error_message(error) if is_expected else repr(error)
    _log.critical("cannot become active", reason=app.state.refusal)
    _stop_process()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _candidate(settings: Settings) -> AsyncIterator[tuple[Topology, Election]]:
    """What an instance needs in order to become active; releases leadership at the end."""
    async with AsyncExitStack() as stack:
        instance = configuration.instance(settings)
        trust = Trust(TRUST_SECONDS if instance.has_standbys else inf)
        postgres = await start_topology(
            settings, stack, client=client_name(instance.id), may_connect=trust.is_valid
        )
        election = Election(postgres.catalog, instance, trust, on_lost=_stop_process)
        stack.push_async_callback(election.resign)
        yield postgres, election


@asynccontextmanager
async def _active_service(
    settings: Settings, postgres: Topology, election: Election, takeover: Takeover
) -> AsyncIterator[Service]:
    """The service of the active instance, from its catalog to its background tasks."""
    async with AsyncExitStack() as stack:
        catalog = Catalog(
            postgres.catalog, epoch=takeover.epoch, deadline=settings.catalog_timeout_seconds
        )
        stack.push_async_callback(catalog.close)
        for server in postgres.servers.values():
            stack.push_async_callback(server.close)
        service = await _assemble(settings, postgres, catalog, election)
        starting = BackgroundTasks()
        stack.push_async_callback(starting.close, 0)
        started = starting.start(
            "start servers", start_servers(service.manager, election.trust, takeover.predecessor)
        )
        if not takeover.trust_left:
            await started
        stack.push_async_callback(service.audit_outbox.flush)
        stack.push_async_callback(service.poller.finish)
        stack.push_async_callback(service.pool_operations.close, _LAST_LEASES_DEADLINE)
        stack.push_async_callback(service.desired_pool_state.close, _LAST_LEASES_DEADLINE)
        stack.push_async_callback(service.manager.close, _LAST_LEASES_DEADLINE)
        for guard in service.lock_guards.values():
            stack.callback(guard.close)
        stack.push_async_callback(service.supervisor.stop)
        stack.callback(service.snapshots.close)
        otlp = _otlp(settings)
        if otlp is not None:
            stack.callback(otlp.close)
        _start_background_tasks(settings, service, postgres.embedded, otlp)
        election.begin_serving()
        yield service


async def _assemble(
    settings: Settings, postgres: Topology, catalog: Catalog, election: Election
) -> Service:
    credentials = configuration.credentials(settings)
    manager = TenantPoolManager(
        postgres.servers,
        configuration.pool_configs(settings),
        configuration.isolations(settings, credentials),
        stats_window=settings.stats_window_seconds,
    )
    locks = KeyedLocks()
    outbox = AuditOutbox(catalog)
    limits = RoleLimits(manager)
    isolation_audit = IsolationAudit(
        manager, limits, outbox, extension_schemas=settings.extension_schemas
    )
    declarations = TenantDeclarations(catalog, manager, locks)
    deletions = TenantDeletions(catalog, manager, locks)
    rotation = PasswordRotation(catalog, manager, credentials, locks)
    desired = DesiredPoolState(catalog, manager, limits, outbox, locks)
    operations = PoolOperations(manager, desired, outbox)
    loads = ServerLoads(postgres.servers)
    store = RecommendationStore(catalog, manager)
    applier = RecommendationApplier(manager, desired, store)
    observer = Observer(manager, loads)
    advisor_loop = AdvisorLoop(
        catalog,
        manager,
        configuration.advisor_settings(settings),
        observer=observer,
        store=store,
        auto_apply=AutoApply(
            catalog, operations, applier, configuration.auto_apply_limits(settings)
        ),
    )
    snapshots = Snapshots(manager, catalog, postgres.lag)
    poller = Poller(catalog, manager, advisor_loop, outbox, snapshots)
    await rotation.load()
    await declarations.load()
    await desired.load()
    await advisor_loop.load()
    return Service(
        manager=manager,
        declarations=declarations,
        deletions=deletions,
        provisioning=TenantProvisioning(
            catalog, manager, locks, audit_isolation=isolation_audit.audit_provisioned
        ),
        rotation=rotation,
        desired_pool_state=desired,
        pool_operations=operations,
        advisor_loop=advisor_loop,
        recommendation_applier=applier,
        observer=observer,
        loads=loads,
        poller=poller,
        retention=SampleRetention(catalog, poller, retention=configuration.retention(settings)),
        health_checks=HealthChecks(manager, isolation_audit),
        reconciler=Reconciler(
            manager,
            desired,
            deletions,
            rotation,
            VerifierRenewal(manager, credentials, locks, outbox),
            outbox=outbox,
            catalog=catalog,
        ),
        audit_outbox=outbox,
        lock_guards=_lock_guards(settings, manager, outbox),
        catalog=catalog,
        supervisor=Supervisor(on_death=_stop_process),
        election=election,
        lag=postgres.lag,
        snapshots=snapshots,
        exposition=Exposition(settings.metrics_tenants, settings.metrics_tenants_always),
        streams=StatsStreams(snapshots, settings.max_streams),
        tenant_defaults=configuration.tenant_defaults(settings, postgres.servers),
        query_limits=configuration.query_limits(settings),
    )


def _begin_serving(app: FastAPI, settings: Settings, service: Service) -> None:
    """Give the routes of *app* what they depend on."""
    app.state.service = service
    app.state.readiness = ServiceReadiness(
        service.manager,
        service.catalog,
        service.poller,
        service.supervisor,
        app.state.authenticator.keys,
        max_poll_age=max_poll_age(settings.poll_interval_seconds, _TICK_DEADLINE),
        audit_interval=settings.health_check_interval_seconds,
    )
    if (clients := getattr(app.state, "clients", None)) is not None:
        service.streams.limit_to(clients.limit // 2)
    provide(app, *_objects_of_routes(app, settings, service))


def _stop_process() -> None:
    """Stop as after SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)


def _objects_of_routes(app: FastAPI, settings: Settings, service: Service) -> list[object]:
    """What routes can depend on."""
    manager, catalog, poller = service.manager, service.catalog, service.poller
    advisor, poll_interval = service.advisor_loop, settings.poll_interval_seconds
    return [
        *(getattr(service, field.name) for field in fields(service)),
        ResponseCache(service.snapshots, stale_after=_STALE_POLLS * poll_interval),
        Links(
            documents_url=_address(settings.documents_url),
            grafana_url=_address(settings.grafana_url),
        ),
        TenantViews(manager, catalog, service.query_limits),
        PoolViews(manager, catalog, advisor),
        ServiceCollector(
            app.state,
            manager=manager,
            lock_guards=service.lock_guards,
            advisor=advisor,
            catalog=catalog,
            poller=poller,
            lag=service.lag,
            outbox=service.audit_outbox,
            election=service.election,
        ),
    ]


def _address(url: AnyHttpUrl | None) -> str | None:
    return None if url is None else str(url)


def _lock_guards(
    settings: Settings, manager: TenantPoolManager, outbox: AuditOutbox
) -> dict[str, LockGuard]:
    limit = settings.lock_table_limit
    if not limit:
        return {}
    return {
        name: LockGuard(server, manager, outbox, limit=limit)
        for name, server in manager.servers.items()
    }


def _otlp(settings: Settings) -> OtlpExporter | None:
    if settings.otlp_endpoint is None:
        return None
    try:
        from app.api.telemetry.otlp import OtlpExporter  # noqa: PLC0415 - what it needs is an extra
    except ModuleNotFoundError as error:
        raise SettingsError(f"otlp_endpoint needs the extra poolkeeper[otel]: {error}.") from error
    return OtlpExporter(str(settings.otlp_endpoint))


def _start_background_tasks(
    settings: Settings,
    service: Service,
    embedded: EmbeddedPostgres | None,
    otlp: OtlpExporter | None,
) -> None:
    """Start what the service does by itself.

    - loop lag: measures how late the event loop is
    - poll: measures pools, stores samples, evicts idle pools, advises; publishes the snapshot
    - retention: downsamples and deletes old samples
    - server load: samples the activity of each server, a few times per observation of the advisor
    - check: tests idle connections, audits isolation, refreshes the limits of servers
    - reconcile: brings pools to their desired state, finishes what was interrupted
    - locks on <server>: keeps tenants from filling the lock table
    - otlp: pushes metrics, where an endpoint is configured
    - embedded: restarts the embedded Postgres if it crashed
    """

    def poll_interval() -> float:
        return min(settings.poll_interval_seconds, service.advisor_loop.settings.interval)

    def retention_interval() -> float:
        return max(poll_interval(), _RETENTION_INTERVAL)

    def load_interval() -> float:
        observation = service.advisor_loop.settings.interval
        return max(_MIN_LOAD_INTERVAL, observation / _LOADS_PER_OBSERVATION)

    async def poll() -> PollReport:
        report = await service.poller.run_once()
        if service.snapshots.published is not None:
            await service.exposition.prepare(service.snapshots.published)
        return report

    service.supervisor.start("loop lag", service.lag.measure())
    every = partial(service.supervisor.start_every, timeout=_TICK_DEADLINE)
    every("poll", poll_interval, poll)
    every("retention", retention_interval, service.retention.run_once)
    every("server load", load_interval, service.loads.sample)
    every("check", lambda: _CHECK_INTERVAL, service.health_checks.run_once)
    every("reconcile", lambda: settings.reconcile_interval_seconds, service.reconciler.run_once)
    for name, guard in service.lock_guards.items():
        every(f"locks on {name}", lambda: _LOCK_GUARD_INTERVAL, guard.run_once)
    if otlp is not None:
        every("otlp", poll_interval, partial(otlp.push, service.exposition))
    if embedded is not None:
        every("embedded", lambda: _EMBEDDED_INTERVAL, embedded.restart_if_crashed)


def _operation_id(route: APIRoute) -> str:
    return route.name
