"""Artificial loads on a pool of connections, with each wait known, and what an agent sees."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from random import Random

from app.domain.nodes.entry_totals import EntryTotals, class_of

LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Served:
    """One transaction: when it was requested, how long it waited, and how long it lasted."""

    at: float
    wait: float
    hold: float


def exponential(mean: float) -> Callable[[Random], float]:
    return lambda random: random.expovariate(1.0 / mean)


def even(mean: float) -> Callable[[Random], float]:
    """All of the same length."""
    return lambda _: mean


def varied(mean: float) -> Callable[[Random], float]:
    """One in ten lasts seven times as long as the others, and exponentially: cs2 is about 4."""
    return lambda random: random.expovariate((1.6 if random.random() < 0.9 else 0.22857) / mean)


def poisson(rate: float, random: Random) -> Iterator[float]:
    now = 0.0
    while True:
        now += random.expovariate(rate)
        yield now


def bursts(rate: float, random: Random) -> Iterator[float]:
    """On average three come at once."""
    now = 0.0
    while True:
        now += random.expovariate(rate / 3.0)
        for _ in range(random.choice((1, 2, 3, 4, 5))):
            yield now


def open_queue(
    arrivals: Iterator[float],
    hold: Callable[[Random], float],
    size: int,
    *,
    seconds: float,
    random: Random,
) -> list[Served]:
    """Callers that come independently, served in order by *size* connections."""
    free_at = [0.0] * size
    heapify(free_at)
    served: list[Served] = []
    for at in arrivals:
        if at > seconds:
            return served
        begin, lasts = max(at, free_at[0]), hold(random)
        served.append(Served(at, begin - at, lasts))
        heapreplace(free_at, begin + lasts)
    raise AssertionError


def closed_queue(
    clients: int, think: float, hold: Callable[[Random], float], size: int, *, seconds: float
) -> list[Served]:
    """A fixed number of *clients*; each thinks for a while, and returns once it is served."""
    random = Random(3)  # noqa: S311 - a load, no secret
    free_at = [0.0] * size
    heapify(free_at)
    coming = [random.expovariate(1.0 / think) if think else 0.0 for _ in range(clients)]
    heapify(coming)
    served: list[Served] = []
    while (at := heappop(coming)) <= seconds:
        begin, lasts = max(at, free_at[0]), hold(random)
        served.append(Served(at, begin - at, lasts))
        heapreplace(free_at, begin + lasts)
        pause = random.expovariate(1.0 / think) if think else 0.0
        heappush(coming, begin + lasts + pause)
    return served


def totals_of(served: list[Served], seconds: float) -> EntryTotals:
    """A pooler's totals of them, and what an agent saw of the oldest waiter."""
    waits: list[float] = []
    # The oldest waiter at each moment: they are served in order.
    look, first = LOOK_SECONDS, 0
    while look < seconds:
        while first < len(served) and served[first].at + served[first].wait <= look:
            first += 1
        if first < len(served) and served[first].at < look:
            index = class_of(look - served[first].at)
            waits.extend([0.0] * (index + 1 - len(waits)))
            waits[index] += LOOK_SECONDS
        look += LOOK_SECONDS
    return EntryTotals(
        transactions=len(served),
        transaction_seconds=sum(each.wait + each.hold for each in served),
        wait_seconds=sum(each.wait for each in served),
        oldest_waits=tuple(waits),
    )
