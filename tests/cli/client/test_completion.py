"""What TAB offers of a running service, and that it offers nothing without one."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from app.cli.client import completion
from app.cli.main import cli
from tests.fixtures.echo_service import EchoService, echo_service


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "_SECONDS", 60.0)


def offered(words: str, **environment: str) -> list[str]:
    """What a TAB after *words* offers; there may be no other output."""
    completing = {
        "_POOLKEEPER_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    result = CliRunner().invoke(cli, env=completing | environment, prog_name="poolkeeper")
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("poolkeeper tenants show ", ["acme"]),
        ("poolkeeper tenants show a", ["acme"]),
        ("poolkeeper tenants show b", []),
        ("poolkeeper tenants rotate --dry-run a", ["acme"]),
        ("poolkeeper query a", ["acme"]),
        ("poolkeeper credentials create ", ["acme"]),
        ("poolkeeper credentials revoke acme ", ["web"]),
        ("poolkeeper credentials show acme j", []),
        ("poolkeeper credentials show x/y ", []),
        ("poolkeeper pools pause ", ["acme"]),
        ("poolkeeper servers show ", ["local"]),
        ("poolkeeper leases list --tenant ", ["acme"]),
        ("poolkeeper events list --pool ac", ["acme"]),
        ("poolkeeper tenants list --server ", ["local"]),
    ],
)
def test_names_of_the_service_are_offered(
    service: EchoService, words: str, names: list[str]
) -> None:
    assert offered(words, POOLKEEPER_URL=service.url) == names


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("poolkeeper recommendations apply ", "/v1/recommendations"),
        ("poolkeeper events show ", "/v1/events"),
        ("poolkeeper refusals show ", "/v1/refusals"),
    ],
)
def test_what_has_no_name_is_offered_by_its_id(service: EchoService, words: str, path: str) -> None:
    [found] = offered(words, POOLKEEPER_URL=service.url)
    assert found == str(service.answer("GET", path, None)[1]["items"][0]["id"])


@pytest.mark.parametrize(
    "words", ["poolkeeper --url {} tenants show a", "poolkeeper tenants show --url={} a"]
)
def test_the_options_in_the_line_say_which_service(service: EchoService, words: str) -> None:
    assert offered(words.format(service.url)) == ["acme"]


def test_the_service_looks_for_what_was_typed(
    service: EchoService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It returns those of 10,000 tenants that match."""

    def search(_: EchoService, __: str, path: str, ___: object) -> tuple[int, Mapping[str, Any]]:
        [part] = parse_qs(urlsplit(path).query)["search"]
        return 200, {"items": [{"id": f"{part}-1"}, {"id": f"not-{part}"}], "next_cursor": None}

    monkeypatch.setattr(EchoService, "answer", search)
    words = "poolkeeper tenants show shop-42"
    assert offered(words, POOLKEEPER_URL=service.url) == ["shop-42-1"]


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_service_that_refuses_offers_nothing(service: EchoService, status: int) -> None:
    service.refusals = [(status, "refused")]
    assert offered("poolkeeper tenants show ", POOLKEEPER_URL=service.url) == []
    assert len(service.heard) <= 1  # nothing is tried again


def test_a_list_that_fails_leaves_no_half_of_the_names(
    service: EchoService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only name of that half would be completed, though others begin like it."""

    def answer(_: EchoService, __: str, path: str, ___: object) -> tuple[int, Mapping[str, Any]]:
        if path.startswith("/v1/pools"):
            return 200, {"items": [{"pool_id": "acme"}], "next_cursor": None}
        return 503, {"detail": "Refused", "code": "refused"}

    monkeypatch.setattr(EchoService, "answer", answer)
    assert offered("poolkeeper pools pause ac", POOLKEEPER_URL=service.url) == []


def test_a_service_that_is_away_or_no_service_offers_nothing(
    tmp_path: Path, service: EchoService
) -> None:
    words = "poolkeeper tenants show "
    assert offered(words, POOLKEEPER_URL="http://127.0.0.1:1") == []
    assert offered(words, POOLKEEPER_URL="not an address") == []
    missing = str(tmp_path / "missing.key")
    assert offered(words, POOLKEEPER_URL=service.url, POOLKEEPER_API_KEY_FILE=missing) == []


def test_a_service_that_says_nothing_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert offered("poolkeeper tenants show ", POOLKEEPER_URL=url) == []


@pytest.mark.parametrize("words", ["$(reboot)", "; reboot", "\n", "\x1b[2J", "`x`"])
def test_what_a_shell_would_run_is_not_offered(words: str) -> None:
    with echo_service(words) as hostile:
        assert offered("poolkeeper tenants show ", POOLKEEPER_URL=hostile.url) == []
