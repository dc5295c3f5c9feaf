"""The states of a node, and when its agent opens nothing on its own."""

import pytest

from app.domain.nodes.node import (
    ABSENT_FOR,
    FENCED_AFTER,
    GONE_AFTER,
    STALE_AFTER,
    NodeState,
    is_fenced,
    node_state,
)


@pytest.mark.parametrize(
    ("silence", "absence", "configured", "draining", "state"),
    [
        (None, 999.0, False, False, NodeState.JOINING),
        (1.0, 0.0, False, False, NodeState.JOINING),
        (1.0, 0.0, True, False, NodeState.READY),
        (1.0, 999.0, True, False, NodeState.READY),
        (1.0, 0.0, True, True, NodeState.DRAINING),
        (STALE_AFTER, 0.0, True, False, NodeState.STALE),
        (STALE_AFTER, 0.0, True, True, NodeState.STALE),
        # Cut off and at work, or just without work for a moment.
        (GONE_AFTER, 0.0, True, False, NodeState.STALE),
        (GONE_AFTER, ABSENT_FOR / 2, True, False, NodeState.STALE),
        (GONE_AFTER, ABSENT_FOR, True, False, NodeState.GONE),
    ],
)
def test_a_node_is_what_was_heard_and_seen_of_it(
    *, silence: float | None, absence: float, configured: bool, draining: bool, state: NodeState
) -> None:
    found = node_state(silence=silence, absence=absence, configured=configured, draining=draining)
    assert found is state


def test_an_agent_at_work_goes_on_however_long_the_service_is_away() -> None:
    assert not is_fenced(9999.0, connections=1)


def test_an_agent_without_work_opens_nothing_before_the_service_gives_up_on_it() -> None:
    assert not is_fenced(FENCED_AFTER - 1, connections=0)
    assert is_fenced(FENCED_AFTER, connections=0)
    # It looks, and closes, in the time that is left.
    assert GONE_AFTER - FENCED_AFTER >= ABSENT_FOR
