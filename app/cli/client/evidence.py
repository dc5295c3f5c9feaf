"""The numbers behind a recommendation, in words."""

from collections.abc import Mapping

from app.cli.client.table import Item, percent, plain

_SHARES = frozenset({"late_share", "late_share_bound", "nodes_arrivals_share"})
# By their names in the API; `{}` stands for the number.
WORDS: Mapping[str, str] = {
    "arrivals_per_second": "{} callers/s expected",
    "hold_ms": "leases last {} ms",
    "base_hold_ms": "{} ms while the pool is less than half busy",
    "hold_cv2": "their durations vary by {} (squared coefficient of variation)",
    "offered_load": "{} connections would be busy if nobody waited",
    "mean_active": "{} leased on average",
    "mean_waiting": "{} callers waiting on average",
    "late_share": "{} of callers late",
    "late_share_bound": "at least {} of them for certain",
    "events": "{} callers seen",
    "needed_size": "{} connections needed now",
    "window_peak_size": "{} needed at the peak",
    "burst_allowance": "{} more for bursts",
    "throughput_before": "{} leases/s before the trial of growth",
    "throughput_after": "{} leases/s after it",
    "elasticity": "throughput grew {} times as much as the size",
    "elasticity_error": "give or take {}",
    "size_before_trial": "{} connections before the trial",
    "ceiling_seconds": "no further growth for {} s",
    "granted_size": "{} connections granted by the budget",
    "budget": "the server's budget is {}",
    "nodes_arrivals_share": "{} of the callers on nodes",
    "nodes_mean_active": "{} busy on nodes on average",
    "idle_places": "{} at places without callers",
}


def evidence_of(item: Item) -> str | None:
    """All known numbers, in the API's order; None if there are none."""
    found = [
        WORDS.get(name, f"{name.replace('_', ' ')} {{}}").format(
            percent(value) if name in _SHARES else plain(value)
        )
        for name, value in (item.get("evidence") or {}).items()
        if value is not None
    ]
    return ", ".join(found) or None
