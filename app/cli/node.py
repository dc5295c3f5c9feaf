"""`poolkeeper node`: the agent of a PgBouncer node.

It starts PgBouncer, or takes over a running one, and does what the service says until SIGTERM or
Ctrl-C.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Annotated

import structlog
import typer

from app.cli.client.exit_status import ExitStatus
from app.cli.log_failure import log_failure
from app.node.errors import AgentReplaced, CannotRender, CannotStart, NodeError
from app.node.files import NodeDirectory
from app.node.http_control_plane import OWN, HttpControlPlane
from app.node.pgbouncer import PgBouncer
from app.node.process import Account, find_pgbouncer
from app.node.rendering import MAX_CLIENTS, PoolerSettings
from app.node.runner import NodeRunner
from app.node.stored_node import NodeStore
from app.runtime.file_descriptors import raise_descriptor_limit
from app.runtime.gc_tuning import tuned_gc
from app.runtime.logs import LogFormat, configure_logging

# In seconds: the time for transactions of PgBouncer's clients before `--stop-pooler` cuts them off.
_PATIENCE = 20.0
_LOG_FORMAT: LogFormat = "auto"

_log = structlog.get_logger(__name__)


def node(
    server: Annotated[
        list[str],
        typer.Option(
            metavar="URL",
            help="Address of the service; repeatable: if one does not answer, the next one is "
            "used.",
        ),
    ],
    *,
    key_file: Annotated[
        Path | None,
        typer.Option(help="File with the node's API key, of the scope node.", dir_okay=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the node, if the service needs no keys."),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="Certificate authorities of the service; default: the system's."),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where applications connect.")
    ] = "127.0.0.1:6432",
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate that applications see; needs --tls-key.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="Its key; required to listen beyond loopback.")
    ] = None,
    server_ca: Annotated[
        Path | None, typer.Option(help="Certificate authorities of the Postgres servers.")
    ] = None,
    max_clients: Annotated[
        int, typer.Option(help="Maximum number of applications' connections.", min=1, max=100_000)
    ] = MAX_CLIENTS,
    max_tenant_clients: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of them for one tenant; default: a quarter. Needs PgBouncer 1.24.",
            min=1,
            max=100_000,
        ),
    ] = None,
    max_wait: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            help="Maximum time that a client waits for a connection, a pause or an outage of "
            "Postgres included.",
            min=1,
            max=86_400,
        ),
    ] = 30,
    max_idle_transaction: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS",
            help="Maximum time that a client is idle inside a transaction, before it is "
            "disconnected; default: two thirds of --max-wait.",
            min=1,
            max=86_400,
        ),
    ] = None,
    directory: Annotated[
        Path,
        typer.Option(
            help="For PgBouncer's files, which contain passwords; use a tmpfs if there is one."
        ),
    ] = Path("/run/poolkeeper-node"),
    pgbouncer: Annotated[
        Path | None, typer.Option(help="The program; by default the one on the path.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            help="User that PgBouncer runs as under root; by default pgbouncer, else postgres."
        ),
    ] = None,
    refuse_vulnerable: Annotated[
        bool,
        typer.Option(
            "--refuse-vulnerable", help="Refuse PgBouncer versions with a known vulnerability."
        ),
    ] = False,
    stop_pooler: Annotated[
        bool, typer.Option("--stop-pooler", help="Stop PgBouncer, too, when this command stops.")
    ] = False,
) -> None:
    """Run a PgBouncer node until SIGTERM or Ctrl-C. PgBouncer keeps running after that."""
    configure_logging(_LOG_FORMAT, "INFO")
    try:
        account = Account.choose(user)
        host, port = _address(listen)
        settings = PoolerSettings(
            address=host,
            port=port,
            certificate=tls_cert and tls_cert.resolve(),
            key=tls_key and tls_key.resolve(),
            server_ca=server_ca and server_ca.resolve(),
            max_clients=max_clients,
            max_tenant_clients=max_tenant_clients,
            max_wait=max_wait,
            max_idle_transaction=max_idle_transaction,
            refuse_vulnerable=refuse_vulnerable,
        )
        raise_descriptor_limit()  # which PgBouncer inherits
        engine = PgBouncer(find_pgbouncer(pgbouncer), directory, settings=settings, account=account)
        node_name = _name(name, key_file)
        service = HttpControlPlane(server, key_file=key_file, node=node_name, ca_file=ca_file)
        store = NodeStore(NodeDirectory(directory, uid=account.uid, gid=account.gid))
    except (CannotStart, CannotRender) as error:
        log_failure(str(error), _LOG_FORMAT, status=ExitStatus.USAGE)
    try:
        with tuned_gc():
            asyncio.run(_run(engine, service, store, max_clients=max_clients, stops=stop_pooler))
    except NodeError as error:
        log_failure(str(error), _LOG_FORMAT, event="node failed")
    except AgentReplaced as error:
        reason = f"Another agent runs this node now. {error}"
        _log.warning("node replaced", reason=reason)
        raise typer.Exit(os.EX_TEMPFAIL) from error


async def _run(
    engine: PgBouncer,
    service: HttpControlPlane,
    store: NodeStore,
    *,
    max_clients: int,
    stops: bool,
) -> None:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101 - this is one
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        await NodeRunner(engine, service, store, max_clients=max_clients).run()
    except asyncio.CancelledError:
        _log.info("node ends", pooler="ends, too" if stops else "keeps running")
        if stops:
            await engine.stop(patience=_PATIENCE)
            _log.info("pooler ended")
    finally:
        engine.leave()
        await service.close()


def _name(given: str | None, key_file: Path | None) -> str:
    if (given is None) == (key_file is None):
        raise CannotStart("Give --key-file, or --name if the service needs no keys.")
    return given or OWN


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise CannotStart(f"--listen {text}: give a host and a port, such as 127.0.0.1:6432.")
    return host.removeprefix("[").removesuffix("]"), int(port)
