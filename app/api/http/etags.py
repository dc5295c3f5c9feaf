"""Optimistic concurrency: a resource's generation as its ETag, and the headers that ask for it.

Only reads and writes headers (RFC 9110, section 13); the generation is compared once more by
the catalog, in the transaction that changes it. A tag is of what is recorded: the numbers of
the moment that are shown beside it come and go without a new one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.exceptions import HTTPException

from app.domain.errors import PreconditionRequired, StaleVersion

_LONGEST = 1000
IfMatchHeader = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=_LONGEST,
        description='Change only this version: ETags such as `"3"`, or `*` for any. '
        "Where the operator requires it, a change without it answers 428.",
    ),
]
IfNoneMatchHeader = Annotated[
    str | None,
    Header(
        alias="If-None-Match",
        max_length=_LONGEST,
        description="`*`: create only, never change; or ETags that must not be in force.",
    ),
]

_ONE = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*+"'
_LIST = re.compile(rf"{_ONE}(?:[ \t]*+,[ \t]*+{_ONE})*+")
_TAG = re.compile(_ONE)
# A tenant's tag goes on with its mark, and with its state, which is no part of its generation.
_OURS = re.compile(r'"(\d{1,18})(?:-([0-9a-f]{8}))?(?:-[a-z]+)?"')


def etag(generation: int, mark: str = "", state: str = "") -> str:
    """The strong ETag of a generation, and of what is recorded beside it.

    Args:
        generation: it starts anew when a thing is deleted and made again.
        mark: 8 hexadecimal digits that tell such a thing from the one before; empty for none.
        state: how far it has come; empty for none.
    """
    return '"' + "-".join(filter(None, (str(generation), mark, state))) + '"'


def parse_etags(header: str) -> list[str]:
    """The entity tags in a header's value; `*` alone stands for any.

    Raises:
        HTTPException: 400, for anything else.
    """
    text = header.strip(" \t,")
    if text == "*":
        return ["*"]
    if not _LIST.fullmatch(text):
        raise HTTPException(400, 'A list of entity tags, such as "3", or * was expected.')
    return _TAG.findall(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preconditions:
    """What a change expects of the version in force.

    Attributes:
        if_match: the header's value, its lines put together.
        if_none_match: the same.
        required: whether existing things may be changed only with one of the two.
    """

    if_match: str | None
    if_none_match: str | None
    required: bool

    def expected_generation(self, current: int | None, mark: str = "") -> int | None:
        """The generation a change is meant for: 0 for none yet, None for any.

        Args:
            current: the generation in force, None when there is no such thing.
            mark: see `etag`; a tag without one says the generation alone.

        Raises:
            StaleVersion: something else is expected than what there is.
            PreconditionRequired: nothing is, and it must be.
            HTTPException: 400, for malformed tags, or both headers at once.
        """
        if self.if_match is not None and self.if_none_match is not None:
            raise HTTPException(400, "If-Match and If-None-Match exclude each other.")
        if self.if_match is not None:
            return _matching(parse_etags(self.if_match), current, mark)
        if self.if_none_match is not None:
            return _not_matching(parse_etags(self.if_none_match), current, mark)
        if self.required and current is not None:
            raise PreconditionRequired
        return None


def _matching(tags: list[str], current: int | None, mark: str) -> int | None:
    if current is None:
        raise StaleVersion("It does not exist.")
    if tags == ["*"]:
        return None
    # Weak tags never match here: they do not say which version was seen.
    if current not in {_generation(tag, mark) for tag in tags}:
        raise StaleVersion
    return current


def _not_matching(tags: list[str], current: int | None, mark: str) -> int | None:
    if current is None:
        return 0
    if tags == ["*"]:
        raise StaleVersion("It exists already.")
    if current in {_generation(tag.removeprefix("W/"), mark) for tag in tags}:
        raise StaleVersion("It is still this version.")
    return current


def _generation(tag: str, mark: str) -> int | None:
    ours = _OURS.fullmatch(tag)
    return int(ours[1]) if ours and ours[2] in {None, mark} else None


async def get_preconditions(
    request: Request,
    if_match: IfMatchHeader = None,
    if_none_match: IfNoneMatchHeader = None,
) -> Preconditions:
    """What the request expects; a header of several lines is one list (RFC 9110, 5.3)."""
    headers = request.headers
    return Preconditions(
        if_match=if_match and ",".join(headers.getlist("if-match")),
        if_none_match=if_none_match and ",".join(headers.getlist("if-none-match")),
        required=request.app.state.require_if_match,
    )


PreconditionsDep = Annotated[Preconditions, Depends(get_preconditions)]
