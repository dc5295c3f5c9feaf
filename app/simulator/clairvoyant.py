"""A rule that knows the rate of the next window, and sizes for it by Erlang-C.

The other rules are measured against it. It knows rates, not single requests, so another rule can be
luckier.
"""

from collections.abc import Sequence
from functools import cache

from app.domain.advisor import PoolObservation, PoolSizingRecommendation
from app.domain.advisor.erlang import OfferedLoad, late_share, smallest_size
from app.simulator.baselines import IgnoresHistograms, clamped_advice
from app.simulator.knee import Knee
from app.simulator.workload import HoldTimes

_SHARE = 0.01


class ClairvoyantRule(IgnoresHistograms):
    """The rule for one pool, whose future it knows."""

    name = "clairvoyant"

    def __init__(
        self,
        rates: Sequence[float],
        bin_seconds: float,
        holds: HoldTimes,
        *,
        late: float,
        price: float | None = None,
        knee: Knee | None = None,
    ) -> None:
        """Know the distributions from which the requests are drawn.

        Args:
            rates: requests per second, bin by bin.
            bin_seconds: how long a bin lasts.
            holds: how long leases take.
            late: seconds; a request that waits longer is late.
            price: connection-seconds that a late request costs: it chooses the size with the least
                expected cost. None: it lets at most 1 % be late.
            knee: how leases slow each other down; it never exceeds the knee.
        """
        self._rates = rates
        self._bin_seconds = bin_seconds
        self._holds = holds
        self._late = late
        self._price = price
        self._knee = knee
        self._sized = cache(self._size)

    def initial_memory(self) -> None: ...

    def advise(self, memory: None, seen: PoolObservation) -> tuple[PoolSizingRecommendation, None]:
        """Size for the highest rate until the next tick."""
        # After the last bin nothing is known, and nothing changes.
        first = min(int(seen.at / self._bin_seconds + 1e-9), len(self._rates) - 1)
        last = int((seen.at + seen.seconds) / self._bin_seconds - 1e-9)
        rate = max(self._rates[first : last + 1], default=0.0)
        most = seen.max_allowed
        if self._knee is not None:
            most = min(most, int(self._knee.connections))
        return clamped_advice(
            seen, self._sized(rate, most), f"{rate:.1f} requests/s are to come."
        ), memory

    def _size(self, rate: float, most: int) -> int:
        if self._price is None:
            return smallest_size(self._offered(rate, 1), self._late, _SHARE, most)
        # If no size can carry the load, it takes the allowed maximum.
        least, best = float("inf"), most if rate else 1
        for size in range(1, most + 1):
            if size >= least:
                break
            late = late_share(self._offered(rate, size), size, self._late)
            cost = size + self._price * rate * late
            if cost < least and late < 1:
                least, best = cost, size
        return best

    def _offered(self, rate: float, size: int) -> OfferedLoad:
        stretch = 1.0 if self._knee is None else self._knee.stretch(size)
        hold = self._holds.mean * stretch
        return OfferedLoad(erlangs=rate * hold, hold=hold, cv2=self._holds.cv**2)
