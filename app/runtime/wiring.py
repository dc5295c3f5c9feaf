"""The service of the active instance: every object, wired; nothing runs yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.api.http.dependencies import TenantDefaults
from app.api.routes.stats_stream import StatsStreams
from app.api.telemetry.pool_metrics import Exposition
from app.api.views.tenant import QueryLimits
from app.catalog.catalog import Catalog
from app.control.advisor.advised_pools import AdvisedPools
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.advisor.auto_apply import AutoApply
from app.control.advisor.observer import Observer
from app.control.advisor.recommendation_applier import RecommendationApplier
from app.control.advisor.recommendation_store import RecommendationStore
from app.control.audit_events import AuditOutbox
from app.control.background import Supervisor
from app.control.leadership.election import Election
from app.control.monitoring.health_checks import HealthChecks
from app.control.monitoring.isolation_audit import IsolationAudit
from app.control.monitoring.lock_guard import LockGuard
from app.control.monitoring.node_samples import NodeSamples
from app.control.monitoring.poller import Poller
from app.control.monitoring.retention import SampleRetention
from app.control.monitoring.snapshot import Snapshots
from app.control.nodes.declarations import NodeDeclarations
from app.control.nodes.feed import NodeFeed
from app.control.nodes.fleet import Fleet
from app.control.nodes.node_loads import NodeLoads
from app.control.operation import KeyedLocks
from app.control.pools.desired_state import DesiredPoolState
from app.control.pools.operations import PoolOperations
from app.control.pools.role_limits import RoleLimits
from app.control.pools.unsaved_changes import UnsavedChanges
from app.control.reconciler import Reconciler
from app.control.tenants.application_credentials import ApplicationCredentials
from app.control.tenants.declaration import TenantDeclarations
from app.control.tenants.deletion import TenantDeletions
from app.control.tenants.password_rotation import PasswordRotation
from app.control.tenants.provisioning import TenantProvisioning
from app.control.tenants.verifier_renewal import VerifierRenewal
from app.pools.event_loop_lag import EventLoopLag
from app.pools.isolation.role_passwords import RolePasswords
from app.pools.manager import TenantPoolManager
from app.pools.query.descriptions import Descriptions
from app.pools.server_load import ServerLoads
from app.runtime import configuration
from app.runtime.server import stop_process
from app.runtime.topology import Topology
from app.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Every object of a running service."""

    manager: TenantPoolManager
    declarations: TenantDeclarations
    deletions: TenantDeletions
    provisioning: TenantProvisioning
    rotation: PasswordRotation
    application_credentials: ApplicationCredentials
    fleet: Fleet
    node_feed: NodeFeed
    node_declarations: NodeDeclarations
    desired_pool_state: DesiredPoolState
    pool_operations: PoolOperations
    advisor_loop: AdvisorLoop
    recommendation_applier: RecommendationApplier
    observer: Observer
    advised_pools: AdvisedPools
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
    descriptions: Descriptions

    async def load(self) -> None:
        """Learn what the catalog has; at start.

        Raises:
            CatalogUnavailable: it was not reached.
        """
        await self.rotation.load()
        await self.declarations.load()
        await self.application_credentials.load()
        await self.desired_pool_state.load()
        await self.advisor_loop.load()
        await self.fleet.load()
        await self.node_feed.refresh()

    def end_streams(self) -> None:
        """End what clients wait for without an end of its own: the process stops. Safe twice."""
        self.snapshots.close()
        self.node_feed.close()


async def build_service(
    settings: Settings, postgres: Topology, catalog: Catalog, election: Election
) -> Service:
    """The service with what the catalog knows, on servers that are not contacted yet.

    Raises:
        CatalogUnavailable: the catalog was not reached.
    """
    role_passwords = configuration.role_passwords(settings)
    manager = TenantPoolManager(
        postgres.servers,
        configuration.pool_configs(settings),
        configuration.isolations(settings, role_passwords),
        stats_window=settings.stats_window_seconds,
    )
    service = wired(settings, manager, catalog, election, role_passwords, lag=postgres.lag)
    await service.load()
    return service


def wired(
    settings: Settings,
    manager: TenantPoolManager,
    catalog: Catalog,
    election: Election,
    role_passwords: RolePasswords,
    *,
    lag: EventLoopLag,
) -> Service:
    """Every object around a manager and a catalog; they know nothing yet."""
    locks = KeyedLocks()
    outbox = AuditOutbox(catalog)
    limits = RoleLimits(manager)
    isolation_audit = IsolationAudit(
        manager, limits, outbox, extension_schemas=settings.extension_schemas
    )
    declarations = TenantDeclarations(catalog, manager, locks)
    application_credentials = ApplicationCredentials(catalog, manager, locks)
    deletions = TenantDeletions(catalog, manager, application_credentials, locks)
    epoch = election.epoch or 0
    node_loads = NodeLoads()
    fleet = Fleet(catalog, manager, application_credentials, node_loads, epoch=epoch)
    addresses = configuration.server_addresses(manager.servers)
    feed = NodeFeed(fleet, manager, application_credentials, addresses, epoch=epoch)
    rotation = PasswordRotation(catalog, manager, role_passwords, locks, feed.without_logins)
    unsaved = UnsavedChanges(catalog, manager, outbox, locks)
    desired = DesiredPoolState(catalog, manager, limits, unsaved, locks)
    operations = PoolOperations(manager, desired, outbox)
    loads = ServerLoads(manager.servers)
    store = RecommendationStore(catalog, manager)
    applier = RecommendationApplier(manager, desired, store)
    observer = Observer(manager, loads)
    advised = AdvisedPools(manager, node_loads, idle_places=fleet.sizes.idle_places)
    advisor_loop = AdvisorLoop(
        catalog,
        manager,
        configuration.advisor_settings(settings),
        pools=advised,
        observer=observer,
        store=store,
        auto_apply=AutoApply(
            catalog, operations, applier, configuration.auto_apply_limits(settings)
        ),
    )
    snapshots = Snapshots(manager, catalog, lag)
    poller = Poller(
        catalog, manager, advisor_loop, outbox, snapshots, nodes=NodeSamples(node_loads)
    )
    return Service(
        manager=manager,
        declarations=declarations,
        deletions=deletions,
        provisioning=TenantProvisioning(
            catalog, manager, locks, audit_isolation=isolation_audit.audit_provisioned
        ),
        rotation=rotation,
        application_credentials=application_credentials,
        fleet=fleet,
        node_feed=feed,
        node_declarations=NodeDeclarations(
            catalog, manager, fleet, feed, limits=limits, locks=locks
        ),
        desired_pool_state=desired,
        pool_operations=operations,
        advisor_loop=advisor_loop,
        recommendation_applier=applier,
        observer=observer,
        advised_pools=advised,
        loads=loads,
        poller=poller,
        retention=SampleRetention(catalog, poller, retention=configuration.retention(settings)),
        health_checks=HealthChecks(manager, isolation_audit),
        reconciler=Reconciler(
            manager,
            desired,
            deletions,
            rotation,
            VerifierRenewal(manager, role_passwords, locks, outbox),
            unsaved=unsaved,
            credentials=application_credentials,
            outbox=outbox,
            catalog=catalog,
        ),
        audit_outbox=outbox,
        lock_guards=_lock_guards(settings, manager, outbox),
        catalog=catalog,
        supervisor=Supervisor(on_death=stop_process),
        election=election,
        lag=lag,
        snapshots=snapshots,
        exposition=Exposition(settings.metrics_tenants, settings.metrics_tenants_always),
        streams=StatsStreams(snapshots, settings.max_streams),
        tenant_defaults=configuration.tenant_defaults(settings, manager.servers),
        query_limits=configuration.query_limits(settings),
        descriptions=Descriptions(),
    )


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
