"""How long transactions waited for a connection, when the pooler counts only the sum of waits.

The mean wait W of all transactions is measured. Two sources tell how waits vary around it.

*Seen*: the agent looks at the queue ten times a second, and notes how long its oldest client has
waited. A client that came at any moment would wait longer than t exactly if, t later, the oldest
one had come by then, because they are served in order. So the share of the time in which the oldest
has waited longer than t is the share of random arrivals that wait so long, whatever holds are like
(Wolff, "Poisson Arrivals See Time Averages", 1982). Arrivals in bursts see longer queues than
random ones, and arrivals that depend on served ones see shorter queues. So only the shape is used,
scaled to the measured mean:

    P(wait > t) = W * seconds with the oldest above t / (sum of seconds * wait of the oldest)

*Modelled*: a queue for c connections, where S is the mean hold and a the offered load. A share C of
all transactions waits, for an exponential time with the mean S / (c - a). So C = W (c - a) / S.
Erlang's C is its lower bound, because c - a is mostly noise near saturation:

    P(wait > t) = C exp(-t C / W)

The longer waiters were seen, the more weight the seen shape has. No single wait exceeds the sum of
all waits, which matters if few waited.
"""

from bisect import bisect_right
from itertools import accumulate
from math import exp, log, sqrt

from app.domain.advisor.erlang import OfferedLoad, late_share
from app.domain.histogram import Histogram
from app.domain.nodes.entry_totals import EDGES
from app.domain.nodes.estimated_load import EstimatedLoad

# If waiters were seen for this many seconds, both estimates count equally.
_TRUST_SECONDS = 0.5
_LOWER_EDGES = (EDGES[0] / 2.0, *EDGES)
# As fine as a histogram's buckets, from a millisecond to two minutes.
_BUCKET_EDGES = tuple(2.0 ** (step / 8) for step in range(-80, 57))
# Number of halvings that find a quantile between two edges.
_HALVINGS = 4


class WaitEstimate:
    """Estimated waits under *load* for one of *size* connections."""

    __slots__ = ("_above", "_longest", "_scale", "_trust", "_wait", "_waiting")

    def __init__(self, load: EstimatedLoad, size: int) -> None:
        self._wait = load.wait
        self._longest = load.longest_wait
        self._waiting = _waiting_share(load, size)
        seen = load.oldest_waits
        # For how long the oldest waiter was in this class or a higher one.
        self._above = [*list(accumulate(reversed(seen)))[::-1], 0.0]
        area = sum([seconds * _middle(index) for index, seconds in enumerate(seen)])
        self._scale = load.wait / area if area else 0.0
        self._trust = self._above[0] / (self._above[0] + _TRUST_SECONDS)

    def late_share(self, patience: float) -> float:
        """Share of transactions (0..1) that waited longer than *patience* seconds."""
        if not self._waiting or patience >= self._longest:
            return 0.0
        modelled = self._waiting * exp(-patience * self._waiting / self._wait)
        seen = min(1.0, self._scale * self._seconds_above(patience))
        return self._trust * seen + (1.0 - self._trust) * modelled

    def quantile(self, fraction: float) -> float:
        """Seconds within which a *fraction* (0..1) of the transactions got their connection."""
        late = 1.0 - fraction
        if self.late_share(0.0) <= late:
            return 0.0
        # The first edge that a small enough share of the waits exceeds.
        index = bisect_right(EDGES, -late, key=lambda edge: -self.late_share(edge))
        if index == len(EDGES):
            return min(EDGES[-1], self._longest)
        lower, upper = (EDGES[index - 1] if index else 0.0), EDGES[index]
        for _ in range(_HALVINGS):
            middle = (lower + upper) / 2.0
            if self.late_share(middle) > late:
                lower = middle
            else:
                upper = middle
        return min((lower + upper) / 2.0, self._longest)

    def histogram(self, count: int) -> Histogram:
        """Make a histogram of *count* waits with this distribution."""
        counted, longer = Histogram(), round(count * self.late_share(0.0))
        if count > longer:
            counted.record(0.0, count - longer)
        lower = 0.0
        for edge in _BUCKET_EDGES:
            if not longer:
                return counted
            still_longer = round(count * self.late_share(edge))
            if longer > still_longer:
                counted.record((lower + edge) / 2.0, longer - still_longer)
            longer, lower = still_longer, edge
        if longer:
            counted.record(lower, longer)
        return counted

    def _seconds_above(self, wait: float) -> float:
        """How long the oldest waiter was seen to have waited longer than *wait* seconds."""
        index = bisect_right(EDGES, wait)
        if index + 1 >= len(self._above):
            return 0.0
        above, longer = self._above[index], self._above[index + 1]
        lower = _LOWER_EDGES[index]
        if wait <= lower or index >= len(EDGES):
            return above
        return longer + (above - longer) * log(EDGES[index] / wait) / log(EDGES[index] / lower)


def _middle(index: int) -> float:
    """The middle of a wait class, in seconds."""
    return sqrt(_LOWER_EDGES[index] * EDGES[min(index, len(EDGES) - 1)])


def _waiting_share(load: EstimatedLoad, size: int) -> float:
    """Share of transactions that waited at all, according to the model."""
    if load.wait <= 0.0 or load.hold <= 0.0:
        return 1.0 if load.wait > 0.0 else 0.0
    measured = load.wait * (size - load.erlangs) / load.hold
    expected = late_share(OfferedLoad(erlangs=load.erlangs, hold=load.hold), size, 0.0)
    return min(1.0, max(measured, expected))
