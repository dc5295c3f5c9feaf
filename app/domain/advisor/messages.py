"""The demand rule's reasons, one sentence each, with the numbers behind them."""

from app.domain.advisor.assessment import Assessment
from app.domain.advisor.demand_config import DemandConfig, TrialConfig
from app.domain.advisor.growth_blockers import GrowthBlocker, counted, growth_blocker, percent


def with_late_callers(config: DemandConfig, found: Assessment, reason: str) -> str:
    """Put before *reason* what was measured: callers were late in the window."""
    seen = found.memory.window.lateness
    if not seen.late:
        return reason
    return (
        f"{seen.late} of {counted(seen.callers, 'caller')} waited over "
        f"{_ms(config.patience_seconds)} or got no connection within the last "
        f"{_span(found.memory.window.seconds)}. {reason}"
    )


def demand_above_size(config: DemandConfig, found: Assessment, new_size: int) -> str:
    size, patience = found.observation.max_size, _ms(config.patience_seconds)
    share = found.late_share(size)
    rate = found.memory.forecast.arrivals.expected(config)
    load = (
        f"At {_number(rate)} leases/s × {_ms(found.load.hold)}, {_connections(size)}"
        f"{_idle_places(found)}"
    )
    # If all callers were on time so far, only the formula predicts that some will be late. If more
    # were late than it predicts, they did not come at random.
    measured = found.memory.window.lateness.share
    is_counted = measured < share < 1.0
    if share >= 1.0:
        text = f"{load} {'cannot' if measured else 'would not'} keep up"
    elif is_counted:
        make = ("makes" if size == 1 else "make") if measured else "would make"
        text = f"{load} {make} {percent(share)} of callers wait over {patience}"
    else:
        text = f"{load} {'is' if size == 1 else 'are'} too few"
    if found.needed > found.max_allowed:
        text += f"; more than the {found.max_allowed} allowed are needed"
    else:
        under = f"make under {_target(config.late_share)} wait"
        text += f"; {found.needed} {under}" + ("" if is_counted else f" over {patience}")
    if new_size < min(found.needed, found.max_allowed):
        return f"{text}; {new_size} is the next step"
    extra = {
        "more because callers were late repeatedly": min(found.desired, new_size) - found.needed,
        "for bursts": new_size - found.desired,
    }
    parts = [f"{count} {why}" for why, count in extra.items() if count > 0]
    return f"{text}; {new_size} includes {', and '.join(parts)}" if parts else text


def room_for_bursts(found: Assessment, new_size: int) -> str:
    unused = "and unused connections are not opened"
    if found.memory.window.lateness.late:
        return f"A limit of {new_size} absorbs more of such bursts, {unused}"
    size, needed = found.observation.max_size, found.desired
    fits = f"of which it needs {needed}" if needed < size else "but leave none for bursts"
    return (
        f"{_connections(size)} carry the load, {fits}; a limit of {new_size} leaves room for "
        f"bursts, {unused}"
    )


def late_waits(config: DemandConfig, found: Assessment, new_size: int) -> str:
    lateness, size = found.lateness, found.observation.max_size
    spare = new_size - found.desired
    bursts = f", of which {spare} are for bursts" if spare > 0 else ""
    return (
        f"{percent(lateness.share)} of the last {lateness.callers} callers waited over "
        f"{_ms(config.patience_seconds)} or got no connection (target "
        f"{_target(config.late_share)}), repeatedly; growing from {size} to "
        f"{_connections(new_size)}{bursts}"
    )


def shrink(config: DemandConfig, found: Assessment, new_size: int) -> str:
    size = found.observation.max_size
    step = " now" if new_size > found.shrink_target else ""
    return (
        f"The busiest moment of the last {_span(config.window_seconds)} needed "
        f"{found.required} of {_connections(size)}{_allowance(found)}; "
        f"reduce by {size - new_size}{step}"
    )


def callers_wait(found: Assessment) -> str:
    size = _connections(found.observation.max_size)
    waiting = counted(found.observation.metrics.waiting_requests, "caller")
    return (
        f"{found.shrink_target} of {size} would carry the load, but {waiting} waited a moment ago; "
        "it shrinks while nobody waits"
    )


def shrunk_recently(found: Assessment, was: int) -> str:
    return (
        f"Reduced from {was} to {found.observation.max_size} within a minute; "
        f"the next step towards {found.shrink_target} follows"
    )


def size_fits(found: Assessment) -> str:
    size = found.observation.max_size
    if found.is_idle:
        return f"The pool is idle, and may keep its maximum of {_connections(size)}"
    needed = max(found.needed, found.floor)
    text = f"{_connections(size)} fit the load, which needs {needed}"
    spare = min(size - needed, found.allowance)
    text = f"{text}, and leave {spare} for bursts" if spare > 0 else text
    if found.observation.mean_waiting and (
        blocker := growth_blocker(found.config, found.observation)
    ):
        text += f"; {blocker.explanation}"
    return text


def recent_peak(config: DemandConfig, found: Assessment) -> str:
    return (
        f"The load needs {_connections(max(found.needed, found.floor))} now, but needed "
        f"{found.memory.window.needed} within the last {_span(config.window_seconds)}; "
        f"keeping {found.observation.max_size}{_allowance(found)}"
    )


def too_few_events(found: Assessment) -> str:
    seen = f"Only {counted(found.events, 'caller')}" if found.events else "No caller"
    return f"{seen} so far, too few to size by; keeping {found.observation.max_size}"


def collecting_samples(config: DemandConfig, found: Assessment) -> str:
    return (
        f"{found.shrink_target} of {found.observation.max_size} would do, but the pool has been "
        f"observed for only {_span(found.memory.window.seconds)}; it shrinks after "
        f"{_span(config.window_seconds)} at the earliest"
    )


def unreliable_observation(found: Assessment, blocker: GrowthBlocker) -> str:
    return f"Keeping {found.observation.max_size}: {blocker.explanation}"


def growth_blocked(found: Assessment, blocker: GrowthBlocker) -> str:
    before = found.observation.max_size
    after = min(found.desired, max(found.max_allowed, before + 1))
    return f"Growing from {before} to {after} would not help: {blocker.explanation}"


def at_maximum(found: Assessment) -> str:
    return f"The load needs more, but the pool is at its maximum of {found.max_allowed}"


def above_maximum(found: Assessment) -> str:
    return (
        f"max_size is {found.observation.max_size}, but the tenant's max_leases or the server's "
        f"budget allows {found.max_allowed}, however many callers wait"
    )


def trial_pending(found: Assessment, config: TrialConfig) -> str:
    forecast, current = found.memory.forecast, found.memory.trial.current
    hold, base = forecast.hold or 0.0, forecast.base_hold or 0.0
    return (
        f"Leases take {_ms(hold)} instead of {_ms(base)} under light load, so more connections "
        f"may only slow each other down; measuring throughput at {current.size} first "
        f"({current.ticks} of {config.ticks} ticks)"
    )


def trial_running(found: Assessment, config: TrialConfig) -> str:
    trial = found.memory.trial
    before = trial.current if trial.baseline is None else trial.baseline
    return (
        f"The change from {before.size} to {trial.current.size} is on trial: comparing "
        f"throughput ({trial.current.ticks} of {config.ticks} to {config.max_ticks} ticks)"
    )


def past_knee(found: Assessment, size: int) -> str:
    current, base = found.memory.trial.current, found.memory.forecast.base_hold or 0.0
    return (
        f"{_connections(current.size)} end {_number(current.throughput)} leases/s, so each takes "
        f"{_ms(current.size / current.throughput)} instead of {_ms(base)} under light load; "
        f"{size} should end more"
    )


def growth_undone(found: Assessment, size: int) -> str:
    return f"{_failed_growth(found)}; returning to {size} as leases end"


def ceiling_after_trial(found: Assessment) -> str:
    seconds = found.memory.trial.ceiling_until - found.observation.at
    size = found.observation.max_size
    return f"{_failed_growth(found)}; staying at {size} for another {_span(seconds)}"


def _allowance(found: Assessment) -> str:
    return f", plus {found.allowance} for bursts" if found.allowance else ""


def _idle_places(found: Assessment) -> str:
    idle = found.observation.idle_places
    return f", {idle} of them at places without callers," if idle else ""


def _failed_growth(found: Assessment) -> str:
    failed = found.memory.trial.failed
    if failed is None:
        return "Growing did not pay"
    sizes = (failed.size_before, failed.before), (failed.size_after, failed.after)
    (fewer, at_fewer), (more, at_more) = sorted(sizes)
    return (
        f"{more} connections do not pay: {_number(at_fewer)} leases/s with {fewer}, "
        f"{_number(at_more)} with {more}"
    )


def _connections(number: int) -> str:
    return counted(number, "connection")


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10.0 else f"{value:.1f}"  # noqa: PLR2004 - two digits


def _ms(seconds: float) -> str:
    return f"{_number(seconds * 1000.0)} ms"


def _span(seconds: float) -> str:
    if seconds < 120.0:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min"


def _target(share: float) -> str:
    """Format a target share exactly as a person set it."""
    return f"{share * 100.0:.3g} %"
