"""A login to Postgres or a pooler that stops in the middle, as no driver does."""

import asyncio
import base64
import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Self

_NONCE = "a-nonce-of-the-tests"
_DEADLINE = 180.0


@dataclass(slots=True)
class ScramLogin:
    """A client that has requested its challenge."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    challenge: str

    @classmethod
    async def begin(cls, port: int, database: str, user: str) -> Self:
        """Connect, and wait for the challenge."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        startup = f"user\0{user}\0database\0{database}\0\0".encode()
        writer.write(struct.pack("!II", len(startup) + 8, 196_608) + startup)
        login = cls(reader, writer, "")
        await login._authentication(10)
        first = f"n,,n=,r={_NONCE}".encode()
        login._send(b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first)
        login.challenge = (await login._authentication(11)).decode()
        return login

    async def finish(self, password: str) -> bool:
        """Answer the challenge; returns whether that is accepted."""
        fields = dict(part.split("=", 1) for part in self.challenge.split(","))
        salted = hashlib.pbkdf2_hmac(
            "sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"])
        )
        key = hmac.digest(salted, b"Client Key", "sha256")
        answer = f"c=biws,r={fields['r']}"
        signed = f"n=,r={_NONCE},{self.challenge},{answer}".encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        self._send(f"{answer},p={base64.b64encode(proof).decode()}".encode())
        kind, body = await self._message()
        return kind == b"R" and body[:4] == struct.pack("!I", 12)

    async def ends(self) -> None:
        """Wait until the other end closes the connection."""
        async with asyncio.timeout(_DEADLINE):
            while await self.reader.read(4096):
                pass
        self.writer.close()

    def _send(self, body: bytes) -> None:
        self.writer.write(b"p" + struct.pack("!I", len(body) + 4) + body)

    async def _authentication(self, number: int) -> bytes:
        kind, body = await self._message()
        assert kind == b"R", body
        assert body[:4] == struct.pack("!I", number)
        return body[4:]

    async def _message(self) -> tuple[bytes, bytes]:
        async with asyncio.timeout(_DEADLINE):
            head = await self.reader.readexactly(5)
            return head[:1], await self.reader.readexactly(int.from_bytes(head[1:]) - 4)
