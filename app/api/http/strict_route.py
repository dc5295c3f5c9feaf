"""The common features of all /v1 routes: strict input, idempotency keys, ETags, and `?fields=`.

An unknown or repeated parameter is refused, not ignored: `?dryrun=true` must not delete.
"""

from collections import Counter
from collections.abc import Callable, Coroutine
from inspect import get_annotations
from typing import Annotated, Any, Union, get_origin

from fastapi import Depends, Header, Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.params import Query
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute

from app.api.http.body_limits import has_body
from app.api.http.error_responses import problem_responses, validation_error
from app.api.http.etags import PreconditionsDep, content_etag, etag_known_to
from app.api.http.idempotency import reserve_key
from app.api.http.sparse_fields import (
    SparsePage,
    exclusion_of,
    item_model,
    selecting,
    selects_fields,
)
from app.api.http.strict_request import FloatMode, StrictRequest

_OK = 200
_EMPTY: tuple[object, ...] = (None, {})


async def refuse_unknown_parameters(request: Request) -> None:
    """Raise 422 for unknown query parameters, and for repeated ones that may occur only once."""
    given = Counter(name for name, _ in request.query_params.multi_items())
    if not given:
        return
    route: StrictRoute = request.scope["route"]
    lists = route.query_parameters
    wrong = [
        ("unknown_parameter", name, "There is no such parameter.")
        if name not in lists
        else ("repeated_parameter", name, "Send this parameter once.")
        for name, times in given.items()
        if name not in lists or (times > 1 and not lists[name])
    ]
    if wrong:
        raise RequestValidationError(
            [{"type": code, "loc": ("query", name), "msg": text} for code, name, text in wrong]
        )


async def document_if_none_match(
    _: Annotated[
        str | None,
        Header(
            alias="If-None-Match",
            max_length=1000,
            description="ETags: answers 304 while the resource has one of these versions.",
        ),
    ] = None,
) -> None:
    """Put the header into the OpenAPI document; `StrictRoute` acts on it."""


class StrictRoute(APIRoute):
    """A route of /v1.

    Attributes:
        float_mode: the type of numbers with a fraction: float, or jiter's type with all digits.
    """

    float_mode: FloatMode = "float"

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        common = [Depends(refuse_unknown_parameters)]
        methods = set(options.get("methods") or ["GET"])
        hints = get_annotations(endpoint, eval_str=True)
        # Every name in a path may be unknown.
        problems = [404] if "{" in path else []
        responses = options.get("responses") or {}
        if methods == {"GET"} and options.get("response_class") is not StreamingResponse:
            common.append(Depends(document_if_none_match))
            responses = {304: {"description": "Not modified"}, **responses}
            page = options.get("response_model")
            page = hints.get("return") if isinstance(page, DefaultPlaceholder) else page
            if page is not None and item_model(page) and not selects_fields(endpoint):
                exclusion = exclusion_of(page)
                common.append(Depends(exclusion))
                endpoint = selecting(endpoint, exclusion)
                options["response_model"] = Union[page, SparsePage]  # noqa: UP007 - a value
        elif methods & {"POST", "DELETE"}:
            common.append(Depends(reserve_key))
            # Any idempotency key may be in flight.
            problems.append(409)
        if PreconditionsDep in hints.values():
            problems += [412, 428]
        options["responses"] = dict(sorted((problem_responses(*problems) | responses).items()))
        # After the route's own dependencies: without permission, a caller learns nothing about
        # parameters.
        options["dependencies"] = [*(options.get("dependencies") or ()), *common]
        options["operation_id"] = endpoint.__name__
        super().__init__(path, endpoint, **options)
        self.query_parameters = _query_parameters(self.dependant)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler with a strict request; its response gets an ETag."""
        handler = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive, self.float_mode)
            may_have_content = not takes_body and has_body(request.headers)
            # An empty object is harmless; anything else was meant to have an effect.
            if may_have_content and await strict.body() and await strict.json() not in _EMPTY:
                raise validation_error(
                    "body", code="unexpected_body", detail="This request takes no body."
                )
            if request.method != "GET":
                return await _change(request, handler(strict))
            response = await handler(strict)
            if response.status_code == _OK:
                return _conditional(request, response)
            return response

        return handle


async def _change(request: Request, response: Coroutine[Any, Any, Response]) -> Response:
    """Await *response*; even if it fails, the caller's next request shows the change."""
    try:
        return await response
    finally:
        cache = request.app.state.response_cache
        if cache is not None:
            cache.invalidate()


def _conditional(request: Request, response: Response) -> Response:
    """Return *response* with its ETag, or 304 if the caller has that version."""
    tag = response.headers.get("etag")
    if tag is None and isinstance(response, StreamingResponse):
        return response
    if tag is None:
        tag = content_etag(response.body)
        response.headers["ETag"] = tag
    known = etag_known_to(request, tag)
    return response if known is None else Response(status_code=304, headers={"ETag": known})


def _query_parameters(dependant: Dependant) -> dict[str, bool]:
    """The names of a route's query parameters, and whether each may occur several times."""
    return {
        field.alias: get_origin(field.field_info.annotation) is list
        for field in get_flat_params(dependant)
        if isinstance(field.field_info, Query)
    }
