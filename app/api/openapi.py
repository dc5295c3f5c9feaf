"""The OpenAPI document: its global parts, and an example for every body.

A model has its own example, or one composed of its fields' examples. Problems look the same
everywhere, so their examples are here.
"""

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic_core import to_json

from app.api.http.compression import accepts_gzip, compress, encoded_etag
from app.api.http.error_responses import PROBLEM_MEDIA_TYPE, Problem
from app.api.http.etags import content_etag, etag_known_to

_SUMMARY = "The control plane for multi-tenant Postgres connection pools"
_DESCRIPTION = """
Opens a connection pool per tenant (or shares one), keeps all of them inside what the database
can take, shows what every tenant waits for, evicts idle pools, and recommends how large each pool
should be, with its evidence.

Errors are RFC 9457 problems (`application/problem+json`) with a stable `code`. Times are RFC 3339
in UTC; durations end in `_seconds` or `_ms`. Lists are `{items, next_cursor}`: send the cursor
back for the next page. Unknown fields are refused. `stale: true` marks a response from memory: the
catalog is unreachable.

Once API keys exist (`poolkeeper keys create`), every request needs one: `Authorization: Bearer …`.
Only `POST /sql` has the password of an application credential instead.
Each operation lists its scope: `read` shows; `operate` works with pools and recommendations and
includes `read`; `admin` manages tenants and the advisor and includes `operate`; `query` runs
statements and no other scope includes it; `node` is for the agent of one node. A key can be bound
to tenants: all others answer 404 and are left out of lists, and requests that concern the whole
service answer 403.
"""
_TAGS = {
    "servers": "Declared Postgres servers and their connection budgets.",
    "tenants": "Tenants: their server, their isolation and their database objects.",
    "nodes": "PgBouncer nodes, through which applications connect with any driver.",
    "credentials": "Users and passwords with which applications connect as a tenant.",
    "pools": "Open, resize, pause, recycle, check and evict pools.",
    "query": "Run statements as a tenant.",
    "stats": "Statistics, current and past.",
    "advisor": "Pool size advisor: rule, mode and what-if.",
    "recommendations": "The advisor's recommendations, their evidence and their status.",
    "events": "Audit trail: who changed what, when and why; and why requests were refused.",
    "keys": "API keys: their names and what they permit.",
    "health": "For orchestrators and monitoring.",
}

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_PROBLEMS = {
    400: ("malformed-json", "The body is not valid JSON."),
    401: ("unauthenticated", "Send a valid API key as Authorization: Bearer <key>."),
    403: ("missing-scope", "The API key lacks the required scope admin."),
    404: ("tenant-not-found", "There is no tenant acme."),
    408: ("request-timeout", "The body did not arrive in time."),
    409: ("not-provisioned", "Tenant acme has not been provisioned."),
    412: ("stale-version", "The resource changed since the version in If-Match."),
    413: ("content-too-large", "The body is larger than 1048576 bytes."),
    414: ("uri-too-long", "The query string is longer than 8192 bytes."),
    415: (
        "unsupported-media-type",
        "The body must be UTF-8 JSON with one header Content-Type: application/json.",
    ),
    422: ("validation-failed", "The request does not match its schema."),
    428: ("precondition-required", "Send If-Match with the version to change, or * for any."),
    429: ("too-many-requests", "The API key exceeds its request rate."),
    500: ("internal-error", "An internal error occurred. The log has it under this request_id."),
    502: (
        "active-lost",
        "The active instance ended before it responded; the outcome of the request is unknown.",
    ),
    503: ("catalog-unavailable", "The catalog cannot be reached."),
    504: (
        "deadline-exceeded",
        "The request exceeds its deadline. It continues; its result is unknown.",
    ),
}
_RETRYABLE = frozenset({429, 503, 504})
_VALIDATION_ERRORS = [
    {
        "pointer": "/query/limit",
        "code": "less_than_equal",
        "detail": "Must be 500 or less.",
    }
]
_OF_TYPE: dict[str, Any] = {
    "string": "text",
    "integer": 1,
    "number": 1.0,
    "boolean": True,
    "null": None,
}


def install(app: FastAPI) -> None:
    """Let *app* serve `document(app)` as its OpenAPI document."""
    app.summary = _SUMMARY
    app.description = _DESCRIPTION
    app.contact = {"name": "The Poolkeeper project"}
    app.license_info = {"name": "Apache License 2.0", "identifier": "Apache-2.0"}
    app.servers = [{"url": "/", "description": "This service"}]
    app.openapi_tags = [{"name": name, "description": text} for name, text in _TAGS.items()]
    # FastAPI's own way to extend the document.
    app.openapi = partial(document, app)  # type: ignore[method-assign]
    app.add_route("/openapi.json", ServedDocument(app).respond, include_in_schema=False)


class ServedDocument:
    """The document as a response, rendered and compressed once.

    It needs no key, so strangers may ask for it as often as they like. FastAPI's own route would
    render it each time, which takes ten milliseconds of the event loop.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._compressed: bytes | None = None

    async def respond(self, request: Request) -> Response:
        """Respond with the document, or 304 if the caller has it."""
        body, tag = self._body, self._etag
        headers = {"Cache-Control": "no-cache", "ETag": tag}
        if known := etag_known_to(request, tag):
            return Response(status_code=304, headers={**headers, "ETag": known})
        if accepts_gzip({b"accept-encoding": request.headers.getlist("accept-encoding")}):
            if self._compressed is None:
                self._compressed = await compress(body)
            body = self._compressed
            headers["ETag"] = encoded_etag(tag.encode()).decode()
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers, media_type="application/json")

    @cached_property
    def _body(self) -> bytes:
        return to_json(self._app.openapi())

    @cached_property
    def _etag(self) -> str:
        return content_etag(self._body)


def document(app: FastAPI) -> dict[str, Any]:
    """Build the OpenAPI document of *app*, once; the application need not be running."""
    if app.openapi_schema is None:
        made = FastAPI.openapi(app)
        models = made["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            models.pop(name, None)
        for model in models.values():
            if "description" in model:
                # A class' Raises section concerns Python callers only.
                model["description"], *_ = model["description"].split("\n\nRaises:")
            for example in model.get("examples", []):
                _restore_nulls(example, model, models)
        for operation in _operations(made):
            _drop_fastapi_errors(operation)
            for status, response in operation["responses"].items():
                _set_problem_media_type(int(status), response)
            _describe_scope(operation)
            for media in _bodies(operation):
                if not media.keys() & {"example", "examples"}:
                    media["example"] = example_of(media["schema"], models)
        app.openapi_schema = made
    return app.openapi_schema


def example_of(schema: dict[str, Any], models: dict[str, Any]) -> object:
    """Find an example of *schema*: its own, or one composed of its parts' examples."""
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


def _drop_fastapi_errors(operation: dict[str, Any]) -> None:
    """Remove the 422 that FastAPI adds to routes without one."""
    response = operation["responses"].get("422", {})
    if "HTTPValidationError" in str(response):
        del operation["responses"]["422"]


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _bodies(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from operation.get("requestBody", {}).get("content", {}).values()
    for response in operation["responses"].values():
        yield from response.get("content", {}).values()


def _describe_scope(operation: dict[str, Any]) -> None:
    """Describe the scope, because Swagger UI shows only OAuth scopes."""
    for security in operation.get("security", ()):
        for scopes in security.values():
            operation["description"] += f"\n\nScope: `{'`, `'.join(scopes)}`."


def _set_problem_media_type(status: int, response: dict[str, Any]) -> None:
    """Set the problems' media type, because FastAPI documents every model as plain JSON."""
    content = response.get("content", {})
    if content.get("application/json", {}).get("schema") == _PROBLEM:
        example = {"example": _problem_example(status)}
        content[PROBLEM_MEDIA_TYPE] = content.pop("application/json") | example


def _problem_example(status: int) -> dict[str, Any]:
    code, detail = _PROBLEMS[status]
    problem = Problem.of(
        status,
        code,
        detail,
        instance="/v1/tenants/acme",
        request_id="5d1c4a2e8b7f4c6d9a0b1c2d3e4f5a6b",
        retryable=status in _RETRYABLE,
        errors=_VALIDATION_ERRORS if code == "validation-failed" else None,
    )
    return problem.model_dump(exclude_none=True)


def _restore_nulls(example: object, schema: dict[str, Any], models: dict[str, Any]) -> None:
    """Restore nulls in examples, because FastAPI removes every null from the document."""
    for part in schema.get("anyOf", [schema]):
        whole = models[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if isinstance(example, list):
            for each in example:
                _restore_nulls(each, whole.get("items", {}), models)
        elif isinstance(example, dict):
            for name in whole.get("required", []):
                example.setdefault(name, None)
            for name, inner in whole.get("properties", {}).items():
                _restore_nulls(example.get(name), inner, models)
