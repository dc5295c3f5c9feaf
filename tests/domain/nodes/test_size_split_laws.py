"""A tenant never has more connections than allowed, whatever is late, and however load moves.

And every place with callers gets one.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.domain.nodes.allotment import Allotment, Commitment
from app.domain.nodes.size_split import Place, most_of_all, split


@dataclass(kw_only=True)
class Node:
    """A node, what the service knows of it, and the messages between them.

    Attributes:
        in_force: it may open that many without asking.
    """

    share: int = 0
    load: int = 0
    commitment: Commitment = field(default_factory=Commitment)
    reachable: bool = True

    version: int = 0
    in_force: int = 0
    open: int = 0
    # Version, size in force, and connections.
    reports: list[tuple[int, int, int]] = field(default_factory=list)
    offers: list[Allotment] = field(default_factory=list)

    @property
    def most(self) -> int:
        return max(self.in_force, self.open)


class SplitMachine(RuleBasedStateMachine):
    """Every sequence of loads, sizes, offers, reports and transactions at three places."""

    numbers = st.integers(0, 1)
    size: int
    most: int
    nodes: list[Node]

    @initialize(size=st.integers(1, 9))
    def begin(self, size: int) -> None:
        self.size = self.most = self.most_allowed = size
        self.nodes = [Node(), Node()]
        # This process: it obeys at once, but running leases go on.
        self.share = self.open = size
        self.load = 0

    @property
    def here(self) -> int:
        """What this process may have now."""
        others = sum(max(node.share, node.commitment.liability) for node in self.nodes)
        return max(0, min(self.share, self.most - others))

    @property
    def places(self) -> list[Place]:
        return [
            Place(name="", share=self.share, liability=max(self.share, self.open), load=self.load),
            *(
                Place(
                    name=str(number),
                    share=node.share,
                    liability=max(node.share, node.commitment.liability),
                    load=node.load,
                    reachable=node.reachable,
                )
                for number, node in enumerate(self.nodes)
            ),
        ]

    @rule(size=st.integers(1, 9))
    def resize(self, size: int) -> None:
        self.size = size

    @rule(number=numbers, load=st.integers(0, 20))
    def want(self, number: int, load: int) -> None:
        self.nodes[number].load = load

    @rule(load=st.integers(0, 20))
    def want_here(self, load: int) -> None:
        self.load = load

    @rule(number=numbers)
    def lose_or_find(self, number: int) -> None:
        self.nodes[number].reachable = not self.nodes[number].reachable

    @rule()
    def split(self) -> None:
        self.most = most_of_all(self.size, self.places)
        for name, share in split(self.most, self.places).items():
            if name:
                self.nodes[int(name)].share = share
            else:
                self.share = share

    @rule(number=numbers)
    def offer(self, number: int) -> None:
        node = self.nodes[number]
        version = node.commitment.generation + 1
        offered = Allotment(generation=version, connections=node.share)
        node.commitment = node.commitment.send(offered)
        node.offers.append(offered)

    @rule(number=numbers, data=st.data())
    def apply(self, number: int, data: st.DataObject) -> None:
        node = self.nodes[number]
        if node.offers and node.reachable:
            offered = data.draw(st.sampled_from(node.offers))
            if offered.generation > node.version:
                node.version, node.in_force = offered.generation, offered.connections

    @rule(number=numbers)
    def report(self, number: int) -> None:
        node = self.nodes[number]
        node.reports.append((node.version, node.in_force, node.open))

    @rule(number=numbers)
    def hear(self, number: int) -> None:
        """Hear reports in the order in which they were made; some get lost."""
        node = self.nodes[number]
        if node.reports and node.reachable:
            version, in_force, open_ = node.reports.pop(0)
            node.commitment = node.commitment.acknowledge(version, max(in_force, open_))

    @rule(number=numbers)
    def lose_report(self, number: int) -> None:
        if self.nodes[number].reports:
            self.nodes[number].reports.pop(0)

    @rule(number=numbers, grows=st.booleans())
    def work(self, number: int, *, grows: bool) -> None:
        node = self.nodes[number]
        if grows and node.open < node.in_force:
            node.open += 1
        elif not grows and node.open:
            node.open -= 1

    @rule(grows=st.booleans())
    def work_here(self, *, grows: bool) -> None:
        if grows and self.open < self.here:
            self.open += 1
        elif not grows and self.open:
            self.open -= 1

    @rule()
    def settle(self) -> None:
        """Let everything arrive and transactions end: each place with callers has a connection."""
        reachable = [node for node in self.nodes if node.reachable]
        for _ in range(6):
            self.split()
            self.open = min(self.open, self.here)
            for number, node in enumerate(self.nodes):
                if node.reachable:
                    self.offer(number)
                    node.version, node.in_force = node.offers[-1].generation, node.share
                    node.open = min(node.open, node.in_force)
                    node.reports = [(node.version, node.in_force, node.open)]
                    self.hear(number)
            self.never_more_than_the_size()
        places = [(self.load, self.here), *((node.load, node.in_force) for node in reachable)]
        assert all(have > 0 for load, have in places if load), places

    @invariant()
    def never_more_than_the_size(self) -> None:
        """A smaller one counts once everybody has obeyed."""
        here = max(self.open, self.here)
        total = here + sum(node.most for node in self.nodes)
        # With what is still on the way to nodes.
        known = here + sum(max(node.share, node.commitment.liability) for node in self.nodes)
        if total <= self.most and known <= self.most:
            self.most_allowed = self.most
        else:
            self.most_allowed = max(self.most_allowed, self.most)
        assert total <= self.most_allowed, (total, self.nodes)


TestSplitMachine = pytest.mark.long(SplitMachine.TestCase)
TestSplitMachine.settings = settings(
    deadline=None, max_examples=150, stateful_step_count=60, print_blob=True
)
