"""Checks that refuse a request before its body is read.

They refuse ambiguous lengths, huge headers, foreign hosts and changes from pages of other sites:

* If a proxy finds another end of a request than we do, it would send us the rest as somebody else's
  request (RFC 9112, 11.2). Such a connection cannot be trusted, so it is closed.
* A browser lets `evil.example` talk to whatever address its owner gives it, 127.0.0.1 included
  (DNS rebinding); the Host header gives it away. Starlette's own middleware answers in plain
  text and does not parse IPv6 addresses.
* Under our own name such a page cannot read a response, but some changes need no permission of
  the browser: they are refused by their Sec-Fetch-Site or Origin header.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import chain

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from app.api.http.error_responses import problem_response
from app.api.http.load_shedding import PROBES

# The values of a request's headers, by lower-case name.
HeaderValues = Mapping[bytes, Sequence[str]]

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024
MAX_PATH_BYTES = 8192
HEADERS_TOO_LARGE = f"At most {MAX_HEADERS} headers with {MAX_HEADER_BYTES} bytes in total."
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
AMBIGUOUS_LENGTH = "Send one Content-Length, or Transfer-Encoding: chunked with HTTP/1.1, not both."
URI_TOO_LONG = f"The path is longer than {MAX_PATH_BYTES} bytes."
_UNTRUSTED_HOST = "This host name is not in the setting trusted_hosts."
_CROSS_SITE = "Pages of other sites cannot change anything here."
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?::\d{1,5})?")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SAME_SITE = frozenset({"none", "same-origin"})


def check_framing(scope: Scope, given: HeaderValues) -> Response | None:
    """Return 400, 414 or 431 for a request without a clear end, or with too long a head."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    lengths = given.get(b"content-length", ())
    encodings = given.get(b"transfer-encoding", ())
    is_chunked_1_0 = bool(encodings) and scope["http_version"] == "1.0"
    size = sum(map(len, chain.from_iterable(headers)))
    if len(lengths) + len(encodings) > 1 or is_chunked_1_0:
        status, code, detail = 400, "ambiguous-length", AMBIGUOUS_LENGTH
    elif len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        status, code, detail = 431, "headers-too-large", HEADERS_TOO_LARGE
    elif len(scope["raw_path"] or b"") > MAX_PATH_BYTES:
        status, code, detail = 414, "uri-too-long", URI_TOO_LONG
    else:
        return None
    return problem_response(Request(scope), status, code, detail, headers={"Connection": "close"})


class TrustedHosts:
    """The names that a Host header may have.

    A name stands for itself, `*.example.com` for every name below it, `*` for all.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._allows_all = "*" in names
        self._names = frozenset(name.lower() for name in names)
        self._suffixes = tuple(name[1:].lower() for name in names if name.startswith("*."))

    def include(self, given: HeaderValues) -> bool:
        """Whether these headers have one Host, and its name is among the trusted ones."""
        if self._allows_all:
            return True
        hosts = given.get(b"host", ())
        host = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        return host is not None and (
            host["name"] in self._names or host["name"].endswith(self._suffixes)
        )


def refuse_host(scope: Scope) -> Response | None:
    """Return 400 for a request under a host name that is not trusted, unless it is a probe.

    Orchestrators and proxies probe an address, and the response tells nothing to those without a
    key.
    """
    if scope["path"] in PROBES:
        return None
    return problem_response(Request(scope), 400, "untrusted-host", _UNTRUSTED_HOST)


def check_origin(scope: Scope, given: HeaderValues) -> Response | None:
    """Return 403 for a change that a browser sends on behalf of another site's page.

    Other programs send none of these headers, and pass.
    """
    if scope["method"] in _SAFE_METHODS or _is_same_origin(given):
        return None
    return problem_response(Request(scope), 403, "cross-site", _CROSS_SITE)


def _is_same_origin(given: HeaderValues) -> bool:
    sites = given.get(b"sec-fetch-site")
    if sites:
        return _SAME_SITE.issuperset(sites)
    # Browsers send no Sec-Fetch-Site to a remote host without TLS. Behind a proxy the scheme may
    # differ.
    if not (origins := given.get(b"origin")):
        return True
    host = given.get(b"host", ("",))[0].lower()
    return all(origin.lower().partition("://")[2] == host for origin in origins)
