"""Which parts of a new configuration must not wait, and what they must not do in that time."""

from dataclasses import replace

from app.domain.nodes.configuration import NodeConfiguration
from app.domain.nodes.rollout import is_urgent, revoked, without_delay
from tests.node.configurations import configuration, entry, login

BOTH = configuration(
    entry("acme", size=4, logins=("acme.web", "acme.jobs")),
    entry("bravo", logins=("bravo.web",)),
)


def changed(name: str, **fields: object) -> NodeConfiguration:
    """`BOTH`, with one entry changed."""
    entries = [
        replace(each, **fields) if each.name == name else each  # type: ignore[arg-type]
        for each in BOTH.entries
    ]
    return replace(BOTH, version=2, entries=tuple(entries))


def test_a_login_that_is_taken_away_or_replaced_is_revoked_and_urgent() -> None:
    removed = changed("acme", logins=(login("acme.jobs"),))
    assert revoked(BOTH, removed) == {"acme": {"acme.web"}}
    assert is_urgent(BOTH, removed)
    another = replace(login("acme.web"), verifier=login("bravo.web").verifier)
    replaced = changed("acme", logins=(another, login("acme.jobs")))
    assert revoked(BOTH, replaced) == {"acme": {"acme.web"}}


def test_another_password_of_a_role_is_urgent_and_revokes_nothing() -> None:
    rotated = changed("acme", password="another")
    assert not revoked(BOTH, rotated)
    assert is_urgent(BOTH, rotated)


def test_another_recycling_is_urgent_and_revokes_nothing() -> None:
    recycled = changed("acme", recycles=1)
    assert not revoked(BOTH, recycled)
    assert is_urgent(BOTH, recycled)
    # Except after one that was not long ago.
    assert not is_urgent(BOTH, recycled, recycles=False)
    assert is_urgent(BOTH, changed("acme", recycles=1, password="another"), recycles=False)


def test_what_only_adds_or_takes_a_whole_tenant_away_can_wait() -> None:
    for later in (
        changed("acme", size=9, paused=True, draining=True),
        changed("acme", logins=(*BOTH.entries[0].logins, login("acme.more"))),
        configuration(BOTH.entries[0], version=2),
        configuration(*BOTH.entries, entry("coral"), version=2),
    ):
        assert not revoked(BOTH, later)
        assert not is_urgent(BOTH, later)


def test_without_delay_nothing_grows_and_nothing_disappears_but_nobody_can_enter_it() -> None:
    grown = entry("acme", size=9, logins=("acme.jobs",))
    wanted = configuration(grown, entry("coral", size=3), version=2)
    sizes = {"acme": 4, "bravo": 2}
    applied = {each.name: each for each in without_delay(BOTH, wanted, sizes).entries}
    assert {name: each.size for name, each in applied.items()} == {
        "acme": 4,
        "bravo": 2,
        "coral": 3,
    }
    assert applied["acme"].logins == grown.logins
    assert applied["bravo"].draining
    assert applied["bravo"].logins  # whoever is connected may stay
    # What becomes smaller may do so at once.
    shrunk = without_delay(BOTH, configuration(entry("acme", size=1)), {"acme": 4})
    assert shrunk.entries[0].size == 1
    # One that the pooler no longer has is not brought back.
    assert len(without_delay(BOTH, wanted, {"acme": 4}).entries) == 2
