"""Optimistic concurrency: a resource's generation as its ETag, and the two headers that ask for it.

Only reads and writes headers; the generation is compared by the catalog, in the transaction
that changes it.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header
from starlette.exceptions import HTTPException

from app.domain.errors import StaleVersion

IfMatchHeader = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=100,
        description='Change only this version: an ETag such as `"3"`, or `*` for any.',
    ),
]
IfNoneMatchHeader = Annotated[
    str | None,
    Header(alias="If-None-Match", max_length=100, description="`*`: create only, never change."),
]

_TAG = re.compile(r'"(\d{1,18})"')


def etag(generation: int) -> str:
    """The strong ETag of a generation."""
    return f'"{generation}"'


def expected_generation(
    if_match: str | None, if_none_match: str | None, *, exists: bool
) -> int | None:
    """The generation a change is meant for: 0 for none yet, None for any.

    Args:
        if_match: the header's value.
        if_none_match: the header's value.
        exists: whether there is the resource now.

    Raises:
        StaleVersion: something is expected to exist and does not, or the other way round.
        HTTPException: 400, for a weak or malformed ETag, or both headers at once.
    """
    if if_match is not None and if_none_match is not None:
        raise HTTPException(400, "If-Match and If-None-Match exclude each other.")
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            raise HTTPException(400, "If-None-Match takes only * here.")
        if exists:
            raise StaleVersion("It exists already.")
        return 0
    if if_match is None:
        return None
    tag = _TAG.fullmatch(if_match.strip())
    if tag is None and if_match.strip() != "*":
        raise HTTPException(400, 'If-Match takes one strong ETag, such as "3", or *.')
    if not exists:
        raise StaleVersion("It does not exist.")
    return int(tag[1]) if tag else None
