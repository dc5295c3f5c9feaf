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
from app.domain.server_state import ServerState
from app.pools import driver
from app.pools.event_loop_lag import EventLoopLag
from app.pools.scheduling.budget import ConnectionBudget
from app.pools.scheduling.connect_limiter import ConnectLimiter
from app.pools.scheduling.policy_executor import PolicyExecutor
from app.pools.servers.admin_connections import ADMIN_CONNECTIONS, AdminConnections
from app.pools.servers.liveness import AttachedPool, any_still_work
from app.pools.servers.logins import MAX_STALLED, MAX_STALLED_OF_ADMIN, NOT_ACTIVE, Logins
from app.pools.servers.node_reservation import NO_RESERVATION, NodeReservation
from app.pools.servers.orphaned_backends import OrphanedBackends, Predecessor, terminate_backend
from app.pools.servers.server_limits import ServerLimits
from app.wire import Login

_GONE_DEADLINE = 3.0
_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 5.0
# If the loop was late by this share of a deadline, a timeout says nothing about the server.
_STARVED_SHARE = 0.25

_log = structlog.get_logger(__name__)


class _StarvedAttempt(ServerUnavailable):
    """An attempt timed out because our own event loop did not run."""

    code = ServerUnavailable.code


# Looked up once: enum members are slow to find, and every waiting caller needs this one.
_AVAILABLE = ServerState.AVAILABLE


class Server:
    """Connections to one server; only a few are being opened at a time.

    Attributes:
        reservation: what nodes have of the budget.
        orphans: back-ends that no pool has any more.
    """

    def __init__(
        self,
        name: str,
        admin: Login,
        *,
        max_connecting: int,
        kept_free: int,
        fixed_budget: int | None = None,
        catalog_connections: int = 0,
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
            kept_free: connections that a computed budget leaves to others.
            fixed_budget: the operator's number in place of the computed one.
            catalog_connections: the service's own to its catalog, if it is on this server.
            connect_timeout: seconds one attempt may take.
            acquire_timeout: seconds that callers wait for a connection.
            lag: event loop lag, so that our own slowness does not count against the server.
            cores: processors of its machine; None when unknown.
            open_databases: other databases to which everyone may connect, as the operator knows.
            may_connect: whether this process may use servers; another one may have taken over.
        """
        self.name = name
        self.budget = ConnectionBudget(
            connect_slots=ConnectLimiter(max_connecting), acquire_timeout=acquire_timeout
        )
        self.policy_executor = PolicyExecutor(self.budget)
        self.state = ServerState.UNAVAILABLE
        self.generation = 0
        self.limits: ServerLimits | None = None
        self.last_error: str | None = "not contacted yet"
        self._kept_free = kept_free
        self.fixed_budget = fixed_budget
        self._own_connections = ADMIN_CONNECTIONS + catalog_connections
        self._contact_lock = asyncio.Lock()
        self._refresh_lock = asyncio.Lock()
        self._pools: set[AttachedPool] = set()
        self.orphans = OrphanedBackends()
        self._logins = Logins(self._update_limit, timeout=connect_timeout, may_connect=may_connect)
        self._probe: asyncio.Task[None] | None = None
        self._recheck: asyncio.Task[None] | None = None
        self.lag = lag or EventLoopLag()
        self.cores = cores
        self.open_databases = frozenset(open_databases)
        self.admins = AdminConnections(
            admin,
            connect=partial(self._logins.connect, most=MAX_STALLED_OF_ADMIN),
            may_connect=may_connect,
            answer_timeout=connect_timeout,
        )
        self._predecessor: Predecessor | None = None
        self._closed = False
        self._hung_up = False
        # Whether the latest attempt to open a connection for a pool succeeded.
        self._opens = True
        self.reservation = NO_RESERVATION
        # Connections of the whole budget that pools may not use: those of nodes, and lost ones.
        self._withheld = self._lost_within = 0

    @property
    def limit(self) -> int:
        """The whole connection budget, never more than Postgres has connections for.

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
        return min(self.reservation.owed, self.divisible)

    @property
    def is_contended(self) -> bool:
        """Whether a pool, or clients of a node, want a connection of the budget."""
        return self.budget.is_contended or self.reservation.lack

    @property
    def used(self) -> int:
        """How many connections of `limit` are open, lost ones included, which may be more."""
        return self.budget.used + self.lost

    @property
    def lost(self) -> int:
        """Connections that no pool has any more but Postgres may still have."""
        return len(self.orphans) + self._logins.stalled

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
        if self.orphans:
            self.recheck()

    async def close(self) -> None:
        """Stop probing for good. The manager closes the pools."""
        self._closed = True
        self._hung_up = self._hung_up or self._logins.stalled > 0
        tasks = [task for task in (self._probe, self._recheck) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._logins.close(), return_exceptions=True)
        self._probe = self._recheck = None
        await self.admins.close()

    def reserve(self, for_nodes: NodeReservation) -> None:
        """Leave nodes what is reserved; idle connections of pools beyond the rest close."""
        before, self.reservation = self.reservation, for_nodes
        if (for_nodes.owed, for_nodes.most_here) != (before.owed, before.most_here):
            self._update_limit()
        if for_nodes.leaves_min_size is not before.leaves_min_size:
            _log.info(
                "min_size of all pools fits"
                if for_nodes.leaves_min_size
                else "min_size of all pools does not fit beside nodes",
                server=self.name,
            )
            self.policy_executor.keep_min_size(list(self._pools), keeps=for_nodes.leaves_min_size)

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
            connection = await self._logins.connect(login, most=MAX_STALLED)
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
        self.orphans.add(pid, user)
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
            while (self.orphans or self.last_error) and self.is_available:
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
                    self._pools, error, since=began, within=self._logins.timeout
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
        return timed_out and self.lag.worst_since(began) > self._logins.timeout * _STARVED_SHARE

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
                if self.orphans:
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
                async with asyncio.timeout(self._logins.timeout):
                    with driver.translate_connect_errors():
                        limits = await ServerLimits.read(connection)
                        if self._predecessor is not None:
                            await self.orphans.adopt(connection, self._predecessor)
                            self._predecessor = None
                        if self.orphans:
                            await self.orphans.terminate(connection)
            except TimeoutError as error:
                raise ServerUnavailable("The server does not answer.") from error
            finally:
                await driver.close(connection)
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
        possible = self.limits.max_connections - self.limits.reserved - self._own_connections
        limit = max(0, min(self.fixed_budget or possible - self._kept_free, possible))
        left = max(0, limit - self.lost)
        ours, most = max(0, left - self.reservation.owed), self.reservation.most_here
        self.budget.set_limit(ours if most is None else min(ours, most))
        self._withheld, self._lost_within = left - self.budget.limit, limit - left
        self.policy_executor.run()
