"""The client of a forwarded request: one header, signed by the forwarding instance.

Limits, audit trail and log of the active instance are about the client, not about the standby in
between. Nobody can write this header without the secret key, and a signature is valid for one
request with one API key only.
"""

import hmac

from starlette.types import Scope

HEADER = b"poolkeeper-forwarded"
_REQUEST_ID = b"x-request-id"
_BETWEEN = b"|"
_SECRETS = frozenset({b"authorization", b"neon-connection-string"})


class ForwardedClient:
    """Writes and reads the header."""

    def __init__(self, secret: bytes) -> None:
        """*secret* is shared by all instances."""
        self._key = hmac.digest(secret, b"forwarded client", "sha256")

    def header(self, scope: Scope, request_id: bytes) -> tuple[bytes, bytes]:
        """Make the header with address, scheme and request id of *scope*'s client."""
        host, port = scope.get("client") or ("", 0)
        said = _BETWEEN.join((host.encode(), b"%d" % port, scope["scheme"].encode(), request_id))
        return HEADER, said + _BETWEEN + self._signature(scope, said)

    def restore(self, scope: Scope) -> bool:
        """Set the client of *scope* to the one in its header; return whether it had the header.

        If the signature is invalid, the header is dropped and nothing else changes.
        """
        given = [value for name, value in scope["headers"] if name == HEADER]
        if not given:
            return False
        headers = [each for each in scope["headers"] if each[0] != HEADER]
        said, _, signature = given[0].rpartition(_BETWEEN)
        if len(given) == 1 and hmac.compare_digest(signature, self._signature(scope, said)):
            # A proxy may name its client as it likes; only these names contain the separator.
            host, port, scheme, request_id = said.rsplit(_BETWEEN, 3)
            scope["client"] = (host.decode(), int(port)) if host else None
            scope["scheme"] = scheme.decode()
            headers = [each for each in headers if each[0] != _REQUEST_ID]
            headers.append((_REQUEST_ID, request_id))
        scope["headers"] = headers
        return True

    def _signature(self, scope: Scope, said: bytes) -> bytes:
        keys = [value for name, value in scope["headers"] if name in _SECRETS]
        signed = (said, scope["method"].encode(), scope["raw_path"], scope["query_string"], *keys)
        return hmac.digest(self._key, b"\n".join(signed), "sha256").hex().encode()
