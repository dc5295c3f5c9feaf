"""Generates requests from rates: when each comes, and how long it will hold a connection.

Each tenant has its own random generators, seeded by its name and independent of the rule: every
rule meets the same requests (common random numbers).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, pairwise
from math import log, sqrt
from operator import itemgetter
from random import Random
from statistics import NormalDist

from app.simulator.load import Load, TenantLoad

Request = tuple[float, int, float]
"""The time of a request, its tenant's index, and how long it will hold a connection; in seconds."""

# Bursty arrivals: 2 seconds in 10 at three times the rate, the rest at half of it.
_BURST_RATE, _BURST_SECONDS = 3.0, 2.0
_CALM_RATE, _CALM_SECONDS = 0.5, 8.0
_HOLD_STEPS = 1 << 15
# The most seconds drawn at once; the result does not depend on when it is requested.
_LONGEST_PIECE = 30.0


class Arrivals(StrEnum):
    """How the requests of a bin are distributed."""

    POISSON = "poisson"
    """Each request is independent of all others."""

    BURSTY = "bursty"
    """A Markov-modulated Poisson process: bursts of 2 s on average at three times the rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldTimes:
    """Lognormal hold times.

    Attributes:
        mean: seconds.
        cv: coefficient of variation; 0 makes them all equal.
    """

    mean: float
    cv: float

    def table(self) -> Sequence[float]:
        """Equally likely hold times: drawing one is faster than computing one.

        Each is the mean of its slice of the distribution, so their mean is exact.
        """
        if not self.cv:
            return [self.mean]
        sigma = sqrt(log(1 + self.cv**2))
        normal = NormalDist()
        edges = [normal.inv_cdf(step / _HOLD_STEPS) for step in range(1, _HOLD_STEPS)]
        below = [0.0, *(normal.cdf(edge - sigma) for edge in edges), 1.0]
        return [self.mean * _HOLD_STEPS * (high - low) for low, high in pairwise(below)]


class Workload:
    """The requests of all tenants in order, tick by tick."""

    def __init__(self, load: Load, holds: HoldTimes, arrivals: Arrivals, seed: int) -> None:
        """Draw the requests of *load*; the same arguments give the same requests."""
        table = holds.table()
        self._streams = [
            _Stream(tenant, load.bin_seconds, table, arrivals, f"{seed} {tenant.name}")
            for tenant in load.tenants
        ]

    def before(self, end: float) -> list[Request]:
        """The requests before *end* that were not returned yet."""
        requests: list[Request] = []
        for index, stream in enumerate(self._streams):
            requests += stream.before(index, end)
        if len(self._streams) > 1:
            requests.sort()
        return requests


class _Stream:
    """One tenant's requests."""

    def __init__(
        self,
        tenant: TenantLoad,
        bin_seconds: float,
        holds: Sequence[float],
        arrivals: Arrivals,
        seed: str,
    ) -> None:
        self._rates = tenant.rates
        self._bin_seconds = bin_seconds
        self._holds = holds
        self._arriving = Random(f"{seed} arrivals")  # noqa: S311 - shapes a load, guards nothing
        self._holding = Random(f"{seed} holds")  # noqa: S311 - same
        self._is_bursty = arrivals is Arrivals.BURSTY
        self._in_burst = True
        self._turns_at = 0.0
        # The requests already drawn: until when, and those not returned yet.
        self._until = 0.0
        self._requests: list[Request] = []

    def before(self, index: int, end: float) -> list[Request]:
        """Requests before *end* that were not returned yet, as those of tenant *index*."""
        while self._until < end:
            self._draw(index)
        place = bisect_left(self._requests, end, key=itemgetter(0))
        requests, self._requests = self._requests[:place], self._requests[place:]
        return requests

    def _draw(self, index: int) -> None:
        """Draw until the next edge of a bin or a burst: in between, the rate is constant."""
        start = self._until
        place = int(start / self._bin_seconds + 1e-9)
        end = min((place + 1) * self._bin_seconds, start + _LONGEST_PIECE)
        rate = self._rates[place] if place < len(self._rates) else 0.0
        if self._is_bursty:
            self._turn(start)
            end = min(end, self._turns_at)
            rate *= _BURST_RATE if self._in_burst else _CALM_RATE
        times = self._poisson(rate, start, end)
        holds = self._holding.choices(self._holds, k=len(times))
        self._requests += zip(times, [index] * len(times), holds, strict=True)
        self._until = end

    def _turn(self, now: float) -> None:
        while self._turns_at <= now:
            self._in_burst = not self._in_burst
            mean = _BURST_SECONDS if self._in_burst else _CALM_SECONDS
            self._turns_at += self._arriving.expovariate(1 / mean)

    def _poisson(self, rate: float, start: float, end: float) -> list[float]:
        """Poisson arrivals: exponential gaps, drawn in batches that usually suffice."""
        times: list[float] = []
        random = self._arriving.random
        while rate > 0 and start < end:
            expected = rate * (end - start)
            gaps = [-log(1.0 - random()) for _ in range(int(expected + 3 * sqrt(expected)) + 2)]
            batch = [start + total / rate for total in accumulate(gaps)]
            times += batch[: bisect_left(batch, end)]
            start = batch[-1]
        return times
