"""`?fields=`: lists whose items have only the requested fields; others are not rendered.

Every list has it, by `StrictRoute`; a route with cached responses selects the fields itself.
Lists are rendered item by item, and the event loop has its turn in between.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, get_args

from fastapi import Depends, Query, Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from app.api.http.error_responses import validation_error
from app.control.time_slices import in_slices

FieldsQuery = Annotated[
    str | None,
    Query(
        max_length=1000,
        pattern=r"^[a-z0-9_]+(,[a-z0-9_]+)*$",
        description="Comma-separated names of the fields that each item has; all if omitted.",
        examples=["pool_id,waiting"],
    ),
]
# A history has the same points for nodes.
_LISTS = ("items", "on_nodes")
_EXCLUDED = "excluded"

# The fields that the items of each list of a page are rendered without.
Exclusion = Mapping[str, set[str]]


class SparsePage(BaseModel):
    """A page whose items have only the requested `fields`."""

    items: list[dict[str, Any]] = Field(examples=[[{"waiting": 0}]])
    next_cursor: str | None = Field(default=None, examples=[None])


def item_model(page: object, name: str = "items") -> type[BaseModel] | None:
    """The model of the items of *page*, if that has a list of that *name*."""
    items = getattr(page, "__pydantic_fields__", {}).get(name)
    return None if items is None else get_args(items.annotation)[0]


def selects_fields(endpoint: Callable[..., Any]) -> bool:
    """Whether a route selects the fields itself."""
    return "fields" in signature(endpoint).parameters


def excluded_fields(fields: str | None, model: type[BaseModel]) -> set[str] | None:
    """The fields of *model* that were not requested; None if all were requested.

    Raises:
        RequestValidationError: *model* has no such field.
    """
    if fields is None:
        return None
    wanted, known = set(fields.split(",")), set(model.__pydantic_fields__)
    unknown = sorted(wanted - known)
    if unknown:
        detail = f"Items have no field {unknown[0]}."
        raise validation_error("query", "fields", code="unknown_field", detail=detail)
    return known - wanted


def exclusion_of(page: type[BaseModel]) -> Callable[..., Awaitable[Exclusion]]:
    """Create a dependency: the fields that a request leaves out of the list model *page*."""
    found = ((name, item_model(page, name)) for name in _LISTS)
    models = {name: model for name, model in found if model is not None}

    async def exclusion(fields: FieldsQuery = None) -> Exclusion:
        if fields is None:
            return {}
        excluded_fields(fields, models["items"])
        wanted = set(fields.split(","))
        return {name: model.__pydantic_fields__.keys() - wanted for name, model in models.items()}

    return exclusion


def selecting(
    endpoint: Callable[..., Awaitable[BaseModel]], exclusion: Callable[..., Awaitable[Exclusion]]
) -> Callable[..., Awaitable[Response]]:
    """Wrap the *endpoint* of a list, so that it renders only the requested fields."""

    @wraps(endpoint)
    async def select(**parameters: Any) -> Response:
        excluded: Exclusion = parameters.pop(_EXCLUDED)
        body = await rendered(await endpoint(**parameters), excluded)
        return Response(body, media_type="application/json")

    own = signature(endpoint)
    annotation = Annotated[Exclusion, Depends(exclusion)]
    more = Parameter(_EXCLUDED, Parameter.KEYWORD_ONLY, annotation=annotation)
    parameters = [*own.parameters.values(), more]
    select.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return select


async def rendered(page: BaseModel, excluded: Exclusion, *, without: Collection[str] = ()) -> bytes:
    """Render *page* as JSON, but not its fields in *without*."""
    parts = []
    for name in type(page).__pydantic_fields__:
        if name in without:
            continue
        if name in _LISTS:
            items = in_slices(getattr(page, name))
            some = excluded.get(name)
            texts = [to_json(each, by_alias=True, exclude=some) async for each in items]
            parts.append(b'"%s":[%s]' % (name.encode(), b",".join(texts)))
        else:
            parts.append(page.model_dump_json(by_alias=True, include={name})[1:-1].encode())
    return b"{%s}" % b",".join(parts)
