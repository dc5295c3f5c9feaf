"""The result of a simulation: how long callers waited, and the cost in connections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.domain.histogram import Histogram
from app.simulator.tally import RequestTally

PRICES = (10, 100, 1000)
"""The possible costs of a late wait, in connection-seconds."""

CONNECT_PRICE = 1
"""The same for a connect. Its 10 ms of processor time are 1/200 of a second of two processors, and
a connection-second is 1/100 of what a budget of 100 has in a second: half as much, rounded up."""

_OVER_TARGET = 0.01
# In the order in which people read them.
_AS_JSON = (
    *("rule", "seconds", "leases", "late", "late_share", "timeouts", "rejected", "p99_wait_ms"),
    *("goodput", "avg_connections", "avg_max_size", "avg_active", "connection_seconds"),
    *("connects_per_s", "resizes", "flips_per_hour", "settling_s", "tenants_over_target"),
)
_NEAR = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SizePoint:
    """A tick, for charts.

    Attributes:
        at: seconds since the beginning, at the tick's end.
        max_size: sum over all pools, after the tick.
        open: connections open, averaged over the tick.
        active: connections leased, averaged over the tick.
        arrivals: requests served, timed out or refused since the beginning.
        late: those of them that waited too long or got no connection.
        served: leases ended since the beginning.
    """

    at: float
    max_size: int
    open: float
    active: float
    arrivals: int
    late: int
    served: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """All counts and integrals.

    Attributes:
        rule: the name of the rule.
        seconds: simulated.
        leases: requests that were served, timed out or were refused.
        late: those of them that waited over the limit, timed out or were refused.
        timeouts: those that timed out.
        rejected: those that were refused because too many waited.
        served: leases that ended.
        in_flight: requests that still waited or held a connection at the end.
        p99_wait_ms: 99 % of the requests that were not refused waited no longer; a timeout counts
            with its full wait.
        connection_seconds: connections open or being opened, integrated over time.
        max_size_seconds: the sizes in force, integrated over time.
        active_seconds: connections leased, integrated over time.
        connects: connections opened.
        resizes: changes of a max_size.
        flips_per_hour: changes of direction between resizes, for each pool and hour.
        settling_s: see `settling_seconds`.
        tenants_over_target: share (0..1) of tenants, without noisy ones, of whose requests more
            than 1 % were late.
        most_connections: the most that all pools had at the end of a tick.
        history: every tick, if requested.
        regret: by the price of a late wait, see `regret`; empty until compared.
    """

    rule: str
    seconds: float
    leases: int
    late: int
    timeouts: int
    rejected: int
    served: int
    in_flight: int
    p99_wait_ms: float
    connection_seconds: float
    max_size_seconds: float
    active_seconds: float
    connects: int
    resizes: int
    flips_per_hour: float
    settling_s: float | None
    tenants_over_target: float
    most_connections: int
    history: Sequence[SizePoint] = ()
    regret: Mapping[int, float | None] = field(default_factory=dict, hash=False)

    @property
    def late_share(self) -> float:
        """Share (0..1) of the requests that were late or got no connection."""
        return self.late / self.leases if self.leases else 0.0

    @property
    def avg_connections(self) -> float:
        """Connections open or being opened, averaged over time."""
        return self.connection_seconds / self.seconds

    @property
    def avg_max_size(self) -> float:
        """The sizes in force, averaged over time."""
        return self.max_size_seconds / self.seconds

    @property
    def avg_active(self) -> float:
        """Connections leased, averaged over time."""
        return self.active_seconds / self.seconds

    @property
    def connects_per_s(self) -> float:
        return self.connects / self.seconds

    @property
    def goodput(self) -> float:
        """Ended leases per second."""
        return self.served / self.seconds

    def cost(self, price: float) -> float:
        """Connection-seconds, plus *price* per late request and `CONNECT_PRICE` per connect."""
        return self.connection_seconds + CONNECT_PRICE * self.connects + price * self.late

    def as_json(self) -> dict[str, object]:
        """Return it for programs: units as in the names, shares 0..1."""
        return {name: getattr(self, name) for name in _AS_JSON} | {
            "regret": {str(price): regret for price, regret in self.regret.items()},
        }


def regret(outcome: SimulationResult, clairvoyant: SimulationResult, price: float) -> float | None:
    """How much more *outcome* cost than the *clairvoyant* on the same requests, as a share.

    (J - J*) / J*, with J = connection-seconds + price x late requests + connects. J and J* may
    both be divided by 1,000 leases without a change: they saw the same ones. None if J* is 0.
    """
    least = clairvoyant.cost(price)
    return (outcome.cost(price) - least) / least if least else None


def p99_wait(tallies: Sequence[RequestTally]) -> float:
    """Compute the seconds within which 99 % of all requests were served."""
    waits = Histogram()
    immediate = 0
    for tally in tallies:
        waits.merge(tally.waits)
        immediate += tally.acquired + tally.timeouts - tally.waits.count
    waited = waits.count
    rank = 0.99 * (immediate + waited) - immediate
    if rank <= 0:
        return 0.0
    [quantile] = waits.quantiles([rank / waited])
    return quantile or 0.0


def over_target(tallies: Sequence[RequestTally]) -> float:
    """The share of *tallies* with more than 1 % late requests."""
    return sum(tally.late_share > _OVER_TARGET for tally in tallies) / max(1, len(tallies))


def settling_seconds(
    rates: Sequence[float], bin_seconds: float, sizes: Sequence[tuple[float, int]]
) -> float | None:
    """Compute how long after the steepest rise of the load the size fitted the load.

    The steepest rise is the largest one from one bin to the next; it must at least double the rate.
    The load is level while it stays within 20 % of the new rate. The settled size is the median
    over the second half of that time; the size fits once it is within 10 % of that, or within one
    connection.

    Args:
        rates: requests per second of all tenants, bin by bin.
        bin_seconds: how long a bin lasts.
        sizes: every tick's time and the sum of all max_size after it, in order.

    Returns:
        Seconds; None if the load has no such rise, or was not level for at least 12 ticks.
    """
    if len(rates) < 2:  # noqa: PLR2004 - a rise is between two bins
        return None
    rise = max(range(1, len(rates)), key=lambda place: rates[place] - rates[place - 1])
    after, before = rates[rise], rates[rise - 1]
    if after < 2 * before or after <= 0:
        return None
    end = rise
    while end < len(rates) and abs(rates[end] - after) <= after / 5:
        end += 1
    level = [(at, size) for at, size in sizes if rise * bin_seconds < at <= end * bin_seconds]
    if len(level) < 12:  # noqa: PLR2004 - as the docstring says
        return None
    later = sorted(size for _, size in level[len(level) // 2 :])
    settled = later[len(later) // 2]
    near = max(1.0, _NEAR * settled)
    return next(at for at, size in level if abs(size - settled) <= near) - rise * bin_seconds
