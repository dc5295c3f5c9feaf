"""What is sent ahead of a statement: asyncpg gets no answer to it, whatever pieces arrive."""

import asyncio
import struct
from typing import cast

import pytest

from app.wire.joining_transport import JoiningTransport
from app.wire.relay import Relay


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", 4 + len(body)) + body


PARSED, BOUND = message(b"1"), message(b"2")
BEGUN, SET = message(b"C", b"BEGIN\0"), message(b"C", b"SET\0")
ANSWERS = PARSED + BOUND + BEGUN + PARSED + BOUND + SET
NOTICE = message(b"N", b"SNOTICE\0Mhello\0\0")
SETTING = message(b"S", b"TimeZone\0UTC\0")
READY = message(b"Z", b"T")
REPLY = message(b"C", b"SELECT 1\0") + READY
REFUSAL = message(b"E", b"SERROR\0C25006\0Mno\0\0")


class Wire:
    """A connection's transport and protocol, and what passes through them."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.received = b""
        self.is_aborted = False
        transport = JoiningTransport(cast("asyncio.Transport", self))
        self.relay = Relay(cast("asyncio.Protocol", self), transport)
        self.transport = transport

    def write(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def data_received(self, data: bytes) -> None:
        self.received += data

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def get_protocol(self) -> Relay:
        return self.relay

    def comes(self, data: bytes, piece: int) -> None:
        for at in range(0, len(data), piece):
            if not self.is_aborted:
                self.relay.data_received(data[at : at + piece])


@pytest.fixture
def wire() -> Wire:
    wire = Wire()
    wire.relay.begin_with_next("BEGIN; SET LOCAL a = 'b'")
    return wire


def test_what_is_sent_ahead_waits_for_the_next_message_and_leaves_with_it(wire: Wire) -> None:
    assert wire.sent == []
    wire.transport.write(memoryview(b"first"))
    wire.transport.write(b"second")
    assert wire.sent[0].startswith(b"P")
    assert wire.sent[0].endswith(b"first")
    assert b"SET LOCAL a = 'b'" in wire.sent[0]
    assert wire.sent[1:] == [b"second"]


def test_several_buffers_leave_together_with_what_is_sent_ahead(wire: Wire) -> None:
    wire.transport.writelines([b"one", memoryview(b"two")])
    assert len(wire.sent) == 1
    assert wire.sent[0].endswith(b"onetwo")


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 7, 11, 10_000])
def test_answers_to_what_was_sent_ahead_are_left_out(wire: Wire, piece: int) -> None:
    wire.comes(ANSWERS + REPLY + REPLY, piece)
    assert wire.received == REPLY + REPLY


@pytest.mark.parametrize("piece", [1, 4, 10_000])
def test_notices_and_settings_that_come_meanwhile_are_passed_on(wire: Wire, piece: int) -> None:
    wire.comes(NOTICE + PARSED + BOUND + BEGUN + SETTING + PARSED + BOUND + SET + REPLY, piece)
    assert wire.received == NOTICE + SETTING + REPLY


@pytest.mark.parametrize("piece", [1, 6, 10_000])
@pytest.mark.parametrize("before", [b"", PARSED + BOUND + BEGUN])
def test_a_refusal_of_what_was_sent_ahead_ends_the_connection(
    wire: Wire, before: bytes, piece: int
) -> None:
    wire.comes(before + REFUSAL + READY, piece)
    assert wire.is_aborted
    assert wire.received == b""


@pytest.mark.parametrize("piece", [1, 10_000])
def test_what_no_server_sends_there_ends_the_connection(wire: Wire, piece: int) -> None:
    wire.comes(PARSED + READY, piece)
    assert wire.is_aborted


def test_nothing_is_sent_ahead_on_a_closed_connection(wire: Wire) -> None:
    wire.abort()
    with pytest.raises(ConnectionResetError):
        wire.relay.begin_with_next("BEGIN")
