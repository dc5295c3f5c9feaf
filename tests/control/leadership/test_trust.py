"""Trust: how long an instance may act on what it read in the catalog."""

from math import inf

from app.control.leadership.trust import Trust, boot_time
from tests.fixtures.clock import Clock


def test_a_renewal_counts_from_its_start() -> None:
    clock = Clock()
    trust = Trust(6.0, clock=clock)
    assert not trust.is_valid()
    trust.begin(after=0)
    assert not trust.is_valid()
    trust.renew(clock() - 2.0)
    clock.now += 3.9
    assert trust.is_valid()
    assert repr(trust) == "<Trust valid>"
    clock.now += 0.1
    assert not trust.is_valid()
    assert repr(trust) == "<Trust not valid>"


def test_a_renewal_that_began_earlier_takes_nothing_back() -> None:
    clock = Clock()
    trust = Trust(6.0, clock=clock)
    trust.begin(after=0)
    trust.renew(clock())
    trust.renew(clock() - 5.0)
    clock.now += 5.0
    assert trust.is_valid()


def test_it_begins_when_the_predecessors_has_ended() -> None:
    clock = Clock()
    trust = Trust(inf, clock=clock)
    trust.begin(after=4.0)
    trust.renew(clock())
    assert trust.wait == 4.0
    assert not trust.is_valid()
    clock.now += 4.0
    assert trust.wait == 0
    assert trust.is_valid()


def test_what_is_revoked_no_renewal_brings_back_but_a_new_beginning() -> None:
    clock = Clock()
    trust = Trust(6.0, clock=clock)
    trust.begin(after=0)
    trust.revoke()
    trust.renew(clock())
    assert not trust.is_valid()
    trust.begin(after=0)
    trust.renew(clock())
    assert trust.is_valid()


def test_time_goes_on_by_the_clock_of_the_machine() -> None:
    assert boot_time() <= boot_time()
