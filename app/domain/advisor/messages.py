"""The sentences of the demand rule: what a person reads at night, with the numbers in them."""

from __future__ import annotations

from app.domain.advisor.assessment import Assessment
from app.domain.advisor.demand_config import DemandConfig, TrialConfig
from app.domain.advisor.erlang import late_share
from app.domain.advisor.growth_blockers import GrowthBlocker

_HALF_A_PERCENT = 0.005


def demand(config: DemandConfig, found: Assessment, new_size: int) -> str:
    """The load needs more."""
    size, patience = found.observation.max_size, config.patience_seconds
    left = late_share(found.load, size, patience)
    words = (
        f"{_connections(found.needed)} carry {_load(config, found)} with under "
        f"{_percent(config.late_share)} waiting over {_ms(patience)}; "
    )
    if found.needed > found.max_allowed:
        words = f"{_load(config, found)} need more than the {found.max_allowed} it may have; "
    words += f"{size} cannot keep up" if left >= 1.0 else f"{size} leave {_percent(left)} waiting"
    if new_size < min(found.needed, found.max_allowed):
        return f"{words}; {new_size} as the next step"
    spare = new_size - found.desired
    return f"{words}; {new_size} leave {spare} for bursts" if spare > 0 else words


def room_for_bursts(found: Assessment, new_size: int) -> str:
    """The load is carried, but nothing is left for bursts."""
    size = found.observation.max_size
    return (
        f"{_connections(size)} carry the load, which needs {found.desired}, but a burst would "
        f"wait: {new_size} leave {new_size - found.desired} for it, opened only when used"
    )


def late(config: DemandConfig, found: Assessment, new_size: int) -> str:
    """Callers are late, whatever the forecast said."""
    lateness = found.lateness
    return (
        f"{_percent(lateness.share)} of {lateness.callers} callers waited over "
        f"{_ms(config.patience_seconds)} or in vain (target {_percent(config.late_share)}), and "
        f"not for the first time; adding {new_size - found.observation.max_size} to "
        f"{_connections(found.observation.max_size)}{_for_bursts(new_size - found.desired)}"
    )


def shrink(config: DemandConfig, found: Assessment, new_size: int) -> str:
    """The window did not need as many."""
    words = (
        f"the busiest moment of the last {_span(config.window_seconds)} needed "
        f"{_connections(found.required)} of {found.observation.max_size}{_allowed(found)}"
    )
    gives = f"giving back {found.observation.max_size - new_size}"
    return (
        f"{words}; {gives}"
        if new_size <= found.shrink_target
        else f"{words}; {gives} as the next step"
    )


def shrunk_enough(found: Assessment, was: int) -> str:
    """The minute's share is given back already."""
    return (
        f"the pool came down from {was} to {found.observation.max_size} within a minute; "
        f"the next step towards {found.shrink_target} follows"
    )


def fits(found: Assessment) -> str:
    """Nothing to change."""
    size = found.observation.max_size
    if found.is_idle:
        return f"nobody uses the pool, and {_connections(size)} are no more than it keeps"
    needed = max(found.needed, found.floor)
    words = f"{_connections(size)} fit the load, which needs {needed}"
    left = min(size - needed, found.allowance)
    return f"{words} and leaves {left} for bursts" if left > 0 else words


def recent_peak(config: DemandConfig, found: Assessment) -> str:
    """The load fell a short while ago."""
    window = found.memory.window
    return (
        f"the load needs {_connections(max(found.needed, found.floor))} now, but needed "
        f"{window.needed} within the last {_span(config.window_seconds)}; "
        f"keeping {found.observation.max_size}{_allowed(found)}"
    )


def too_few(found: Assessment) -> str:
    """Too little happened."""
    return (
        f"only {_count(found.events, 'caller')} so far: too few to tell what size is right; "
        f"keeping {found.observation.max_size}"
    )


def watched(config: DemandConfig, found: Assessment) -> str:
    """Not yet known what the whole window needs."""
    return (
        f"{found.shrink_target} of {found.observation.max_size} would do, but "
        f"the pool was watched for {_span(found.memory.window.seconds)} only; nothing is given "
        f"back before {_span(config.window_seconds)} are seen"
    )


def unreliable(found: Assessment, gate: GrowthBlocker) -> str:
    """The observation says nothing about the size."""
    return f"keeping {found.observation.max_size}: {gate.explanation}"


def no_help(found: Assessment, gate: GrowthBlocker) -> str:
    """The limit is elsewhere."""
    size = min(found.desired, max(found.max_allowed, found.observation.max_size + 1))
    now = found.observation.max_size
    return f"growing from {now} to {size} would not help, because {gate.explanation}"


def at_maximum(found: Assessment) -> str:
    """No room above."""
    return (
        f"the load needs more, but the pool already has the {found.max_allowed} it may have at most"
    )


def above_maximum(found: Assessment) -> str:
    """The limit was lowered below the size."""
    now = found.observation.max_size
    return f"the pool may have {_connections(found.max_allowed)} at most, not {now}"


def trial_pending(found: Assessment, config: TrialConfig) -> str:
    """Measuring before a growth."""
    now = found.memory.trial.now
    return (
        f"{_inflation(found)}, so more connections may only slow each other down; measuring "
        f"throughput at {now.size} first ({now.ticks} of {config.ticks} looks)"
    )


def trial_running(found: Assessment, config: TrialConfig) -> str:
    """Measuring after a growth."""
    guard = found.memory.trial
    before = guard.before.size if guard.before is not None else guard.now.size
    return (
        f"the growth from {before} to {guard.now.size} is on trial: comparing throughput "
        f"({guard.now.ticks} of {config.ticks} to {config.most_ticks} looks)"
    )


def undone(found: Assessment, back: int) -> str:
    """A growth brought nothing."""
    return f"{_failure(found)}; going back to {back} as leases end"


def at_ceiling(found: Assessment) -> str:
    """A growth was tried, and brought nothing."""
    seconds = found.memory.trial.until - found.observation.at
    return (
        f"{_failure(found)}; staying at {found.observation.max_size} for another {_span(seconds)}"
    )


def _for_bursts(spare: int) -> str:
    return f", {spare} of them for bursts" if spare > 0 else ""


def _allowed(found: Assessment) -> str:
    return f" with {found.allowance} more for bursts" if found.allowance else ""


def _failure(found: Assessment) -> str:
    tried = found.memory.trial.undone
    if tried is None:
        return "growing did not pay"
    return (
        f"growing from {tried.size_before} to {tried.size_after} did not pay: "
        f"{_number(tried.before)} leases/s before, {_number(tried.after)} after"
    )


def _inflation(found: Assessment) -> str:
    forecast = found.memory.forecast
    hold, base = forecast.hold or 0.0, forecast.base_hold or 0.0
    return f"leases take {_ms(hold)} instead of {_ms(base)} under light load"


def _load(config: DemandConfig, found: Assessment) -> str:
    rate = found.memory.forecast.arrivals.expected(config)
    return f"{_number(rate)} leases/s of {_ms(found.load.hold)}"


def _connections(number: int) -> str:
    return _count(number, "connection")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10.0 else f"{value:.1f}"  # noqa: PLR2004 - two digits


def _ms(seconds: float) -> str:
    milliseconds = seconds * 1000.0
    return f"{milliseconds:.0f} ms" if milliseconds >= 10.0 else f"{milliseconds:.1f} ms"  # noqa: PLR2004 - two digits


def _span(seconds: float) -> str:
    if seconds < 120.0:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min"


def _percent(share: float) -> str:
    if 0.0 < share < _HALF_A_PERCENT:
        return f"{share * 100.0:.1g} %"
    return f"{share * 100.0:.0f} %"
