"""Optimistic concurrency: a resource's generation as its ETag, and the preconditions of a change.

This only reads and writes headers (RFC 9110, section 13). The catalog compares the generation
again, in the transaction that changes it. An ETag covers stored fields, not the live numbers shown
beside them.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Request
from starlette.exceptions import HTTPException

from app.domain.errors import PreconditionRequired, StaleVersion

_MAX_LENGTH = 1000
IfMatchHeader = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=_MAX_LENGTH,
        description='Change only these versions: ETags such as `"3"`, or `*` for any. '
        "Where the operator requires it, a change without this header answers 428.",
    ),
]
IfNoneMatchHeader = Annotated[
    str | None,
    Header(
        alias="If-None-Match",
        max_length=_MAX_LENGTH,
        description="`*`: create only, never change. Or ETags of versions not to change.",
    ),
]

_ITEM = re.compile(r'[ \t]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|\Z)')
# A tenant's ETag also has its instance and its state. The state is not part of the generation;
# neither is the encoding of a response.
_OURS = re.compile(r'"(\d{1,18})(?:-([0-9a-f]{8}))?(?:-[a-z]+)?(?:-gzip)?"')


def etag(generation: int, instance: str = "", state: str = "") -> str:
    """Format the strong ETag of a version.

    Args:
        generation: it restarts when a resource is deleted and created again.
        instance: 8 hexadecimal digits that differ between two such resources; may be empty.
        state: the resource's state; may be empty.
    """
    return '"' + "-".join(filter(None, (str(generation), instance, state))) + '"'


def content_etag(body: bytes | memoryview) -> str:
    """Format the ETag of a response that has no generation, from its body."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def instance_of(origin: datetime | UUID) -> str:
    """Distinguish a resource from a later one of the same name, whose generations restart.

    *origin*: when it was created, or its unique id.
    """
    if isinstance(origin, UUID):
        return origin.hex[:8]
    return blake2b(origin.isoformat().encode(), digest_size=4).hexdigest()


def parse_etags(header: str) -> list[str]:
    """Parse the ETags in a header's value; `*` alone stands for any.

    Raises:
        HTTPException: 400, for anything else.
    """
    text = header.strip(" \t,")
    if text == "*":
        return ["*"]
    tags: list[str] = []
    end = 0
    while end < len(text) or not tags:
        item = _ITEM.match(text, end)
        if item is None:
            raise HTTPException(400, 'Expected a list of ETags, such as "3", or *.')
        tags.append(item[1])
        end = item.end()
    return tags


def matching_etag(header: str, tag: str) -> str | None:
    """Find the ETag in *header* for the same version as *tag*, in any encoding.

    Raises:
        HTTPException: 400, for anything else.
    """
    for given in parse_etags(header):
        if given == "*":
            return tag
        known = given.removeprefix("W/")
        if known.replace('-gzip"', '"') == tag:
            return known
    return None


def etag_known_to(request: Request, tag: str) -> str | None:
    """Find the ETag in a request's If-None-Match for the same version as *tag*: it is unchanged.

    Raises:
        HTTPException: 400, for a malformed header.
    """
    header = ",".join(request.headers.getlist("if-none-match"))
    return matching_etag(header, tag) if header else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preconditions:
    """The conditions of a change on the current version.

    Attributes:
        resource: the path of the resource, for people.
        if_match, if_none_match: the headers' values, several lines joined.
        required: whether existing resources may be changed only with one of the two.
    """

    resource: str
    if_match: str | None
    if_none_match: str | None
    required: bool

    def expected_generation(self, current: int | None, instance: str = "") -> int | None:
        """Return the generation to change. 0: the resource must not exist. None: any.

        Args:
            current: the current generation; None when the resource does not exist.
            instance: see `etag`; an ETag without one stands for the generation only.

        Raises:
            StaleVersion: the current version does not meet the preconditions.
            PreconditionRequired: a precondition is required and missing.
            HTTPException: 400, for malformed ETags, or both headers.
        """
        if self.if_match is not None and self.if_none_match is not None:
            raise HTTPException(400, "Send If-Match or If-None-Match, not both.")
        if self.if_match is not None:
            return self._matching(parse_etags(self.if_match), current, instance)
        if self.if_none_match is not None:
            return self._not_matching(parse_etags(self.if_none_match), current, instance)
        if self.required and current is not None:
            raise PreconditionRequired
        return None

    def _matching(self, etags: list[str], current: int | None, instance: str) -> int | None:
        if current is None:
            raise StaleVersion(f"{self.resource} does not exist.")
        if etags == ["*"]:
            return None
        # Weak ETags never match here: they do not identify the version that was seen.
        if current not in {_generation(each, instance) for each in etags}:
            raise StaleVersion
        return current

    def _not_matching(self, etags: list[str], current: int | None, instance: str) -> int | None:
        if current is None:
            return 0
        if etags == ["*"]:
            raise StaleVersion(f"{self.resource} already exists.")
        if current in {_generation(each.removeprefix("W/"), instance) for each in etags}:
            raise StaleVersion(f"{self.resource} still has this version.")
        return current


def _generation(tag: str, instance: str) -> int | None:
    ours = _OURS.fullmatch(tag)
    return int(ours[1]) if ours and ours[2] in {None, instance} else None


async def get_preconditions(
    request: Request,
    if_match: IfMatchHeader = None,
    if_none_match: IfNoneMatchHeader = None,
) -> Preconditions:
    """Read the request's preconditions; a header with several lines is one list (RFC 9110, 5.3)."""
    headers = request.headers
    return Preconditions(
        resource=request.url.path,
        if_match=if_match and ",".join(headers.getlist("if-match")),
        if_none_match=if_none_match and ",".join(headers.getlist("if-none-match")),
        required=request.app.state.require_if_match,
    )


PreconditionsDep = Annotated[Preconditions, Depends(get_preconditions)]
