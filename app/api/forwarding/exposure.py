"""Requests that a standby does not forward unencrypted: their responses hold passwords.

If a client's connection to the standby is private, the connection behind it must be private too.
"""

import re
from urllib.parse import urlsplit

from starlette.types import Scope

from app.domain.loopback import is_private

_CONFIGURATION = re.compile(r"/v1/nodes/[^/]+/configuration").fullmatch
_CREDENTIALS = re.compile(r"/v1/tenants/[^/]+/credentials").fullmatch


def would_expose_passwords(scope: Scope, url: str) -> bool:
    """Whether others could read passwords of the response if the request went to *url*."""
    client, path, active = scope["client"], scope["path"], urlsplit(url)
    is_new_credential = scope["method"] == "POST" and _CREDENTIALS(path) is not None
    if not is_new_credential and _CONFIGURATION(path) is None:
        return False
    is_asked_in_private = is_private(scope["scheme"], client[0] if client else None)
    return is_asked_in_private and not is_private(active.scheme, active.hostname)
