"""The sums of a node's entries."""

from app.domain.nodes.entry_sums import EntrySums
from app.domain.nodes.gate import EntryState
from tests.fixtures.reporting import entry


def test_a_paused_entry_counts_but_its_clients_wait_for_a_person() -> None:
    entries = [
        entry("acme", clients=3, waiting=2, longest_wait=0.5),
        entry("beta", clients=4, waiting=1, longest_wait=9.0, state=EntryState.PAUSED),
        entry("coyote", clients=1, waiting=1, longest_wait=1.5, state=EntryState.CLOSED),
    ]
    assert EntrySums.of(entries) == EntrySums(
        clients=8,
        waiting=4,
        queued=1,
        longest_wait=1.5,
        states={EntryState.OPEN: 1, EntryState.PAUSED: 1, EntryState.CLOSED: 1},
    )
    assert EntrySums.of([]) == EntrySums(
        clients=0, waiting=0, queued=0, longest_wait=0.0, states={}
    )
