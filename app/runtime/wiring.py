"""The service of the active instance: creates and connects all objects; starts nothing."""

from app.api.routes.stats_stream import StatsStreams
from app.api.telemetry.pool_metrics import Exposition
from app.catalog.catalog import Catalog
from app.control.advisor.advised_pools import AdvisedPools
from app.control.advisor.advisor_loop import AdvisorLoop
from app.control.advisor.auto_apply import AutoApply
from app.control.advisor.observer import Observer
from app.control.advisor.recommendation_applier import RecommendationApplier
from app.control.advisor.recommendation_store import RecommendationStore
from app.control.audit_outbox import AuditOutbox
from app.control.background import Supervisor
from app.control.keyed_locks import KeyedLocks
from app.control.leadership.election import Election
from app.control.monitoring.health_checks import HealthChecks
from app.control.monitoring.isolation_audit import IsolationAudit
from app.control.monitoring.lock_guard import LockGuard
from app.control.monitoring.node_samples import NodeSamples
from app.control.monitoring.poller import Poller
from app.control.monitoring.retention import SampleRetention
from app.control.monitoring.snapshot import Snapshots
from app.control.nodes.declaration import NodeDeclarations
from app.control.nodes.feed import NodeFeed
from app.control.nodes.fleet import Fleet
from app.control.nodes.node_loads import NodeLoads
from app.control.pools.convergence import PoolConvergence
from app.control.pools.operations import PoolOperations
from app.control.pools.pool_changes import PoolChanges
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
from app.pools.servers.server_load import ServerLoads
from app.runtime import configuration
from app.runtime.server import stop_process
from app.runtime.topology import Topology
from app.settings import Settings


class Service:
    """All objects around a manager and a catalog; they are empty before `load`."""

    def __init__(
        self,
        settings: Settings,
        manager: TenantPoolManager,
        catalog: Catalog,
        election: Election,
        role_passwords: RolePasswords,
        *,
        lag: EventLoopLag,
    ) -> None:
        limits, epoch = RoleLimits(manager), election.epoch or 0
        self.manager = manager
        self.catalog = catalog
        self.election = election
        self.lag = lag
        self.locks = locks = KeyedLocks()
        self.supervisor = Supervisor(on_death=stop_process)
        self.audit_outbox = outbox = AuditOutbox(catalog)
        self.isolation_audit = IsolationAudit(
            manager, limits, outbox, extension_schemas=settings.extension_schemas
        )

        self.declarations = TenantDeclarations(catalog, manager, locks)
        self.credentials = credentials = ApplicationCredentials(catalog, manager, locks)
        store = RecommendationStore(catalog, manager)
        self.deletions = TenantDeletions(
            catalog, manager, credentials, locks, forget_advice=store.forget
        )
        self.provisioning = TenantProvisioning(
            catalog,
            manager,
            role_passwords,
            locks,
            audit_isolation=self.isolation_audit.audit_provisioned,
        )

        self.node_loads = node_loads = NodeLoads()
        self.fleet = Fleet(catalog, manager, credentials, node_loads, epoch=epoch)
        servers = configuration.node_servers(manager.servers)
        self.node_feed = NodeFeed(self.fleet, manager, credentials, servers, epoch=epoch)
        self.node_declarations = NodeDeclarations(
            catalog, manager, self.fleet, self.node_feed, limits=limits, locks=locks
        )
        self.rotation = PasswordRotation(
            catalog,
            manager,
            role_passwords,
            locks,
            outbox,
            without_logins=self.node_feed.without_logins,
            audit_isolation=self.isolation_audit.audit_pool,
        )

        self.unsaved_changes = unsaved = UnsavedChanges(catalog, manager, outbox, locks)
        self.pool_changes = changes = PoolChanges(catalog, manager, unsaved, locks)
        self.convergence = convergence = PoolConvergence(manager, limits, locks)
        self.pool_operations = PoolOperations(
            manager,
            changes,
            convergence,
            outbox,
            wait_recycled=self.node_feed.wait_recycled,
        )

        self.loads = ServerLoads(manager.servers)
        self.observer = Observer(manager, self.loads)
        self.recommendation_applier = RecommendationApplier(manager, changes, convergence, store)
        self.advised_pools = AdvisedPools(
            manager, node_loads, idle_places=self.fleet.sizes.idle_places
        )
        self.auto_apply = AutoApply(
            catalog,
            self.pool_operations,
            self.recommendation_applier,
            resizes_per_minute=settings.advisor_resizes_per_minute,
            cooldown_seconds=settings.advisor_cooldown_seconds,
        )
        self.advisor_loop = AdvisorLoop(
            catalog,
            manager,
            configuration.advisor_settings(settings),
            pools=self.advised_pools,
            observer=self.observer,
            store=store,
            auto_apply=self.auto_apply,
            is_changing=locks.is_held,
        )

        self.snapshots = Snapshots(manager, self.fleet, catalog, lag)
        nodes = NodeSamples(node_loads)
        self.poller = Poller(
            catalog, manager, self.advisor_loop, outbox, self.snapshots, nodes=nodes
        )
        self.retention = SampleRetention(
            catalog, self.poller, retention=configuration.retention(settings)
        )
        self.health_checks = HealthChecks(manager, self.isolation_audit)
        self.lock_guards = _lock_guards(settings, manager, outbox)
        self.reconciler = Reconciler(
            manager,
            convergence,
            self.deletions,
            self.rotation,
            VerifierRenewal(manager, role_passwords, locks, outbox),
            readers=(
                self.declarations.read_in_doubt,
                changes.read_in_doubt,
                self.node_declarations.read_in_doubt,
                credentials.read_in_doubt,
                self.advisor_loop.read_in_doubt,
            ),
            unsaved=unsaved,
            credentials=credentials,
            outbox=outbox,
            catalog=catalog,
        )

        self.exposition = Exposition(settings.metrics_tenants, settings.metrics_tenants_always)
        self.streams = StatsStreams(self.snapshots, settings.max_streams)
        self.tenant_defaults = configuration.tenant_defaults(settings, manager.servers)
        self.query_limits = configuration.query_limits(settings)
        self.descriptions = Descriptions()

    async def load(self) -> None:
        """Load the catalog's content, at start.

        Raises:
            CatalogUnavailable: the catalog could not be reached.
        """
        await self.rotation.load()
        await self.declarations.load()
        await self.credentials.load()
        await self.pool_changes.load()
        await self.advisor_loop.load()
        await self.fleet.load()
        await self.node_feed.refresh()

    def end_streams(self) -> None:
        """End all waits of clients that have no end of their own: the process stops.

        Safe to call twice.
        """
        self.snapshots.close()
        self.node_feed.close()


async def build_service(
    settings: Settings, postgres: Topology, catalog: Catalog, election: Election
) -> Service:
    """Build the service with the catalog's content; its servers are not contacted yet.

    Raises:
        CatalogUnavailable: the catalog could not be reached.
    """
    role_passwords = configuration.role_passwords(settings)
    manager = TenantPoolManager(
        postgres.servers,
        configuration.pool_configs(settings),
        configuration.isolations(settings, role_passwords),
        stats_window=settings.stats_window_seconds,
    )
    service = Service(settings, manager, catalog, election, role_passwords, lag=postgres.lag)
    await service.load()
    return service


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
