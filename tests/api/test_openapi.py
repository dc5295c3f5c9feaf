"""The OpenAPI document: committed as the application makes it, valid, and complete."""

from collections import Counter
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from app.api.openapi import document
from app.main import create_app
from app.settings import Settings
from tests.fixtures.app import PROBLEM
from tests.fixtures.openapi import committed

DESIGNED = {
    "get /v1/servers",
    "get /v1/servers/{server}",
    "get /v1/tenants",
    "put /v1/tenants/{tenant}",
    "get /v1/tenants/{tenant}",
    "delete /v1/tenants/{tenant}",
    "post /v1/tenants/{tenant}/provision",
    "post /v1/tenants/{tenant}/rotate-credentials",
    "get /v1/tenants/{tenant}/credentials",
    "post /v1/tenants/{tenant}/credentials",
    "get /v1/tenants/{tenant}/credentials/{credential}",
    "delete /v1/tenants/{tenant}/credentials/{credential}",
    "get /v1/nodes",
    "put /v1/nodes/{node}",
    "get /v1/nodes/{node}",
    "get /v1/nodes/{node}/tenants",
    "delete /v1/nodes/{node}",
    "post /v1/nodes/{node}/pause",
    "post /v1/nodes/{node}/resume",
    "post /v1/nodes/{node}/drain",
    "put /v1/tenants/{tenant}/pool",
    "get /v1/tenants/{tenant}/pool",
    "delete /v1/tenants/{tenant}/pool",
    "post /v1/tenants/{tenant}/pool/pause",
    "post /v1/tenants/{tenant}/pool/resume",
    "post /v1/tenants/{tenant}/pool/drain",
    "post /v1/tenants/{tenant}/pool/recycle",
    "post /v1/tenants/{tenant}/pool/check",
    "get /v1/pools",
    "post /v1/pools/evict-expired",
    "get /v1/leases",
    "get /v1/usage",
    "get /v1/stats",
    "get /v1/stats/stream",
    "get /v1/tenants/{tenant}/stats",
    "get /v1/tenants/{tenant}/stats/history",
    "get /v1/pools/{pool_id}/stats/history",
    "get /v1/stats/history",
    "get /v1/advisor",
    "put /v1/advisor",
    "post /v1/advisor/evaluate",
    "get /v1/recommendations",
    "get /v1/recommendations/{id}",
    "post /v1/recommendations/{id}/apply",
    "post /v1/recommendations/{id}/dismiss",
    "post /v1/tenants/{tenant}/query",
    "post /sql",
    "get /v1/events",
    "get /v1/refusals",
    "get /v1/findings",
    "get /v1/keys",
    "get /v1/about",
    "get /v1/instances",
    "get /v1/readiness",
    "get /livez",
    "get /readyz",
    "get /metrics",
}


def operations() -> dict[str, dict[str, Any]]:
    return {
        f"{method} {path}": operation
        for path, methods in committed()["paths"].items()
        for method, operation in methods.items()
    }


def bodies(operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Every request and response body, as media types."""
    contents = [operation.get("requestBody", {}).get("content", {})]
    contents += [response.get("content", {}) for response in operation["responses"].values()]
    return [media for content in contents for media in content.values()]


EVERY = pytest.mark.parametrize("operation", operations().values(), ids=operations().keys())


def test_the_committed_document_is_the_one_the_application_gives() -> None:
    """`make openapi` writes it."""
    assert committed() == document(create_app(Settings.model_construct()))


def test_it_is_valid() -> None:
    validate(committed())


def test_it_has_every_operation_of_the_design_and_no_other() -> None:
    assert set(operations()) == DESIGNED


def test_operation_ids_are_unique() -> None:
    ids = Counter(operation["operationId"] for operation in operations().values())
    assert ids.most_common(1)[0][1] == 1


def test_it_has_contact_and_license_and_explains_its_tags() -> None:
    found = committed()
    assert found["info"]["license"]["identifier"] == "Apache-2.0"
    assert found["info"]["contact"]
    assert found["servers"]
    used = {tag for operation in operations().values() for tag in operation["tags"]}
    assert used == {tag["name"] for tag in found["tags"] if tag["description"]}


@EVERY
def test_an_operation_is_described(operation: dict[str, Any]) -> None:
    assert operation["operationId"].isidentifier()
    assert operation["summary"]
    assert operation["description"]
    assert len(operation["tags"]) == 1


@EVERY
def test_an_operation_shows_examples_that_fit_their_schemas(operation: dict[str, Any]) -> None:
    components = {"components": committed()["components"]}
    shown = bodies(operation)
    assert shown
    for media in shown:
        OAS31Validator({**media["schema"], **components}).validate(media["example"])


@EVERY
def test_an_operation_describes_its_parameters(operation: dict[str, Any]) -> None:
    vague = [
        parameter["name"]
        for parameter in operation.get("parameters", [])
        if not parameter.get("description")
    ]
    assert not vague


@EVERY
def test_an_operation_answers_errors_with_problems(operation: dict[str, Any]) -> None:
    errors = {
        status: set(response["content"])
        for status, response in operation["responses"].items()
        if status >= "400"
    }
    if operation["operationId"] == "readyz":  # not being ready is no error of the request
        assert errors.pop("503") == {"application/json"}
    if operation["operationId"] == "run_sql":  # its drivers know only Postgres' errors
        assert errors.pop("400") == {"application/json"}
    assert "500" in errors
    assert all(media_types == {PROBLEM} for media_types in errors.values())


def test_a_stream_has_no_version() -> None:
    stream = committed()["paths"]["/v1/stats/stream"]["get"]
    assert "304" not in stream["responses"]
    assert "If-None-Match" not in [each["name"] for each in stream.get("parameters", ())]


def test_open_paths_say_so_and_examples_fit_their_parameters() -> None:
    paths = committed()["paths"]
    assert paths["/livez"]["get"]["security"] == []
    for path, operations in paths.items():
        for operation in operations.values():
            assert "security" in operation, path
            for parameter in operation.get("parameters", []):
                schema = {**parameter["schema"], "components": committed()["components"]}
                for example in schema.get("examples", []):
                    assert OAS31Validator(schema).is_valid(example), (path, parameter["name"])
