"""Requests follow their rates, and nothing else."""

from itertools import pairwise
from math import sqrt
from statistics import fmean, pvariance

import pytest

from app.domain.errors import InvalidInput
from app.simulator.load import Load, TenantLoad, single, zipf
from app.simulator.workload import Arrivals, HoldTimes, Workload

HOLDS = HoldTimes(mean=0.15, cv=1.5)


def test_holds_have_the_mean_and_nearly_the_spread_that_was_asked_for() -> None:
    table = HOLDS.table()
    assert fmean(table) == pytest.approx(0.15, rel=1e-9)
    assert sqrt(pvariance(table)) / fmean(table) == pytest.approx(1.5, rel=0.02)


def test_holds_without_spread_are_all_equal() -> None:
    assert set(HoldTimes(mean=0.2, cv=0).table()) == {0.2}


@pytest.mark.parametrize(("arrivals", "near"), [(Arrivals.POISSON, 0.04), (Arrivals.BURSTY, 0.2)])
def test_each_bin_gets_its_rate_and_every_request_lies_in_its_span(
    arrivals: Arrivals, near: float
) -> None:
    load = single([50.0, 0.0, 10.0], 1000)
    workload = Workload(load, HOLDS, arrivals, seed=1)
    spans = list(pairwise(range(0, 3001, 125)))
    requests = [workload.before(end) for _, end in spans]
    for (start, end), within in zip(spans, requests, strict=True):
        times = [at for at, _, _ in within]
        assert times == sorted(times)
        assert all(start <= at < end for at in times)
    first, second, third = (sum(map(len, requests[n : n + 8])) for n in (0, 8, 16))
    assert first == pytest.approx(50_000, rel=near)
    assert second == 0
    assert third == pytest.approx(10_000, rel=near)


def test_bursty_arrivals_vary_far_more_than_poisson_ones() -> None:
    def dispersion(arrivals: Arrivals) -> float:
        workload = Workload(single([50.0], 2000), HOLDS, arrivals, seed=3)
        counts = [len(workload.before(at)) for at in range(2, 2001, 2)]
        return pvariance(counts) / fmean(counts)

    assert dispersion(Arrivals.POISSON) == pytest.approx(1.0, abs=0.2)
    assert dispersion(Arrivals.BURSTY) > 10


def test_the_same_seed_gives_the_same_requests_and_another_one_others() -> None:
    def drawn(seed: int) -> object:
        return Workload(single([20.0], 60), HOLDS, Arrivals.POISSON, seed).before(60)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_how_long_a_tick_is_changes_no_request() -> None:
    load = single([20.0, 80.0], 60)
    for arrivals in Arrivals:
        whole = Workload(load, HOLDS, arrivals, 1).before(120)
        pieces = Workload(load, HOLDS, arrivals, 1)
        assert [one for end in range(7, 127, 7) for one in pieces.before(min(end, 120))] == whole


def test_tenants_share_a_load_by_zipf() -> None:
    load = zipf([90.0, 9.0], 60, 5)
    assert load.total_rates == pytest.approx([90.0, 9.0])
    first, second = load.tenants[0].rates, load.tenants[1].rates
    assert first[0] == pytest.approx(2 * second[0])


def test_requests_of_many_tenants_come_in_order() -> None:
    requests = Workload(zipf([100.0], 60, 20), HOLDS, Arrivals.POISSON, 1).before(60)
    assert requests == sorted(requests)
    assert {place for _, place, _ in requests} == set(range(20))


@pytest.mark.parametrize("bin_seconds", [0.0, -1.0, float("nan")])
def test_a_load_of_bins_without_length_is_refused(bin_seconds: float) -> None:
    with pytest.raises(InvalidInput, match="longer than 0 seconds"):
        single([1.0], bin_seconds)


def test_tenants_with_different_numbers_of_bins_are_no_load() -> None:
    tenants = [TenantLoad(name="a", rates=[1.0]), TenantLoad(name="b", rates=[1.0, 2.0])]
    for some in (tenants, []):
        with pytest.raises(InvalidInput, match="as many bins"):
            Load(bin_seconds=1.0, tenants=some)
