"""Opens the connections of one pool, and changes its password without failing a caller.

While a role's password changes, a login with either password may be refused. An attempt in that
time is repeated afterwards; its waiters do not notice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import asyncpg

from app.domain.errors import TenantLoginFailed
from app.domain.tenant import PoolStrategy, TenantSpec
from app.pools.isolation import IsolationStrategy
from app.pools.isolation.role_passwords import OWN_ITERATIONS
from app.pools.servers.server import Server
from app.wire import Login


class Connector:
    """Opens the connections of one pool.

    Attributes:
        refusal: why Postgres refused the latest login; None if it did not.
    """

    def __init__(
        self,
        server: Server,
        derive: Callable[[], Login],
        *,
        on_login: Callable[[asyncpg.Connection], None] | None = None,
        cure: str = "",
    ) -> None:
        """Call *derive* for the login at every attempt, and *on_login* after each success.

        *cure*: the command that repairs a wrong password.
        """
        self.server = server
        self._derive = derive
        self._on_login = on_login
        self._cure = cure
        self.refusal: str | None = None
        self._settled = asyncio.Event()
        self._settled.set()
        self._changes = 0

    @property
    def user(self) -> str:
        """The role it logs in as; it never changes."""
        return self._derive().user

    async def connect(self) -> asyncpg.Connection:
        """Open a connection; see `Server.connect`."""
        while True:
            changes = self._changes
            try:
                connection = await self.server.connect(self._derive())
            except TenantLoginFailed as error:
                if changes == self._changes and self._settled.is_set():
                    why = self.refusal = self._explained(error)
                    raise TenantLoginFailed(why) from error.__cause__
            else:
                self.refusal = None
                if self._on_login is not None:
                    self._on_login(connection)
                return connection
            # The password change has a deadline.
            await self._settled.wait()

    def forget_refusal(self) -> None:
        """Note that the login works again."""
        self.refusal = None

    def _explained(self, error: TenantLoginFailed) -> str:
        """What *error* says, with the command that repairs a wrong password."""
        if self._cure and isinstance(error.__cause__, asyncpg.InvalidPasswordError):
            return f"{error.detail} If somebody changed it, or after a restore, run: {self._cure}"
        return error.detail

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Change the password inside this block; one change at a time."""
        self._changes += 1
        self._settled.clear()
        try:
            yield
        finally:
            self._changes += 1
            self._settled.set()


class Connectors:
    """The connectors of all pools that are open, or whose password is being changed.

    Attributes:
        stretched: the pools whose latest login showed a verifier with more iterations than needed.
    """

    def __init__(self, isolations: Mapping[PoolStrategy, IsolationStrategy]) -> None:
        """Log in as each strategy says."""
        self.stretched: set[str] = set()
        self._isolations = isolations
        # The key is more than the pool's id: a deleted tenant's pool may still exist, unused, while
        # another tenant of the same id lives elsewhere.
        self._known: WeakValueDictionary[tuple[str, PoolStrategy, str], Connector] = (
            WeakValueDictionary()
        )

    def of(self, server: Server, spec: TenantSpec) -> Connector:
        """Return the connector of the tenant's pool, open or not.

        Keep the reference while it matters.
        """
        isolation = self._isolations[spec.strategy]
        # What all tenants of a shared pool read names none of them.
        named = "TENANT --shared" if spec.is_shared else spec.id
        new = Connector(
            server,
            lambda: isolation.login(server, spec),
            on_login=lambda connection: self._note_login(spec.pool_id, connection),
            cure=f"poolkeeper tenants rotate {named}",
        )
        return self._known.setdefault((spec.server, spec.strategy, spec.pool_id), new)

    def refusal(self, spec: TenantSpec) -> str | None:
        """Why Postgres refused the latest login of the tenant's open pool; None if it did not."""
        connector = self._known.get((spec.server, spec.strategy, spec.pool_id))
        return None if connector is None else connector.refusal

    def forget_refusal(self, spec: TenantSpec) -> None:
        """Note that the tenant's login works again."""
        connector = self._known.get((spec.server, spec.strategy, spec.pool_id))
        if connector is not None:
            connector.forget_refusal()

    def _note_login(self, pool_id: str, connection: asyncpg.Connection) -> None:
        # Set by `app.wire` on the connections that it opens.
        iterations: int | None = getattr(connection, "scram_iterations", None)
        if iterations is not None and iterations > OWN_ITERATIONS:
            self.stretched.add(pool_id)
        else:
            self.stretched.discard(pool_id)
