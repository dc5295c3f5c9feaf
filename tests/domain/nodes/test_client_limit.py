"""Whether a node has room for more clients."""

from app.domain.nodes.client_limit import crowding
from app.domain.nodes.entry_totals import EntryTotals
from app.domain.nodes.gate import EntryState
from app.domain.nodes.report import EntryReport


def entry(name: str, clients: int) -> EntryReport:
    return EntryReport(
        name=name,
        state=EntryState.OPEN,
        size=5,
        connections=2,
        in_use=0,
        clients=clients,
        waiting=0,
        longest_wait=0.0,
        totals=EntryTotals(),
    )


def test_a_node_with_room_says_nothing_and_a_full_one_whose_most_clients_are() -> None:
    entries = [entry("acme", 5), entry("nova", 1_400), entry("zeta", 20)]
    assert crowding([], 1) == crowding([], 3) == crowding(entries, 1_501) == ""
    assert crowding(entries, 1_500) == (
        "It has 1,425 clients and may have 1,500 (--max-clients), then it refuses more. "
        "Tenant nova has 1,400 of them."
    )
