"""The load of a database while its pools are used, sampled from `pg_stat_activity`.

Read-only. If a server does not answer, or shows only our own back-ends, its load is unknown.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from time import monotonic

from app.domain.advisor import ServerLoad
from app.domain.errors import PoolkeeperError
from app.pools.servers.server import Server

_LOOK_DEADLINE = 1.0
# The last few seconds: a single sample is chance.
_REMEMBERED = 10
_MEMORY_SECONDS = 30.0
# With fewer active back-ends than this over all samples, their shares say nothing.
_ENOUGH_ACTIVE = 10

# Without the right to see it, the state of others' back-ends is hidden.
_LOOK = """
select count(*) filter (where state is null) as hidden,
       count(*) filter (where state = 'active') as active,
       count(*) filter (where state = 'active' and wait_event_type is null) as running,
       count(*) filter (where state = 'active' and wait_event_type in ('Lock', 'LWLock'))
           as locked,
       count(*) filter (where state = 'active' and wait_event_type = 'IO') as io,
       count(*) filter (where state = 'active' and wait_event = 'ClientWrite') as client_write,
       count(*) filter (where application_name like 'poolkeeper/%') as ours,
       count(*) filter (where application_name like 'poolkeeper/%'
           and state like 'idle in transaction%'
           and state_change < clock_timestamp() - interval '50 ms') as idle_in_transaction
from pg_stat_activity
where backend_type = 'client backend' and pid <> pg_backend_pid()
"""


class ServerLoads:
    """The load of every server; `sample` again and again, and read it with `of`."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        """Sample those of *servers* whose connections are used."""
        self._servers = servers
        # By server: when it was sampled, and how many back-ends there were of each kind.
        self._looks: dict[str, deque[tuple[float, Counter[str]]]] = {
            name: deque(maxlen=_REMEMBERED) for name in servers
        }

    def of(self, server: str) -> ServerLoad | None:
        """A server's load in at most the last half minute; None without samples."""
        since = monotonic() - _MEMORY_SECONDS
        looks = [look for at, look in self._looks.get(server, ()) if at >= since]
        if not looks:
            return None
        total = sum(looks, Counter())

        def share(state: str, of: str) -> float:
            return total[state] / total[of] if total[of] >= _ENOUGH_ACTIVE else 0.0

        return ServerLoad(
            cores=self._servers[server].cores,
            running=total["running"] / len(looks),
            lock_share=share("locked", of="active"),
            io_share=share("io", of="active"),
            idle_in_transaction_share=share("idle_in_transaction", of="ours"),
            client_write_share=share("client_write", of="active"),
            samples=len(looks),
        )

    async def sample(self) -> None:
        """Sample all servers once, concurrently; none delays another for long."""
        await asyncio.gather(*(self._look_at(server) for server in self._servers.values()))

    async def _look_at(self, server: Server) -> None:
        if not (server.is_available and server.budget.used):
            return
        try:
            async with asyncio.timeout(_LOOK_DEADLINE), server.admin() as connection:
                row = await connection.fetchrow(_LOOK)
        except (PoolkeeperError, TimeoutError):
            return
        if row is not None and not row["hidden"]:
            self._looks[server.name].append((monotonic(), Counter(dict(row))))
