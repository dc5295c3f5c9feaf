"""A request with strict JSON: only what RFC 8259 calls interoperable.

UTF-8, each key once, no NaN, no lone surrogates, bounded numbers and nesting; parsed only once.
"""

import asyncio
import json
import re
from typing import Any, Literal

import jiter
from fastapi import Request
from jiter import LosslessFloat
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from app.api.http.body_limits import TOO_MANY_VALUES, has_too_many_values
from app.api.http.disconnect import ClientDisconnected

FloatMode = Literal["float", "lossless-float"]

# Longer bodies take turns: each step of one has its own round of the event loop.
_LONG_BODY = 64 * 1024
# The messages of jiter, or their beginnings, and their meaning.
_REASONS = {
    "Detected duplicate key": "an object has the same key twice",
    "invalid unicode code point": "it is not UTF-8",
    "lone leading surrogate": "half of a surrogate pair stands alone",
    "unexpected end of hex escape": "an escape is incomplete, or half of a surrogate pair",
    "recursion limit exceeded": "it is nested too deeply",
    "number out of range": "a number has too many digits",
    "invalid number": "a number is malformed; JSON has no NaN and no infinity",
    "expected value": "a value is missing or malformed; JSON has no NaN and no infinity",
    "EOF while parsing": "it ends too early",
    "trailing comma": "a comma is followed by nothing",
    "trailing characters": "something follows its end",
    "key must be a string": "a key must be a string in double quotes",
    "control character": "a string contains a control character that is not escaped",
    "invalid escape": "a string contains an unknown escape",
}
_NEGATIVE_ZERO = LosslessFloat(b"-0")
# It may also be the end of a text or of an exponent, which does no harm.
_has_negative_zero = re.compile(rb"-0\s*[,\]}]").search
_EMPTY = "EOF while parsing a value at line 1 column 0"
_PLACE = re.compile(r" at line (\d+) column (\d+)$")


class StrictRequest(Request):
    """A request whose body is strict JSON or none."""

    _is_given_again = False

    def __init__(self, scope: Scope, receive: Receive, float_mode: FloatMode) -> None:
        """*float_mode*: the type of numbers with a fraction, see `StrictRoute`."""
        super().__init__(scope, receive)
        self._float_mode = float_mode

    async def body(self) -> bytes:
        """Raises ClientDisconnected if the client disconnects before its end."""
        if not hasattr(self, "_body"):
            parts = []
            is_complete = False
            while not is_complete:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected
                parts.append(message.get("body", b""))
                is_complete = not message.get("more_body", False)
            self._body = b"".join(parts)
        return self._body

    async def receive_again(self) -> Message:
        """Like `receive`, but it begins with the body if that was already read."""
        if not self._is_given_again and hasattr(self, "_body"):
            self._is_given_again = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        return await self.receive()

    async def json(self) -> Any:  # noqa: ANN401 - Starlette's signature
        """Raises 400 for anything that is not strict JSON, 413 for too many values."""
        if not hasattr(self, "_json"):
            body = await self.body()
            if len(body) <= _LONG_BODY:
                self._json = self._exact(body, self._parse(body))
                return self._json
            # Counting, parsing and checking take some ten milliseconds each.
            async with self.app.state.long_bodies:
                if has_too_many_values(body):
                    raise HTTPException(413, TOO_MANY_VALUES)
                await asyncio.sleep(0)
                self._json = self._parse(body)
                await asyncio.sleep(0)
                self._json = self._exact(body, self._json)
                await asyncio.sleep(0)
        return self._json

    def _parse(self, body: bytes) -> Any:  # noqa: ANN401 - same
        try:
            return jiter.from_json(
                body,
                allow_inf_nan=False,
                cache_mode="none",
                catch_duplicate_keys=True,
                float_mode=self._float_mode,
            )
        except ValueError as error:
            raise HTTPException(400, _explained(str(error))) from error

    def _exact(self, body: bytes, parsed: Any) -> Any:  # noqa: ANN401 - same
        """Restore the sign of `-0`, which is 0 in *parsed*: to a float it is another number."""
        if self._float_mode == "float" or not _has_negative_zero(body):
            return parsed
        return json.loads(
            body, parse_int=_integer, parse_float=lambda digits: LosslessFloat(digits.encode())
        )


def _integer(digits: str) -> int | LosslessFloat:
    return _NEGATIVE_ZERO if digits == "-0" else int(digits)


def _explained(message: str) -> str:
    """Translate *message*, an error of jiter's, into a sentence."""
    if message == _EMPTY:
        return "The body is empty."
    reason = next((text for start, text in _REASONS.items() if message.startswith(start)), "")
    place = _PLACE.search(message)
    where = f", at line {place[1]}, column {place[2]}" if place else ""
    return (
        f"The body is not valid JSON: {reason}{where}." if reason else "The body is not valid JSON."
    )
