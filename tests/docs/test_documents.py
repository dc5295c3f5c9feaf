"""The documents: every command works, every link has a target, every setting is documented.

Blocks that begin with ```sh run one after the other in one shell. The text after `sh` marks
exceptions:

    no-run: reason  not run; its make targets and commands must exist
    412             one of its requests has this status; all others succeed
    exit 3          its last command has this exit status; all others 0

A block of ```json or ```text right after it shows the output: names and words must be there,
numbers may differ, and … stands for anything.
"""

import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest
from typer.main import get_command

from app.cli.main import cli
from tests.docs.settings_reference import reference
from tests.fixtures.missing import missing
from tests.fixtures.preloaded import preloaded_program
from tests.fixtures.processes import completed
from tests.fixtures.served import Serve, Served

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
ADDRESS = "http://127.0.0.1:8080"
TIMEOUT_SECONDS = 240.0
_FENCE = re.compile(r"^```(\w*)(?: +([^\n]*))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "=== end of block ==="
_TOP = "alembic|app|benchmarks|docs|monitoring|openapi|poolkeeper|tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of commands, with the output that the document shows."""

    line: int
    info: str
    text: str
    shown: str | None
    language: str | None

    @property
    def is_run(self) -> bool:
        """Whether the block is run."""
        return not self.info.startswith("no-run: ")

    @property
    def exit_status(self) -> int:
        """Exit status of the last command."""
        found = re.fullmatch(r"exit (\d)", self.info)
        return int(found[1]) if found else 0

    @property
    def http_status(self) -> str | None:
        """The expected status of one unsuccessful response."""
        return self.info if re.fullmatch(r"\d{3}", self.info) else None


def blocks(document: Path) -> list[Block]:
    """The command blocks of a document."""
    text = document.read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    return [
        _block(text, here, after)
        for here, after in zip_longest(found, found[1:])
        if here[1] == "sh"
    ]


def _block(text: str, here: re.Match[str], after: re.Match[str] | None) -> Block:
    follows = after is not None and not text[here.end() : after.start()].strip()
    shows = after if after is not None and follows and after[1] in {"json", "text"} else None
    return Block(
        line=text.count("\n", 0, here.start()) + 1,
        info=here[2] or "",
        text=here[3],
        shown=shows[3] if shows else None,
        language=shows[1] if shows else None,
    )


RUN = [each for each in DOCUMENTS if any(block.is_run for block in blocks(each))]


@pytest.fixture(scope="module")
def poolkeeper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the command in it."""
    folder = tmp_path_factory.mktemp("quick")
    preloaded_program(folder)
    return folder


@pytest.fixture
async def service(serve: Serve) -> AsyncIterator[Served]:
    """A service with default settings, on a Postgres that already runs."""
    async with serve(poll_interval_seconds=1, query_on_shared=True) as running:
        yield running


@pytest.mark.long
@pytest.mark.parametrize("document", RUN, ids=lambda each: each.name)
async def test_every_command_works_in_order(
    document: Path, poolkeeper: Path, service: Served, tmp_path: Path
) -> None:
    if not (shutil.which("curl") and shutil.which("bash")):
        missing("The documents' commands need curl and bash.")
    to_run = [block for block in blocks(document) if block.is_run]
    address = str(service.client.base_url).rstrip("/")
    path = f"{tmp_path}/bin:{poolkeeper}:{os.environ['PATH']}"
    outputs = await _run(_script(to_run, address), tmp_path, address, path)
    for block, output in zip(to_run, outputs, strict=True):
        _check(document.name, block, *output)


@pytest.mark.long
async def test_the_guides_can_follow_each_other(
    poolkeeper: Path, service: Served, tmp_path: Path
) -> None:
    """On one service, as a reader tries them; the last one ends with API keys."""
    if not (shutil.which("curl") and shutil.which("bash")):
        missing("The documents' commands need curl and bash.")
    guides = [
        ROOT / "docs" / f"{name}.md" for name in ("quickstart", "serverless", "terminal", "api")
    ]
    to_run = [block for guide in guides for block in blocks(guide) if block.is_run]
    address = str(service.client.base_url).rstrip("/")
    path = f"{tmp_path}/bin:{poolkeeper}:{os.environ['PATH']}"
    outputs = await _run(_script(to_run, address), tmp_path, address, path)
    for block, (output, statuses) in zip(to_run, outputs, strict=True):
        assert _failed(statuses) == ({block.http_status} - {None}), (
            f"{block.text}{output}{statuses}"
        )


def _script(to_run: list[Block], address: str) -> str:
    """One script of all blocks, with a mark and the response statuses after each."""
    lines = ["set -e"]
    for block in to_run:
        text = block.text.replace(ADDRESS, address)
        if block.exit_status:
            text = f"set +e\n{text}[ $? -eq {block.exit_status} ] || exit 99\nset -e\n"
        lines += [
            text,
            f"printf '\\n%s\\n' '{_MARK}'",
            "cat statuses; : > statuses",
            f"echo '{_MARK}'",
        ]
    return "\n".join(lines) + "\n"


async def _run(script: str, folder: Path, address: str, path: str) -> list[tuple[str, str]]:
    """The output and the response statuses of each block."""
    statuses = folder / "statuses"
    statuses.touch()
    commands = folder / "bin"
    commands.mkdir()
    curl = commands / "curl"
    note = "%{stderr}status %{http_code}\\n"
    # The last -w counts: the documents' own is a new line.
    curl.write_text(f"#!/bin/sh\nexec {shutil.which('curl')} \"$@\" -w '{note}' 2>>{statuses}\n")
    curl.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": path,
        "COLUMNS": "160",
        "POOLKEEPER_URL": address,
        "POOLKEEPER_DATA_DIR": str(folder / "data"),
    }
    done = await completed(
        "bash", "-c", script, seconds=TIMEOUT_SECONDS, cwd=folder, env=environment
    )
    parts = done.stdout.split(f"{_MARK}\n")
    assert done.returncode == 0, f"after {parts[-1]}\n{done.stderr}\n{statuses.read_text()}"
    return list(zip(parts[::2], parts[1::2], strict=False))


def _check(name: str, block: Block, output: str, statuses: str) -> None:
    where = f"{name}:{block.line}: {output}\n{statuses}"
    assert _failed(statuses) == ({block.http_status} - {None}), where
    if block.language == "json":
        assert block.shown is not None
        _check_json(json.loads(block.shown), _last_json(output), where)
    elif block.shown is not None:
        _check_text(block.shown, output, where)


def _failed(statuses: str) -> set[str]:
    found = re.findall(r"^status (\d+)$", statuses, re.MULTILINE)
    return {status for status in found if not status.startswith(("2", "3"))}


def _last_json(output: str) -> object:
    """The last JSON document of the output."""
    decoder, at = json.JSONDecoder(), 0
    found: object = None
    while begin := re.compile(r"[\[{]").search(output, at):
        found, at = decoder.raw_decode(output, begin.start())
    return found


def _check_json(shown: object, actual: object, where: str) -> None:
    """Check that all that is shown is there; numbers and times may differ."""
    match shown:
        case dict():
            assert isinstance(actual, dict), where
            for name, value in shown.items():
                assert name in actual, f"{name} of {where}"
                _check_json(value, actual[name], where)
        case list():
            assert isinstance(actual, list), where
            assert len(actual) >= len(shown), where
            for value, other in zip(shown, actual, strict=False):
                _check_json(value, other, where)
        case str() if re.search(r"\d|…", shown):
            assert isinstance(actual, str), where
        case bool() | str() | None:
            assert shown == actual, where
        case _:
            assert isinstance(actual, int | float), where


def _check_text(shown: str, output: str, where: str) -> None:
    text = _plain(output)
    for line in shown.splitlines():
        at = 0
        for piece in _plain(line).split("…"):
            at = text.find(piece.strip(), at)
            assert at >= 0, f"{line!r} is not in {where}"


def _plain(text: str) -> str:
    return " ".join(re.sub(r"\d[\d.,]*", "0", text).split())


def test_differences_are_detected() -> None:
    with pytest.raises(AssertionError):
        _check_json({"state": "ready"}, {"state": "paused"}, "")
    with pytest.raises(AssertionError):
        _check_text("+ create acme", "+ create globex", "")
    _check_json({"at": "2026-01-01", "n": 1}, {"at": "2027-02-02", "n": 2.5, "more": None}, "")
    _check_text("took 12 ms … done", "took 9.1   ms\n and was done", "")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each.name)
def test_named_commands_and_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(get_command(cli).commands)  # type: ignore[attr-defined]
    for text in [*_inline(document), *(block.text for block in blocks(document))]:
        assert set(re.findall(r"\bmake ([a-z][a-z-]*)", text)) <= targets
        named = re.findall(r"^(?:\S*/)?poolkeeper ([a-z][a-z-]*)", text, re.MULTILINE)
        assert set(named) <= commands


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each.name)
def test_what_is_named_exists(document: Path) -> None:
    for text in _inline(document):
        if re.fullmatch(rf"(?:{_TOP})/[\w./-]*", text):
            assert (ROOT / text).exists(), f"{text} in {document.name}"
        elif re.fullmatch(r"(?:[A-Z][a-z]+){2,}", text):
            assert text in _NAMES, f"{text} in {document.name}"


def _inline(document: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", document.read_text(encoding="utf-8")))


# Classes, and alerts.
_NAMES = {
    name
    for folder, suffix in (("app", "py"), ("poolkeeper", "py"), ("monitoring", "yml"))
    for file in (ROOT / folder).rglob(f"*.{suffix}")
    for name in re.findall(
        r"^(?:class|\s+- alert:) (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE
    )
}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each.name)
def test_every_link_has_a_target(document: Path) -> None:
    for target in _links(document):
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{target} in {document.name}"
        if anchor:
            assert anchor in _anchors(file), f"{target} in {document.name}"


def _links(document: Path) -> Iterator[str]:
    text = _FENCE.sub("", document.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text):
        found = target[0] or target[1]
        if not found.startswith(("http://", "https://")):
            yield found


def _anchors(document: Path) -> set[str]:
    """The anchors of the headings, as common viewers generate them."""
    text = _FENCE.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_reference_of_the_settings_is_up_to_date() -> None:
    content = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert content == reference(), "python -m tests.docs.settings_reference > docs/settings.md"


def test_every_document_is_linked() -> None:
    reached, at = {ROOT / "README.md"}, [ROOT / "README.md"]
    while at:
        document = at.pop()
        for target in _links(document):
            file = (document.parent / target.partition("#")[0]).resolve()
            if file.suffix == ".md" and file not in reached and file.exists():
                reached.add(file)
                at.append(file)
    # The advisor's report exists only after `make advisor-report`.
    report = ROOT / "docs" / "advisor" / "report.md"
    assert set(DOCUMENTS) - {report} <= reached
