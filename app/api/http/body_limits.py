"""Limits of the query string and the body: their size, and JSON as the only media type.

FastAPI's own limit answers in plain text, and it would report a body of another type as malformed
JSON. Neon's drivers send no media type, so POST /sql takes any body as JSON. A probe ignores its
body. One without an announced length is counted while it is received, see `exchange`.
"""

from collections.abc import Sequence
from email.message import Message as MediaType

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from app.api.http.error_responses import METHODS, problem_response
from app.api.http.load_shedding import PROBES
from app.api.http.request_checks import HeaderValues
from app.api.http.sql_protocol import SQL_PATH

MAX_BODY_BYTES = 1024 * 1024
MAX_QUERY_BYTES = 8192
# Parsing this many takes some ten milliseconds, and checking them as long again. The longest report
# of a node has fewer.
MAX_VALUES = 75_000
BODY_TOO_LARGE = f"The body is larger than {MAX_BODY_BYTES} bytes."
TOO_MANY_VALUES = (
    f"The body has more than {MAX_VALUES} values, names included. Send long arrays and JSON "
    "documents as strings."
)
_QUERY_TOO_LONG = f"The query string is longer than {MAX_QUERY_BYTES} bytes."
_NOT_JSON = "The body must be UTF-8 JSON with one header Content-Type: application/json."
_ENCODED = "The body must not have a Content-Encoding."
# The standard library's parser takes time that grows with the square of the length.
_LONGEST_MEDIA_TYPE = 200
# The characters that begin a value or a name, or precede one.
_MARKS = (b",", b":", b"[", b"{")


def has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def check_body(scope: Scope, given: HeaderValues) -> Response | None:
    """Return 413, 414 or 415 if the query string or the announced body is not acceptable."""
    if len(scope["query_string"]) > MAX_QUERY_BYTES:
        return problem_response(Request(scope), 414, "uri-too-long", _QUERY_TOO_LONG)
    length = given.get(b"content-length", ("0",))[0]
    if length.isdecimal() and int(length[:20]) > MAX_BODY_BYTES:
        return problem_response(Request(scope), 413, "content-too-large", BODY_TOO_LARGE)
    is_empty = length == "0" and b"transfer-encoding" not in given
    # A method that no route accepts is refused whatever its body is.
    if is_empty or scope["method"] not in METHODS or scope["path"] in PROBES:
        return None
    if scope["path"] != SQL_PATH and not _is_json(given.get(b"content-type", ())):
        return problem_response(Request(scope), 415, "unsupported-media-type", _NOT_JSON)
    if any(coding != "identity" for coding in given.get(b"content-encoding", ())):
        return problem_response(Request(scope), 415, "unsupported-media-type", _ENCODED)
    return None


def has_too_many_values(body: bytes) -> bool:
    """Whether *body*, if it is JSON, has too many values and names; a string counts as one."""
    if sum(map(body.count, _MARKS)) <= MAX_VALUES:
        return False
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if unescaped.count(b'"') > 2 * MAX_VALUES:
        return True
    outside = b"".join(unescaped.split(b'"')[::2])
    return sum(map(outside.count, _MARKS)) > MAX_VALUES


def _is_json(content_types: Sequence[str]) -> bool:
    if len(content_types) != 1 or len(content_types[0]) > _LONGEST_MEDIA_TYPE:
        return False
    if content_types[0] == "application/json":
        return True
    parsed = MediaType()
    parsed["Content-Type"] = content_types[0]
    media_type = parsed.get_content_type()
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    return is_json and str(parsed.get_param("charset", "utf-8")).lower() in ("utf-8", "utf8")
