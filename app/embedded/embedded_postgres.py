"""EmbeddedPostgres: a private server for the life of one service.

This file has the order of steps: lock the directory, end what a killed service left, create what is
missing, launch, prepare; and the same backwards. Other files carry out the steps.
"""

import asyncio
import os
import random
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import structlog

from app.embedded.binaries import installed_package
from app.embedded.cluster import Cluster, locate_cluster, shared_base_directory
from app.embedded.data_directory import DataDirectory, new_password
from app.embedded.databases import EmbeddedAddress, create_databases
from app.embedded.errors import EmbeddedPostgresError
from app.embedded.postmaster import Postmaster

HOST = "127.0.0.1"

MAX_LAUNCHES = 20
"""Launches before it gives up on a port, or on a crashed server's last processes."""

RELAUNCH_PAUSE_SECONDS = 0.25
"""The pause between two launches while such processes live; they end as soon as they notice."""

# In seconds. A launch that fails, for example on a full disk, replays the log and writes even more.
_SHORTEST_PAUSE = 1.0
_LONGEST_PAUSE = 16.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class EmbeddedPostgres:
    """A Postgres server of our own under a data directory.

    The directory contains `lock`, `postgres-password`, `postgres.log`, `postgres.conf`, and the
    cluster in `postgres/`. One task at a time may call the methods, each time in any event loop.

    Attributes:
        relaunch_pause: seconds until the next `restart_if_crashed`, longer while launches fail.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        max_connections: int = 100,
        durable: bool = True,
        package: Path | None = None,
        shared_root: Path = Path("/var/lib/poolkeeper"),
    ) -> None:
        """Nothing happens before `start()`.

        Args:
            data_dir: created if missing; one service at a time can use it.
            max_connections: the server's setting; a change takes effect at the next start.
            durable: False for tests: faster; commits survive a crash of Postgres, but not of the
                machine.
            package: the directory of the wheel's package; found automatically.
            shared_root: for root only: the place of programs and clusters that Postgres'
                unprivileged user cannot access in their own place.
        """
        self._directory = DataDirectory(data_dir)
        self._max_connections = max_connections
        self._durable = durable
        self._package = package
        self._shared_root = shared_root
        self._cluster: Cluster | None = None
        self._postmaster: Postmaster | None = None
        self._address: EmbeddedAddress | None = None
        self.relaunch_pause = _SHORTEST_PAUSE

    def __repr__(self) -> str:
        state = f"pid {self._postmaster.pid}" if self._postmaster else "stopped"
        return f"<EmbeddedPostgres {self._directory.path} [{state}]>"

    @property
    def pid(self) -> int | None:
        """The server's process id while it is started, else None."""
        return None if self._postmaster is None else self._postmaster.pid

    async def start(self) -> EmbeddedAddress:
        """Start the server, whatever state a killed service left it in. Safe to call twice.

        Raises:
            EmbeddedPostgresError: it cannot be started; nothing is left running.
        """
        if self._address is not None:
            return self._address
        try:
            with self._start_errors():
                self._directory.lock()
                self._directory.begin_log()
                package = (self._package or installed_package()).resolve()
                self._cluster = cluster = await locate_cluster(
                    self._directory.path, package=package, shared_root=self._shared_root
                )
                if (orphan := Postmaster.find_orphan(cluster.directory)) is not None:
                    log.warning(
                        "embedded postgres of a killed service found running", pid=orphan.pid
                    )
                    await orphan.stop()
                await asyncio.to_thread(cluster.remove_incomplete)
                password = await self._ensure_cluster(cluster)
                port = await self._launch(cluster, port=_free_port())
                address = EmbeddedAddress(HOST, port, "postgres", password)
                await create_databases(address)
                self._address = address
        except BaseException:
            await self.stop()
            raise
        return self._address

    async def stop(self) -> None:
        """End the server (fast, at a deadline immediately), then unlock the directory.

        Safe to call twice, and before start. Usually it takes at most 5 seconds, at worst 21.

        Raises:
            EmbeddedPostgresError: the server does not end.
        """
        if self._postmaster is not None:
            await self._postmaster.stop()
            log.info("embedded postgres stopped", pid=self._postmaster.pid)
        self._postmaster = self._address = None
        self._directory.unlock()

    async def remove(self) -> None:
        """Stop, then delete the cluster, wherever it is, and the data directory with its content.

        Safe before start, to call twice, and after a killed service. Root's copy of the programs
        stays: other services run it.

        Raises:
            EmbeddedPostgresError: another service uses the directory, or it cannot be deleted.
        """
        await self.stop()
        directory, elsewhere = self._directory.path, None
        if os.geteuid() == 0:
            elsewhere = shared_base_directory(directory, shared_root=self._shared_root)
        places = [place for place in (elsewhere, directory) if place is not None]
        if not any(place.is_dir() for place in places):
            return
        try:
            self._directory.lock()
            for place in places:
                if (orphan := Postmaster.find_orphan(place / "postgres")) is not None:
                    await orphan.stop()
            if elsewhere is not None and elsewhere.is_dir():
                await asyncio.to_thread(shutil.rmtree, elsewhere)
            await asyncio.to_thread(self._directory.delete)
            log.info("embedded postgres deleted", directory=str(directory))
        except OSError as error:
            raise EmbeddedPostgresError(
                f"the embedded Postgres in {directory} cannot be deleted: {error}",
            ) from error
        finally:
            await self.stop()

    async def restart_if_crashed(self) -> bool:
        """Launch the server again if it ended by itself; return whether that was needed.

        After a failure or a cancellation the next call continues; the directory stays locked until
        `stop()`.

        Raises:
            EmbeddedPostgresError: it did not start this time.
        """
        postmaster, cluster, address = self._postmaster, self._cluster, self._address
        if postmaster is None or cluster is None or address is None or postmaster.is_running():
            return False
        log.error("embedded postgres ended by itself", pid=postmaster.pid)
        self.relaunch_pause = min(2 * self.relaunch_pause, _LONGEST_PAUSE)
        with self._start_errors():
            port = await self._launch(cluster, port=address.port)
        self._address, self.relaunch_pause = replace(address, port=port), _SHORTEST_PAUSE
        return True

    async def _ensure_cluster(self, cluster: Cluster) -> str:
        """Create the cluster or read its superuser's password; return the password."""
        stored = self._directory.read_password()
        password = stored or new_password()
        if not cluster.exists():
            await cluster.create(password, durable=self._durable)
        elif stored is None:
            self._configure(cluster, port=_free_port())
            await cluster.reset_password(password)
        # Stored after the cluster has it: a service killed in between sets another one.
        if stored is None:
            self._directory.store_password(password)
        return password

    async def _launch(self, cluster: Cluster, *, port: int) -> int:
        """Launch until a port is free and a crashed server's last processes are gone."""
        log_file = self._directory.log_file
        for _ in range(MAX_LAUNCHES):
            self._configure(cluster, port=port)
            begin = log_file.stat().st_size if log_file.exists() else 0
            self._postmaster = Postmaster.launch(cluster, log_file=log_file)
            if await self._postmaster.wait_until_ready():
                log.info("embedded postgres started", port=port, pid=self._postmaster.pid)
                return port
            output = log_file.read_bytes()[begin:].decode(errors="replace")
            if "Address already in use" in output:
                port = _free_port()
            elif "still in use" in output:
                await asyncio.sleep(RELAUNCH_PAUSE_SECONDS)
            else:
                break
        raise EmbeddedPostgresError(
            f"the embedded Postgres in {cluster.base_directory} does not start; "
            f"its log ({log_file}) ends with:\n{output[-2000:].strip()}",
        )

    def _configure(self, cluster: Cluster, *, port: int) -> None:
        cluster.configure(port=port, max_connections=self._max_connections, durable=self._durable)

    @contextmanager
    def _start_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EmbeddedPostgresError(
                f"the embedded Postgres in {self._directory.path} cannot be started: {error}",
            ) from error


def _free_port() -> int:
    """Find a port without a listener.

    It is below the range from which systems choose ports for outgoing connections, so that no such
    connection uses it while the server restarts.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise EmbeddedPostgresError(f"no free port on {HOST}: 100 were tried between 20000 and 32000")
