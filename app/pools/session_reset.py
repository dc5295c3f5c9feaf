"""How a lease ends: the check of its context, commit or rollback, and the reset of the session.

All of it is one round trip. The reset leaves nothing to the next borrower but SQL-level PREPARE,
which only a new connection forgets: trusted SQL in the shared strategy, the tenant's own business
in the others.
"""

from __future__ import annotations

import asyncpg

from app.domain.errors import LeaseLost, PoolkeeperError, StatementEndedLease, StatementFailed
from app.domain.tenant import TenantSpec
from app.pools import driver
from app.pools.connection import PooledConnection
from app.pools.isolation import IsolationStrategy
from app.wire.extended_query import Ending

# SET SESSION AUTHORIZATION DEFAULT undoes SET ROLE as well; RESET ALL does not. Advisory locks
# are given up by the strategy's own statement.
RESET = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; "
    "DISCARD TEMP; DISCARD SEQUENCES"
)
# Explicit, because a tenant's role, or the owner of its database, may have made read-only its
# default. A hoster's own setting is seen by the admin, see `ServerLimits`.
BEGIN = "BEGIN READ WRITE"
LEFT_CONTEXT = (
    "The open transaction was rolled back: it is not the one that the lease began, or not "
    "in its tenant's context any more."
)
"""Why a lease failed whose context check did."""

# What a strategy's context check fails with: division_by_zero, invalid_text_representation.
_FAILED_CHECK = frozenset({"22012", "22P02"})


def end_statements(
    isolation: IsolationStrategy,
    spec: TenantSpec,
    *,
    transaction: bool,
    commit: bool,
    begin_next: str = "",
) -> str:
    """The statements after the work; a failing context check prevents the commit.

    With *begin_next*, what the next lease begins with, the reset is a transaction of its own:
    without that it would be part of the next lease's, and undone if that is rolled back.
    """
    check = isolation.context_check(spec)
    end = f"{check}; COMMIT" if commit and transaction else "ROLLBACK"
    reset = _reset_of(isolation, spec)
    if begin_next:
        return f"{end}; {BEGIN}; {reset}; COMMIT; {begin_next}"
    return f"{end}; {reset}"


def ending_of(isolation: IsolationStrategy, spec: TenantSpec) -> Ending:
    """The same, sent together with the work: after a failure its commit is a rollback."""
    return Ending(isolation.context_check(spec), f"COMMIT; {_reset_of(isolation, spec)}")


def _reset_of(isolation: IsolationStrategy, spec: TenantSpec) -> str:
    return f"{RESET}; {isolation.advisory_unlock(spec)}"


def is_failed_check(sqlstate: str | None) -> bool:
    """Whether a context check that fails so has found another context; a timeout is none."""
    return sqlstate in _FAILED_CHECK


def end_error(
    error: BaseException, connection: PooledConnection, *, is_commit: bool = False
) -> PoolkeeperError:
    """What became of a transaction whose end failed.

    While it is open, the context check failed; otherwise its commit did, or, unless *is_commit*
    says that it did, what came after it.
    Code that a commit runs, of deferred triggers, has a context, and may raise any SQLSTATE: those
    of lost connections and of failed checks too.
    """
    # Of an end that was sent with the work asyncpg has seen nothing.
    is_open = not is_commit and connection.raw.is_in_transaction()
    is_rolled_back = is_open or is_commit or bool(getattr(error, "context", None))
    is_lost = isinstance(error, (*driver.CONNECTION_ERRORS, asyncpg.QueryCanceledError))
    if not isinstance(error, asyncpg.PostgresError) or not connection.is_connected():
        return LeaseLost()
    if is_lost and not is_rolled_back:
        return LeaseLost()
    if is_open and is_failed_check(error.sqlstate):
        return StatementEndedLease(LEFT_CONTEXT)
    if is_open and isinstance(error, asyncpg.InFailedSQLTransactionError):
        return StatementFailed(
            "An earlier statement of the transaction failed; it was rolled back.",
            sqlstate=error.sqlstate,
        )
    return driver.statement_failure(error)
