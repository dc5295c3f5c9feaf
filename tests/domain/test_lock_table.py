"""Whom the policy ends when a lock table fills up: facts in, signals out."""

from datetime import UTC, datetime

from app.domain.lock_table import (
    GRACE,
    BackendSignal,
    LockHolder,
    LockTable,
    SentSignal,
    choose_signals,
)

_STARTED = datetime(2026, 11, 28, tzinfo=UTC)
NOW = 1000.0


def holder(pid: int, locks: int, *, owner: str = "tenant_a", is_active: bool = True) -> LockHolder:
    return LockHolder(
        backend=(pid, _STARTED), role=owner, owner=owner, locks=locks, is_active=is_active
    )


def ended(
    *holders: LockHolder,
    used: float | None = None,
    limit: float = 0.5,
    known: dict[int, SentSignal] | None = None,
) -> dict[int, BackendSignal | None]:
    """What is ended of each process, for a table of 1000 locks."""
    used = float(sum(each.locks for each in holders)) if used is None else used
    table = LockTable(capacity=1000, used=used, holders=holders)
    before = {(pid, _STARTED): what for pid, what in (known or {}).items()}
    endings = choose_signals(table, limit=limit, sent=before, now=NOW)
    return {each.backend[0]: ending for each, ending in endings.items()}


def test_a_table_that_is_half_full_is_left_alone() -> None:
    assert ended(holder(1, 500)) == {}


def test_the_statement_of_the_largest_holder_is_ended_and_no_more_than_needed() -> None:
    assert ended(holder(1, 200, owner="b"), holder(2, 400)) == {2: BackendSignal.CANCEL_STATEMENT}


def test_as_many_are_ended_as_it_takes() -> None:
    small, large, larger = holder(1, 100, owner="c"), holder(2, 400, owner="b"), holder(3, 450)
    assert ended(small, large, larger) == {3: BackendSignal.CANCEL_STATEMENT}
    assert ended(small, large, larger, limit=0.4) == {
        3: BackendSignal.CANCEL_STATEMENT,
        2: BackendSignal.CANCEL_STATEMENT,
    }


def test_several_connections_of_one_tenant_are_judged_together() -> None:
    parts = [holder(pid, 150) for pid in (1, 2, 3)]
    assert ended(holder(9, 160, owner="b"), *parts) == {1: BackendSignal.CANCEL_STATEMENT}


def test_one_that_holds_on_loses_its_connection_after_its_grace() -> None:
    stubborn = holder(1, 700)
    for seconds, expected in ((GRACE / 2, {}), (GRACE, {1: BackendSignal.TERMINATE_CONNECTION})):
        before = SentSignal(signal=BackendSignal.CANCEL_STATEMENT, sent_at=NOW - seconds)
        assert ended(stubborn, known={1: before}) == expected


def test_locks_on_their_way_back_save_the_next_one() -> None:
    known = {1: SentSignal(signal=BackendSignal.CANCEL_STATEMENT, sent_at=NOW - GRACE / 2)}
    assert ended(holder(1, 600), holder(2, 100, owner="b"), known=known) == {}


def test_a_connection_is_ended_once() -> None:
    known = {1: SentSignal(signal=BackendSignal.TERMINATE_CONNECTION, sent_at=NOW - 60)}
    assert ended(holder(1, 700), known=known) == {}


def test_one_that_runs_nothing_is_noticed_first_and_its_connection_ended_then() -> None:
    idle = holder(1, 700, is_active=False)
    assert ended(idle) == {1: None}
    assert ended(idle, known={1: SentSignal(signal=None, sent_at=NOW - GRACE)}) == {
        1: BackendSignal.TERMINATE_CONNECTION
    }


def test_locks_of_others_are_charged_to_no_tenant() -> None:
    assert ended(used=990) == {}


def test_a_process_id_that_is_used_again_is_another_back_end() -> None:
    table = LockTable(capacity=1000, used=700, holders=(holder(1, 700),))
    long_gone = {
        (1, datetime(2026, 1, 1, tzinfo=UTC)): SentSignal(
            signal=BackendSignal.CANCEL_STATEMENT, sent_at=NOW - 60
        )
    }
    endings = choose_signals(table, limit=0.5, sent=long_gone, now=NOW)
    assert list(endings.values()) == [BackendSignal.CANCEL_STATEMENT]
