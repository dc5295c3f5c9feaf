"""The error tree: drawn correctly, each class with its own code and sentence."""

import inspect
import re

import pytest

from app.domain import errors
from app.domain.errors import PoolkeeperError, StatementConflict, StatementFailed, Unavailable

CLASSES = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, PoolkeeperError)
]
# Callers switch on these.
CODES = """
bound-to-node bound-to-tenants catalog-in-use catalog-unavailable catalog-unusable conflict
connect-failed connection-budget-exceeded credential-exists credential-not-found forbidden
idempotency-key-in-flight idempotency-key-reused immutable-field invalid-input invalid-tenant-id
leadership-lost lease-lost missing-scope node-in-use node-not-found node-report-late
node-session-ended node-session-unknown not-found not-provisioned objects-exist pool-draining
pool-is-shared pool-limit-reached pool-not-found pool-paused pool-saturated pool-timeout
poolkeeper-error precondition-required provisioning-failed query-timeout read-only
recommendation-closed recommendation-is-placement recommendation-not-found replay-holds-secret
replay-too-large schema-changed schema-missing server-full server-not-found server-read-only
server-unavailable stale-version statement-conflict statement-ended-lease statement-failed
strategy-not-on-nodes tenant-deleting tenant-login-failed tenant-not-found tls-required
too-many-credentials too-many-locks too-many-logins too-many-streams unavailable
untrusted-sql-on-shared-role
"""
BRANCH = re.compile(r"^(?P<indent>[ │├└─]*)(?P<names>[A-Z]\w+(?: · [A-Z]\w+)*)")


def drawn_parents() -> dict[str, str | None]:
    """Each class drawn in the docstring, with its parent."""
    parents: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    tree = (errors.__doc__ or "").split("\n\n")[1]
    for line in tree.splitlines():
        branch = BRANCH.match(line)
        assert branch, f"a line without a class: {line}"
        depth = len(branch["indent"])
        above = [(column, name) for column, name in above if column < depth]
        names = branch["names"].split(" · ")
        parents.update(dict.fromkeys(names, above[-1][1] if above else None))
        above.append((depth, names[0]))
    return parents


def test_codes_stay_as_they_are_whatever_becomes_of_the_names() -> None:
    assert {error.code for error in CLASSES} == set(CODES.split())


def test_the_tree_is_drawn_as_it_is() -> None:
    real = {error.__name__: error.__base__.__name__ for error in CLASSES if error.__base__}
    assert drawn_parents() == {**real, "PoolkeeperError": None}


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: str(error.__name__))
def test_each_error_has_a_code_of_its_own_in_one_style(error: type[PoolkeeperError]) -> None:
    assert "code" in vars(error)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.code)
    assert [other for other in CLASSES if other.code == error.code] == [error]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: str(error.__name__))
def test_the_first_line_of_each_errors_docstring_is_its_sentence(
    error: type[PoolkeeperError],
) -> None:
    sentence = (error.__doc__ or "").partition("\n")[0]
    assert re.fullmatch(r"[A-Z].+\.", sentence)
    if not issubclass(error, StatementFailed):
        assert error().detail == str(error()) == sentence


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: str(error.__name__))
def test_each_error_says_what_it_was_given(error: type[PoolkeeperError]) -> None:
    assert error("The pool acme is busy.").detail == "The pool acme is busy."
    assert str(error("The pool acme is busy.")) == "The pool acme is busy."


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: str(error.__name__))
def test_what_is_unavailable_or_met_others_may_be_tried_again(error: type[PoolkeeperError]) -> None:
    assert error.retryable == issubclass(error, (Unavailable, StatementConflict))


def test_a_refused_statement_keeps_what_postgres_said_of_it() -> None:
    error = StatementFailed("no such table", sqlstate="42P01", hint="create it", position=15)
    assert (error.detail, error.sqlstate) == ("no such table", "42P01")
    assert (error.hint, error.position) == ("create it", 15)
    bare = StatementFailed("refused")
    assert (bare.sqlstate, bare.hint, bare.position) == (None, None, None)
