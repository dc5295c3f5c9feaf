"""What the clients of a tenant on a node wait for: the first limit that binds."""

from dataclasses import dataclass

from app.domain.nodes.gate import WITHOUT_TURN, EntryState
from app.domain.wait import Wait, WaitCause, login_wait, server_wait


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingClients:
    """A tenant with waiting clients on one node, and everything that can hold them up.

    Attributes:
        server: name of its server.
        is_available: whether the server's connections work.
        last_error: why no connection can be opened now; None if one can.
        login_error: why Postgres refused the tenant's latest login from the service, by the role
            and the password that nodes have, too; None if it did not.
        state: its state on the node.
        is_node_paused: whether the node is paused, not the tenant's pool.
        in_use: its connections in a transaction there.
        share: the most connections that it may have there.
        max_size: the most that it may have in all places together.
        demand: connections of the server that the node could use.
        allotment: those that it may have.
        limit: the operator's limit of that; None: the server's budget is the only one.
    """

    node: str
    server: str
    is_available: bool
    last_error: str | None
    login_error: str | None = None
    state: EntryState
    is_node_paused: bool
    in_use: int
    share: int
    max_size: int
    demand: int
    allotment: int
    limit: int | None

    @property
    def wait(self) -> Wait:
        """What they wait for: the first limit that applies."""
        if self.state is EntryState.PAUSED:
            what = f"node {self.node}" if self.is_node_paused else "the pool"
            return Wait(cause=WaitCause.PAUSED, detail=f"{what} to be resumed")
        if not self.is_available:
            return server_wait(self.server, self.last_error)
        if not self.share:
            detail = (
                f"its share on node {self.node}: other places may have all connections of its "
                "max_size"
            )
            return Wait(cause=WaitCause.SHARE, used=self.in_use, limit=0, detail=detail)
        if self.login_error is not None and self.in_use < self.share:
            return login_wait(self.login_error)
        if self.state in WITHOUT_TURN and self.demand > self.allotment:
            return self._turn
        return self._transaction if self.in_use >= self.share else self._connection

    @property
    def _turn(self) -> Wait:
        is_limited = self.limit is not None and self.allotment >= self.limit
        return Wait(
            cause=WaitCause.NODE_LIMIT if is_limited else WaitCause.SERVER_BUDGET,
            limit=self.allotment,
            detail=f"its turn on node {self.node}: its tenants share the {self.allotment:,} "
            f"connections of server {self.server} that the node may have "
            f"({'its limit' if is_limited else 'its part of the budget'})",
        )

    @property
    def _transaction(self) -> Wait:
        is_whole = self.share >= self.max_size
        return Wait(
            cause=WaitCause.MAX_SIZE if is_whole else WaitCause.SHARE,
            used=self.in_use,
            limit=self.share,
            detail=f"a transaction to end on node {self.node}: all {self.share:,} connections "
            f"that it may have there are in use "
            f"({'max_size' if is_whole else 'its share of max_size'})",
        )

    @property
    def _connection(self) -> Wait:
        if self.last_error is not None:
            return server_wait(self.server, self.last_error)
        detail = f"a connection to be opened on node {self.node}, or its turn"
        return Wait(cause=WaitCause.CONNECTION, detail=detail)
