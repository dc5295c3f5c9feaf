"""A pooled connection: asyncpg's connection, plus what the pool must know about it.

Only this file and `app/wire/extended_query.py` use asyncpg's private names: the work of its own
pool between borrowers has no public names. asyncpg's version is pinned;
`tests/pools/test_connection.py` fails when an upgrade changes one of them.
"""

# mypy: disable-error-code="attr-defined,arg-type,return-value,no-any-return"
# ruff: noqa: SLF001 - see above

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import asyncpg
from asyncpg import connect_utils
from asyncpg.pool import PoolConnectionProxy

from app.pools.borrower import Borrower
from app.pools.tenant_state import TenantState
from app.wire.relay import Relay
from app.wire.tcp_keepalive import notice_silence

# A connection lives between 90 % and 100 % of its limit, so that connections opened together do not
# all expire and reconnect together.
_LIFETIME_JITTER = 0.1


class PooledConnection:
    """A connection and its times, in monotonic seconds.

    Attributes:
        raw: asyncpg's connection.
        pid: the process id of its back-end; still known after the connection broke.
        epoch: the pool's epoch when it was opened; if it is older than the pool's, it is replaced.
        generation: the server's generation when it was opened; an older one is stale.
        is_prepared: whether it ran its strategy's session setup.
        is_connected: whether the connection is not known to be gone; asyncpg's own method.
        tenant_state: the tenant that leases it now, if any.
        last_user: the tenant that leased it last, if any.
        borrower: the task and the line of code that leases it, if known.
        leak_reported: whether this lease was reported as a possible leak.
        termination_reason: why we ended this lease's work; empty if we did not.
        opened_at: when it was opened.
        leased_at, idle_since: when each of these last happened.
        checked_at: when its last lease or its last test ended.
    """

    __slots__ = (
        "__weakref__",
        "_end_listeners",
        "_is_begun_unseen",
        "_kept_for",
        "_kept_until",
        "_open_transaction",
        "_protocol",
        "_proxy",
        "_retyped",
        "borrower",
        "checked_at",
        "epoch",
        "expires_at",
        "generation",
        "idle_since",
        "is_connected",
        "is_prepared",
        "last_user",
        "leak_reported",
        "leased_at",
        "opened_at",
        "pid",
        "raw",
        "tenant_state",
        "termination_reason",
    )

    def __init__(
        self,
        raw: asyncpg.Connection,
        *,
        now: float,
        max_lifetime: float,
        epoch: int,
        generation: int,
    ) -> None:
        """Set its opening time and its lifetime."""
        jitter = random.uniform(0, _LIFETIME_JITTER)  # noqa: S311 - spreads load, hides nothing
        self.raw = raw
        self._protocol = raw._protocol
        self.is_connected: Callable[[], bool] = self._protocol.is_connected
        self.pid = int(raw.get_server_pid())
        self.epoch = epoch
        self.generation = generation
        self._proxy: PoolConnectionProxy[asyncpg.Record] | None = None
        # Set by `app.wire` on the connections that it opens.
        self._retyped: dict[int, tuple[str, str]] = getattr(raw, "custom_codecs", {})
        notice_silence(getattr(raw, "_transport", None))
        # This is never started: it only represents the transaction that our own statement began.
        self._open_transaction = raw.transaction()
        self.termination_reason = ""
        self.tenant_state: TenantState | None = None
        self.last_user: TenantState | None = None
        self.borrower: Borrower | None = None
        self.leak_reported = self.is_prepared = self._is_begun_unseen = False
        self.expires_at = now + max_lifetime * (1 - jitter)
        self.opened_at = self.leased_at = self.idle_since = self.checked_at = now
        self._kept_until, self._kept_for = 0.0, -1

    def begin_lease(self, tenant_state: TenantState, borrower: Borrower | None, now: float) -> None:
        """Start a lease of a tenant at *now*, for *borrower* if known."""
        self.tenant_state = tenant_state
        self.borrower = borrower
        self.termination_reason = ""
        self._is_begun_unseen = False
        self.leased_at = now

    def end_lease(self, now: float) -> None:
        self.idle_since = self.checked_at = now
        self.last_user = self.tenant_state
        self.tenant_state = self.borrower = None
        self.leak_reported = False

    def mark_checked(self, now: float) -> None:
        """Mark it as tested at *now*; a test does not count as a use."""
        self.checked_at = now

    def mark_kept(self, until: float, changes: int) -> None:
        """Note that its pool keeps it *until* then, while claims have seen so many *changes*."""
        self._kept_until, self._kept_for = until, changes

    def is_kept(self, now: float, changes: int) -> bool:
        """Whether its pool keeps it at *now*, as far as was decided for the same claims."""
        return changes == self._kept_for and now < self._kept_until

    def mark_prepared(self) -> None:
        """Note that it ran its strategy's session setup."""
        self.is_prepared = True

    def mark_terminated(self, reason: str) -> None:
        """Note that we end this lease's work, for that *reason*."""
        self.termination_reason = reason

    def mark_leak_reported(self) -> None:
        """Note that this lease was reported as a possible leak."""
        self.leak_reported = True

    @property
    def was_handed_over(self) -> bool:
        """Whether this lease got it at the moment when the last one gave it back."""
        return self.leased_at == self.idle_since

    @property
    def was_terminated(self) -> bool:
        """Whether it was closed abruptly, so that its back-end may not know yet."""
        return bool(self.raw._aborted)

    def run(self, statements: str) -> Awaitable[object]:
        """Run *statements* in one round trip; `StatementDeadlines` ends it in time.

        It bypasses `execute`, whose checks and loggers belong to the borrower.

        Raises:
            asyncpg.PostgresError: a statement failed; the rest was not run.
            asyncpg.InterfaceError, OSError: the connection is gone.
        """
        return self._protocol.query(statements, None)

    def begin_with_next(self, statements: str) -> None:
        """Begin a transaction by *statements* that are sent together with the next statement.

        Raises:
            OSError: the connection is gone.
        """
        Relay.of(self.raw).begin_with_next(statements)

    def terminate(self) -> None:
        """Close it abruptly, whatever it is doing."""
        self.raw.terminate()
        # asyncpg drops its reference then, and a borrower between two round trips would find None.
        self.raw._protocol = self._protocol

    async def cancel(self) -> None:
        """Cancel its present statement, over a connection that needs no login.

        Raises:
            OSError: the server cannot be reached.
        """
        raw = self.raw
        await connect_utils._cancel(
            loop=raw._loop,
            addr=raw._addr,
            params=raw._params,
            backend_pid=self.pid,
            backend_secret=self._protocol.backend_secret,
        )

    def mark_in_transaction(self, *, unseen: bool = False) -> None:
        """Tell asyncpg that our own statement began a transaction, perhaps *unseen* by asyncpg.

        Then `connection.transaction()` is a savepoint, and cursors work.
        """
        self.raw._top_xact = self._open_transaction
        self._is_begun_unseen = unseen

    @property
    def is_in_transaction(self) -> bool:
        """Whether it is in a transaction, as far as known; an unseen one may have ended."""
        return self._is_begun_unseen or self.raw.is_in_transaction()

    def attach_proxy(self) -> asyncpg.Connection:
        """Return the borrower's view of it: works like a connection until it is detached."""
        self._end_listeners = self.raw._termination_listeners.copy()
        self._proxy = PoolConnectionProxy(self, self.raw)
        return self._proxy

    def detach_proxy(self) -> None:
        """Detach the borrower's view, with its cursors, prepared statements and callbacks.

        Codecs that the borrower set are dropped.
        """
        if self._proxy is not None:
            self._proxy._detach()
            self._proxy = None
            self.raw._listeners.clear()
            self.raw._log_listeners.clear()
            self.raw._query_loggers.clear()
            self.raw._termination_listeners &= self._end_listeners
            if self._retyped and self.is_connected():
                self._forget_codecs()
            # The rest of `_on_release`, without listeners.
            self.raw._pool_release_ctr += 1
        self.raw._top_xact = None

    def _forget_codecs(self) -> None:
        settings = self._protocol.get_settings()
        for oid, (name, schema) in self._retyped.items():
            settings.remove_python_codec(oid, name, schema)
        self._retyped.clear()
        # Statements keep the codecs with which they were prepared.
        self.raw._drop_local_statement_cache()

    # asyncpg's proxy asks its holder's pool to drop caches after a schema change; each of our
    # connections stands for itself here.
    @property
    def _pool(self) -> PooledConnection:
        return self

    def _drop_statement_cache(self) -> None:
        self.raw._drop_local_statement_cache()

    def _drop_type_cache(self) -> None:
        self.raw._drop_local_type_cache()
