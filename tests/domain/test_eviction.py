"""Which evictions are worth an audit event."""

import pytest

from app.domain.eviction import Eviction, EvictionReason


@pytest.mark.parametrize("reason", EvictionReason)
def test_a_slot_without_connections_that_moves_on_is_not_worth_an_event(
    reason: EvictionReason,
) -> None:
    """With more tenants than slots there would be nothing else in the audit log."""
    empty = Eviction(pool_id="acme", reason=reason)
    assert empty.is_notable is (reason is not EvictionReason.LRU)
    assert Eviction(pool_id="acme", reason=reason, closed=1).is_notable
