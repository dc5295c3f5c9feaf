"""How many values a body may have for Postgres, whatever its strings consist of."""

import json

import pytest

from app.api.http.body_limits import MAX_VALUES, has_too_many_values
from tests.fixtures.app import Api, problem
from tests.fixtures.driver import driver_for, error

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


async def test_values_that_are_not_for_postgres_are_not_counted(standing_api: Api) -> None:
    body = json.dumps({"labels": [[1] * MAX_VALUES, [1] * MAX_VALUES]}).encode()
    response = await standing_api.client.put("/v1/tenants/acme", content=body, headers=AS_JSON)
    problem(response, 422, "validation-failed")
