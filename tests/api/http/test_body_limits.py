"""The number of values that a body can have, whatever its strings contain."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import jiter
import pytest

from app.api.http.body_limits import MAX_VALUES, has_too_many_values
from app.domain.nodes.documents import as_json
from app.domain.nodes.entry_totals import WAIT_CLASSES, EntryTotals
from app.domain.nodes.report_changes import MOST_ENTRIES
from tests.fixtures.app import Api, problem
from tests.fixtures.driver import driver_for, error
from tests.fixtures.reporting import entry, node_report

AS_JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "values",
    [
        [1] * MAX_VALUES,
        [""] * MAX_VALUES,
        ["\\"] * MAX_VALUES,
        [[]] * (MAX_VALUES // 2),
        {f"{number}": 1 for number in range(MAX_VALUES // 2)},
        [{"a": "b"}] * (MAX_VALUES // 3),
    ],
)
def test_values_are_counted(values: object) -> None:
    for indent in (None, 0):
        assert not has_too_many_values(json.dumps(values, indent=indent).encode())
        assert has_too_many_values(json.dumps([values, values], indent=indent).encode())


@pytest.mark.parametrize(
    "text", [",:[{", json.dumps([{"a": ["\\", '"', '\\"']}]), '","', '\\",', '\\\\",', '[\\"']
)
def test_what_is_in_a_string_is_one_value(text: str) -> None:
    long = text * MAX_VALUES
    assert not has_too_many_values(json.dumps({"sql": "select $1", "params": [long]}).encode())
    assert not has_too_many_values(json.dumps([json.dumps(long), [1] * 50_000]).encode())
    assert has_too_many_values(json.dumps([json.dumps(long), [1] * 200_000]).encode())


async def test_more_values_are_refused_and_taken_as_a_string(api: Api) -> None:
    driver = await driver_for(api)
    numbers = [1] * (MAX_VALUES + 1)
    sql = "select cardinality($1::int[])"
    url = "/v1/tenants/acme"
    for query in ("", "?dry_run=true"):
        body = {"sql": sql, "params": [numbers]}
        response = await api.client.post(f"{url}/query{query}", json=body)
        problem(response, 413, "content-too-large")
    error(await driver.ask(sql, numbers), "54000")
    text = "{" + ",".join(map(str, numbers)) + "}"
    assert await api.value(url, sql, text) == len(numbers)
    assert await driver.rows(sql, text) == [[str(len(numbers))]]


async def test_more_values_are_refused_where_none_are_expected(standing_api: Api) -> None:
    body = json.dumps([[]] * MAX_VALUES).encode()
    for path in ("/v1/tenants/acme/pool/pause", "/v1/nodes/self/reports"):
        response = await standing_api.client.post(path, content=body, headers=AS_JSON)
        problem(response, 413, "content-too-large")


async def test_long_bodies_take_turns_so_that_others_are_served_in_between(
    standing_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 0
    parsed_in: list[int] = []

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    def parse(body: bytes, **options: Any) -> object:
        parsed_in.append(rounds)
        return jiter.from_json(body, **options)

    monkeypatch.setattr("app.api.http.strict_request.jiter", SimpleNamespace(from_json=parse))
    body = json.dumps({f"unknown-{number}": 1 for number in range(5_000)}).encode()
    counting = asyncio.create_task(count_rounds(), name="count rounds")
    answers = await asyncio.gather(
        *(
            standing_api.client.put("/v1/tenants/acme", content=body, headers=AS_JSON)
            for _ in range(5)
        )
    )
    counting.cancel()
    assert [each.status_code for each in answers] == [422] * 5
    assert len(set(parsed_in)) == 5


def test_the_longest_report_of_a_node_has_few_enough() -> None:
    totals = EntryTotals(oldest_waits=(0.5,) * WAIT_CLASSES)
    entries = [entry(f"t{number}", totals=totals) for number in range(MOST_ENTRIES)]
    report = node_report(1, 1, entries, backends={"main": frozenset(range(10_000))})
    assert not has_too_many_values(as_json(report))
