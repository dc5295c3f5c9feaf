"""An agent and a service of different minor versions: which of them to upgrade."""

import pytest

from app.domain.nodes.agent_version import version_warning


@pytest.mark.parametrize(
    ("agent", "service", "older"),
    [
        ("0.1.0", "0.2.0", "agent"),
        ("0.9.3", "0.10.0", "agent"),
        ("1.10.0", "2.1.0", "agent"),
        ("0.1.0", "0.2.0rc1", "agent"),
        ("0.2.0.dev3+g1", "0.1.0", "service"),
    ],
)
def test_the_older_one_is_to_be_upgraded(agent: str, service: str, older: str) -> None:
    warning = version_warning(agent, service)
    assert warning is not None
    assert agent in warning
    assert service in warning
    assert warning.endswith(f"Upgrade the {older}.")


@pytest.mark.parametrize(
    "agent",
    ["0.2.0", "0.2.1", "0.2.0rc1", "0.2", "", "trunk", "0", "0.x", "0.1\x1b[2J", "0.1" + "x" * 999],
    ids=repr,
)
def test_versions_that_differ_by_fixes_or_cannot_be_read_fit(agent: str) -> None:
    assert version_warning(agent, "0.2.7") is None
