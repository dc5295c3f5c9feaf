"""PgBouncer as an engine: three files, RELOAD, and a PAUSE and RESUME for each entry.

What PgBouncer does unexpectedly (1.18 and later, unless stated otherwise):

* It starts with every entry open. So it starts with an empty HBA file, which lets nobody in, until
  every entry is paused. A new entry is paused by a command that arrives together with the RELOAD.
* Before 1.25, RELOAD succeeds on files that it cannot parse. So the result is read back.
* PAUSE of an entry answers only when no paused entry at all has a transaction. So its console is
  closed at once; the entry stays paused.
"""

import asyncio
import secrets
import shlex
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import structlog

from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.weaknesses import vulnerabilities
from app.node.console import Console, quoted
from app.node.engine import Backend, EntryInForce, EntryMeasure
from app.node.errors import (
    CannotStart,
    CommandRefused,
    ConsoleLost,
    NothingListens,
    NotInForce,
)
from app.node.files import NodeDirectory, Signatures, signatures
from app.node.messages import Row
from app.node.pooler_log import PoolerLog
from app.node.process import Account, PoolerProcess, version_in, version_of
from app.node.rendering import HBA, INI, USERS, PoolerSettings, RenderedFiles, render
from app.node.shown_rows import (
    ShownEntry,
    as_shown,
    shown_application,
    shown_backend,
    shown_client,
    shown_client_id,
    shown_entry,
    shown_measure,
    shown_totals,
)
from app.node.threads import in_thread

LEAST_VERSION = (1, 18)
_SINGLE_CLIENTS_SINCE = (1, 24)

_START_SECONDS = 30.0
_POLL_SECONDS = 0.02
# PgBouncer reads 20 KiB from a connection before it serves another; a command takes under 80 bytes.
_TOGETHER = 100
# Connects that may wait for PgBouncer at a time; it accepts 128.
_CONSOLES = 32
_LOG = "pgbouncer.log"
# The console is an entry too, and its user is one of its users.
_CONSOLE = "pgbouncer"
# How the applications begin that agents are to PgBouncer.
_AGENT = "poolkeeper-node-"

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class PgBouncer:
    """A PgBouncer on this machine; an `Engine`."""

    def __init__(
        self, program: Path, directory: Path, *, settings: PoolerSettings, account: Account
    ) -> None:
        """Run *program* as *account*, with its files in *directory*.

        Raises:
            CannotStart: *program* is not PgBouncer, or may not be used.
        """
        self._program = program
        self._settings = settings
        self._account = account
        self._directory = NodeDirectory(directory, uid=account.uid, gid=account.gid)
        self._socket = self._directory.socket(settings.port)
        self.log = PoolerLog(self._directory.path / _LOG)
        self.version = version_of(program)
        self._check_version()
        self.process: PoolerProcess | None = None
        self._console: Console | None = None
        # Its own consoles have this name: PgBouncer shows a closed one for another moment.
        self._agent = f"{_AGENT}{secrets.token_hex(4)}"
        # Digests of the files in force; the files themselves are large.
        self._digests: tuple[bytes, ...] | None = None
        self._entries: frozenset[str] = frozenset()
        # Users that the running process may remember.
        self._users: frozenset[str] = frozenset()
        # Signatures of its TLS files, and of those that we write, when it was last to read them.
        self._of_tls_files: Signatures = ()
        self._of_own_files: Signatures = ()

    @property
    def name(self) -> str:
        return f"PgBouncer {'.'.join(map(str, self.version))}"

    def _check_version(self) -> None:
        """Refuse a version that may not be used.

        Raises:
            CannotStart
        """
        if self.version < LEAST_VERSION:
            raise CannotStart(f"{self.name} is too old: a node needs PgBouncer 1.18 or later.")
        if self._settings.refuse_vulnerable and (found := vulnerabilities(self.name)):
            raise CannotStart(f"This version is refused as vulnerable. {' '.join(found)}")

    # -- starting and ending -------------------------------------------------------------------

    async def is_running(self) -> bool:
        try:
            await self._connected()
        except NothingListens:
            return False
        except ConsoleLost:
            return True
        return True

    async def start(self, configuration: NodeConfiguration) -> bool:
        self._directory.make()
        self.leave()
        try:
            console = await self._connected()
        except NothingListens:
            self._refuse_others()
            # Its process has been reaped, or lives without a console.
            await self.stop(patience=0.0)
            await self._launch(configuration)
            return False
        if self.process is None or self.process.pid != console.pid:
            self.process = PoolerProcess(console.pid)
        # The version of the running process; the program may have been replaced since.
        [version] = await console.rows("SHOW VERSION", itemgetter("version"))
        self.version = version_in(version) or self.version
        self._check_version()
        await self._learn()
        return True

    async def _learn(self) -> None:
        """Read from the running process which entries and users it has."""
        console = await self._connected()
        self._entries = frozenset(await self.read_back())
        users = frozenset(await console.rows("SHOW USERS", itemgetter("name")))
        self._users |= users - {_CONSOLE}

    def _refuse_others(self) -> None:
        """Two poolers would use the same allotment.

        Raises:
            CannotStart: another PgBouncer has its socket in the directory.
        """
        for path in self._directory.path.glob(".s.PGSQL.*"):
            with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
                probe.settimeout(1.0)
                probe.connect(str(path))
                raise CannotStart(
                    f"A PgBouncer of this node is already running, on port {path.suffix[1:]}."
                    " Stop it before you start one on another port."
                )

    async def _launch(self, configuration: NodeConfiguration) -> None:
        files = await self._rendered(configuration)
        self._write(files, hba="")
        self.process = PoolerProcess.launch(
            self._program,
            self._directory.path / INI,
            account=self._account,
            log=self.log.path,
        )
        try:
            await self._until_it_listens(self.process)
            await self._pause_and_admit([entry.name for entry in configuration.entries], files)
            await self._check(configuration, files)
        except BaseException:
            await self.stop(patience=0.0)
            raise

    async def _until_it_listens(self, process: PoolerProcess) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                while process.is_running():
                    try:
                        await self._connected()
                    except NothingListens:
                        await asyncio.sleep(_POLL_SECONDS)
                    else:
                        return self._check_port()
        except TimeoutError as error:
            raise CannotStart(
                f"PgBouncer did not listen within {_START_SECONDS:g} seconds. {self.log}"
            ) from error
        self._check_port()
        raise CannotStart(f"PgBouncer ended. {self.log}")

    def _check_port(self) -> None:
        if self.log.is_without_port:
            raise CannotStart(
                f"PgBouncer cannot listen on {self._settings.address}, port {self._settings.port}."
                f" {self.log}"
            )

    async def stop(self, *, patience: float) -> None:
        self.leave()
        if self.process is not None:
            await self.process.stop(patience=patience)

    def leave(self) -> None:
        if self._console is not None:
            self._console.close()
        self._console, self._digests = None, None
        self._entries = self._users = frozenset()

    # -- configuration -------------------------------------------------------------------------

    async def differs(self, configuration: NodeConfiguration) -> bool:
        return (await self._rendered(configuration)).digests != self._digests

    def is_outdated(self) -> bool:
        return self._is_overwritten or self._of_tls_files != signatures(self._settings.tls_files)

    @property
    def _is_overwritten(self) -> bool:
        """Whether others changed the files that we write."""
        return self._of_own_files != self._own_signatures()

    def _own_signatures(self) -> Signatures:
        return signatures(map(self._directory.path.joinpath, (INI, USERS, HBA)))

    async def apply(self, configuration: NodeConfiguration) -> None:
        if is_overwritten := bool(self._of_own_files) and self._is_overwritten:
            await self._learn()  # it may have read what others wrote
        files = await self._rendered(configuration)
        new = [entry.name for entry in configuration.entries if entry.name not in self._entries]
        # Until everything is read back, nothing is known to be in force.
        self._digests = None
        if len(new) > _TOGETHER:
            # Nobody may use these entries before each is paused.
            known = tuple(entry for entry in configuration.entries if entry.name in self._entries)
            before = await self._rendered(replace(configuration, entries=known))
            self._write(files, hba=before.hba)
            await self._reload()
            await self._pause_and_admit(new, files)
        else:
            self._write(files, hba=files.hba)
            await self._reload(*map(_pause, new))
        await self._check(configuration, files)
        if is_overwritten:
            _log.warning("files that others changed are in force again")

    async def _pause_and_admit(self, entries: Sequence[str], files: RenderedFiles) -> None:
        """Pause entries that nobody can use yet; then let their users in."""
        console = await self._connected()
        for begin in range(0, len(entries), _TOGETHER):
            await console.run(*map(_pause, entries[begin : begin + _TOGETHER]))
        self._write(files, hba=files.hba)
        await self._reload()

    async def _reload(self, *commands: str) -> None:
        """Let it read its files, and run *commands* before it serves any client again.

        Raises:
            NotInForce: it cannot read them.
        """
        try:
            await (await self._connected()).run("RELOAD", *commands)
        except CommandRefused as error:
            raise NotInForce(f"PgBouncer did not accept its files: {error}. {self.log}") from error

    async def _rendered(self, configuration: NodeConfiguration) -> RenderedFiles:
        # Thousands of entries take long, and the event loop may be the service's.
        return await in_thread(
            render,
            configuration,
            self._settings,
            directory=self._directory.path,
            version=self.version,
            former_users=self._users,
        )

    def _write(self, files: RenderedFiles, *, hba: str) -> None:
        try:
            self._directory.write(USERS, files.users.encode())
            self._directory.write(HBA, hba.encode())
            self._directory.write(INI, files.ini.encode())
        except OSError as error:
            raise NotInForce(f"PgBouncer's files cannot be written: {error}") from error
        finally:
            self._of_own_files = self._own_signatures()
        # A file that changes while it is read counts as changed since.
        self._of_tls_files = signatures(self._settings.tls_files)

    async def _check(self, configuration: NodeConfiguration, files: RenderedFiles) -> None:
        """Read back the effect of RELOAD.

        Raises:
            NotInForce: it differs from the files.
        """
        shown = await self._shown_entries()
        self._entries = frozenset(shown)
        self._users = self._users.union(
            [entry.role for entry in configuration.entries],
            [login.user for entry in configuration.entries for login in entry.logins],
        )
        wanted = {entry.name: as_shown(configuration, entry) for entry in configuration.entries}
        if {name: each.columns for name, each in shown.items()} != wanted:
            raise NotInForce(
                f"PgBouncer has read its files, but does not have the entries in them. {self.log}"
            )
        self._digests = files.digests

    async def read_back(self) -> Mapping[str, EntryInForce]:
        return {name: each.in_force for name, each in (await self._shown_entries()).items()}

    async def _shown_entries(self) -> Mapping[str, ShownEntry]:
        return dict(await self._shown("SHOW DATABASES", shown_entry, is_polled=False))

    # -- the gate ------------------------------------------------------------------------------

    async def open(self, *entries: str) -> None:
        console = await self._connected()
        try:
            await console.run(*map(_resume, entries))
        except CommandRefused:
            # It reports the reason only for a single entry; an entry that is already open is
            # refused, too.
            for entry in entries:
                await self._open_one(entry)

    async def _open_one(self, entry: str) -> None:
        try:
            await self._command(_resume(entry))
        except CommandRefused as error:
            if "is not paused" not in str(error):
                raise

    async def close(self, *entries: str) -> None:
        # Together: each takes two answers of a pooler that may be busy.
        for begin in range(0, len(entries), _CONSOLES):
            tasks = [
                asyncio.create_task(self._close_one(entry), name=f"node: close {entry}")
                for entry in entries[begin : begin + _CONSOLES]
            ]
            # No task group: see `run_every` in app/control/background.py.
            for failure in await asyncio.gather(*tasks, return_exceptions=True):
                if failure is not None:
                    raise failure

    async def _close_one(self, entry: str) -> None:
        console = await self._connect()
        console.send(_pause(entry))
        console.close()

    async def cut(self, entry: str, users: Collection[str]) -> bool:
        if self.version < _SINGLE_CLIENTS_SINCE:
            await self._command(f"KILL {quoted(entry)}")  # this pauses the entry, too
            return True
        clients = await self._shown("SHOW CLIENTS", shown_client_id, is_polled=False)
        commands = [
            f"KILL_CLIENT {number}"
            for name, (user, number) in clients
            if name == entry and user in users
        ]
        for begin in range(0, len(commands), _TOGETHER):
            # Each command runs, even if another one is refused because its client has just left.
            with suppress(CommandRefused):
                await (await self._connected()).run(*commands[begin : begin + _TOGETHER])
        return False

    # -- measurements --------------------------------------------------------------------------

    async def measure(self) -> Mapping[str, EntryMeasure]:
        shown = await self._shown("SHOW POOLS", shown_measure)
        measures = dict(shown)
        if len(measures) < len(shown):
            # An entry also has a pool for each user whose login was refused.
            measures.clear()
            for entry, seen in shown:
                measures[entry] = measures[entry].plus(seen) if entry in measures else seen
        return measures

    async def totals(self) -> Mapping[str, EntryTotals]:
        self.log.keep_short()
        return dict(await self._shown("SHOW STATS", shown_totals))

    async def backends(self) -> Mapping[str, Collection[Backend]]:
        return _grouped(await self._shown("SHOW SERVERS", shown_backend))

    async def clients(self) -> Mapping[str, Collection[str]]:
        shown = await self._shown("SHOW CLIENTS", shown_client)
        return _grouped((entry, user) for entry, user in shown if user)

    async def has_another_agent(self) -> bool:
        console = await self._connected()
        found = await console.rows("SHOW CLIENTS", shown_application)
        names = {name for entry, name in found if entry == _CONSOLE} - {self._agent}
        # An agent of an earlier version has none.
        return any(not name or name.startswith(_AGENT) for name in names)

    async def _shown(
        self, command: str, make: Callable[[Row], tuple[str, T]], *, is_polled: bool = True
    ) -> list[tuple[str, T]]:
        """Convert each row with *make*, and yield it with its entry.

        Rows about the console are left out.
        """
        console = await self._connected()
        rows = await console.rows(command, make, is_polled=is_polled)
        return [row for row in rows if row[0] != _CONSOLE]

    # -- the console ---------------------------------------------------------------------------

    async def _connected(self) -> Console:
        if self._console is None or self._console.is_closed:
            self._console = await self._connect()
        return self._console

    async def _connect(self) -> Console:
        try:
            return await Console.connect(self._socket, uid=self._account.uid, name=self._agent)
        except PermissionError as error:
            closed = self._directory.closed_parent() or self._directory.path
            raise CannotStart(
                f"PgBouncer runs as {self._account.name}, who cannot enter the directory {closed}."
                f" Run: chmod o+x {shlex.quote(str(closed))}"
            ) from error

    async def _command(self, command: str) -> None:
        await (await self._connected()).run(command)


def _pause(entry: str) -> str:
    return f"PAUSE {quoted(entry)}"


def _resume(entry: str) -> str:
    return f"RESUME {quoted(entry)}"


def _grouped(pairs: Iterable[tuple[str, T]]) -> Mapping[str, set[T]]:
    groups: dict[str, set[T]] = {}
    for entry, each in pairs:
        groups.setdefault(entry, set()).add(each)
    return groups
