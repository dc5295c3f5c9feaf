"""`?fields=`: lists whose items have only some of their fields.

Every list takes it, by `StrictRoute`; a route whose responses are cached selects fields itself.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Annotated, Any, get_args

import jiter
from fastapi import Query, Request, Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from app.api.http.problems import validation_error

FieldsQuery = Annotated[
    str | None,
    Query(
        max_length=1000,
        pattern=r"^[a-z0-9_]+(,[a-z0-9_]+)*$",
        description="Comma-separated names of the fields that each item has; all if omitted.",
        examples=["pool_id,waiting"],
    ),
]
# A history has the same points of nodes.
_LISTS = ("items", "on_nodes")


class SparsePage(BaseModel):
    """A page whose items have only the requested `fields`."""

    items: list[dict[str, Any]] = Field(examples=[[{"waiting": 0}]])
    next_cursor: str | None = Field(default=None, examples=[None])


def item_model(page: object) -> type[BaseModel] | None:
    """The model of the items of a *page*, if that is the model of a list."""
    items = getattr(page, "model_fields", {}).get("items")
    return None if items is None else get_args(items.annotation)[0]


def selects_fields(endpoint: Callable[..., Any]) -> bool:
    """Whether a route selects fields itself."""
    return "fields" in signature(endpoint).parameters


def excluded_fields(fields: str | None, model: type[BaseModel]) -> set[str] | None:
    """The fields of *model* that were not requested; None: all were.

    Raises:
        RequestValidationError: *model* has no such field.
    """
    if fields is None:
        return None
    wanted, known = set(fields.split(",")), set(model.model_fields)
    unknown = sorted(wanted - known)
    if unknown:
        detail = f"Items have no field {unknown[0]}."
        raise validation_error("query", "fields", code="unknown_field", detail=detail)
    return known - wanted


def select_fields(request: Request, response: Response) -> None:
    """Leave the requested fields in the items of *response*."""
    fields = request.query_params.get("fields")
    if fields is None:
        return
    wanted = set(fields.split(","))
    page = jiter.from_json(bytes(response.body))
    for name in page.keys() & _LISTS:
        page[name] = [{key: each[key] for key in each if key in wanted} for each in page[name]]
    response.body = to_json(page)
    response.headers["Content-Length"] = str(len(response.body))
