"""How much each tenant recently used of its server's connections: this decides between tenants.

A tenant's use is the mean number of connections it held; older time has less weight: mean(t) = ∫
leased(s) · e^((s - t) / MEMORY) ds / MEMORY. A lease only adds to the time held since the last
note; a note spreads these evenly over the time since then.

Tenants are compared by a key, ln(use ÷ weight) + t / MEMORY. All means decay at the same rate, and
the second term cancels that (forward decay: Cormode, Shkapenyuk, Srivastava, Xu, "Forward decay: a
practical time decay model for streaming systems", ICDE 2009); so the keys of tenants that hold
nothing keep their values, and a heap its order, while time passes. The logarithm never overflows.
"""

from dataclasses import dataclass
from math import exp, inf, isfinite, log

from app.domain.time_sharing import MEMORY, RUNNING

# Minimum seconds between notes of a tenant that never waits.
NOTE_EVERY = 1.0
_LN_2 = log(2)


class ConnectionUse:
    """One tenant's mean number of leased connections.

    Attributes:
        held: connection-seconds of its leases so far, minus *leased* times the current time: the
            time is subtracted when a lease begins, and added when it ends.
        noted_at: when the mean was last brought up to date, in monotonic seconds.
    """

    __slots__ = ("_held_at", "_mean", "held", "noted_at")

    def __init__(self) -> None:
        """Start without history."""
        self.held = self._held_at = self._mean = self.noted_at = 0.0

    def begin_lease(self, now: float) -> None:
        self.held -= now

    def end_lease(self, now: float) -> None:
        self.held += now

    def note(self, leased: int, now: float) -> None:
        """Bring the mean up to *now*; the tenant holds *leased* connections."""
        if now > self.noted_at:
            self._mean = self.mean(leased, now)
            self._held_at = self.held + leased * now
            self.noted_at = now

    def mean(self, leased: int, now: float) -> float:
        """The mean at *now*; the tenant holds *leased* connections."""
        elapsed = now - self.noted_at
        if elapsed <= 0:
            return self._mean
        lately = max(0.0, (self.held + leased * now - self._held_at) / elapsed)
        return lately + (self._mean - lately) * exp(-elapsed / MEMORY)

    def key(self, leased: int, weight: int, now: float, *, more: int = 0) -> float:
        """The sort key of tenants, the smallest first; -inf without history and leases.

        *more* adds that many leases. Without leases the key keeps its value after a note; with
        leases it only grows.
        """
        running = leased + more
        if not running and self.held == self._held_at:
            return log(self._mean / weight) + self.noted_at / MEMORY if self._mean else -inf
        use = self.mean(leased, now) + running * RUNNING
        return log(use / weight) + now / MEMORY if use > 0 else -inf


def use_class(key: float) -> float:
    """Round *key*, so that tenants with about the same use per weight are equal."""
    return float(round(key / _LN_2)) if isfinite(key) else key


def uses_much_less(key: float, than: float) -> bool:
    """Whether *key* means less than half the use per weight of *than*."""
    return key < than - _LN_2


@dataclass(slots=True, eq=False)
class Contenders:
    """The tenants of a server that hold a connection or wait for one.

    Attributes:
        weight: the sum of their weights.
        count: their number.
    """

    weight: int = 0
    count: int = 0

    def join(self, weight: int) -> None:
        """Add a tenant of that *weight*: it holds a connection, or waits for one."""
        self.weight += weight
        self.count += 1

    def leave(self, weight: int) -> None:
        """Remove a tenant: it holds no connection and waits for none."""
        self.weight -= weight
        self.count -= 1

    def reweigh(self, before: int, after: int) -> None:
        self.weight += after - before

    def fair_share(self, limit: int) -> float:
        """Fair share of *limit* connections per unit of weight; inf if nobody asks."""
        return limit / self.weight if self.weight else inf
