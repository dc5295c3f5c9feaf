"""The connection budget of a server: how many may be open and are, and which pools want more.

It only counts and measures; the scheduling policy decides. The sum of open, connecting and closing
connections never exceeds the limit, except after the limit was lowered.
"""

from app.pools.recent_use import Contenders
from app.pools.scheduling.claims import Claims
from app.pools.scheduling.connect_limiter import ConnectLimiter
from app.pools.scheduling.ranking import Ranking
from app.pools.scheduling.scheduled_pool import ScheduledPool
from app.pools.smoothed import Smoothed


class ConnectionBudget:
    """At most *limit* connections on one server, shared by its pools.

    Attributes:
        limit: most connections of all pools together, 0 until the server has been asked.
        used: connections open, connecting or closing.
        closing: those of them that are closing.
        is_frozen: whether pools keep what they have, because nothing else can be opened.
        keeps_min_size: whether no pool gives up a connection of its min_size for others.
        connect_slots: limits how many connections are being opened, or closed for others.
        claims: the connections that pools want beyond those they have.
        unsatisfied: the pools that want more.
        contenders: the tenants that hold a connection or wait for one.
        spare: the pools with idle connections, by the time from which others may get one. That is
            a lower bound: a pool may have used its connections since. Who needs the true first one
            puts the first back, or drops it, until it is true.
        acquire_timeout: how many seconds callers wait.
        move_seconds: the time to give a connection to another pool: a closing and an opening; 0
            until measured.
    """

    def __init__(
        self,
        limit: int = 0,
        connect_slots: ConnectLimiter | None = None,
        acquire_timeout: float = 5.0,
    ) -> None:
        self.limit = limit
        self.acquire_timeout = acquire_timeout
        self.used = 0
        self.closing = 0
        self.is_frozen = False
        self.keeps_min_size = True
        self.connect_slots = connect_slots or ConnectLimiter()
        self.claims = Claims()
        self.unsatisfied = self.claims.by_pool
        self.contenders = Contenders()
        self.spare: Ranking[ScheduledPool, float] = Ranking()
        self.move_seconds = 0.0
        self._overrun = Smoothed()
        self._connect = Smoothed()
        self._close = Smoothed()

    def __repr__(self) -> str:
        return (
            f"<ConnectionBudget: {self.used} of {self.limit}, {self.closing} closing, "
            f"{len(self.unsatisfied)} pools unsatisfied>"
        )

    @property
    def free(self) -> int:
        """Free places; negative after the limit was lowered."""
        return self.limit - self.used

    @property
    def promised(self) -> int:
        """Places that are free, or will be free without further action."""
        return self.limit - self.used + self.closing

    @property
    def is_over(self) -> bool:
        """Whether more connections stay open than the lowered limit allows."""
        return self.used - self.closing > self.limit

    @property
    def is_exhausted(self) -> bool:
        """Whether no place is free."""
        return self.used >= self.limit

    @property
    def is_contended(self) -> bool:
        """Whether a pool wants a connection and cannot have it."""
        return bool(self.unsatisfied)

    @property
    def connect_seconds(self) -> float:
        """Seconds to open a connection; 0 until measured."""
        return self._connect.mean

    @property
    def overrun(self) -> float:
        """How long connections recently stayed beyond their slices, in seconds."""
        return self._overrun.mean

    @property
    def fair_share(self) -> float:
        """Fair share of connections per unit of weight; inf if nobody asks."""
        return self.contenders.fair_share(self.limit)

    @property
    def mean_weight(self) -> float:
        """Mean weight of the contenders; 1 if there are none."""
        contenders = self.contenders
        return contenders.weight / contenders.count if contenders.count else 1.0

    def set_limit(self, limit: int) -> None:
        """Change the limit. Connections beyond it: none is opened, and idle ones close."""
        self.limit = limit

    def freeze(self, *, frozen: bool) -> None:
        """Take no connection from any pool while none can be opened in its place."""
        self.is_frozen = frozen

    def keep_min_size(self, *, keeps: bool) -> None:
        """Let pools keep the connections of their min_size, or let others have them by need."""
        self.keeps_min_size = keeps

    def begin_open(self) -> None:
        """Count a connection that is being opened."""
        self.used += 1

    def give_back(self) -> None:
        """Stop counting a connection that does not exist (any more)."""
        self.used -= 1

    def begin_close(self) -> None:
        """Count an open connection as closing."""
        self.closing += 1

    def end_close(self) -> None:
        """Stop counting a connection that the server has closed."""
        self.closing -= 1
        self.used -= 1

    def note_connect(self, seconds: float) -> None:
        """Note that opening a connection took *seconds*."""
        self._connect.note(seconds)
        self.move_seconds = self._connect.mean + self._close.mean

    def note_close(self, seconds: float) -> None:
        """Note that closing a connection took *seconds*."""
        self._close.note(seconds)
        self.move_seconds = self._connect.mean + self._close.mean

    def note_overrun(self, seconds: float) -> None:
        """Note that a connection moved on *seconds* after the end of its slice."""
        self._overrun.note(seconds)

    def forget(self, pool: ScheduledPool) -> None:
        """Forget *pool*, which has closed."""
        self.claims.drop(pool)
        self.spare.drop(pool)
