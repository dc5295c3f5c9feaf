"""The loop: a tick of requests, an observation of every pool, the advisor, and its sizes.

It does what the service does in `apply` mode, with the shipped advisor and simulated pools.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.advisor import DemandConfig, PoolSizingRecommendation, ScalingAction
from app.domain.advisor.observation import PoolObservation
from app.domain.advisor.server_advisor import ServerAdvisor
from app.domain.histogram import Histogram
from app.domain.pool import MAX_POOL_SIZE
from app.simulator.baselines import IgnoresHistograms
from app.simulator.knee import Knee
from app.simulator.load import Load, TenantLoad
from app.simulator.outcome import (
    SimulationResult,
    SizePoint,
    over_target,
    p99_wait,
    settling_seconds,
)
from app.simulator.simulated_pool import SimulatedPool, SimulatedPoolConfig
from app.simulator.simulated_server import SimulatedServer
from app.simulator.tally import RequestTally
from app.simulator.workload import Arrivals, HoldTimes, Workload

AdvisorOf = Callable[[TenantLoad], ServerAdvisor[Any]]
"""The advisor of a tenant's pool; the same for all pools, except for the clairvoyant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """All parameters except the load and the rule.

    Attributes:
        seed: the seed of all random numbers.
        tick: seconds between two runs of the advisor.
        late: seconds; a request that waits longer is late, and the rules know it.
        holds: how long leases take.
        arrivals: how requests are spread over a bin.
        knee: how leases slow each other down; None for not at all.
        budget: most connections of all pools together.
        pool: the configuration of the pools.
        connect: seconds that opening a connection takes.
        max_connecting: how many are opened at a time.
    """

    seed: int = 1
    tick: float = 5.0
    late: float = DemandConfig().patience_seconds
    holds: HoldTimes
    arrivals: Arrivals = Arrivals.POISSON
    knee: Knee | None = None
    budget: int = 100
    pool: SimulatedPoolConfig = field(default_factory=SimulatedPoolConfig)
    connect: float = 0.01
    max_connecting: int = 4


class Simulation:
    """A rule on a load."""

    def __init__(
        self,
        load: Load,
        config: SimulationConfig,
        advisor_of: AdvisorOf,
        *,
        fixed_size: int | None = None,
        keep_history: bool = False,
    ) -> None:
        """Set up everything at 0 seconds.

        Args:
            load: the load of all tenants.
            config: everything else.
            advisor_of: the advisor of each pool.
            fixed_size: connections that every pool opens at the start and keeps; None: open them on
                demand.
            keep_history: whether the result has every tick.
        """
        self._load = load
        self._config = config
        self._tenants = {tenant.name: place for place, tenant in enumerate(load.tenants)}
        self._advisor_of = {tenant.name: advisor_of(tenant) for tenant in load.tenants}
        self._pools = [
            SimulatedPool(
                min_size=fixed_size or 0,
                max_size=fixed_size or config.pool.start_size,
                weight=tenant.weight,
            )
            for tenant in load.tenants
        ]
        self._server = SimulatedServer(
            self._pools,
            budget=config.budget,
            rules=config.pool,
            connect_seconds=config.connect,
            max_connecting=config.max_connecting,
            knee=config.knee,
        )
        self._workload = Workload(load, config.holds, config.arrivals, config.seed)
        self._tallies = [RequestTally(config.late) for _ in load.tenants]
        self._observers = [
            _PoolObserver(pool, config, skip_histograms=isinstance(advisor.rule, IgnoresHistograms))
            for pool, advisor in zip(self._pools, self._advisor_of.values(), strict=True)
        ]
        self._active_seconds = 0.0
        self._most = 0
        self._sizes: list[tuple[float, int]] = []
        self._history: list[SizePoint] | None = [] if keep_history else None

    def run(self, rule: str) -> SimulationResult:
        """Simulate the whole load; the result is named *rule*."""
        now, tick, count = 0.0, self._config.tick, 0
        while now < self._load.seconds:
            count += 1
            until = min(count * tick, self._load.seconds)
            self._server.run(self._workload.before(until), until)
            self._server.sweep()
            self._tick(until - now)
            now = until
        return self._outcome(rule)

    def _tick(self, seconds: float) -> None:
        """Observe every pool, and apply what its advisor recommends."""
        held = self._server.ongoing_hold_seconds()
        active = open_ = 0.0
        for name, place in self._tenants.items():
            tally, observer = self._tallies[place], self._observers[place]
            tally.add(self._pools[place], seconds, self._config.pool.acquire_timeout)
            seen = observer.observe(self._server.now, seconds, held[place])
            self._advisor_of[name].evaluate(name, seen)
            active += seen.mean_active
            open_ += seen.mean_open
        self._active_seconds += active * seconds
        for advisor in dict.fromkeys(self._advisor_of.values()):
            for name, advice in advisor.allocate(self._config.budget):
                self._apply(self._tenants[name], advice)
        self._most = max(self._most, self._server.used)
        size = sum(pool.max_size for pool in self._pools)
        self._sizes.append((self._server.now, size))
        if self._history is not None:
            moment = SizePoint(
                at=self._server.now,
                max_size=size,
                open=open_,
                active=active,
                arrivals=sum(tally.arrivals for tally in self._tallies),
                late=sum(tally.late for tally in self._tallies),
                served=sum(tally.released for tally in self._tallies),
            )
            self._history.append(moment)

    def _apply(self, place: int, advice: PoolSizingRecommendation) -> None:
        """Change max_size if that is in the advice's direction, within the limits."""
        pool = self._pools[place]
        pool.keep_warm(advice.warm_size, advice.idle_seconds)
        before = pool.max_size
        size = max(min(advice.new_size, self._config.budget, MAX_POOL_SIZE), pool.min_size, 1)
        grows = advice.action is ScalingAction.SCALE_UP and size > before
        shrinks = advice.action is ScalingAction.SCALE_DOWN and size < before
        if grows or shrinks:
            self._server.resize(pool, size)
            self._tallies[place].resized(before, size)

    def _outcome(self, rule: str) -> SimulationResult:
        tallies, pools, seconds = self._tallies, self._pools, self._load.seconds
        quiet = [
            tally
            for tally, tenant in zip(tallies, self._load.tenants, strict=True)
            if not tenant.is_noisy
        ]
        return SimulationResult(
            rule=rule,
            seconds=seconds,
            leases=sum(tally.arrivals for tally in tallies),
            late=sum(tally.late for tally in tallies),
            timeouts=sum(tally.timeouts for tally in tallies),
            rejected=sum(tally.rejected for tally in tallies),
            served=sum(tally.released for tally in tallies),
            in_flight=sum(pool.leased + len(pool.waiting) for pool in pools),
            p99_wait_ms=p99_wait(tallies) * 1000,
            connection_seconds=sum(pool.open_seconds for pool in pools),
            max_size_seconds=sum(tally.size_seconds for tally in tallies),
            active_seconds=self._active_seconds,
            connects=sum(pool.connects for pool in pools),
            resizes=sum(tally.resizes for tally in tallies),
            flips_per_hour=sum(tally.flips for tally in tallies) / len(pools) / seconds * 3600,
            settling_s=settling_seconds(
                self._load.total_rates, self._load.bin_seconds, self._sizes
            ),
            tenants_over_target=over_target(quiet),
            most_connections=self._most,
            history=self._history or (),
        )


class _PoolObserver:
    """The counters of a pool at the last tick, to subtract from the present ones."""

    def __init__(
        self, pool: SimulatedPool, config: SimulationConfig, *, skip_histograms: bool
    ) -> None:
        self._pool = pool
        self._skip_histograms = skip_histograms
        self._config = config
        self._held = self._waited = self._open_seconds = 0.0
        self._waiting = self._connects = 0

    def observe(self, now: float, seconds: float, held: float) -> PoolObservation:
        """The observation of the last *seconds*; the pool counts from zero afterwards.

        *held* is the sum of the running leases' present durations.
        """
        pool = self._pool
        waited = sum(now - since for since, _ in pool.waiting)
        gone = sum(pool.waits) + pool.timeouts * self._config.pool.acquire_timeout
        decided = pool.acquired + pool.timeouts + pool.rejected
        seen = PoolObservation(
            at=now,
            seconds=seconds,
            metrics=pool.metrics,
            min_size=pool.min_size,
            max_size=pool.max_size,
            max_allowed=self._config.budget,
            # Integrals: everything that ended, minus its part counted before, plus what is running.
            mean_active=max(0.0, sum(pool.holds) + held - self._held) / seconds,
            mean_waiting=max(0.0, gone + waited - self._waited) / seconds,
            mean_open=(pool.open_seconds - self._open_seconds) / seconds,
            arrivals=decided + len(pool.waiting) - self._waiting,
            acquired=pool.acquired,
            released=len(pool.holds),
            timeouts=pool.timeouts,
            rejected=pool.rejected,
            wait=self._histogram(pool.waits, immediate=pool.acquired - len(pool.waits)),
            hold=self._histogram(pool.holds),
            mean_connect=self._config.connect if pool.connects > self._connects else None,
            weight=pool.weight,
        )
        self._held, self._waited, self._open_seconds = held, waited, pool.open_seconds
        self._waiting, self._connects = len(pool.waiting), pool.connects
        pool.begin_tick(seconds)
        return seen

    def _histogram(self, values: Sequence[float], immediate: int = 0) -> Histogram:
        """Make a histogram of *values* and *immediate* zeros; zeros are only counted."""
        histogram = Histogram()
        if self._skip_histograms:
            return histogram
        if immediate:
            histogram.record(0.0)
            [bucket] = histogram.counts
            histogram.counts[bucket] = immediate
        record = histogram.record
        for value in values:
            record(value)
        return histogram
