"""What the service knows of one node: its tenants' load, from totals of the last minute."""

from datetime import UTC, datetime

import pytest

from app.control.nodes.tracked_node import OUTDATED_AFTER, TrackedNode
from app.domain.nodes.declaration import DeclaredNode, NodeSpec
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.gate import EntryState
from app.domain.nodes.report import NodeReport
from tests.fixtures.reporting import entry
from tests.node import configurations

CREATED = datetime(2026, 11, 29, tzinfo=UTC)


class Reporter:
    """A node that reports each second what *acme* has done so far."""

    def __init__(self) -> None:
        self.now = 0.0
        declared = DeclaredNode(
            spec=NodeSpec(name="edge"),
            paused=False,
            draining=False,
            generation=1,
            created_at=CREATED,
            updated_at=CREATED,
        )
        self.node = TrackedNode(declared, lambda: self.now)
        self.done = 0
        self.node.begin_session(1)

    def go_on(self, seconds: int, per_second: int, *, in_use: int = 0) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.done += per_second
            totals = EntryTotals(transactions=self.done, transaction_seconds=0.1 * self.done)
            report = NodeReport(
                session=1,
                sequence=round(self.now),
                version=1,
                engine="PgBouncer 1.25.2",
                servers={},
                entries=(entry("acme", totals=totals, in_use=in_use),),
            )
            self.node.hear(report, most_sessions=2)

    @property
    def rate(self) -> float | None:
        load = self.node.reports.load("acme")
        return None if load is None else load.arrivals


def test_a_load_that_has_just_begun_is_not_divided_by_the_minute_before() -> None:
    reporter = Reporter()
    reporter.go_on(120, 0)
    assert reporter.rate is None
    reporter.go_on(11, 98, in_use=5)
    assert reporter.rate == pytest.approx(98.0, rel=0.5)
    reporter.go_on(120, 98, in_use=5)
    assert reporter.rate == pytest.approx(98.0, rel=0.02)


def test_pauses_of_a_load_count() -> None:
    reporter = Reporter()
    for _ in range(12):
        reporter.go_on(5, 20, in_use=1)
        reporter.go_on(5, 0)
    assert reporter.rate == pytest.approx(10.0, rel=0.2)


def test_long_transactions_count_from_their_beginning() -> None:
    """Measured only from the moment before they ended, they would look like many at a time."""
    reporter = Reporter()
    reporter.go_on(30, 0)
    reporter.go_on(20, 0, in_use=1)
    reporter.go_on(1, 1, in_use=0)
    assert reporter.rate == pytest.approx(1 / 21, rel=0.35)


class Offerer:
    """A node that is offered sizes of *acme*, closed there, and reports what is in force."""

    def __init__(self) -> None:
        self.reporter = Reporter()
        self.node = self.reporter.node

    def offer(self, version: int, size: int) -> None:
        acme = configurations.entry("acme", size=size, logins=("acme.web",))
        self.node.offer(configurations.configuration(acme, version=version))

    def report(self, version: int) -> None:
        self.reporter.now += 1.0
        report = NodeReport(
            session=1,
            sequence=round(self.reporter.now),
            version=version,
            engine="PgBouncer 1.25.2",
            servers={},
            entries=(entry("acme", state=EntryState.CLOSED, connections=0),),
        )
        self.node.hear(report, most_sessions=2)

    @property
    def most(self) -> int:
        return self.node.most_of("acme", "local", 10)


def test_a_size_counts_until_a_version_without_it_is_in_force() -> None:
    """Other entries make versions, too, and not each version comes into force."""
    offerer = Offerer()
    for version, size in ((1, 9), (2, 9), (3, 5)):
        offerer.offer(version, size)
    for version in (1, 2):
        offerer.report(version)
        assert offerer.most == 9
    offerer.report(3)
    assert offerer.most == 5


def test_a_size_counts_once_a_later_version_that_has_it_is_in_force() -> None:
    offerer = Offerer()
    for version, size in ((1, 9), (2, 5), (3, 5)):
        offerer.offer(version, size)
    offerer.report(3)
    assert offerer.most == 5
    offerer.offer(4, 2)
    assert offerer.most == 5
    offerer.offer(5, 2)
    offerer.report(3)
    assert offerer.most == 5
    offerer.report(5)
    assert offerer.most == 2


def test_a_size_that_grows_again_counts_from_when_it_was_offered() -> None:
    offerer = Offerer()
    for version, size in ((1, 9), (2, 3), (3, 5)):
        offerer.offer(version, size)
    assert offerer.most == 9
    offerer.report(2)
    assert offerer.most >= 5
    offerer.report(3)
    assert offerer.most == 5


def test_a_node_is_outdated_if_it_does_not_apply_an_offered_version_for_long() -> None:
    """Not if it is always a little behind because there is another version every second."""
    offerer = Offerer()
    for version in range(1, 100):
        offerer.offer(version, 5)
        offerer.report(max(0, version - 5))
        assert not offerer.node.is_outdated
        assert offerer.node.lacks(version)
    while not offerer.node.is_outdated:
        offerer.report(95)
    assert offerer.reporter.now == 95 + OUTDATED_AFTER
    offerer.report(96)
    assert offerer.node.lacks(97)
    offerer.report(99)
    assert not offerer.node.is_outdated
    assert not offerer.node.lacks(99)


def test_a_node_that_is_declared_again_may_still_use_what_its_predecessor_had() -> None:
    """Its agent went on while it was deleted; an agent that starts has nothing in force."""
    offerer = Offerer()
    offerer.offer(7, 5)
    offerer.report(0)
    assert (offerer.node.sizes.are_known, offerer.node.limit("local")) == (True, None)
    offerer.report(3)
    assert (offerer.node.sizes.are_known, offerer.node.limit("local")) == (False, 0)
    assert offerer.node.sizes.need_version
    offerer.offer(8, 5)
    offerer.report(8)
    assert (offerer.node.sizes.are_known, offerer.node.limit("local")) == (True, None)


def test_a_version_that_was_never_offered_is_not_in_force() -> None:
    """It is of a catalog from which this one was restored since."""
    offerer = Offerer()
    node = offerer.node
    offerer.offer(5, size=4)
    offerer.report(5)
    assert not node.lacks(5)
    assert node.outdated_seconds == 0.0
    offerer.offer(6, size=4)
    offerer.report(7)
    assert node.lacks(6)
    offerer.reporter.now += OUTDATED_AFTER
    offerer.report(7)
    assert node.is_outdated
    offerer.report(6)
    assert not node.is_outdated
