"""Refusals are remembered by tenant, and do not flood the log."""

from typing import Any

from structlog.testing import capture_logs

from app.api.http.refusals import Refusals
from tests.fixtures.clock import Clock

FIELDS: dict[str, Any] = {
    "actor": "ops",
    "method": "POST",
    "path": "/v1/tenants/acme/query",
    "status": 503,
    "code": "pool-timeout",
    "detail": "No connection became free.",
    "request_id": "r-1",
}


def test_a_flood_of_one_tenant_hides_no_refusal_of_another() -> None:
    refusals = Refusals()
    refusals.note("beta", **FIELDS)
    with capture_logs() as logged:
        for _ in range(500):
            refusals.note("acme", **FIELDS)
        refusals.note("beta", **FIELDS)
    latest = list(refusals.latest())
    assert [each.id for each in latest] == sorted((each.id for each in latest), reverse=True)
    assert [each.tenant for each in latest].count("acme") == 50
    assert [each.id for each in latest if each.tenant == "beta"] == [502, 1]
    assert [line["tenant"] for line in logged].count("acme") == 60
    assert logged[-1]["tenant"] == "beta"


def test_what_was_not_logged_is_counted_in_the_next_minute() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    with capture_logs() as logged:
        for _ in range(100):
            refusals.note("acme", **FIELDS)
        clock.now += 61
        refusals.note("acme", **FIELDS)
    assert logged[-2:] == [
        {"event": "refusals not logged", "tenant": "acme", "count": 40, "log_level": "info"},
        logged[0],
    ]


def test_the_tenants_refused_longest_ago_are_forgotten_first() -> None:
    refusals = Refusals()
    for number in range(1001):
        refusals.note(f"t{number}", **FIELDS)
        refusals.note("t0", **FIELDS)
    kept = {each.tenant for each in refusals.latest()}
    assert len(kept) == 1000
    assert "t0" in kept
    assert "t1" not in kept
