"""The PgBouncer node in the service's own process, for people who just try the service.

Its agent calls the service's objects instead of HTTP. The service also works without it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog

from app.control.nodes.feed import NodeFeed
from app.control.nodes.fleet import Fleet
from app.domain.audit import LOCAL_NODE
from app.domain.errors import (
    NodeReportLate,
    NodeSessionEnded,
    NodeSessionUnknown,
    PoolkeeperError,
)
from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.declaration import NodeSpec
from app.domain.nodes.documents import LONGEST_POLL, NodeSession, ReportAnswer
from app.domain.nodes.report import NodeReport
from app.node.errors import (
    AgentReplaced,
    NodeError,
    ReportLate,
    ServiceAway,
    ServiceError,
    SessionUnknown,
)
from app.node.files import NodeDirectory
from app.node.pgbouncer import PgBouncer
from app.node.process import Account, find_pgbouncer
from app.node.rendering import PoolerSettings
from app.node.runner import NodeRunner
from app.node.stored_node import NodeStore
from app.runtime.wiring import Service
from app.settings import Settings

NAME = "local"
_HOST = "127.0.0.1"

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def local_node(settings: Settings, service: Service) -> AsyncIterator[None]:
    """Run a node beside *service* for a block; without a PgBouncer, say so as its problem."""
    try:
        await _declare(settings, service)
        engine, store = await asyncio.to_thread(_build, settings)  # it runs a program
    except (NodeError, PoolkeeperError) as error:
        _note_failure(service.fleet, error)
        yield
        return
    _log.info(
        "PgBouncer node started",
        port=settings.node_port,
        connect='psql "$(poolkeeper credentials create TENANT me)"',
    )
    control_plane = LocalControlPlane(service.fleet, service.node_feed)
    runner = NodeRunner(engine, control_plane, store, is_patient=True)
    running = service.supervisor.start("local node", _run(runner, service.fleet), may_end=True)
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait({running})
        await engine.stop(patience=settings.shutdown_seconds)


async def _run(runner: NodeRunner, fleet: Fleet) -> None:
    try:
        await runner.run()
    except (NodeError, ServiceError) as error:
        _note_failure(fleet, error)


def _note_failure(fleet: Fleet, error: Exception) -> None:
    _log.warning("no PgBouncer node", reason=str(error))
    if (node := fleet.nodes.get(NAME)) is not None:
        node.note_failure(str(error))


def _build(settings: Settings) -> tuple[PgBouncer, NodeStore]:
    account = Account.choose()
    directory = settings.data_dir / "node"
    # PgBouncer can be given one CA file for all servers.
    [authorities, *_] = [each.tls_ca_file for each in settings.servers.values()] or [None]
    pooler = PoolerSettings(
        address=_HOST,
        port=settings.node_port,
        server_ca=authorities and authorities.resolve(),
    )
    engine = PgBouncer(find_pgbouncer(), directory, settings=pooler, account=account)
    return engine, NodeStore(NodeDirectory(directory, uid=account.uid, gid=account.gid))


async def _declare(settings: Settings, service: Service) -> None:
    """Declare the node, with the address at which applications find it."""
    address = f"{_HOST}:{settings.node_port}"
    known = service.fleet.nodes.get(NAME)
    if known is None or known.declared.spec.address != address:
        await service.node_declarations.put(NodeSpec(name=NAME, address=address), LOCAL_NODE)


class LocalControlPlane:
    """The service in this process, as an agent's `ControlPlane`."""

    def __init__(self, fleet: Fleet, feed: NodeFeed) -> None:
        self._fleet = fleet
        self._feed = feed

    async def open_session(self) -> NodeSession:
        with _agent_errors():
            await self._feed.refresh()
            session = await self._fleet.begin_session(self._fleet.node(NAME))
            return NodeSession(node=NAME, session=session)

    async def configuration(self, known: int | None) -> NodeConfiguration | None:
        with _agent_errors():
            if known is not None:
                await self._feed.wait(self._fleet.node(NAME), known, LONGEST_POLL)
            configuration = self._feed.latest(self._fleet.node(NAME))
            if configuration is None:
                raise ServiceAway("The configuration is not built yet.")
            return None if configuration.version == known else configuration

    async def report(self, report: NodeReport) -> ReportAnswer:
        with _agent_errors():
            return await self._fleet.hear(self._fleet.node(NAME), report)


@contextmanager
def _agent_errors() -> Iterator[None]:
    try:
        yield
    except NodeSessionEnded as error:
        raise AgentReplaced("Another agent has started for this node.") from error
    except NodeReportLate as error:
        raise ReportLate(str(error)) from error
    except NodeSessionUnknown as error:
        raise SessionUnknown(str(error)) from error
    except PoolkeeperError as error:
        raise ServiceAway(str(error)) from error
