"""Tables at 80, 120 and 200 columns: numbers and names are whole, columns appear by priority."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.client.evidence import WORDS, evidence_of
from app.cli.client.table import (
    ALWAYS,
    VERY_WIDE,
    Details,
    Table,
    TableColumn,
    changes,
    counted,
    effect_of,
    identifier,
    number,
    plain,
    prose,
    text,
    waiting,
)
from app.cli.client.tenants import COLUMNS as TENANTS
from app.cli.client.usage import COLUMNS as USAGE
from app.domain.advisor import EVIDENCE
from tests.fixtures.echo_service import EchoService, echo_service

ROOT = Path(__file__).parents[3]
WIDTHS = [80, 120, 200]
RESOURCES = [
    *("tenants", "pools", "nodes", "servers", "recommendations", "stats", "events", "refusals"),
    "findings",
]
LONG = "customer-4711-with-a-long-name"


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


HERE_AND_THERE = ((0, 0), (3, 0), (0, 196), (3, 196))


@pytest.fixture(scope="module")
def items() -> dict[str, list[dict[str, Any]]]:
    """Two items of each resource: the API's example, and one with a long name."""
    service = EchoService()
    found = {}
    for name in RESOURCES:
        [item] = service.answer("GET", f"/v1/{name}", None)[1]["items"]
        large = {key: LONG if value == "acme" else value for key, value in item.items()}
        found[name] = [item, large]
    return found


# The columns beside the name of the resource, by the table's width.
SHOWN = {
    ("tenants", 80): "TENANT STRATEGY STATE POOL ACTIVE WAITING",
    ("tenants", 120): "TENANT STRATEGY STATE POOL ACTIVE WAITING SERVER LABELS WEIGHT MAX_LEASES",
    ("pools", 80): "POOL STATE SIZE MAX ACTIVE WAITING WAIT_P99_MS",
    ("pools", 120): "POOL STATE SIZE MAX ACTIVE WAITING WAIT_P99_MS"
    " STRATEGY SERVER TENANTS LEAKS IDLE",
    ("nodes", 80): "NODE STATE TENANTS CLIENTS WAITING CONNECTIONS ALLOTMENT PROBLEM",
    ("nodes", 120): "NODE STATE TENANTS CLIENTS WAITING CONNECTIONS ALLOTMENT PROBLEM"
    " ENGINE ADDRESS",
    ("servers", 80): "SERVER STATE USED BUDGET CONTENDED POOLS ACTIVE NODES WAITING",
    ("recommendations", 80): "ID POOL MAX PROPOSED AGE REASON",
    ("recommendations", 120): "ID POOL MAX PROPOSED AGE REASON STATUS",
    ("stats", 80): "TENANT ACTIVE WAITING WAITS_FOR WAIT_P99_MS",
    ("events", 80): "ID AGE ACTION SUBJECT ACTOR CHANGE",
    ("findings", 80): "CHECK SEVERITY PLACE COUNT DETAIL",
    ("findings", 120): "CHECK SEVERITY PLACE COUNT DETAIL TENANTS",
    ("refusals", 80): "ID AGE TENANT CODE DETAIL",
}


@pytest.mark.parametrize(("name", "width"), SHOWN, ids=str)
def test_the_most_important_columns_are_shown(
    items: dict[str, list[dict[str, Any]]], name: str, width: int
) -> None:
    columns = import_module(f"app.cli.client.{name}").COLUMNS
    [titles, *_] = Table(columns=columns, items=items[name]).lines(width)
    assert [each.replace(" ", "_") for each in cells(titles)] == SHOWN[name, width].split()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", RESOURCES)
def test_lists_fit_and_neither_names_nor_numbers_are_cut(
    items: dict[str, list[dict[str, Any]]], name: str, width: int
) -> None:
    columns = import_module(f"app.cli.client.{name}").COLUMNS
    by_title = {column.title: column for column in columns}
    titles, *lines = Table(columns=columns, items=items[name]).lines(width)
    for line, item in zip(lines, items[name], strict=True):
        assert len(line) <= width
        for title, cell in zip(cells(titles), cells(line), strict=True):
            column, whole = by_title[title], plain(by_title[title].value(item))
            if column.is_prose:
                assert whole.startswith(cell.removesuffix("…"))
            elif column.is_id:
                assert whole.startswith(cell)
                assert len(cell) >= 8
            else:
                assert cell == whole


@pytest.mark.parametrize("name", RESOURCES)
def test_a_wide_table_and_a_pipe_show_everything(
    items: dict[str, list[dict[str, Any]]], name: str
) -> None:
    columns = import_module(f"app.cli.client.{name}").COLUMNS
    titles, first, _ = Table(columns=columns, items=items[name]).lines()
    assert cells(titles) == [column.title for column in columns]
    assert cells(first) == [plain(column.value(items[name][0])) for column in columns]


@pytest.mark.parametrize("width", WIDTHS)
def test_details_go_on_below_their_values(width: int) -> None:
    reason = "10 connections make 6 % of callers wait over 100 ms; 12 make under 1 % wait, " * 4
    item = {"pool": LONG, "reason": reason.strip(), "url": "x" * 300}
    columns = [text("POOL", "pool"), prose("REASON", "reason"), text("URL", "url")]
    pool, first, *others, url = Details(columns=columns, item=item).lines(width)
    assert (pool, first[:8], url) == (f"POOL    {LONG}", "REASON  ", f"URL     {'x' * 300}")
    assert width - 10 < max(map(len, [first, *others])) <= width
    assert all(line.startswith(" " * 8) for line in others)
    assert " ".join(line[8:] for line in [first, *others]) == reason.strip()


COLUMNS = st.lists(
    st.builds(
        lambda title, priority, kind: kind(title, title, priority),
        st.text("ABC", min_size=1, max_size=6),
        st.integers(ALWAYS, VERY_WIDE),
        st.sampled_from([text, number, prose, identifier]),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda column: column.title,
)


@given(columns=COLUMNS, width=st.integers(20, 200), data=st.data())
def test_a_line_is_too_long_only_for_columns_that_must_be_there(
    columns: list[TableColumn], width: int, data: st.DataObject
) -> None:
    values = st.text("abcł東", max_size=60) | st.integers() | st.floats(allow_nan=False)
    items = data.draw(
        st.lists(st.fixed_dictionaries({c.title: values for c in columns}), max_size=3)
    )
    titles, *lines = Table(columns=columns, items=items).lines(width)
    shown = {column.title: column for column in columns if column.title in cells(titles)}
    must = [column for column in columns if column.priority == ALWAYS]
    assert all(column.title in shown for column in must)
    assert shown
    if len(shown) > 1 and any(column.priority > ALWAYS for column in shown.values()):
        assert max(map(len, [titles, *lines])) <= width
    for item, line in zip(items, lines, strict=True):
        for title, column in shown.items():
            if not (column.is_prose or column.is_id):
                assert plain(item[title]).strip() in line


def test_a_number_has_no_exponent() -> None:
    shown = [plain(value) for value in (0.0, 7.86e-05, 0.0123, 9.996, 12.34, 123456.78)]
    assert shown == ["0", "0.0000786", "0.0123", "10", "12.3", "123,456.8"]


def test_use_that_is_next_to_nothing_is_not_written_out() -> None:
    item = {"mean_connections": 7.86e-05, "share": 2.99e-06}
    by_title = {column.title: column.value for column in USAGE}
    assert (by_title["MEAN"](item), by_title["SHARE %"](item)) == ("<0.001", "<0.1")


def test_one_thing_is_not_several() -> None:
    found = [counted(number, "connection") for number in (0, 1, 2)]
    assert found == ["0 connections", "1 connection", "2 connections"]


def test_ids_are_as_short_as_they_differ() -> None:
    ids = ["3f2b8c1e-aa", "3f2b8c1e-ab", "3f2b8c1e-ab", "55555555-55"]
    [_, *lines] = Table(columns=[identifier("ID", "id")], items=[{"id": id_} for id_ in ids]).lines(
        80
    )
    assert lines == ids
    [_, *lines] = Table(columns=[identifier("ID", "id")], items=[{"id": ids[0]}]).lines(80)
    assert lines == ["3f2b8c1e"]


def test_an_effect_is_read_without_knowing_the_api() -> None:
    effect = {"late_share_before": 0.063, "connections_before": 10, "connections_after": 12}
    expected = {"expected": effect | {"late_share_after": 0.0084}}
    assert effect_of(expected) == "late callers 6.3 % → 0.84 %, connections 10 → 12"
    tiny = {"expected": effect | {"late_share_after": 3.45e-59}}
    assert effect_of(tiny) == "late callers 6.3 % → under 0.1 %, connections 10 → 12"
    unknown = {"expected": effect | {"late_share_after": None}}
    assert effect_of(unknown) == "late callers 6.3 % → unknown, connections 10 → 12"
    assert effect_of({"expected": None}) is None


def test_evidence_is_read_without_knowing_the_api() -> None:
    evidence = {"late_share": 0.0832, "events": 412, "needed_size": None, "of_tomorrow": 2.5}
    assert evidence_of({"evidence": evidence}) == (
        "8.32 % of callers late, 412 callers seen, of tomorrow 2.5"
    )
    assert evidence_of({"evidence": {}}) is None
    assert WORDS.keys() == EVIDENCE.keys()
    assert all(words.count("{}") == 1 for words in WORDS.values())


def test_changes_are_no_words_of_python() -> None:
    before: dict[str, Any] = {"paused": False, "max_leases": None, "labels": {}, "weight": 1}
    after = {"paused": True, "max_leases": 3, "labels": {"plan": "gold"}, "weight": 1}
    assert changes(before, after) == "paused no → yes, max_leases - → 3, labels - → plan=gold"
    assert changes(None, after) == "paused=yes, max_leases=3, labels=plan=gold, weight=1"
    assert changes({}, None) == changes(after, after) == "-"


def test_of_an_object_only_what_differs_is_shown() -> None:
    limits = {"late_share": 0.01, "late_ticks": 2, "trial": {"ticks": 3, "max_ticks": 6}}
    before = {"mode": "recommend", "demand": limits}
    changed = {"late_share": 0.01, "late_ticks": 3, "trial": {"ticks": 4, "max_ticks": 6}}
    assert changes(before, {**before, "demand": changed}) == (
        "demand.late_ticks 2 → 3, demand.trial.ticks 3 → 4"
    )
    assert changes({"labels": {"a": "1", "b": "2"}}, {"labels": {"a": "1"}}) == "labels.b 2 → -"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_terminal_has_the_width_that_it_says(width: int) -> None:
    with echo_service() as service:
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        ended = subprocess.run(
            [sys.executable, "-m", "app", "recommendations"],
            stdin=its,
            stdout=its,
            cwd=ROOT,
            check=False,
            timeout=180,
            env={**environment, "POOLKEEPER_URL": service.url, "TERM": "xterm"},
        )
        os.close(its)
        lines = os.read(ours, 65536).decode().splitlines()
        os.close(ours)
    assert ended.returncode == 0
    assert len(lines) == 2
    titles = re.sub(r"\x1b\[\d+m", "", lines[0])
    assert len(lines[1]) <= width
    assert ("CONFIDENCE" in titles) == (width > 80)
    assert lines[1].startswith("3f2b8c1e  acme")


def test_who_waits_on_nodes_is_told_apart() -> None:
    value = waiting("waiting")
    shown = [value({"waiting": here, "waiting_on_nodes": there}) for here, there in HERE_AND_THERE]
    assert shown == [0, 3, "196 on nodes", "3 + 196 on nodes"]


def test_who_waits_on_nodes_is_in_the_list_of_tenants_even_if_the_pool_is_closed() -> None:
    [column] = [each for each in TENANTS if each.title == "WAITING"]
    shown = [
        column.value({"pool": pool, "waiting_on_nodes": there})
        for pool, there in ((None, 0), (None, 196), ({"waiting": 3}, 196), ({"waiting": 3}, 0))
    ]
    assert shown == [None, "196 on nodes", "3 + 196 on nodes", 3]


def test_a_table_that_wraps_shows_whole_sentences_below_each_other() -> None:
    long = "REVOKE CONNECT ON DATABASE " + "d" * 40
    table = Table(
        columns=[text("PLACE", "place", ALWAYS), prose("DETAIL", "detail")],
        items=[{"place": "eu1", "detail": long}, {"place": "eu2", "detail": "Short."}],
        wraps=True,
    )
    assert list(table.lines(30)) == [
        "PLACE  DETAIL",
        "eu1    REVOKE CONNECT ON",
        "       DATABASE",
        f"       {'d' * 23}",
        f"       {'d' * 17}",
        "eu2    Short.",
    ]
    assert list(table.lines()) == ["PLACE  DETAIL", f"eu1    {long}", "eu2    Short."]
