"""Back-ends that still run although their connection broke or their service has ended."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import asyncpg

# The user is compared too: another back-end may have the process id by now.
_END = """
select pg_terminate_backend(pid, 500) from pg_stat_activity where pid = $1 and usename = $2
"""
_END_LATER = """
select pg_terminate_backend(pid) from pg_stat_activity where pid = $1 and usename = $2
"""
_STILL_THERE = "select pid, usename from pg_stat_activity where pid = any($1::int[])"
_LEFT_BEHIND = """
select pid, usename from pg_stat_activity
where pid <> pg_backend_pid() and (
    application_name = $1
    or (usename, datname) in (select * from unnest($2::name[], $3::name[]))
        and (not $4 or application_name like 'poolkeeper/%')
)
"""
_LOOKS = 20
_PAUSE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """A service that did not stop cleanly, as a server sees it.

    Attributes:
        logins: its tenants' roles, each with its database. A role belongs to the whole server:
            another installation may use it in another database.
        admin_name: the name of its admin connections.
        shares_logins: whether nodes use the same logins. Then a connection that is not named like
            those of pools is taken to be a node's.
    """

    logins: frozenset[tuple[str, str]]
    admin_name: str
    shares_logins: bool = False


class OrphanedBackends:
    """Orphaned back-ends count against the budget until Postgres no longer shows them."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._users)

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(self._users)

    def add(self, pid: int, user: str) -> None:
        self._users[pid] = user

    async def adopt(self, connection: asyncpg.Connection, left_by: Predecessor) -> None:
        """Add the back-ends that another process left behind; *connection* is an admin's."""
        roles = [role for role, _ in left_by.logins]
        databases = [database for _, database in left_by.logins]
        rows = await connection.fetch(
            _LEFT_BEHIND, left_by.admin_name, roles, databases, left_by.shares_logins
        )
        self._users.update((row["pid"], row["usename"]) for row in rows)

    async def terminate(self, connection: asyncpg.Connection) -> None:
        """Terminate them as far as possible; *connection* is an admin's."""
        for _ in range(_LOOKS):
            # More may be added in the meantime; the next call handles them.
            asked = dict(self._users)
            rows = await connection.fetch(_STILL_THERE, list(asked))
            there = {row["pid"]: row["usename"] for row in rows}
            for pid, user in asked.items():
                if there.get(pid) == user:
                    # Without the right to terminate it, we wait until it ends by itself; the server
                    # is not lost.
                    with suppress(asyncpg.InsufficientPrivilegeError):
                        await connection.fetchval(_END_LATER, pid, user)
                else:
                    self._users.pop(pid, None)
            if not self._users:
                return
            await asyncio.sleep(_PAUSE)


async def terminate_backend(connection: asyncpg.Connection, pid: int, user: str) -> None:
    """Terminate back-end *pid* of *user* and wait until it is gone; the caller sets a deadline."""
    while await connection.fetchval(_END, pid, user) is not None:
        pass
