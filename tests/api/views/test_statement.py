"""However many statements, parameters, fields or labels a body has, few steps check them."""

import sys
from types import FrameType

import pytest
from pydantic import BaseModel, ValidationError

from app.api.routes.nodes import NodeBody
from app.api.routes.query import QueryBody
from app.api.routes.sql import SqlBody
from app.api.routes.tenants import TenantBody

NULS = ["\0"] * 1000


def calls_to_validate(model: type[BaseModel], document: object) -> tuple[int, int]:
    """How many function calls it takes, and how many errors it finds."""
    calls = errors = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        model.model_validate(document)
    except ValidationError as error:
        errors = error.error_count()
    finally:
        sys.setprofile(before)
    return calls, errors


@pytest.mark.parametrize(
    ("model", "several", "one"), [(SqlBody, "queries", "query"), (QueryBody, "statements", "sql")]
)
def test_a_megabyte_is_not_looked_at_item_by_item(
    model: type[BaseModel], several: str, one: str
) -> None:
    for parameters in ([1] * 1000, ["x"] * 1000, [[1, {"a": "b"}]] * 100):
        batch = [{one: "select", "params": parameters}] * 100
        calls, errors = calls_to_validate(model, {several: batch})
        assert (calls < 50 * len(batch), errors) == (True, 0)
    for statements in ([{one: ""}] * 80_000, [1] * 500_000, [{one: 1}] * 1000, [1] * 1000):
        calls, errors = calls_to_validate(model, {several: statements})
        assert (calls < 50, errors) == (True, 1)
    refused = [{one: "select", "params": NULS}] * 100
    calls, errors = calls_to_validate(model, {several: refused})
    assert (calls < 100, errors) == (True, 1)
    calls, errors = calls_to_validate(model, {one: "select", "params": NULS * 100})
    assert (calls < 50, errors) == (True, 1)


@pytest.mark.parametrize("is_inside", [False, True])
def test_of_a_megabyte_of_unknown_fields_the_first_are_refused(*, is_inside: bool) -> None:
    unknown = {f"x{number}": 1 for number in range(80_000)}
    document = {"statements": [unknown]} if is_inside else unknown
    calls, errors = calls_to_validate(QueryBody, document)
    assert (calls < 50, 50 <= errors < 500) == (True, True)


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (TenantBody, "labels"),
        (NodeBody, "labels"),
        (NodeBody, "selector"),
        (NodeBody, "limits"),
    ],
)
@pytest.mark.parametrize("value", [1, "\0", None])
def test_too_many_labels_or_limits_are_counted_before_any_is_checked(
    model: type[BaseModel], field: str, value: object
) -> None:
    many = {f"x\0{number}": value for number in range(37_000)}
    calls, errors = calls_to_validate(model, {field: many})
    assert (calls < 50, errors) == (True, 1)
