"""The gate under every sequence of events, and for a minute with more work than connections."""

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.domain.nodes.gate import EntryState, GatedEntry, committed, decide

LOOK_SECONDS = 0.1


@dataclass(kw_only=True)
class ModelEntry:
    """An entry as PgBouncer handles it: a paused one closes what is idle, and opens nothing.

    Attributes:
        transactions: when each running one ends.
        longest: the longest wait of a client for the entry to be served, in seconds.
    """

    name: str
    size: int
    weight: int = 1
    state: EntryState = EntryState.CLOSED
    since: float = 0.0
    allowed: bool = True
    clients: int = 0
    idle: int = 0
    connecting: int = 0
    transactions: list[float] = field(default_factory=list)
    waiting_since: float | None = None
    idle_since: float = 0.0
    served: int = 0
    longest: float = 0.0

    @property
    def connections(self) -> int:
        return self.idle + self.connecting + len(self.transactions)

    @property
    def waiting(self) -> int:
        return max(0, self.clients - len(self.transactions))

    def seen(self) -> GatedEntry:
        return GatedEntry(
            name=self.name,
            size=self.size,
            state=self.state,
            since=self.since,
            weight=self.weight,
            allowed=self.allowed,
            connections=self.connections,
            busy=bool(self.transactions) or self.waiting > 0,
            connecting=self.connecting > 0,
            waiting_since=self.waiting_since,
            idle_since=self.idle_since,
        )

    def open(self, now: float) -> None:
        self.state, self.since = EntryState.OPEN, now

    def close(self, now: float) -> None:
        self.state, self.since = EntryState.CLOSING, now
        self.idle = self.connecting = 0

    def work(self, now: float, hold: float) -> None:
        """End what ends, begin what can, and open a connection if one is wanted."""
        ended = [end for end in self.transactions if end <= now]
        self.transactions = [end for end in self.transactions if end > now]
        if self.state is not EntryState.OPEN:
            if self.state is EntryState.CLOSING and not self.connections:
                self.state = EntryState.CLOSED
        else:
            self.idle += len(ended) + self.connecting
            self.connecting = 0
            while self.idle and self.waiting:
                self.idle -= 1
                self.transactions.append(now + hold)
                self.served += 1
            if self.waiting and self.connections < self.size:
                self.connecting = 1
        self.note(now, served=bool(self.transactions))

    def note(self, now: float, *, served: bool) -> None:
        if self.waiting and not served:
            self.waiting_since = now if self.waiting_since is None else self.waiting_since
            self.longest = max(self.longest, now - self.waiting_since)
        else:
            self.waiting_since = now if self.waiting else None
        if self.waiting or served:
            self.idle_since = now


class GateMachine(RuleBasedStateMachine):
    """Every sequence of clients, long and short transactions, pauses, resizes and allotments."""

    numbers = st.integers(0, 4)

    @initialize(allotment=st.integers(0, 8), sizes=st.lists(st.integers(1, 4), min_size=5))
    def begin(self, allotment: int, sizes: list[int]) -> None:
        self.now = 100.0
        self.allotment = self.highest = allotment
        self.entries = [
            ModelEntry(name=f"t{number}", size=sizes[number], weight=number + 1)
            for number in range(5)
        ]

    @rule(number=numbers, clients=st.integers(0, 5))
    def have_clients(self, number: int, clients: int) -> None:
        entry = self.entries[number]
        entry.clients = max(clients, len(entry.transactions))

    @rule(number=numbers, allowed=st.booleans())
    def pause(self, number: int, *, allowed: bool) -> None:
        self.entries[number].allowed = allowed

    @rule(number=numbers, size=st.integers(1, 4))
    def resize(self, number: int, size: int) -> None:
        # A larger size is in force only once there is room for it.
        entry = self.entries[number]
        if entry.state is not EntryState.OPEN or size <= entry.size:
            entry.size = size

    @rule(allotment=st.integers(0, 8))
    def change_allotment(self, allotment: int) -> None:
        self.allotment = allotment

    @rule(hold=st.sampled_from([0.05, 0.5, 30.0]), times=st.integers(1, 10))
    def work(self, hold: float, times: int) -> None:
        for _ in range(times):
            self.now += LOOK_SECONDS
            for entry in self.entries:
                entry.work(self.now, hold)
            self.look()

    def look(self) -> None:
        by_name = {entry.name: entry for entry in self.entries}
        actions = decide(self.allotment, [entry.seen() for entry in self.entries], self.now)
        assert not set(actions.open) & set(actions.close)
        for name in actions.close:
            assert by_name[name].state is EntryState.OPEN
            by_name[name].close(self.now)
        for name in actions.open:
            assert by_name[name].state is not EntryState.OPEN
            by_name[name].open(self.now)
        if actions.open:
            assert self.committed <= self.allotment

    @property
    def committed(self) -> int:
        return committed([entry.seen() for entry in self.entries])

    @rule()
    def come_to_rest(self) -> None:
        for entry in self.entries:
            entry.transactions = [min(end, self.now) for end in entry.transactions]
        self.work(0.05, 10)
        assert self.committed <= self.allotment
        assert not any(
            entry.state is EntryState.OPEN and not entry.allowed and not entry.connecting
            for entry in self.entries
        )

    @invariant()
    def what_can_be_open_exceeds_the_allotment_only_after_it_was_lowered(self) -> None:
        assert self.committed <= max(self.highest, self.allotment)
        self.highest = max(self.allotment, min(self.highest, self.committed))


TestAnySequenceOfEvents = GateMachine.TestCase
TestAnySequenceOfEvents.settings = settings(
    deadline=None, max_examples=100, stateful_step_count=30, print_blob=True
)


def run(
    entries: list[ModelEntry], allotment: int, *, seconds: float, hold: float, begin: float = 0.0
) -> None:
    random = Random(3)  # noqa: S311 - a load, no secret
    now = begin
    while now < begin + seconds:
        now += LOOK_SECONDS
        for entry in entries:
            entry.work(now, random.expovariate(1 / hold))
        seen = [entry.seen() for entry in entries]
        assert committed(seen) <= allotment
        actions = decide(allotment, seen, now)
        for entry in entries:
            if entry.name in actions.close:
                entry.close(now)
            if entry.name in actions.open:
                entry.open(now)


def test_a_hundred_and_twenty_busy_tenants_on_an_allotment_of_24_are_served_within_5_seconds() -> (
    None
):
    entries = [ModelEntry(name=f"t{number}", size=2, clients=3) for number in range(120)]
    run(entries, 24, seconds=60.0, hold=0.02)
    assert max(entry.longest for entry in entries) < 5.0
    least, most = (choose(entry.served for entry in entries) for choose in (min, max))
    assert most < 1.5 * least


def test_a_heavier_tenant_is_open_for_longer() -> None:
    entries = [
        ModelEntry(name=f"t{number}", size=2, clients=3, weight=4 if number == 0 else 1)
        for number in range(20)
    ]
    run(entries, 8, seconds=60.0, hold=0.02)
    others = [entry.served for entry in entries[1:]]
    assert entries[0].served > 2 * max(others)
    assert max(entry.longest for entry in entries) < 5.0


@pytest.mark.parametrize("stuck", [1, 3])
def test_long_transactions_of_some_hold_up_nobody_else(stuck: int) -> None:
    entries = [ModelEntry(name=f"t{number}", size=2, clients=3) for number in range(20)]
    for entry in entries[:stuck]:
        entry.open(0.0)
        entry.clients = 1
        entry.transactions = [1000.0]
    run(entries, 8, seconds=30.0, hold=0.02)
    assert max(entry.longest for entry in entries[stuck:]) < 5.0


def test_a_tenant_with_little_work_is_not_held_up_by_busy_ones() -> None:
    busy = [ModelEntry(name=f"b{number}", size=2, clients=3) for number in range(10)]
    rare = ModelEntry(name="rare", size=2)
    entries = [*busy, rare]
    for moment in range(10):
        rare.clients = moment % 2
        run(entries, 8, seconds=3.0, hold=0.02, begin=3.0 * moment)
    assert rare.served > 0
    assert rare.longest < 5.0
