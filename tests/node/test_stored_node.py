"""The files that an agent leaves for the next one: used only if complete and of this boot."""

import errno
import os
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.domain.nodes.allotment import Allotment
from app.node import stored_node as module
from app.node.files import NodeDirectory
from app.node.stored_node import NodeStore
from tests.fixtures.full_disk import files_of_at_most
from tests.node.configurations import SERVER, configuration, entry

NODE = configuration(entry("acme", logins=("acme.web",)), allotment=10, generation=3)
LATER = {SERVER: Allotment(generation=4, connections=6)}


@pytest.fixture
def directory(tmp_path: Path) -> NodeDirectory:
    made = NodeDirectory(tmp_path / "node")
    made.make()
    return made


def test_the_next_agent_finds_the_latest_allotments_and_when_they_were_accepted(
    directory: NodeDirectory,
) -> None:
    store = NodeStore(directory)
    store.store(NODE)
    assert store.load() is None  # the service has accepted nothing
    store.accept(77.5, LATER, {})
    found = NodeStore(directory).load()
    assert found is not None
    assert found.accepted_at == 77.5
    assert found.configuration == NODE.with_allotments(LATER)
    for name in ("configuration.json", "contact.json"):
        assert stat.S_IMODE((directory.path / name).stat().st_mode) == 0o600


@pytest.mark.parametrize(("committed", "left"), [(0, 4), (9, 9)])
def test_the_next_agent_finds_how_many_connections_may_be_left(
    directory: NodeDirectory, committed: int, left: int
) -> None:
    store = NodeStore(directory)
    store.store(NODE)
    store.accept(1.0, {SERVER: Allotment(generation=4, connections=4)}, {SERVER: committed})
    found = NodeStore(directory).load()
    assert found is not None
    assert found.left == {SERVER: left}


def test_what_is_damaged_or_of_another_start_of_the_machine_is_not_used(
    directory: NodeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = NodeStore(directory)
    store.store(NODE)
    store.accept(1.0, LATER, {})
    with monkeypatch.context() as patched:
        patched.setattr(module, "boot_id", lambda: "another")
        assert NodeStore(directory).load() is None
    assert store.load() is not None
    directory.write("contact.json", b'{"boot": 7}')
    assert store.load() is None


def test_on_a_full_disk_an_old_allotment_is_not_left_for_the_next_agent(
    directory: NodeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = NodeStore(directory)
    store.store(NODE)
    store.accept(1.0, {SERVER: Allotment(generation=3, connections=10)}, {})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fchown", full)
    store.accept(2.0, LATER, {})
    monkeypatch.undo()
    assert store.load() is None


def test_a_configuration_that_does_not_fit_on_the_disk_leaves_none_for_the_next_agent(
    directory: NodeDirectory,
) -> None:
    """The old one may have logins that were revoked since. The contact, which is short, fits."""
    store = NodeStore(directory)
    store.store(NODE)
    store.accept(1.0, LATER, {})
    size = (directory.path / "configuration.json").stat().st_size
    with files_of_at_most(size):
        store.store(configuration(*(entry(name) for name in ("acme", "bravo", "coral")), version=2))
        store.accept(2.0, LATER, {})
    assert (directory.path / "contact.json").exists()
    assert not store.has_configuration
    assert store.load() is None
    assert len(list(directory.path.iterdir())) == 1  # no partial file


def test_what_can_be_neither_written_nor_removed_does_not_end_the_agent(
    directory: NodeDirectory,
) -> None:
    (directory.path / "contact.json").mkdir()
    store = NodeStore(directory)
    with capture_logs() as logs:
        for _ in range(3):  # and says so once
            store.accept(1.0, LATER, {})
    assert [each["event"] for each in logs] == ["files for the next agent not written"]
