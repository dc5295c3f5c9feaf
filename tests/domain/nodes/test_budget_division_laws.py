"""The budget holds under every sequence of lost, late and repeated messages, deaths and returns."""

from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.domain.nodes.allotment import Allotment, Commitment
from app.domain.nodes.budget_division import Holder, divide, fair_shares
from app.domain.nodes.node import GONE_AFTER, STALE_AFTER, NodeState, is_fenced, node_state

# An agent gives up a request after that long, and does not hear a later answer.
REQUEST_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Report:
    sent_at: float
    sequence: int
    generation: int
    observed: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    asked_at: float
    allotment: Allotment


@dataclass(kw_only=True)
class Node:
    """A node, what the service knows of it, and the messages between them.

    Attributes:
        committed: the sizes of its open entries: it may open that many without asking.
        accepted_at: when it sent the last report that it knows was accepted.
    """

    allotment: Allotment = field(default_factory=lambda: Allotment(generation=0, connections=0))
    committed: int = 0
    open: int = 0
    sequence: int = 0
    accepted_at: float = -inf
    reports: list[Report] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    demand: int = 0
    commitment: Commitment = field(default_factory=Commitment)
    newest: int = 0
    heard_at: float | None = None
    absent_since: float = 0.0
    is_released: bool = False

    def fenced(self, now: float) -> bool:
        return is_fenced(now - self.accepted_at, self.open)

    def most(self, now: float) -> int:
        """The most connections it can have before it hears from the service."""
        return 0 if self.fenced(now) else max(self.committed, self.allotment.connections)

    def apply(self, allotment: Allotment) -> None:
        if allotment.generation > self.allotment.generation:
            self.allotment = allotment

    def look(self, now: float) -> None:
        """Close everything if it may open nothing."""
        if self.fenced(now):
            self.committed = 0

    def obey(self) -> None:
        """Close what exceeds the allotment, as far as transactions have ended."""
        self.committed = max(self.open, min(self.committed, self.allotment.connections))


class FleetMachine(RuleBasedStateMachine):
    """Every sequence of dividing, asking, answering, opening, dying among three nodes."""

    numbers = st.integers(0, 2)
    nodes: list[Node]

    @initialize(budget=st.integers(0, 24))
    def begin(self, budget: int) -> None:
        self.now = 0.0
        self.budget = self.most_allowed = budget
        self.nodes = [Node(), Node(), Node()]

    # -- the service ---------------------------------------------------------------------------

    @rule(number=numbers, demand=st.integers(0, 30))
    def want(self, number: int, demand: int) -> None:
        self.nodes[number].demand = demand

    @rule(budget=st.integers(0, 24))
    def change_budget(self, budget: int) -> None:
        self.budget = budget

    @rule()
    def divide(self) -> None:
        for number, connections in divide(self.budget, self.holders()).items():
            node = self.nodes[int(number)]
            generation = node.commitment.generation + 1
            node.commitment = node.commitment.send(
                Allotment(generation=generation, connections=connections)
            )

    def holders(self) -> list[Holder]:
        return [
            Holder(
                name=str(number),
                demand=node.demand,
                commitment=node.commitment,
                reachable=node.heard_at is not None and self.now - node.heard_at < STALE_AFTER,
            )
            for number, node in enumerate(self.nodes)
        ]

    @rule(number=numbers)
    def release_if_gone(self, number: int) -> None:
        node = self.nodes[number]
        state = node_state(
            silence=None if node.heard_at is None else self.now - node.heard_at,
            absence=0.0 if node.open else self.now - node.absent_since,
            configured=True,
        )
        if state is NodeState.GONE and not node.is_released:
            node.commitment = node.commitment.release()
            node.is_released = True

    # -- messages ------------------------------------------------------------------------------

    @rule(number=numbers)
    def report(self, number: int) -> None:
        node = self.nodes[number]
        node.look(self.now)
        node.sequence += 1
        node.reports.append(
            Report(
                sent_at=self.now,
                sequence=node.sequence,
                generation=node.allotment.generation,
                observed=node.committed,
            )
        )

    @rule(number=numbers, data=st.data(), keep=st.booleans())
    def take_a_report(self, number: int, data: st.DataObject, *, keep: bool) -> None:
        node = self.nodes[number]
        if node.reports:
            report = data.draw(st.sampled_from(node.reports))
            if not keep:
                node.reports.remove(report)
            self.hear(node, report)

    def hear(self, node: Node, report: Report) -> None:
        if report.sequence <= node.newest:
            return
        node.newest, node.heard_at, node.is_released = report.sequence, self.now, False
        node.commitment = node.commitment.acknowledge(report.generation, report.observed)
        sent = Allotment(generation=node.commitment.generation, connections=node.commitment.current)
        node.answers.append(Answer(asked_at=report.sent_at, allotment=sent))

    @rule(number=numbers, data=st.data(), keep=st.booleans())
    def take_an_answer(self, number: int, data: st.DataObject, *, keep: bool) -> None:
        node = self.nodes[number]
        if node.answers:
            answer = data.draw(st.sampled_from(node.answers))
            if not keep:
                node.answers.remove(answer)
            if self.now - answer.asked_at <= REQUEST_SECONDS:
                node.look(self.now)
                node.apply(answer.allotment)
                node.accepted_at = max(node.accepted_at, answer.asked_at)

    @rule(number=numbers, data=st.data())
    def lose_one(self, number: int, data: st.DataObject) -> None:
        node = self.nodes[number]
        if on_the_way := [*node.reports, *node.answers]:
            lost = data.draw(st.sampled_from(on_the_way))
            node.reports = [one for one in node.reports if one is not lost]
            node.answers = [one for one in node.answers if one is not lost]

    @rule(number=numbers)
    def exchange(self, number: int) -> None:
        """A report and its answer without losses, as usual."""
        node = self.nodes[number]
        self.report(number)
        self.hear(node, node.reports.pop())
        answer = node.answers.pop()
        node.apply(answer.allotment)
        node.accepted_at = self.now

    @rule(number=numbers)
    def fall_silent(self, number: int) -> None:
        """Be silent for so long that the service may give up on it."""
        self.now += GONE_AFTER
        self.release_if_gone(number)

    # -- the node ------------------------------------------------------------------------------

    @rule(number=numbers, entries=st.integers(0, 12))
    def open_entries(self, number: int, entries: int) -> None:
        node = self.nodes[number]
        if not node.fenced(self.now):
            room = node.allotment.connections - node.committed
            node.committed += max(0, min(entries, room))

    @rule(number=numbers)
    def obey(self, number: int) -> None:
        self.nodes[number].obey()

    @rule(number=numbers, connections=st.integers(1, 12))
    def connect(self, number: int, connections: int) -> None:
        node = self.nodes[number]
        if not node.fenced(self.now):
            node.open = min(node.committed, node.open + connections)

    @rule(number=numbers, connections=st.integers(1, 12))
    def disconnect(self, number: int, connections: int) -> None:
        node = self.nodes[number]
        if node.open:
            node.open = max(0, node.open - connections)
            node.absent_since = self.now

    @rule(number=numbers)
    def restart(self, number: int) -> None:
        """Restart agent and pooler: what is on the disk may be old, so it waits for an answer."""
        node = self.nodes[number]
        if node.open:
            node.absent_since = self.now
        node.open = node.committed = 0
        node.accepted_at = -inf

    @rule(seconds=st.sampled_from([0.5, 5.0, 20.0, 50.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def come_to_rest(self) -> None:
        """Without losses each holder gets its share within a few rounds."""
        for _ in range(5):
            for number, node in enumerate(self.nodes):
                if node.open > node.allotment.connections:
                    self.disconnect(number, node.open - node.allotment.connections)
                node.obey()
                self.exchange(number)
            self.divide()
        shares = fair_shares(self.budget, self.holders())
        for number, node in enumerate(self.nodes):
            assert node.commitment.current >= shares[str(number)]

    # -- laws ----------------------------------------------------------------------------------

    @invariant()
    def each_node_is_held_liable_for_all_it_can_open(self) -> None:
        for node in self.nodes:
            assert node.most(self.now) <= node.commitment.liability

    @invariant()
    def the_budget_holds_unless_it_was_lowered(self) -> None:
        liable = sum(node.commitment.liability for node in self.nodes)
        assert liable <= self.most_allowed or liable <= self.budget
        self.most_allowed = max(self.budget, liable)
        assert sum(node.most(self.now) for node in self.nodes) <= self.most_allowed


TestAnySequenceOfMessages = pytest.mark.long(FleetMachine.TestCase)
TestAnySequenceOfMessages.settings = settings(
    deadline=None, max_examples=150, stateful_step_count=50, print_blob=True
)
