"""The life of an instance: it stands by, becomes active, runs the service and stops.

It stops in reverse order: background tasks, then pools, then their dependencies, an embedded
Postgres last. `app.control.leadership` decides which instance is active.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from math import inf

import structlog
from fastapi import FastAPI

from app.api.auth.key_file import InvalidKeyFile, KeyFile
from app.api.forwarding.forwarder import Forwarder
from app.catalog.catalog import Catalog
from app.control.audit_events import leadership_acquired
from app.control.leadership.election import Election
from app.control.leadership.takeover import start_servers
from app.control.leadership.trust import Trust
from app.domain.errors import CatalogUnavailable, CatalogUnusable, PoolkeeperError
from app.domain.leadership import TRUST_SECONDS, Takeover, client_name
from app.embedded import EmbeddedPostgresError
from app.runtime import configuration
from app.runtime.background_tasks import start_background_tasks
from app.runtime.handover import Handover
from app.runtime.local_node import local_node
from app.runtime.server import stop_process
from app.runtime.topology import Topology, start_topology
from app.runtime.wiring import Service, build_service
from app.settings import Settings, SettingsError

# In seconds. By the time pools are closed, requests have had their time; remaining leases are soon
# cut.
_LAST_LEASES_DEADLINE = 1.0
# A killed predecessor's lock may last this long.
_LOCK_PATIENCE = 5.0
# Servers that have not answered by then are awaited in the background.
_FIRST_CONTACT_DEADLINE = 10.0

# Each has one sentence for the operator.
STARTUP_ERRORS = (PoolkeeperError, EmbeddedPostgresError, SettingsError, InvalidKeyFile, OSError)

_log = structlog.get_logger(__name__)


def startup_error_message(refusal: BaseException) -> str:
    """The sentence of one of the `STARTUP_ERRORS`."""
    if isinstance(refusal, OSError) and refusal.filename and refusal.strerror:
        return f"Cannot use {refusal.filename}: {refusal.strerror}."
    if isinstance(refusal, CatalogUnavailable | CatalogUnusable):
        return f"{refusal} `poolkeeper doctor` checks servers and catalog."
    return str(refusal)


@asynccontextmanager
async def only_instance(settings: Settings) -> AsyncIterator[Service]:
    """Run the service of an only instance, from a started Postgres to its background tasks.

    Raises:
        EmbeddedPostgresError, CatalogUnavailable, CatalogInUse, SettingsError: it cannot start.
    """
    async with (
        _candidate(settings) as (postgres, election),
        _active_instance(
            settings, postgres, election, await election.win(patience=_LOCK_PATIENCE)
        ) as service,
    ):
        yield service


@asynccontextmanager
async def one_of_several(
    app: FastAPI, settings: Settings, on_active: Callable[[Service], None]
) -> AsyncIterator[None]:
    """Run one of several instances: active at once if no other is, else when that one ends.

    Raises:
        CatalogUnavailable, CatalogInUse, CatalogUnusable, SettingsError: it cannot start.
    """
    keys: KeyFile = app.state.authenticator.keys
    async with _candidate(settings, keys=lambda: keys.fingerprint) as (postgres, election):
        forwarder = Forwarder(
            election,
            configuration.forwarded_client(settings),
            keep_alive=settings.keep_alive_seconds / 2,
            longest_wait=configuration.longest_wait(settings),
        )
        handover = Handover(app, settings, election, forwarder)

        async def serve(stack: AsyncExitStack, takeover: Takeover) -> None:
            active = _active_instance(settings, postgres, election, takeover)
            on_active(await stack.enter_async_context(active))

        try:
            await handover.start(serve, partial(_standby_ended, app))
            yield
        finally:
            await handover.close()


def _standby_ended(app: FastAPI, standby: asyncio.Task[None]) -> None:
    """Handle the end of standing by: the instance is active, or the process must end."""
    if standby.cancelled() or (error := standby.exception()) is None:
        return
    is_expected = isinstance(error, STARTUP_ERRORS)
    app.state.refusal = startup_error_message(error) if is_expected else repr(error)
    _log.critical("cannot become active", reason=app.state.refusal)
    stop_process()


@asynccontextmanager
async def _candidate(
    settings: Settings, keys: Callable[[], str] = str
) -> AsyncIterator[tuple[Topology, Election]]:
    """Provide what an instance needs to become active; release leadership at the end.

    *keys*: the fingerprint of its API keys, if there can be other instances.
    """
    async with AsyncExitStack() as stack:
        instance = configuration.instance(settings)
        trust = Trust(TRUST_SECONDS if instance.has_standbys else inf)
        postgres = await start_topology(
            settings, stack, client=client_name(instance.id), may_connect=trust.is_valid
        )
        servers = postgres.servers.values()
        election = Election(
            postgres.catalog,
            instance,
            trust,
            on_lost=stop_process,
            keys=keys,
            has_orphans=lambda: any(each.has_orphans for each in servers),
        )
        stack.push_async_callback(election.resign)
        yield postgres, election


@asynccontextmanager
async def _active_instance(
    settings: Settings, postgres: Topology, election: Election, takeover: Takeover
) -> AsyncIterator[Service]:
    """Run the service of the active instance, from its catalog to its background tasks."""
    async with AsyncExitStack() as stack:
        catalog = Catalog(
            postgres.catalog, epoch=takeover.epoch, deadline=settings.catalog_timeout_seconds
        )
        stack.push_async_callback(catalog.close)
        for server in postgres.servers.values():
            stack.push_async_callback(server.close)
        service = await build_service(settings, postgres, catalog, election)
        if election.instance.has_standbys or takeover.predecessor:
            await service.audit_outbox.record(leadership_acquired(election.instance, takeover))
        stack.push_async_callback(service.audit_outbox.flush)
        stack.push_async_callback(service.poller.finish)
        stack.push_async_callback(service.pool_operations.close, _LAST_LEASES_DEADLINE)
        stack.push_async_callback(service.convergence.close, _LAST_LEASES_DEADLINE)
        stack.push_async_callback(service.node_declarations.close, _LAST_LEASES_DEADLINE)
        stack.push_async_callback(service.manager.close, _LAST_LEASES_DEADLINE)
        for guard in service.lock_guards.values():
            stack.callback(guard.close)
        stack.push_async_callback(service.supervisor.stop)
        stack.callback(service.end_streams)
        started = service.supervisor.start(
            "start servers", _start_servers(service, takeover.predecessor), may_end=True
        )
        if not takeover.trust_left:
            await _finished(started, _FIRST_CONTACT_DEADLINE)
            # A PgBouncer that starts now does not take over later what only its start reads.
            await service.node_feed.refresh()
        otlp = configuration.otlp_exporter(settings)
        if otlp is not None:
            stack.callback(otlp.close)
        start_background_tasks(settings, service, postgres.embedded, otlp)
        if settings.node == "auto":
            await stack.enter_async_context(local_node(settings, service))
        # This comes last: then requests come, and routes get their objects in the same turn of the
        # loop.
        election.begin_serving()
        yield service


async def _start_servers(service: Service, predecessor: str | None) -> None:
    election = service.election
    await start_servers(
        service.manager, election.trust, predecessor, has_nodes=bool(service.fleet.nodes)
    )
    election.has_succeeded()


async def _finished(task: asyncio.Task[None], deadline: float) -> None:
    """Wait up to *deadline* seconds for *task*, which continues after that; raise its error."""
    done, _ = await asyncio.wait({task}, timeout=deadline)
    for each in done:
        await each
