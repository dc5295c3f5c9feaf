"""`?fields=`: items with only some of their fields."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field

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


class SparsePage(BaseModel):
    """A page whose items have only the requested `fields`."""

    items: list[dict[str, Any]] = Field(examples=[[{"waiting": 0}]])
    next_cursor: str | None = Field(examples=[None])


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
