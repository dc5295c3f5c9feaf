"""Which tenants have metrics of their own; the sum of all others never falls."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from app.api.telemetry.tenant_series import OTHER, TenantSeries
from app.control.monitoring.snapshot import TenantSnapshot
from app.domain.pool import PoolState
from app.domain.tenant import PoolStrategy, TenantId, TenantSpec
from app.pools.recorder import Recorder
from tests.domain.values import metrics

NAMES = ("a", "b", "c", "d")


def row(name: str, leases: int = 0, *, active: int = 0, waiting: int = 0) -> TenantSnapshot:
    recorder = Recorder()
    recorder.connections_acquired = leases
    spec = TenantSpec(id=TenantId(name), server="local", strategy=PoolStrategy.PER_TENANT)
    return TenantSnapshot(
        inputs=(),
        measured_at=0.0,
        spec=spec,
        pool_state=PoolState.READY,
        max_size=5,
        stats=recorder.stats(metrics(active, 0, waiting), 0.0),
        wait=None,
    )


def values(series: TenantSeries, rows: list[TenantSnapshot], name: str) -> dict[str, float]:
    """One family's values by tenant."""
    [family] = [family for family in series.families(rows) if family.name == name]
    return {sample.labels["tenant"]: sample.value for sample in family.samples}


def leases(series: TenantSeries, of: Mapping[str, int], busiest: str) -> dict[str, float]:
    rows = [row(name, count, active=name == busiest) for name, count in of.items()]
    return values(series, rows, "poolkeeper_tenant_leases")


def test_demand_comes_first_then_the_queue() -> None:
    rows = [row("a"), row("b", active=4), row("c", active=5, waiting=3), row("d", waiting=1)]
    shown = values(TenantSeries(2, ()), rows, "poolkeeper_tenant_pending_requests")
    assert shown == {"b": 0, "c": 3, OTHER: 1}


def test_configured_tenants_are_always_included() -> None:
    rows = [row("a", active=1), row("b"), row("c")]
    shown = values(TenantSeries(1, ["c", "absent"]), rows, "poolkeeper_tenant_leases")
    assert set(shown) == {"a", "c", OTHER}


def test_a_tenant_takes_nothing_out_of_the_rest_when_it_is_shown() -> None:
    series = TenantSeries(1, ())
    assert leases(series, {"a": 10, "b": 100}, busiest="a") == {"a": 10, OTHER: 100}
    assert leases(series, {"a": 11, "b": 103}, busiest="b") == {"b": 103, OTHER: 101}


def test_a_tenant_that_starts_again_takes_nothing_out_either() -> None:
    series = TenantSeries(0, ())
    assert leases(series, {"a": 10}, busiest="a") == {OTHER: 10}
    assert leases(series, {}, busiest="a") == {OTHER: 10}
    assert leases(series, {"a": 3}, busiest="a") == {OTHER: 13}


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(NAMES), st.integers(0, 9)), st.sampled_from(NAMES)
        ),
        max_size=8,
    )
)
def test_every_lease_is_counted_in_one_series_and_the_rest_never_falls(
    polls: list[tuple[dict[str, int], str]],
) -> None:
    series, counted = TenantSeries(1, ()), dict.fromkeys(NAMES, 0)
    before, of_the_rest = 0.0, 0
    for grown, busiest in polls:
        for name, more in grown.items():
            counted[name] += more
            of_the_rest += more if name != busiest else 0
        shown = leases(series, counted, busiest)
        assert shown[busiest] == counted[busiest]
        assert shown[OTHER] == of_the_rest >= before
        before = shown[OTHER]
