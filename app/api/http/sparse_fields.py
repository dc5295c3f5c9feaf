"""`?fields=`: lists whose items have only the requested fields; others are not rendered.

Every list has it, by `StrictRoute`; a route with cached responses selects the fields itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, get_args

from fastapi import Depends, Query, Response
from pydantic import BaseModel, Field

from app.api.http.error_responses import validation_error

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

# The fields that pydantic leaves out of a page; None: none.
Exclusion = Mapping[str, Mapping[str, set[str]]] | None


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
            return None
        excluded_fields(fields, models["items"])
        wanted = set(fields.split(","))
        return {
            name: {"__all__": model.__pydantic_fields__.keys() - wanted}
            for name, model in models.items()
        }

    return exclusion


def selecting(
    endpoint: Callable[..., Awaitable[BaseModel]], exclusion: Callable[..., Awaitable[Exclusion]]
) -> Callable[..., Awaitable[BaseModel | Response]]:
    """Wrap the *endpoint* of a list, so that it renders only the requested fields."""

    @wraps(endpoint)
    async def select(**parameters: Any) -> BaseModel | Response:
        excluded: Exclusion = parameters.pop(_EXCLUDED)
        page = await endpoint(**parameters)
        # Rendering takes about as long as building it: in between, the event loop has its turn.
        await asyncio.sleep(0)
        if excluded is None:
            return page
        text = page.model_dump_json(by_alias=True, exclude=excluded)
        return Response(text, media_type="application/json")

    own = signature(endpoint)
    annotation = Annotated[Exclusion, Depends(exclusion)]
    more = Parameter(_EXCLUDED, Parameter.KEYWORD_ONLY, annotation=annotation)
    parameters = [*own.parameters.values(), more]
    select.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return select
