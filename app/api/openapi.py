"""Examples for a whole OpenAPI document, put together from those of its models and fields.

A model that brings its own example is shown with that; any other with its fields'. Problems are
alike everywhere, so theirs are here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_OF_TYPE: dict[str, Any] = {
    "string": "text",
    "integer": 1,
    "number": 1.0,
    "boolean": True,
    "null": None,
}

_PROBLEMS = {
    400: ("malformed-json", "The body is not valid JSON."),
    401: ("unauthenticated", "A valid API key is needed."),
    403: ("read-only", "The statement writes, but the request is read-only."),
    404: ("tenant-not-found", "There is no tenant acme."),
    408: ("request-timeout", "The body did not arrive in time."),
    409: ("not-provisioned", "Tenant acme has not been provisioned."),
    412: ("stale-version", "The resource changed since the version named in If-Match."),
    413: ("content-too-large", "The body is larger than 1048576 bytes."),
    414: ("uri-too-long", "The query string is longer than 8192 bytes."),
    415: ("unsupported-media-type", "The body must be JSON."),
    422: ("validation-failed", "The request does not fit its schema."),
    428: ("precondition-required", "Say in If-Match which version is meant, or * for any."),
    429: ("too-many-requests", "The key asks more often than it may."),
    500: ("internal-error", "Something went wrong; the log has it under request_id."),
    503: ("catalog-unavailable", "The catalog cannot be reached; nothing was changed."),
    504: ("deadline-exceeded", "It takes longer than it may."),
}


def problem_example(status: int, title: str) -> dict[str, Any]:
    """A problem with this status, as an operation may answer it."""
    code, detail = _PROBLEMS[status]
    problem = {
        "type": f"urn:poolkeeper:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "/v1/tenants/acme",
        "code": code,
        "request_id": "5d1c4a2e8b7f4c6d9a0b1c2d3e4f5a6b",
        "retryable": status in (429, 503, 504),
    }
    if status == 422:  # noqa: PLR2004 - the one that names places
        place = {
            "pointer": "/query/limit",
            "code": "less_than_equal",
            "detail": "Input should be less than or equal to 500",
        }
        return problem | {"errors": [place]}
    return problem


def add_examples(document: dict[str, Any]) -> None:
    """Give every request and response body of *document* an example, unless it has one."""
    models = document["components"]["schemas"]
    for model in models.values():
        for example in model.get("examples", []):
            _put_nulls_back(example, model, models)
    for path in document["paths"].values():
        for operation in path.values():
            for media in _bodies(operation):
                if not media.keys() & {"example", "examples"}:
                    media["example"] = example_of(media["schema"], models)


def example_of(schema: dict[str, Any], models: dict[str, Any]) -> object:
    """An example of *schema*; its own if it has one, otherwise one made of its parts'."""
    if "$ref" in schema and "examples" not in schema:
        schema = models[schema["$ref"].rpartition("/")[2]]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], models)
    if "properties" in schema:
        return {name: example_of(each, models) for name, each in schema["properties"].items()}
    if schema.get("type") == "array":
        return [example_of(schema["items"], models)]
    return _OF_TYPE.get(schema.get("type", "null"), {})


def _put_nulls_back(example: object, schema: dict[str, Any], models: dict[str, Any]) -> None:
    """FastAPI leaves every null out of the document, and so out of examples."""
    for part in schema.get("anyOf", [schema]):
        whole = models[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if isinstance(example, list):
            for each in example:
                _put_nulls_back(each, whole.get("items", {}), models)
        elif isinstance(example, dict):
            for name in whole.get("required", []):
                example.setdefault(name, None)
            for name, inner in whole.get("properties", {}).items():
                _put_nulls_back(example.get(name), inner, models)


def _bodies(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from operation.get("requestBody", {}).get("content", {}).values()
    for response in operation["responses"].values():
        yield from response.get("content", {}).values()
