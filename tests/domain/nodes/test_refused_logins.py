"""Logins that Postgres refuses to a node."""

from app.domain.nodes.refused_logins import RefusedLogins
from tests.fixtures.reporting import entry as reported
from tests.node.configurations import entry as declared

REASON = 'role "tenant_acme" is not permitted to log in'
ENTRIES = [declared("acme"), declared("beta")]
NO_CONNECTIONS = [reported("acme", connections=0), reported("beta", connections=0)]


def test_a_refused_role_is_a_problem_of_its_tenant_and_others_are_counted() -> None:
    refused = RefusedLogins()
    refused.note(["the database system is starting up", 'role "other"'], ENTRIES, 0.0)
    assert refused.problem(NO_CONNECTIONS, 0.0) == ""
    refused.note([REASON], ENTRIES, 1.0)
    assert refused.problem(NO_CONNECTIONS, 1.0) == (
        f"Postgres refuses the login of tenant acme: {REASON}."
    )
    refused.note([REASON.replace("acme", "beta")], ENTRIES, 2.0)
    assert refused.problem(NO_CONNECTIONS, 2.0) == (
        f"Postgres refuses the login of tenant acme and 1 more: {REASON}."
    )


def test_it_is_none_once_there_is_a_connection_and_no_new_refusal_or_after_a_long_time() -> None:
    refused = RefusedLogins()
    refused.note([REASON], ENTRIES, 0.0)
    connected = [reported("acme"), NO_CONNECTIONS[1]]
    assert refused.problem(connected, 9.0)
    assert refused.problem(NO_CONNECTIONS, 599.0)
    assert not refused.problem(connected, 599.0)
    assert not refused.problem(NO_CONNECTIONS, 599.0)
    refused.note([REASON], ENTRIES, 600.0)
    assert not refused.problem(NO_CONNECTIONS, 1200.0)


def test_it_is_none_of_an_entry_that_the_node_does_not_have_any_more() -> None:
    refused = RefusedLogins()
    refused.note([REASON], ENTRIES, 0.0)
    assert refused.problem(NO_CONNECTIONS, 1.0)
    assert not refused.problem(NO_CONNECTIONS[1:], 2.0)


def test_what_a_role_chose_for_its_own_sessions_names_no_other() -> None:
    refused = RefusedLogins()
    chosen = 'could not access file "$libdir/plugins/"a"" ""tenant_acme"": No such file'
    refused.note([chosen], ENTRIES, 0.0)
    assert refused.problem(NO_CONNECTIONS, 0.0) == ""
