"""What `poolkeeper query` prints at a terminal's width, and about a failed statement."""

from collections.abc import Mapping, Sequence

import pytest
from typer.testing import CliRunner, Result

from app.cli.client.query import excerpt
from app.cli.main import cli
from tests.fixtures.echo_service import EchoService

VALUES = {
    "id": "9223372036854775807",
    "amount": "12345678.123456",
    "created_at": "2026-11-20T09:00:00.123456+00:00",
    "name": "tenant_acme",
    "text": "the words of a long sentence",
}


def query(
    service: EchoService,
    monkeypatch: pytest.MonkeyPatch,
    *words: str,
    width: int | None,
    values: Mapping[str, object] = VALUES,
    rows: int = 1,
    truncated: bool = False,
) -> Result:
    def change(_: str, example: Mapping[str, object]) -> Mapping[str, object]:
        return {
            **example,
            "columns": [{"name": name, "type": "text"} for name in values],
            "rows": [list(values.values())] * rows,
            "row_count": rows,
            "truncated": truncated,
        }

    service.change = change
    monkeypatch.setattr("app.cli.client.output.terminal_width", lambda _: width)
    env = {"POOLKEEPER_URL": service.url}
    result = CliRunner().invoke(cli, ["query", "acme", "SELECT 1", *words], env=env)
    assert result.exit_code == 0, result.output
    return result


def plain_lines(found: Result) -> Sequence[str]:
    return found.stdout.splitlines()


def test_rows_that_do_not_fit_have_a_line_for_each_field(
    service: EchoService, monkeypatch: pytest.MonkeyPatch
) -> None:
    title, *lines = plain_lines(query(service, monkeypatch, width=80, rows=2))
    record = [f"{name:<12}{value}" for name, value in VALUES.items()]
    assert title == "2 rows, a line for each field"
    assert lines == [*record, "", *record]


@pytest.mark.parametrize("width", [160, None])
def test_rows_that_fit_are_a_table_of_whole_values(
    service: EchoService, monkeypatch: pytest.MonkeyPatch, width: int | None
) -> None:
    titles, line = plain_lines(query(service, monkeypatch, width=width))
    assert titles.split() == list(VALUES)
    assert all(value in line for value in VALUES.values())
    wide = query(service, monkeypatch, "-o", "wide", width=20)
    assert plain_lines(wide) == [titles, line]


def test_who_sees_only_the_first_rows_learns_what_shows_others(
    service: EchoService, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = query(service, monkeypatch, "--max-rows", "3", width=None, rows=3, truncated=True)
    assert asked.stderr == (
        "Only the first 3 rows are shown: --max-rows shows more, up to "
        "POOLKEEPER_QUERY_MAX_ROWS of the service. LIMIT and OFFSET show others.\n"
    )
    most = query(service, monkeypatch, width=None, rows=3, truncated=True)
    assert "no more fit into a response (POOLKEEPER_QUERY_MAX_ROWS" in most.stderr
    assert "--max-rows" not in most.stderr
    assert query(service, monkeypatch, width=None).stderr == ""


@pytest.mark.parametrize(
    ("sql", "at", "line", "marked"),
    [
        ("selct 1", "selct", "Line 1: selct 1", "s"),
        ("select 1,\n\tnothing\nfrom t", "nothing", "Line 2: \\x09nothing", "n"),
        ("select '東' frm t", "frm", "Line 1: select '東' frm t", "f"),
        (f"{'a' * 40}!{'b' * 40}", "!", f"Line 1: …{'a' * 30}!{'b' * 29}…", "!"),
        ("select", "", "Line 1: select", ""),
    ],
)
def test_the_place_of_an_error_is_marked(sql: str, at: str, line: str, marked: str) -> None:
    position = sql.index(at) + 1 if at else len(sql) + 1
    shown, mark = excerpt(sql, position)
    assert shown == line
    # A wide character takes two columns.
    cells = shown.replace("東", "東 ")
    assert cells[mark.index("^") :][:1] == marked
