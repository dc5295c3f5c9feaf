"""Who may be active, by the catalog's record of the last one."""

from dataclasses import replace

import pytest

from app.domain.leadership import (
    Instance,
    LeadershipRecord,
    key_refusal,
    refusal,
    refusal_among,
)

MINE = Instance(id="a", version="1", url="http://a", secret_key="k", servers="s")
HELD = LeadershipRecord(
    epoch=3,
    holder="b",
    url="http://b",
    age=1.0,
    released=False,
    secret_key="k",
    servers="s",
)
ALONE = replace(HELD, url=None)
RELEASED = replace(HELD, released=True)


def test_a_record_is_abandoned_only_if_its_holder_expects_a_standby() -> None:
    assert not replace(HELD, age=10.0).is_abandoned
    assert replace(HELD, age=10.1).is_abandoned
    # The catalog's clock was set back.
    assert replace(HELD, age=-0.1).is_abandoned
    assert not replace(ALONE, age=1000.0).is_abandoned
    assert not replace(RELEASED, age=1000.0).is_abandoned
    assert not replace(HELD, holder=None, age=1000.0).is_abandoned


def test_trust_is_waited_out_after_an_end_that_was_not_in_order() -> None:
    assert HELD.trust_left == pytest.approx(5.1)
    assert replace(HELD, age=7.0).trust_left == 0
    # The catalog's clock was set back.
    assert replace(HELD, age=-3600.0).trust_left == pytest.approx(6.1)
    assert RELEASED.trust_left == 0
    assert ALONE.trust_left == 0


def test_an_instance_with_other_settings_does_not_take_over() -> None:
    assert refusal(HELD, MINE) is None
    for name, change in {"secret key": {"secret_key": "x"}, "servers": {"servers": "x"}}.items():
        other = replace(MINE, **change)
        said = refusal(HELD, other)
        assert said is not None
        assert said.startswith("This instance and the active one, http://b, have different")
        assert name in said
        # Once all have ended, any of them may start.
        assert refusal(RELEASED, other) is None
        assert refusal(replace(HELD, age=11.0), other) is None
        # An instance that did not register cannot be compared.
        assert refusal(replace(HELD, secret_key=None, servers=None), other) is None
        # Without a URL it excludes others anyway.
        assert refusal(HELD, replace(other, url=None)) is None


def test_an_instance_with_other_settings_does_not_stand_by_beside_others() -> None:
    same, alone = replace(MINE, id="b"), replace(MINE, id="c", url=None, servers="x")
    other = replace(MINE, id="d", url="http://d", servers="x")
    assert refusal_among([], MINE) is None
    assert refusal_among([same, alone], MINE) is None
    said = refusal_among([same, other], MINE)
    assert said is not None
    assert "another one, http://d, have different settings for: servers." in said


def test_an_instance_with_other_api_keys_is_not_ready() -> None:
    record = replace(HELD, keys="x")
    said = key_refusal(record, "y")
    assert said is not None
    assert "http://b" in said
    for same in (None, HELD, replace(record, keys="y"), replace(RELEASED, keys="x")):
        assert key_refusal(same, "y") is None


def test_fingerprints_of_api_keys_are_compared_only_in_the_same_form() -> None:
    for theirs, ours, is_same in [("x", "2:y", True), ("3:x", "2:y", True), ("2:x", "2:y", False)]:
        assert (key_refusal(replace(HELD, keys=theirs), ours) is None) is is_same
