"""What all routes of /v1 have in common: strict input, keys for repeating, tags for not.

A body is parsed once, by a parser that takes only what RFC 8259 calls interoperable: UTF-8,
each key once, no NaN, no half characters, no number or nesting without end. A parameter nobody
asked for, or given twice, is refused rather than guessed at: `?dryrun=true` must not delete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from typing import Annotated, Any, Literal, get_origin

import jiter
from fastapi import Depends, Header, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.params import Query
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.http.disconnect import ClientDisconnected
from app.api.http.error_responses import problem_responses, validation_error
from app.api.http.etags import parse_etags
from app.api.http.idempotency import reserve_key

FloatMode = Literal["float", "lossless-float"]

_OK = 200
_NOTHING: tuple[object, ...] = (None, {})


class StrictRequest(Request):
    """A request whose body is strict JSON or none."""

    float_mode: FloatMode = "float"

    async def body(self) -> bytes:
        """The body; read once.

        Raises:
            Abandoned: the client disconnected in the middle of it.
        """
        try:
            return await super().body()
        except ClientDisconnect as error:
            raise ClientDisconnected from error

    async def json(self) -> Any:  # noqa: ANN401 - Starlette's signature
        """The parsed body; parsed once.

        Raises:
            HTTPException: 400, for anything that is not strict JSON.
        """
        if not hasattr(self, "_json"):
            try:
                self._json = jiter.from_json(
                    await self.body(),
                    allow_inf_nan=False,
                    cache_mode="keys",
                    catch_duplicate_keys=True,
                    float_mode=self.float_mode,
                )
            except ValueError as error:
                raise HTTPException(400) from error
        return self._json


async def refuse_unknown_parameters(request: Request) -> None:
    """Refuse query parameters that the route does not have, or has but once.

    Raises:
        RequestValidationError: 422, with their places.
    """
    given = Counter(name for name, _ in request.query_params.multi_items())
    if not given:
        return
    route: StrictRoute = request.scope["route"]
    lists = route.query_parameters
    wrong = [
        ("unknown_parameter", name, "There is no such parameter.")
        if name not in lists
        else ("repeated_parameter", name, "It may be given once.")
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
            description="ETags: 304 when what is recorded is still one of these versions.",
        ),
    ] = None,
) -> None:
    """Put the header into the document; `StrictRoute` acts on it."""


class StrictRoute(APIRoute):
    """A route of /v1.

    Attributes:
        float_mode: what numbers with a fraction become: floats, or jiter's with all their digits.
    """

    float_mode: FloatMode = "float"

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Give the route what its methods have in common with others."""
        common = [Depends(refuse_unknown_parameters)]
        methods = set(options.get("methods") or ["GET"])
        if methods == {"GET"}:
            common.append(Depends(document_if_none_match))
            unchanged = {304: {"description": "Not modified"}}
            options["responses"] = {**unchanged, **(options.get("responses") or {})}
        elif methods & {"POST", "DELETE"}:
            common.append(Depends(reserve_key))
            # Whatever it does, its key may be in flight.
            options["responses"] = problem_responses(409) | (options.get("responses") or {})
        # After the route's own: who may not come in learns nothing of its parameters.
        options["dependencies"] = [*(options.get("dependencies") or ()), *common]
        super().__init__(path, endpoint, **options)
        self.query_parameters = _query_parameters(self.dependant)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a strict request, its answer tagged."""
        handler = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            strict.float_mode = self.float_mode
            if not takes_body and _has_body(request) and await strict.body():
                await _refuse_content(strict)
            if request.method != "GET":
                return await _changing(request, handler(strict))
            response = await handler(strict)
            if response.status_code == _OK:
                return _conditional(request, response)
            return response

        return handle


async def _changing(request: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """*answer*, whose caller shall see in the next one what it did, or half did."""
    try:
        return await answer
    finally:
        service = getattr(request.app.state, "service", None)
        if service is not None:
            service.snapshots.invalidate()


def _has_body(request: Request) -> bool:
    headers = request.headers
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


async def _refuse_content(request: StrictRequest) -> None:
    """An empty object does no harm; anything else was meant to be heeded."""
    if await request.json() not in _NOTHING:
        raise validation_error("body", code="unexpected_body", detail="This request takes no body.")


def _conditional(request: Request, response: Response) -> Response:
    """*response* with its tag, or 304 if the caller has it already."""
    tag = response.headers.get("etag")
    if tag is None and isinstance(response, StreamingResponse):
        return response
    if tag is None:
        tag = f'"{blake2b(response.body, digest_size=12).hexdigest()}"'
        response.headers["ETag"] = tag
    asked = ",".join(request.headers.getlist("if-none-match"))
    if not asked:
        return response
    tags = parse_etags(asked)
    if tags == ["*"] or tag in [each.removeprefix("W/") for each in tags]:
        return Response(status_code=304, headers={"ETag": tag})
    return response


def _query_parameters(dependant: Dependant) -> dict[str, bool]:
    """The query parameters a route has, and whether each may be given several times."""
    return {
        field.alias: get_origin(field.field_info.annotation) is list
        for field in get_flat_params(dependant)
        if isinstance(field.field_info, Query)
    }
