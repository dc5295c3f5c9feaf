"""A cluster's files: where they are, how they are created and configured.

Root never writes inside a cluster, which belongs to an unprivileged user; files that root writes
for Postgres are beside it. `postmaster` handles running servers.
"""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.embedded.binaries import Binaries, find_binaries, make_enterable
from app.embedded.data_directory import write_private_file
from app.embedded.errors import EmbeddedPostgresError
from app.embedded.os_user import OsUser

INITDB_SECONDS = 120.0
"""Half a second on a laptop; with fsync on a slow network disk it may take a minute."""

INCOMPLETE_PREFIX = "postgres.new-"
"""The prefix of directories in which a cluster is being created, or was when the service died."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


_LOCKS = 102_400

_LOOPBACK_ONLY = ("listen_addresses = '127.0.0.1'", "unix_socket_directories = ''", "ssl = off")

_QUIET_LOG = (
    # Tenants get their own errors. In the log they would fill the disk, and a failed statement may
    # contain a password.
    "log_min_messages = log",
    "log_min_error_statement = panic",
    "log_checkpoints = off",
    "log_autovacuum_min_duration = -1",
    "log_timezone = 'UTC'",
    "lc_messages = 'C'",
)

_MODEST = (
    "timezone = 'UTC'",
    # A client that vanished frees its connection soon, not only when its statement ends.
    "client_connection_check_interval = '1s'",
    "shared_buffers = '64MB'",
    "max_wal_size = '256MB'",
    "io_method = 'sync'",
    # No standby replicates from this server.
    "wal_level = 'minimal'",
    "max_wal_senders = 0",
    "max_logical_replication_workers = 0",
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster's directory, the user that owns it, and the programs that serve it."""

    base_directory: Path
    os_user: OsUser
    binaries: Binaries

    @property
    def directory(self) -> Path:
        """Postgres' data directory."""
        return self.base_directory / "postgres"

    @property
    def configuration(self) -> Path:
        """The file used as postgresql.conf."""
        return self.base_directory / "postgres.conf"

    def exists(self) -> bool:
        """Whether it was created completely."""
        return self.directory.is_dir()

    async def create(self, password: str, *, durable: bool) -> None:
        """Run initdb beside the final place, and move the complete result there.

        Raises:
            EmbeddedPostgresError: initdb failed; the message has its output.
        """
        half = Path(tempfile.mkdtemp(prefix=INCOMPLETE_PREFIX, dir=self.base_directory))
        try:
            write_private_file(half / "password", password)
            self.os_user.chown(half / "password")
            self.os_user.chown(half)
            finished = await self.os_user.run(
                self.binaries.initdb,
                f"--pgdata={half / 'postgres'}",
                f"--pwfile={half / 'password'}",
                *("--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8"),
                # Postgres' own collation and case rules are the same on every machine.
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *(() if durable else ("--no-sync",)),
                deadline_seconds=INITDB_SECONDS,
            )
            if finished.status != 0:
                raise EmbeddedPostgresError(f"initdb failed: {finished.output[-2000:].strip()}")
            (half / "postgres").rename(self.directory)
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def remove_incomplete(self) -> None:
        """Remove the leftovers of a killed service, each time: its initdb may have outlived it."""
        for leftover in self.base_directory.glob(f"{INCOMPLETE_PREFIX}*"):
            log.warning("half-made embedded cluster removed", directory=str(leftover))
            shutil.rmtree(leftover, ignore_errors=True)

    async def reset_password(self, password: str) -> None:
        """Set the superuser's password without the old one; no server may be running.

        Raises:
            EmbeddedPostgresError: Postgres could not be started in single-user mode.
        """
        finished = await self.os_user.run(
            *(self.binaries.postgres, "--single", "-D", self.directory),
            *("-c", f"config_file={self.configuration}", "postgres"),
            stdin=f"ALTER ROLE postgres PASSWORD '{password}'\n".encode(),
            deadline_seconds=INITDB_SECONDS,
        )
        if finished.status != 0:
            raise EmbeddedPostgresError(
                f"the password of the cluster {self.directory} is lost and could not be reset",
            )

    def configure(self, *, port: int, max_connections: int, durable: bool) -> None:
        """Write the whole configuration, so that changed settings take effect at this start."""
        lines = [
            "# Written by poolkeeper at each start; changes made here are lost.",
            *_LOOPBACK_ONLY,
            *_QUIET_LOG,
            *_MODEST,
            f"port = {port}",
            f"max_connections = {max_connections}",
            f"max_locks_per_transaction = {_locks_per_transaction(max_connections)}",
        ]
        if not durable:
            lines += ["fsync = off", "full_page_writes = off"]
        self.configuration.unlink(missing_ok=True)
        self.configuration.write_text("\n".join([*lines, ""]), encoding="utf-8")
        self.configuration.chmod(0o644)


def _locks_per_transaction(max_connections: int) -> int:
    """Locks per session for a table of 100,000, some 40 MB: 64 (Postgres' default) to 1024.

    Postgres sizes the table for this number of locks in each session.
    """
    return max(64, min(1024, _LOCKS // max_connections))


def shared_base_directory(data_dir: Path, *, shared_root: Path) -> Path:
    """The place of root's cluster if Postgres' user cannot enter `data_dir`."""
    return shared_root / hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]


async def locate_cluster(data_dir: Path, *, package: Path, shared_root: Path) -> Cluster:
    """Find the cluster of a data directory, or the place where to create it.

    That is `<data_dir>/postgres`; if the user cannot enter `data_dir`, a directory under
    `shared_root`. A cluster stays where it was created.

    Raises:
        EmbeddedPostgresError: no user, no programs, or no place that the user can enter.
    """
    elsewhere = shared_base_directory(data_dir, shared_root=shared_root)
    places = [data_dir, elsewhere] if os.geteuid() == 0 else [data_dir]
    made = next((place for place in places if (place / "postgres").is_dir()), None)
    os_user = OsUser.choose(made and made / "postgres")
    place = made or (data_dir if await os_user.can_enter(data_dir) else elsewhere)
    if place == elsewhere:
        _explain(data_dir, elsewhere, shared_root=shared_root)
    if not await os_user.can_enter(place):
        raise EmbeddedPostgresError(
            f"the user {os_user.name}, who runs Postgres, cannot enter {place}",
        )
    binaries = await find_binaries(package, os_user=os_user, shared_root=shared_root)
    return Cluster(base_directory=place, os_user=os_user, binaries=binaries)


def _explain(data_dir: Path, elsewhere: Path, *, shared_root: Path) -> None:
    make_enterable(shared_root)
    make_enterable(elsewhere)
    log.info("embedded cluster outside its data directory", reason="unreachable", at=str(elsewhere))
    note = (
        f"The embedded Postgres of {data_dir}\n"
        f"keeps its files in {elsewhere},\n"
        "because the user that runs it cannot enter the former. Remove both to start over.\n"
    )
    for directory in (data_dir, elsewhere):
        (directory / "where-is-postgres.txt").write_text(note, encoding="utf-8")
