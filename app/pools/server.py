"""A declared Postgres server: whether it is available, and how many connections it can take.

A server is `available` or `unavailable` for all its pools at once. A failed opening does not make
it unavailable: the cause may be the tenant's database, name resolution, or this machine. It
triggers a recheck: first by the admin login; if that fails too, over connections that worked. The
server is lost only if none of them answers. Then its pools' waiters fail at once, its generation
grows (every earlier connection is stale), and a single probe with full-jitter backoff brings it
back. Otherwise working connections keep working, `last_error` says what fails, and we recheck until
it works. Its admin connections (provisioning, checks) are few, and the budget is reduced by them.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from enum import StrEnum
from functools import partial
from time import monotonic

import asyncpg
import structlog

from app.domain.errors import (
    ConnectFailed,
    PoolkeeperError,
    ServerFull,
    ServerUnavailable,
    Unavailable,
)
from app.pools import driver
from app.pools.admin_connections import ADMIN_CONNECTIONS, NOT_ACTIVE, AdminConnections, close
from app.pools.budget import ConnectionBudget
from app.pools.connect_limiter import ConnectLimiter
from app.pools.event_loop_lag import EventLoopLag
from app.pools.liveness import AttachedPool, any_still_work
from app.pools.orphaned_backends import OrphanedBackends, Predecessor, terminate_backend
from app.pools.policy_executor import PolicyExecutor
from app.pools.server_limits import ServerLimits
from app.pools.stalled_logins import StalledLogins
from app.wire import Login

_GONE_DEADLINE = 3.0
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 5.0
# If the loop was late by this share of a deadline, a timeout says nothing about the server.
_STARVED_SHARE = 0.25
# The most logins of one role into one database that timed out but are not over yet. The admin's
# attempts run one at a time, and the task that ends unanswered connections must not wait for them.
_MAX_STALLED, _MAX_STALLED_OF_ADMIN = 2, 6

_log = structlog.get_logger(__name__)


class _StarvedAttempt(ServerUnavailable):
    """An attempt timed out because our own event loop did not run."""

    code = ServerUnavailable.code


class ServerState(StrEnum):
    """Whether the server accepts connections."""

    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"


# Looked up once: enum members are slow to find, and every waiting caller needs this one.
_AVAILABLE = ServerState.AVAILABLE


class Server:
    """Connections to one server; only a few are being opened at a time.

    Attributes:
        nodes_lack: whether clients of nodes wait for connections of the budget.
    """

    def __init__(
        self,
        name: str,
        admin: Login,
        *,
        max_connecting: int,
        kept_free: int,
        fixed_budget: int | None = None,
        connect_timeout: float = 5.0,
        acquire_timeout: float = 5.0,
        lag: EventLoopLag | None = None,
        cores: int | None = None,
        open_databases: Iterable[str] = (),
        may_connect: Callable[[], bool] = lambda: True,
    ) -> None:
        """Describe a server; nothing is opened before `start`.

        Args:
            name: as declared in the settings.
            admin: login for provisioning; its database holds shared and per_tenant tenants.
            max_connecting: most connection attempts at a time.
            kept_free: connections left to others: the margin, and the catalog's if it is on this
                server.
            fixed_budget: the operator's number in place of the computed one.
            connect_timeout: seconds one attempt may take.
            acquire_timeout: seconds that callers wait for a connection.
            lag: event loop lag, so that our own slowness does not count against the server.
            cores: processors of its machine; None when unknown.
            open_databases: other databases to which everyone may connect, as the operator knows.
            may_connect: whether this process may use servers; another one may have taken over.
        """
        self.name = name
        self.budget: ConnectionBudget[AttachedPool] = ConnectionBudget(
            connect_slots=ConnectLimiter(max_connecting), acquire_timeout=acquire_timeout
        )
        self.policy_executor = PolicyExecutor(self.budget)
        self.state = ServerState.UNAVAILABLE
        self.generation = 0
        self.limits: ServerLimits | None = None
        self.last_error: str | None = "not contacted yet"
        self._kept_free = kept_free
        self._fixed_budget = fixed_budget
        self._connect_timeout = connect_timeout
        self._contact_lock = asyncio.Lock()
        self._refresh_lock = asyncio.Lock()
        self._pools: set[AttachedPool] = set()
        self._orphans = OrphanedBackends()
        self._stalled = StalledLogins(self._update_limit)
        self._probe: asyncio.Task[None] | None = None
        self._recheck: asyncio.Task[None] | None = None
        self.lag = lag or EventLoopLag()
        self.cores = cores
        self.open_databases = frozenset(open_databases)
        self._may_connect = may_connect
        self.admins = AdminConnections(
            admin,
            connect=partial(self._log_in, most=_MAX_STALLED_OF_ADMIN),
            may_connect=may_connect,
            answer_timeout=connect_timeout,
        )
        self._predecessor: Predecessor | None = None
        self._closed = False
        self._hung_up = False
        # Whether the latest attempt to open a connection for a pool succeeded.
        self._opens = True
        # The connections that nodes can have, those that they keep whatever pools want, and the
        # most that pools may use.
        self._others = self._kept_by_others = 0
        self._most: int | None = None
        self.nodes_lack = False
        # Connections of the whole budget that pools may not use: those of nodes, and lost ones.
        self._withheld = self._lost_within = 0

    @property
    def limit(self) -> int:
        """The whole connection budget.

        `budget` is this without lost connections and those of nodes.
        """
        return self.divisible + self._lost_within

    @property
    def divisible(self) -> int:
        """Connections for this process and its nodes together: all except lost ones."""
        return self.budget.limit + self._withheld

    @property
    def on_nodes(self) -> int:
        """How many connections of `limit` nodes can have, used there or not.

        With `used` it is never more than `limit`, except after that was lowered.
        """
        return min(self._others, self.divisible)

    @property
    def is_contended(self) -> bool:
        """Whether a pool, or clients of a node, want a connection of the budget."""
        return self.budget.is_contended or self.nodes_lack

    @property
    def most_kept(self) -> int:
        """The most connections that pools can keep open: nodes give up the others for that."""
        return max(0, self.divisible - self._kept_by_others)

    @property
    def used(self) -> int:
        """How many connections of `limit` are open, lost ones included, which may be more."""
        return self.budget.used + self.lost

    @property
    def lost(self) -> int:
        """Connections that no pool has any more but Postgres may still have."""
        return len(self._orphans) + len(self._stalled)

    @property
    def orphans(self) -> frozenset[int]:
        """Process ids of back-ends that no pool has any more."""
        return self._orphans.pids

    @property
    def has_orphans(self) -> bool:
        """Whether Postgres may have back-ends that no pool has, including a predecessor's."""
        return self._hung_up or self.lost > 0 or self._predecessor is not None

    def __repr__(self) -> str:
        """Name, state and budget."""
        return f"<Server {self.name} {self.state}: {self.budget.used} of {self.budget.limit}>"

    @property
    def is_available(self) -> bool:
        """Whether connections can be opened."""
        return self.state is _AVAILABLE

    @property
    def is_degraded(self) -> bool:
        """Whether open connections keep working while no other can be opened."""
        return self.is_available and self.last_error is not None

    def hold_off(self, reason: str) -> None:
        """Set the reason why it has not been started yet."""
        self.last_error = reason

    async def start(self, predecessor: Predecessor | None = None) -> None:
        """Contact the server once; if it is away, keep trying in the background.

        Before anything else is opened there, the back-ends that *predecessor* left are terminated;
        they count against the budget until they are gone.
        """
        self._predecessor = predecessor
        try:
            await self._contact()
        except Unavailable as error:
            self.mark_lost(error)
        if self._orphans:
            self.recheck()

    async def close(self) -> None:
        """Stop probing for good. The manager closes the pools."""
        self._closed = True
        self._hung_up = self._hung_up or len(self._stalled) > 0
        tasks = [task for task in (self._probe, self._recheck) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._stalled.close(), return_exceptions=True)
        self._probe = self._recheck = None
        await self.admins.close()

    def share(
        self,
        *,
        others: int,
        most: int | None,
        kept: int = 0,
        lack: bool = False,
        keeps_min_size: bool = True,
    ) -> None:
        """Leave *others* connections to nodes, and use at most *most*.

        Idle ones beyond it close. Nodes keep *kept* of theirs whatever pools want. *lack*: their
        clients wait for more. *keeps_min_size*: whether the min_size of all pools fits beside that.
        """
        self._kept_by_others, self.nodes_lack = kept, lack
        if (others, most) != (self._others, self._most):
            self._others, self._most = others, most
            self._update_limit()
        if keeps_min_size is not self.budget.keeps_min_size:
            _log.info(
                "min_size of all pools fits"
                if keeps_min_size
                else "min_size of all pools does not fit beside nodes",
                server=self.name,
            )
            self.policy_executor.keep_min_size(list(self._pools), keeps=keeps_min_size)

    def attach(self, pool: AttachedPool) -> None:
        """Tell *pool* from now on when the server is lost and when it is back."""
        self._pools.add(pool)

    def detach(self, pool: AttachedPool) -> None:
        """Forget a closed pool."""
        self._pools.discard(pool)
        self.budget.forget(pool)
        self.policy_executor.run()

    async def connect(self, login: Login) -> asyncpg.Connection:
        """Open a connection for a pool; if that fails, find out whether the server is lost.

        Raises:
            ServerUnavailable: the server cannot be reached, or is known to be away.
            ServerFull: it accepts no further connection.
            ConnectFailed: this machine cannot connect, or the login does not end.
            TenantLoginFailed: it refuses this role, password or database.
        """
        if not self.is_available:
            raise ServerUnavailable(self.unavailable_detail)
        try:
            return await self._attempt(login)
        except _StarvedAttempt:
            # That attempt says nothing about the server; another one will.
            return await self._attempt(login)

    async def _attempt(self, login: Login) -> asyncpg.Connection:
        began = monotonic()
        try:
            connection = await self._log_in(login, most=_MAX_STALLED)
        except (ServerUnavailable, ServerFull, ConnectFailed) as error:
            if self._was_starved(error, began):
                raise _StarvedAttempt(error.detail) from error
            self._opens = False
            self.recheck()
            raise
        self._opens = True
        self._update_freeze()
        return connection

    @property
    def unavailable_detail(self) -> str:
        """One sentence for callers while the server is away."""
        return f"Server {self.name} is unavailable: {self.last_error}"

    def admin(
        self, into: str | Login | None = None
    ) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Use the admin connection, in the server's own database unless another is named.

        If *into* is a login, use that instead. See `AdminConnections.use`.

        Raises:
            ServerUnavailable: the server cannot be reached.
        """
        if not self.is_available:
            raise ServerUnavailable(self.unavailable_detail)
        return self.admins.use(into)

    async def wait_backend_gone(self, pid: int, user: str) -> None:
        """Wait until back-end *pid* of *user*, whose connection broke, has ended.

        Terminate it if it has not noticed. If its end cannot be confirmed, it counts against the
        budget until a later contact with the server confirms it.
        """
        try:
            async with asyncio.timeout(_GONE_DEADLINE), self.admin() as connection:
                await terminate_backend(connection, pid, user)
        except (PoolkeeperError, TimeoutError):
            self.count_orphan(pid, user)

    def count_orphan(self, pid: int, user: str) -> None:
        """Count back-end *pid* of *user* against the budget until its end is confirmed."""
        self._orphans.add(pid, user)
        self._update_limit()
        self.recheck()
        _log.info("backend not seen to end", server=self.name, pid=pid)

    def mark_lost(self, error: Unavailable) -> None:
        """The server is lost: fail its pools' waiters, and probe until it is back."""
        self.last_error = error.detail
        if self._probe is not None or self._closed:
            return
        _log.warning("server unavailable", server=self.name, reason=error.detail)
        self.state = ServerState.UNAVAILABLE
        self.generation += 1
        self._probe = asyncio.create_task(self._probe_until_back(), name=f"{self.name}: probe")
        for pool in list(self._pools):
            pool.server_lost(ServerUnavailable(self.unavailable_detail))

    def recheck(self) -> None:
        """Check the server in the background, because its state may have changed."""
        if self._recheck is None and not self._closed:
            self._recheck = asyncio.create_task(
                self._recheck_until_clear(), name=f"{self.name}: recheck"
            )

    async def _recheck_until_clear(self) -> None:
        pause = _FIRST_BACKOFF
        try:
            await self.refresh()
            while (self._orphans or self.last_error) and self.is_available:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_BACKOFF)
                await self.refresh()
        finally:
            self._recheck = None

    async def refresh(self) -> None:
        """Read the limits again, because they may have changed; if that fails, judge the server."""
        async with self._refresh_lock:
            if not self.is_available:
                return
            began = monotonic()
            try:
                await self._contact()
            except ServerFull as error:
                self._mark_degraded(error)
            except Unavailable as error:
                works = await any_still_work(
                    self._pools, error, since=began, within=self._connect_timeout
                )
                if self._was_starved(error, began):
                    return
                if works:
                    self._mark_degraded(error)
                else:
                    self.mark_lost(error)

    def _mark_degraded(self, error: Unavailable) -> None:
        """Nothing can be opened, but open connections work."""
        if self.last_error != error.detail:
            _log.warning("no connection can be opened", server=self.name, reason=error.detail)
        self.last_error = error.detail
        self._update_freeze()

    def _update_freeze(self) -> None:
        """Let pools keep what they have while neither a tenant nor the admin can connect."""
        frozen = self.is_degraded and not self._opens
        if frozen is not self.budget.is_frozen:
            self.budget.freeze(frozen=frozen)
            self.policy_executor.run()

    def _was_starved(self, error: Unavailable, began: float) -> bool:
        """Whether an attempt timed out because our own event loop did not run."""
        timed_out = isinstance(error.__cause__, TimeoutError)
        return timed_out and self.lag.worst_since(began) > self._connect_timeout * _STARVED_SHARE

    async def _probe_until_back(self) -> None:
        backoff = _FIRST_BACKOFF
        cause = self.last_error
        while True:
            await asyncio.sleep(random.uniform(0, backoff))  # noqa: S311 - full jitter
            backoff = min(backoff * 2, _LONGEST_BACKOFF)
            began = monotonic()
            try:
                await self._contact()
            except Unavailable as error:
                # A process that may no longer connect still reports the last answer.
                if error.detail == NOT_ACTIVE and cause != NOT_ACTIVE:
                    self.last_error = f"{cause} {NOT_ACTIVE}"
                elif not self._was_starved(error, began):
                    cause = self.last_error = error.detail
            else:
                self._probe = None
                if self._orphans:
                    self.recheck()
                return

    async def _contact(self) -> None:
        """Ask the server for its state and limits, one caller at a time, and apply its answer.

        Raises:
            Unavailable: it does not answer, refuses logins, or is a standby.
        """
        async with self._contact_lock:
            connection = await self.admins.open()
            try:
                async with asyncio.timeout(self._connect_timeout):
                    with driver.translate_connect_errors():
                        limits = await ServerLimits.read(connection)
                        if self._predecessor is not None:
                            await self._orphans.adopt(connection, self._predecessor)
                            self._predecessor = None
                        if self._orphans:
                            await self._orphans.terminate(connection)
            except TimeoutError as error:
                raise ServerUnavailable("The server does not answer.") from error
            finally:
                await close(connection)
        if self.limits is not None and self.limits.read_only is not limits.read_only:
            self.admins.renew()
        self.limits = limits
        had_trouble, self.last_error = self.last_error is not None, None
        self.state = ServerState.AVAILABLE
        self._update_limit()
        self._update_freeze()
        if had_trouble:
            _log.info("server available", server=self.name, budget=self.limit)
            for pool in list(self._pools):
                pool.server_back()

    def _update_limit(self) -> None:
        if self.limits is None:
            return
        computed = self.limits.max_connections - self.limits.reserved - self._kept_free
        limit = max(0, self._fixed_budget or computed - ADMIN_CONNECTIONS)
        left = max(0, limit - self.lost)
        ours = max(0, left - self._others)
        self.budget.set_limit(ours if self._most is None else min(ours, self._most))
        self._withheld, self._lost_within = left - self.budget.limit, limit - left
        self.policy_executor.run()

    async def _log_in(self, login: Login, *, most: int) -> asyncpg.Connection:
        if not self._may_connect():
            raise ConnectFailed(NOT_ACTIVE)
        # A process that was stopped in the middle of a login must not complete it when it wakes up.
        login = replace(login, may_go_on=self._may_connect)
        try:
            connection = await self._stalled.connect(
                login, timeout=self._connect_timeout, most=most
            )
        except ServerUnavailable as error:
            if not self._may_connect():
                raise ConnectFailed(NOT_ACTIVE) from error
            raise
        if not self._may_connect():
            await close(connection)
            raise ConnectFailed(NOT_ACTIVE)
        return connection
