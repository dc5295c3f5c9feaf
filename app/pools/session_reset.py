"""How a lease ends: its context is checked, it commits or rolls back, and the session is reset.

This is one round trip. The only thing that the reset leaves to the next borrower is SQL-level
PREPARE, which only a new connection forgets. In the shared strategy SQL is trusted; in the others
it is the tenant's own.
"""

import asyncpg

from app.domain.errors import LeaseLost, PoolkeeperError, StatementEndedLease, StatementFailed
from app.domain.tenant import TenantSpec
from app.pools import driver
from app.pools.connection import PooledConnection
from app.pools.isolation import IsolationStrategy
from app.wire.extended_query import Ending

# SET SESSION AUTHORIZATION DEFAULT also undoes SET ROLE; RESET ALL does not. The strategy's own
# statement releases advisory locks.
RESET = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; "
    "DISCARD TEMP; DISCARD SEQUENCES"
)
# Explicit, because a tenant's role, or the owner of its database, may have made read-only its
# default. For a hoster's own setting see `ServerLimits`.
BEGIN = "BEGIN READ WRITE"
LEFT_CONTEXT = (
    "The open transaction was rolled back: it is not the one that the lease began, or not "
    "in its tenant's context any more."
)
"""The message for a lease whose context check failed."""

# The SQLSTATEs of a failed context check: division_by_zero, invalid_text_representation.
_FAILED_CHECK = frozenset({"22012", "22P02"})


def end_statements(
    isolation: IsolationStrategy, spec: TenantSpec, *, transaction: bool, commit: bool
) -> str:
    """The statements after the work; a failed context check prevents the commit."""
    check = isolation.context_check(spec)
    end = f"{check}; COMMIT" if commit and transaction else "ROLLBACK"
    return f"{end}; {_reset_of(isolation, spec)}"


def ending_of(isolation: IsolationStrategy, spec: TenantSpec) -> Ending:
    """The same statements, sent together with the work.

    If the work failed, the commit is a rollback.
    """
    return Ending(isolation.context_check(spec), f"COMMIT; {_reset_of(isolation, spec)}")


def _reset_of(isolation: IsolationStrategy, spec: TenantSpec) -> str:
    return f"{RESET}; {isolation.advisory_unlock(spec)}"


def is_failed_check(sqlstate: str | None) -> bool:
    """Whether an error with *sqlstate* means that the context was another one.

    A timeout does not.
    """
    return sqlstate in _FAILED_CHECK


def end_error(
    error: BaseException, connection: PooledConnection, *, is_commit: bool = False
) -> PoolkeeperError:
    """Say what happened to a transaction whose end failed.

    If it is still open, the context check failed. Otherwise its commit failed, or, unless
    *is_commit*, a statement after it. Deferred triggers, which a commit runs, have an error
    context. They may raise any SQLSTATE, including those of lost connections and failed checks.
    """
    # asyncpg has seen nothing of an end that was sent with the work.
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
