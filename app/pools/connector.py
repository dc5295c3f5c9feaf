"""How the connections of one pool are opened, and how its login changes without failing anybody.

While a role's password is being changed, a login with either password may be refused: an
attempt that falls into that time is repeated afterwards, unseen by those who wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import asyncpg

from app.domain.errors import TenantLoginFailed
from app.domain.tenant import PoolStrategy, TenantSpec
from app.pools.isolation import IsolationStrategy
from app.pools.isolation.role_passwords import OWN_ITERATIONS
from app.pools.server import Server
from app.wire import Login


class Connector:
    """Opens connections of one pool to its server."""

    def __init__(
        self,
        server: Server,
        derive: Callable[[], Login],
        *,
        on_login: Callable[[asyncpg.Connection], None] | None = None,
        cure: str = "",
    ) -> None:
        """Ask *derive* for the login at every attempt; call *on_login* after each success.

        *cure*: a command that mends a wrong password.
        """
        self.server = server
        self._derive = derive
        self._on_login = on_login
        self._cure = cure
        self._settled = asyncio.Event()
        self._settled.set()
        self._changes = 0

    @property
    def user(self) -> str:
        """The role it logs in as, which never changes."""
        return self._derive().user

    async def connect(self) -> asyncpg.Connection:
        """Open a connection, see `Server.connect`."""
        while True:
            changes = self._changes
            try:
                connection = await self.server.connect(self._derive())
            except TenantLoginFailed as error:
                if changes == self._changes and self._settled.is_set():
                    if self._cure and isinstance(error.__cause__, asyncpg.InvalidPasswordError):
                        why = f"{error.detail} After a restore, run: {self._cure}"
                        raise TenantLoginFailed(why) from error.__cause__
                    raise
            else:
                if self._on_login is not None:
                    self._on_login(connection)
                return connection
            # The change has a deadline.
            await self._settled.wait()

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Change the password in this block; one change at a time."""
        self._changes += 1
        self._settled.clear()
        try:
            yield
        finally:
            self._changes += 1
            self._settled.set()


class Connectors:
    """Those of all pools that are open, or whose password is being changed.

    Attributes:
        stretched: the pools whose role has a verifier of more iterations than its password needs,
            as the latest login showed.
    """

    def __init__(self, isolations: Mapping[PoolStrategy, IsolationStrategy]) -> None:
        """Log in as each strategy says."""
        self.stretched: set[str] = set()
        self._isolations = isolations
        # By more than the pool's id: a deleted tenant's pool may outlive it, unused, while another
        # tenant of the same id lives elsewhere.
        self._known: WeakValueDictionary[tuple[str, PoolStrategy, str], Connector] = (
            WeakValueDictionary()
        )

    def of(self, server: Server, spec: TenantSpec) -> Connector:
        """That of the tenant's pool, open or not; hold on to it as long as it matters."""
        isolation = self._isolations[spec.strategy]
        new = Connector(
            server,
            lambda: isolation.login(server, spec),
            on_login=lambda connection: self._note_login(spec.pool_id, connection),
            cure=f"poolkeeper tenants rotate {spec.id}{' --shared' if spec.is_shared else ''}",
        )
        return self._known.setdefault((spec.server, spec.strategy, spec.pool_id), new)

    def _note_login(self, pool_id: str, connection: asyncpg.Connection) -> None:
        # Kept by the connections that `app.wire` opens.
        iterations: int | None = getattr(connection, "scram_iterations", None)
        if iterations is not None and iterations > OWN_ITERATIONS:
            self.stretched.add(pool_id)
        else:
            self.stretched.discard(pool_id)
