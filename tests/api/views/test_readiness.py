"""Whether a standby is ready that cannot forward: as long as it may have to take over."""

from dataclasses import dataclass

import pytest

from app.api.views import readiness
from app.api.views.readiness import StandbyReadiness
from app.domain.leadership import InstanceState, LeadershipRecord

RECORD = LeadershipRecord(epoch=1, holder="a", url="http://a", age=0.5, released=False)


@dataclass(slots=True)
class Election:
    """A standby's view of an active instance."""

    record: LeadershipRecord | None = RECORD
    trouble: str | None = None
    active_url: str | None = "http://a"
    is_serving: bool = False
    state: InstanceState = InstanceState.STANDBY
    active_instance: str = "The active instance is http://a."

    def keys(self) -> str:
        return ""


def aged(age: float) -> LeadershipRecord:
    return LeadershipRecord(epoch=1, holder="a", url="http://a", age=age, released=False)


@pytest.mark.parametrize(
    ("election", "is_required"),
    [
        (Election(), True),
        (Election(record=aged(3.5)), False),
        (Election(record=None), False),
        (Election(active_url=None), False),
        (Election(trouble="The catalog is away."), False),
    ],
    ids=["works", "does not renew", "unknown", "ended", "not seen"],
)
async def test_only_beside_an_active_instance_that_works_it_must_reach_it(
    election: Election, monkeypatch: pytest.MonkeyPatch, *, is_required: bool
) -> None:
    now, trouble = 1000.0, "It is cut off."
    said: list[str | None] = [trouble, None, trouble, trouble, trouble]
    monkeypatch.setattr(readiness, "monotonic", lambda: now)

    async def find_trouble() -> str | None:
        return said.pop(0)

    checks = StandbyReadiness(election, find_trouble)  # type: ignore[arg-type]
    found = []
    for seconds in (0.0, 1.0, 10.0, 2.0, 1.0):
        now += seconds
        *_, check = await checks.run()
        found.append((check.ok, check.required))
    # It was never reached; it is reached; it may be slow; it is not reached any more.
    slow = (False, False)
    assert found == [(False, is_required), (True, False), slow, slow, (False, is_required)]
