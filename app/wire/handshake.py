"""Checks everything that a server sends during a login.

asyncpg trusts any server: it would hash a password as often as the server asks, in the event loop,
keep a message of 2 GiB, and send a password in clear text. So every message of a login passes
through here first. Bytes that are not UTF-8 are replaced: before a server knows our encoding, it
reports errors in its own. Pure: bytes in, bytes out.
"""

import re
import struct

MAX_BYTES = 65_536
"""Of a whole login; a usual login takes about 600 bytes, and libpq refuses errors over 30 000."""

MAX_MESSAGES = 1_000
"""Of a whole login; a usual login takes about 20. Notices of a login trigger count too."""

MAX_SCRAM_ITERATIONS = 100_000
"""The most SCRAM iterations; PostgreSQL's default is 4096, and 100 000 take about 40 ms."""

_HEADER = struct.Struct("!ci")
_CODE = struct.Struct("!i")
_ITERATIONS = re.compile(rb",i=([0-9]{1,10})(?:,|\Z)")

# The authentication requests, by their codes in the protocol.
_OK, _CLEARTEXT, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 10, 11, 12
_NAMES = {_CLEARTEXT: "in clear", _MD5: "as MD5"}
# The allowed order: nothing twice, and no AuthenticationOk before the server has proved itself.
_FOLLOWS: dict[int | None, tuple[int, ...]] = {
    None: (_OK, _SASL, _CLEARTEXT, _MD5),
    _SASL: (_SASL_CONTINUE,),
    _SASL_CONTINUE: (_SASL_FINAL,),
    _SASL_FINAL: (_OK,),
    _CLEARTEXT: (_OK,),
    _MD5: (_OK,),
}
# The messages before and after AuthenticationOk, and their formats: asyncpg fails at any other.
_FIELDS = re.compile(rb"\0|[^\0](?:[^\0]|\0(?!\0))*\0\0")
_BEFORE_OK = {b"R": re.compile(rb"(?s:.{4,})"), b"E": _FIELDS, b"N": _FIELDS}
# These may contain text in the server's encoding, which is not always UTF-8.
_WITH_TEXT = (b"E", b"N", b"S")
_AFTER_OK = {
    b"E": _FIELDS,
    b"K": re.compile(rb"(?s:.{8})"),
    b"N": _FIELDS,
    b"S": re.compile(rb"[^\0]*\0[^\0]*\0"),
    b"Z": re.compile(rb"[ITE]"),
}


class ProtocolViolation(Exception):
    """The server broke the protocol; the text is our own and quotes nothing from the server."""


class Handshake:
    """A login, followed message by message.

    Attributes:
        is_done: whether the server is ready for statements.
        scram_iterations: the SCRAM iterations; None without SCRAM.
    """

    def __init__(self, *, is_verified: bool, is_local: bool) -> None:
        """Start; *is_verified*: TLS has verified the server; *is_local*: it is on this machine.

        A server on this machine may let us in without a password.
        """
        self._is_local = is_local
        self._is_verified = is_verified
        self._buffer = b""
        self._bytes = self._messages = 0
        self._last_request: int | None = None
        self.is_done = False
        self.scram_iterations: int | None = None

    @property
    def has_answered(self) -> bool:
        """Whether a complete message has arrived."""
        return self._messages > 0

    def feed(self, data: bytes) -> bytes:
        """Check the next *data*; return the complete messages, in UTF-8, for asyncpg.

        Raises:
            ProtocolViolation: the data must not reach asyncpg.
        """
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            raise ProtocolViolation("The server sends too much before the login is done.")
        buffer = self._buffer + data
        passed = []
        at, size = 0, len(buffer)
        while not self.is_done and size - at >= _HEADER.size:
            kind, length = _HEADER.unpack_from(buffer, at)
            if not _CODE.size <= length <= MAX_BYTES:
                raise ProtocolViolation("The server announces a message of an impossible length.")
            end = at + 1 + length
            if size < end:
                break
            body = buffer[at + _HEADER.size : end]
            self._check(kind, body)
            if body.isascii() or kind not in _WITH_TEXT:
                passed.append(buffer[at:end])
            else:
                body = body.decode(errors="replace").encode()
                passed.append(_HEADER.pack(kind, len(body) + _CODE.size) + body)
            at = end
        self._buffer = buffer[at:]
        if self.is_done:
            passed.append(self._buffer)
        return b"".join(passed)

    def _check(self, kind: bytes, body: bytes) -> None:
        self._messages += 1
        if self._messages > MAX_MESSAGES:
            raise ProtocolViolation("The server sends too many messages before the login is done.")
        shape = (_AFTER_OK if self._last_request == _OK else _BEFORE_OK).get(kind)
        if shape is None or not shape.fullmatch(body):
            raise ProtocolViolation("The server does not speak PostgreSQL's protocol.")
        if kind == b"R":
            self._authenticate(body)
        self.is_done = kind == b"Z"

    def _authenticate(self, body: bytes) -> None:
        (code,) = _CODE.unpack_from(body)
        if code not in _FOLLOWS.get(self._last_request, ()):
            raise ProtocolViolation("The server asks for a login that is not offered.")
        if code == _OK and self._last_request is None and not (self._is_verified or self._is_local):
            raise ProtocolViolation(
                "The server lets us in without a password, so it has not proved that it knows it;"
                " that is accepted only where tls is verify-full, or on this machine."
            )
        if code in _NAMES and not self._is_verified:
            raise ProtocolViolation(
                f"The server asks for the password {_NAMES[code]},"
                " which is given only where tls is verify-full."
            )
        if code == _SASL_CONTINUE:
            said = _ITERATIONS.search(body, _CODE.size)
            if said is None or not 0 < int(said[1]) <= MAX_SCRAM_ITERATIONS:
                raise ProtocolViolation(
                    f"The server asks for more than {MAX_SCRAM_ITERATIONS} SCRAM iterations."
                )
            self.scram_iterations = int(said[1])
        self._last_request = code
