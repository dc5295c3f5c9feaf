"""Passwords are checked once a minute, in another thread, and never for a revoked credential."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from app.api.auth import application_logins
from app.api.auth.application_logins import ApplicationLogins
from app.domain.application_credential import ApplicationCredential
from app.domain.errors import TooManyLogins
from app.domain.scram import scram_verifier, verify
from app.domain.tenant import TenantId
from tests.fixtures.clock import Clock
from tests.fixtures.waiting import eventually

SECRET = "a secret"
HERE = "192.0.2.1"


class Known:
    """The test's own credentials."""

    def __init__(self) -> None:
        self.by_user: dict[str, ApplicationCredential] = {}

    def add(self, name: str, password: str = SECRET) -> ApplicationCredential:
        added = ApplicationCredential(
            tenant=TenantId("acme"),
            name=name,
            verifier=scram_verifier(password, iterations=1),
            created_at=datetime.now(UTC),
            expires_at=None,
            last_used_at=None,
        )
        self.by_user[added.user] = added
        return added

    def find(self, user: str) -> ApplicationCredential | None:
        return self.by_user.get(user)


class Checked:
    """What was checked, and whether in the test's own thread."""

    def __init__(self) -> None:
        self.passwords: list[str] = []
        self.verifiers: list[str] = []
        self.threads: set[bool] = set()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, password: str, verifier: str) -> bool:
        self.passwords.append(password)
        self.verifiers.append(verifier)
        self.threads.add(threading.current_thread() is threading.main_thread())
        assert self.may_go_on.wait(60)
        return self.check(password, verifier)

    check = staticmethod(verify)


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Checked]:
    checked = Checked()
    monkeypatch.setattr(application_logins, "verify", checked)
    yield checked
    checked.may_go_on.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logins(known: Known, clock: Clock) -> ApplicationLogins:
    return ApplicationLogins(known, clock=clock)  # type: ignore[arg-type]


async def test_a_check_counts_for_a_minute(
    known: Known, checked: Checked, clock: Clock, logins: ApplicationLogins
) -> None:
    web = known.add("web")
    for _ in range(3):
        assert await logins.check("acme.web", SECRET, HERE) is web
        assert await logins.check("acme.web", "wrong", HERE) is None
    assert len(checked.verifiers) == 2
    assert checked.threads == {False}
    clock.now += 60
    assert await logins.check("acme.web", SECRET, HERE) is web
    assert len(checked.verifiers) == 3


async def test_who_is_at_work_is_not_checked_again(
    known: Known, checked: Checked, clock: Clock, logins: ApplicationLogins
) -> None:
    """A flood of guesses that takes all the turns does not affect it."""
    web = known.add("web")
    for _ in range(5):
        assert await logins.check("acme.web", SECRET, HERE) is web
        clock.now += 50
    assert len(checked.verifiers) == 1


async def test_who_hangs_up_keeps_its_turn_until_its_check_is_over(
    known: Known,
    checked: Checked,
    logins: ApplicationLogins,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    web = known.add("web")
    checked.may_go_on.clear()
    for number in range(5):
        asked = asyncio.create_task(logins.check("acme.web", f"guess {number}", HERE))
        if not number:
            await eventually(lambda: bool(checked.passwords))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    with monkeypatch.context() as patch:
        patch.setattr(application_logins, "_PATIENCE", 0.05)
        with pytest.raises(TooManyLogins):
            await logins.check("acme.web", SECRET, "2001:db8::1")
    assert checked.passwords == ["guess 0"]
    # All of asyncio's own threads are free.
    await asyncio.gather(*(asyncio.to_thread(int) for _ in range(100)))
    checked.may_go_on.set()
    assert await logins.check("acme.web", SECRET, HERE) is web
    # The result is known, although nobody waited for it.
    assert await logins.check("acme.web", "guess 0", HERE) is None
    assert checked.passwords == ["guess 0", SECRET]
    assert not logins._waiting


async def test_many_at_once_are_checked_once(
    known: Known, checked: Checked, logins: ApplicationLogins
) -> None:
    web = known.add("web")
    found = await asyncio.gather(*(logins.check("acme.web", SECRET, HERE) for _ in range(100)))
    assert found == [web] * 100
    assert len(checked.verifiers) == 1


async def test_who_waits_for_the_same_check_waits_for_no_other(
    known: Known, logins: ApplicationLogins, monkeypatch: pytest.MonkeyPatch
) -> None:
    web, begun = known.add("web"), []
    gates = {SECRET: threading.Event(), "guess": threading.Event()}

    def gated(password: str, verifier: str) -> bool:
        begun.append(password)
        return gates[password].wait(60) and verify(password, verifier)

    monkeypatch.setattr(application_logins, "verify", gated)
    async with asyncio.TaskGroup() as group:
        same = [group.create_task(logins.check("acme.web", SECRET, HERE)) for _ in range(9)]
        await eventually(lambda: begun == [SECRET])
        group.create_task(logins.check("acme.web", "guess", "2001:db8::1"))
        await asyncio.sleep(0)
        gates[SECRET].set()
        try:
            assert [await each for each in same] == [web] * 9
        finally:
            gates["guess"].set()


async def test_a_user_that_does_not_exist_is_checked_like_any_other(
    known: Known, checked: Checked, logins: ApplicationLogins
) -> None:
    for _ in range(2):
        assert await logins.check("acme.nobody", SECRET, HERE) is None
    [verifier] = checked.verifiers
    assert verifier.startswith("SCRAM-SHA-256$4096:")
    # The result for an unknown user says nothing about a user of that name who is created later.
    nobody = known.add("nobody")
    assert await logins.check("acme.nobody", SECRET, HERE) is nobody


async def test_what_was_right_is_not_for_another_user_or_password(
    known: Known, checked: Checked, logins: ApplicationLogins
) -> None:
    known.add("web")
    known.add("jobs", "another")
    assert await logins.check("acme.web", SECRET, HERE) is not None
    assert await logins.check("acme.jobs", SECRET, HERE) is None


async def test_a_revoked_or_replaced_credential_is_refused_at_once(
    known: Known, checked: Checked, logins: ApplicationLogins
) -> None:
    known.add("web")
    assert await logins.check("acme.web", SECRET, HERE) is not None
    del known.by_user["acme.web"]
    assert await logins.check("acme.web", SECRET, HERE) is None
    known.add("web", "new")
    assert await logins.check("acme.web", SECRET, HERE) is None
    assert await logins.check("acme.web", "new", HERE) is not None


async def test_a_credential_that_is_revoked_during_its_check_is_refused(
    known: Known, checked: Checked, logins: ApplicationLogins
) -> None:
    known.add("web")
    checked.may_go_on.clear()
    asked = asyncio.create_task(logins.check("acme.web", SECRET, HERE), name="a login")
    await eventually(lambda: bool(checked.verifiers))
    del known.by_user["acme.web"]
    checked.may_go_on.set()
    assert await asked is None


async def test_one_is_checked_at_a_time_and_nobody_waits_for_ever(
    known: Known,
    checked: Checked,
    logins: ApplicationLogins,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(application_logins, "_PATIENCE", 0.05)
    known.add("web")
    checked.may_go_on.clear()
    first = asyncio.create_task(logins.check("acme.web", "one", HERE), name="a login")
    await eventually(lambda: bool(checked.verifiers))
    with pytest.raises(TooManyLogins):
        await logins.check("acme.web", "two", HERE)
    checked.may_go_on.set()
    assert await first is None
    assert await logins.check("acme.web", SECRET, HERE) is not None


async def test_addresses_take_turns(
    known: Known, checked: Checked, logins: ApplicationLogins
) -> None:
    known.add("web")
    checked.may_go_on.clear()
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(logins.check("acme.web", f"guess {number}", "2001:db8::1"))
            group.create_task(logins.check("acme.web", f"guess {number}", "2001:db8::2"))
        await eventually(lambda: bool(checked.passwords))
        right = group.create_task(logins.check("acme.web", SECRET, HERE))
        await asyncio.sleep(0)
        checked.may_go_on.set()
        assert await right is not None
    assert len(checked.passwords) == 21
    assert checked.passwords.index(SECRET) <= 2
    assert not logins._turns_of_networks


async def test_an_address_that_guesses_has_few_requests_that_wait(
    known: Known, checked: Checked, logins: ApplicationLogins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application_logins, "_MOST_WAITING", 3)
    web = known.add("web")
    checked.may_go_on.clear()
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(logins.check("acme.web", f"guess {number}", HERE))
        await eventually(lambda: bool(checked.passwords))
        with pytest.raises(TooManyLogins):
            await logins.check("acme.web", "another guess", HERE)
        # An application that asks often at its start waits for one check, and so do others.
        same = [group.create_task(logins.check("acme.web", "guess 1", HERE)) for _ in range(9)]
        elsewhere = [
            group.create_task(logins.check("acme.web", SECRET, "2001:db8::1")) for _ in range(9)
        ]
        await asyncio.sleep(0)
        checked.may_go_on.set()
        assert [await each for each in same] == [None] * 9
        assert [await each for each in elsewhere] == [web] * 9
    assert len(checked.passwords) == 4
    assert not logins._waiting


async def test_what_is_kept_is_bounded(
    known: Known, logins: ApplicationLogins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application_logins, "_MOST_KEPT", 3)
    web = known.add("web")
    assert await logins.check("acme.web", SECRET, HERE) is web
    for number in range(9):
        assert await logins.check("acme.web", f"guess {number}", HERE) is None
    assert (len(logins._right._kept), len(logins._wrong._kept)) == (1, 3)
