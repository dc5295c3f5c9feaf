"""A credential of an application: its user name, its expiry, and what it does not show."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from app.domain.application_credential import ApplicationCredential
from app.domain.tenant import TenantId

NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)
WEB = ApplicationCredential(
    tenant=TenantId("acme"),
    name="web",
    verifier="SCRAM-SHA-256$4096:secret",
    created_at=NOON,
    expires_at=None,
    last_used_at=None,
)


def test_a_user_is_a_tenant_and_a_name() -> None:
    assert WEB.user == "acme.web"
    assert replace(WEB, tenant=TenantId("acme-web"), name="x").user == "acme-web.x"


def test_it_expires_at_its_time_or_never() -> None:
    assert not WEB.is_expired(NOON + timedelta(days=36_500))
    short = replace(WEB, expires_at=NOON + timedelta(hours=1))
    assert [short.is_expired(NOON + timedelta(minutes=each)) for each in (0, 59, 60, 61)] == [
        False,
        False,
        True,
        True,
    ]


def test_it_does_not_show_its_verifier() -> None:
    assert "SCRAM" not in f"{WEB!r} {WEB}"
