"""The OpenAPI document, and the page that shows it: Swagger UI, from this package's files alone.

What the routes say of themselves is theirs; here is what concerns the document as a whole.
No request leaves the machine for it, and the page's policy forbids that one ever does.
"""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse

from app.api.http.error_responses import PROBLEM_MEDIA_TYPE
from app.api.openapi import add_examples, problem_example

_STATIC = Path(__file__).parent / "static"
_PROBLEM = {"$ref": "#/components/schemas/Problem"}
# Swagger UI puts style attributes and inline images into the page; scripts only from files.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DESCRIPTION = """
Opens a connection pool per tenant (or shares one), keeps all of them inside what the database
can take, shows what every tenant waits for, evicts what nobody uses, and says how large each
pool should be, with its evidence.

Errors are RFC 9457 problems (`application/problem+json`) with a stable `code`. Times are RFC 3339
in UTC; durations end in `_seconds` or `_ms`. Lists are `{items, next_cursor}`: hand the cursor
back for the next page. Unknown fields are refused. An answer with `stale: true` comes from memory,
because the catalog is away.

Once there are keys (`poolkeeper keys new`), each request sends one as `Authorization: Bearer …`.
Each operation says which scope it needs: `read` to look; `operate` to work with pools and
recommendations, `read` included; `admin` for tenants and the advisor, `operate` included; and
`query`, which no other includes, to run statements. To a key that is bound to tenants no others
exist: they answer 404, and lists leave them out; what concerns the whole service answers it 403.
"""
_TAGS = {
    "servers": "The Postgres servers that the operator declared, and their connection budgets.",
    "tenants": "Who exists, on which server and how isolated; and their database objects.",
    "pools": "Open, resize, pause, recycle, check and evict pools.",
    "query": "One statement, run as a tenant.",
    "stats": "What was counted and measured, now and in the past.",
    "advisor": "How large pools should be: the rule, its mode, and what-if.",
    "recommendations": "What the advisor says, why, and what became of it.",
    "events": "The audit trail: who changed what, when and why.",
    "health": "For orchestrators and monitoring.",
}

router = APIRouter(include_in_schema=False)


class DocsAsset(StrEnum):
    """The files that the page loads."""

    SCRIPT = "docs.js"
    BUNDLE = "swagger-ui-bundle.js"
    STYLE = "swagger-ui.css"
    ICON = "favicon-32x32.png"


def install(app: FastAPI) -> None:
    """Let *app* serve `document(app)` as its OpenAPI document."""
    app.summary = "The control plane for multi-tenant Postgres connection pools"
    app.description = _DESCRIPTION
    app.contact = {"name": "The Poolkeeper project"}
    app.license_info = {"name": "Apache License 2.0", "identifier": "Apache-2.0"}
    app.servers = [{"url": "/", "description": "This service"}]
    app.openapi_tags = [{"name": name, "description": text} for name, text in _TAGS.items()]
    # FastAPI's own way to extend the document.
    app.openapi = partial(document, app)  # type: ignore[method-assign]


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of *app*, which need not be running; made once."""
    if app.openapi_schema is None:
        made = FastAPI.openapi(app)
        for path in made["paths"].values():
            for operation in path.values():
                for status, response in operation["responses"].items():
                    _mend_problem(status, response)
                _tell_scope(operation)
        add_examples(made)
        app.openapi_schema = made
    return app.openapi_schema


@router.get("/docs")
async def docs() -> FileResponse:
    """Show the page."""
    return FileResponse(_STATIC / "docs.html", headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/{asset}")
async def docs_asset(asset: DocsAsset) -> FileResponse:
    """Serve a file of the page."""
    return FileResponse(_STATIC / asset, headers={"Cache-Control": "public, max-age=3600"})


def _tell_scope(operation: dict[str, Any]) -> None:
    """Swagger UI shows no scopes but those of OAuth."""
    for needed in operation.get("security", ()):
        for scopes in needed.values():
            operation["description"] += f"\n\nScope: `{'`, `'.join(scopes)}`."


def _mend_problem(status: str, response: dict[str, Any]) -> None:
    """FastAPI documents every model as plain JSON; problems have a media type of their own."""
    content = response.get("content", {})
    if content.get("application/json", {}).get("schema") == _PROBLEM:
        example = problem_example(int(status), response["description"])
        content[PROBLEM_MEDIA_TYPE] = content.pop("application/json") | {"example": example}
