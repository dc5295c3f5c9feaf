"""The file of keys: the command writes it, the service reads it, and never uses a part of it."""

import errno
import json
import os
import re
import stat
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from app import control, settings
from app.api.auth import key_file
from app.api.auth.api_key import ApiKey, api_key_for, key_id_of, new_token, token_digest
from app.api.auth.key_file import InvalidKeyFile, KeyFile, KeyList, read_keys
from app.api.auth.key_scope import KeyScope
from app.cli.main import cli
from app.domain.audit import Actor
from tests.fixtures.keys import Keyring


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "keys.json"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["keys", *map(str, arguments)])


def new(path: Path, name: str = "ci", *more: str) -> Result:
    return run("create", name, "--scope", "read", "--file", path, *more)


def kept_in(path: Path) -> tuple[ApiKey, ...]:
    return read_keys(path).keys


# --- the command -----------------------------------------------------------------------------


def test_a_new_key_is_printed_once_and_only_its_hash_is_stored(path: Path) -> None:
    made = new(path, "ci", "--scope", "query", "--tenant", "acme", "--rate", "7")
    assert made.exit_code == 0
    token = made.stdout.strip()
    assert re.fullmatch(r"poolkeeper_[0-9a-f]{8}_[0-9a-f]{64}", token)
    [kept] = json.loads(path.read_text())["keys"]
    assert kept.pop("created_at")
    assert kept == {
        "name": "ci",
        "id": key_id_of(token),
        "sha256": token_digest(token).hex(),
        "scopes": ["read", "query"],
        "tenants": ["acme"],
        "requests_per_second": 7,
    }
    secret = token.rpartition("_")[2]
    assert secret not in path.read_text() + made.stderr + run("list", "--file", path).output


def test_a_key_of_a_node_is_for_that_alone(path: Path) -> None:
    options = ["--file", str(path), "--scope", "node"]
    assert run("create", "edge", *options, "--node", "edge-1").exit_code == 0
    [kept] = kept_in(path)
    assert (kept.node, kept.scopes, kept.tenants) == ("edge-1", ("node",), None)
    for more in (
        [],
        ["--node", "Edge"],
        ["--node", "edge-1", "--scope", "read"],
        ["--node", "edge-1", "--tenant", "acme"],
    ):
        refused = run("create", "other", *options, *more)
        assert (refused.exit_code, refused.stdout) == (2, "")
    assert run("create", "other", "--scope", "read", "--node", "x", "--file", path).exit_code == 2
    # However they got into the file.
    for name in ("node", "scopes"):
        stored = json.loads(path.read_text())
        stored["keys"][0] |= {"node": None} if name == "node" else {"scopes": ["admin"]}
        broken = path.with_name("broken.json")
        broken.write_text(json.dumps(stored))
        broken.chmod(0o600)
        with pytest.raises(InvalidKeyFile, match="node"):
            read_keys(broken)


def test_keys_are_unique() -> None:
    assert len({new_token() for _ in range(100)}) == 100


def test_its_file_is_its_owners_alone(path: Path) -> None:
    umask = os.umask(0)
    try:
        new(path)
        path.chmod(0o644)
        new(path, "second")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_postgres_and_pgbouncer_can_enter_a_data_directory_made_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = tmp_path / "data"
    monkeypatch.setenv("POOLKEEPER_DATA_DIR", str(data_dir))
    run("create", "first", "--scope", "admin")
    assert stat.S_IMODE((data_dir / "keys.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o711


def test_keys_are_listed_and_revoked_by_their_names(path: Path) -> None:
    new(path, "first", "--expires", "90d")
    new(path, "second", "--tenant", "acme")
    listed = run("list", "--file", path).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["NAME", "first", "second"]
    assert run("revoke", "first", "--yes", "--file", path).exit_code == 0
    assert "first" not in run("list", "--file", path).stdout
    assert "second" in run("list", "--file", path).stdout


def test_a_lifetime_is_stored_as_a_timestamp(path: Path) -> None:
    new(path, "ci", "--expires", "2w")
    [key] = kept_in(path)
    assert key.expires_at is not None
    assert (key.expires_at - key.created_at).days == 14


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("api",), "Key name: The service itself uses this name."),
        (("Big",), "Key name: Must have the form ^[a-z0-9]"),
        (("ci", "--tenant", "Big"), "--tenant: Must have the form ^[a-z0-9]"),
        (("ci", "--rate", "0"), "--rate: Must be 1 or more."),
        (("ci", "--expires", "soon"), "Invalid lifetime soon"),
    ],
)
def test_invalid_arguments_are_refused_in_a_sentence(
    path: Path, arguments: tuple[str, ...], told: str
) -> None:
    new(path, "taken")
    before = path.read_text()
    refused = new(path, *arguments)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("poolkeeper: ")
    assert told in refused.stderr
    assert not refused.stdout
    assert path.read_text() == before


def test_a_name_is_given_once(path: Path) -> None:
    new(path, "taken")
    again = new(path, "taken")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "already contains a key named taken" in again.stderr


def test_an_unknown_key_cannot_be_revoked(path: Path) -> None:
    new(path)
    refused = run("revoke", "other", "--yes", "--file", path)
    assert (refused.exit_code, refused.stderr) == (
        6,
        f"poolkeeper: {path} contains no key named other.\n",
    )


def test_the_command_writes_to_no_file_that_it_cannot_read(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{")
    refused = new(path)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"poolkeeper: Cannot use {path}: Invalid JSON")
    assert path.read_text() == "{"


def test_without_a_file_it_is_that_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOLKEEPER_HOST", "0.0.0.0")  # noqa: S104
    monkeypatch.setenv("POOLKEEPER_DATA_DIR", "here")
    assert run("create", "ci", "--scope", "read").exit_code == 0
    assert len(kept_in(Path("here/keys.json"))) == 1


def test_unreadable_settings_are_reported_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreadable(**_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(settings, "load_settings", unreadable)
    output = run("list")
    assert (output.exit_code, output.stderr) == (
        1,
        "poolkeeper: Cannot use the settings: Input/output error.\n",
    )


def test_no_key_has_the_name_of_an_actor_of_the_service() -> None:
    actors = {
        value.name
        for found in walk_packages(control.__path__, "app.control.")
        for value in vars(import_module(found.name)).values()
        if isinstance(value, Actor)
    }
    assert {"advisor", "poller", "isolation-audit"} <= actors
    for name in actors:
        with pytest.raises(ValidationError):
            api_key_for(
                new_token(), name=name, scopes=(KeyScope.READ,), created_at=datetime.now(UTC)
            )


# --- the file, as the service reads it -------------------------------------------------------


class Watched:
    """A file of keys and the service's view of it, with the test's own clock."""

    def __init__(self, path: Path, *, required: bool = False) -> None:
        self.now = 0.0
        self.file = KeyFile(path, required=required, clock=lambda: self.now)

    def knows(self, keys: Keyring, name: str) -> bool:
        """Whether a key is in force, two seconds later."""
        self.now += 2
        assert self.file.is_enforced
        return self.file.find(key_id_of(keys.tokens[name]) or "") is not None


def test_a_change_is_noticed_after_a_second_and_not_checked_before(tmp_path: Path) -> None:
    keys = Keyring(tmp_path / "keys.json")
    watched = Watched(keys.path)
    watched.file.load()
    keys.make("late")
    late = key_id_of(keys.tokens["late"]) or ""
    watched.now = 0.9
    assert watched.file.is_enforced
    assert watched.file.find(late) is None
    watched.now = 1.1
    assert watched.file.is_enforced
    assert watched.file.find(late) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"keys": [{}]}',
        '{"keys": 1}',
        '{"more": 1}',
        "\0",
        '{"keys": [], "keys": 7}',
    ],
)
def test_a_broken_file_leaves_the_keys_before_it_in_force(tmp_path: Path, text: str) -> None:
    keys = Keyring(tmp_path / "keys.json")
    keys.make("one")
    watched = Watched(keys.path)
    assert watched.knows(keys, "one")
    with capture_logs() as logged:
        keys.path.write_text(text)
        assert watched.knows(keys, "one")
        assert watched.knows(keys, "one")
    assert [found["log_level"] for found in logged] == ["error"]
    assert watched.file.problem
    keys.make("two")
    assert watched.knows(keys, "two")
    assert watched.file.problem is None


def test_a_deleted_file_grants_no_access(tmp_path: Path) -> None:
    keys = Keyring(tmp_path / "keys.json")
    keys.make("one")
    watched = Watched(keys.path)
    assert watched.knows(keys, "one")
    keys.path.unlink()
    assert watched.knows(keys, "one")
    assert watched.file.problem == f"There is no file {keys.path}."


def test_an_empty_list_of_keys_refuses_everybody(tmp_path: Path) -> None:
    watched = Watched(Keyring(tmp_path / "keys.json").path)
    watched.file.load()
    assert watched.file.is_enforced
    assert len(watched.file) == 0


def test_a_broken_first_file_grants_no_access(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    watched = Watched(path)
    assert not watched.file.is_enforced
    path.write_text("{")
    watched.now += 2
    assert watched.file.is_enforced


def test_a_missing_required_file_grants_no_access(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "keys.json", required=True)
    with pytest.raises(InvalidKeyFile, match="There is no file"):
        watched.file.load()
    assert watched.file.is_enforced


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    keys = Keyring(tmp_path / "keys.json")
    keys.path.chmod(mode)
    with pytest.raises(InvalidKeyFile, match="others can write to it"):
        KeyFile(keys.path, required=False).load()
    keys.path.chmod(0o644)
    KeyFile(keys.path, required=False).load()


def test_a_pipe_or_a_folder_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(InvalidKeyFile):
            KeyFile(path, required=False).load()


def test_two_keys_of_one_name_are_refused_without_quoting_the_file(tmp_path: Path) -> None:
    keys = Keyring(tmp_path / "keys.json")
    keys.make("twin")
    written = json.loads(keys.path.read_text())["keys"][0]
    keys.path.write_text(json.dumps({"keys": [written, written]}))
    with pytest.raises(InvalidKeyFile) as caught:
        KeyFile(keys.path, required=False).load()
    assert str(caught.value) == f"Cannot use {keys.path}: Two keys have the same name."
    keys.path.write_text(json.dumps({"keys": [{**written, "sha256": keys.tokens["twin"]}]}))
    with pytest.raises(InvalidKeyFile) as caught:
        KeyFile(keys.path, required=False).load()
    assert keys.tokens["twin"] not in str(caught.value)


def test_a_version_whose_keys_have_more_fields_finds_the_same_fingerprint(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NewerKey(ApiKey):
        networks: tuple[str, ...] | None = None

    class NewerList(KeyList):
        keys: tuple[NewerKey, ...] = ()

    new(path, "first")
    before = KeyFile(path, required=True).fingerprint
    monkeypatch.setattr(key_file, "KeyList", NewerList)
    assert KeyFile(path, required=True).fingerprint == before


def test_a_fingerprint_tells_keys_apart_whatever_their_order(path: Path, tmp_path: Path) -> None:
    new(path, "first")
    clock = [0.0]
    keys = KeyFile(path, required=True, clock=lambda: clock[0])
    keys.load()
    before = keys.fingerprint
    assert KeyFile(tmp_path / "none", required=False).fingerprint != before
    new(path, "second")
    assert keys.fingerprint == before  # the file is read once a second
    clock[0] += 2.0
    both = keys.fingerprint
    assert both != before
    file = KeyList(keys=tuple(reversed(kept_in(path))))
    path.write_text(file.model_dump_json())
    clock[0] += 2.0
    assert keys.fingerprint == both
    run("revoke", "second", "--yes", "--file", path)
    clock[0] += 2.0
    assert keys.fingerprint == before
