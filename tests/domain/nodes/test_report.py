"""The contents of a report's entry, and what no node can have."""

from dataclasses import replace

import pytest

from app.domain.nodes.gate import EntryState
from app.domain.nodes.report import MOST_CLIENTS, MOST_CONNECTIONS, ServerReport
from tests.fixtures.reporting import entry, node_report


@pytest.mark.parametrize("state", EntryState)
def test_an_entry_can_have_its_size_unless_it_is_closed(state: EntryState) -> None:
    is_shut = state in {EntryState.CLOSED, EntryState.PAUSED}
    said = entry("acme", state=state, size=5, connections=2, in_use=0)
    assert said.most_connections == (2 if is_shut else 5)


@pytest.mark.parametrize("state", EntryState)
def test_an_entry_that_became_smaller_can_have_what_is_still_open(state: EntryState) -> None:
    said = entry("acme", state=state, size=2, connections=5, in_use=0)
    assert said.most_connections == 5


def test_a_report_may_say_the_most_that_there_can_be() -> None:
    said = entry("acme", size=MOST_CONNECTIONS, clients=MOST_CLIENTS)
    for more in (
        {"size": MOST_CONNECTIONS + 1},
        {"clients": MOST_CLIENTS + 1},
        {"waiting": MOST_CLIENTS + 1},
    ):
        with pytest.raises(ValueError, match="more than"):
            replace(said, **more)  # type: ignore[arg-type]
    server = ServerReport(generation=1, committed=MOST_CONNECTIONS, connected=MOST_CONNECTIONS)
    for name in ("committed", "connected"):
        with pytest.raises(ValueError, match="more than"):
            replace(server, **{name: MOST_CONNECTIONS + 1})


def test_the_back_ends_of_all_servers_count_together() -> None:
    half = frozenset(range(MOST_CONNECTIONS // 2))
    said = node_report(1, 1, [], backends={"eu": half, "us": half})
    with pytest.raises(ValueError, match="more than"):
        replace(said, backends={**said.backends, "ap": frozenset({1})})


def test_a_report_is_newer_by_its_session_and_then_by_its_sequence() -> None:
    said = node_report(2, 5, [])
    assert said.is_newer_than(node_report(2, 4, []))
    assert said.is_newer_than(node_report(1, 9, []))
    # It may arrive twice.
    assert not said.is_newer_than(said)
    assert not said.is_newer_than(node_report(3, 1, []))
