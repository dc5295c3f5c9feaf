"""What a server may say before we are logged in, and where it is."""

import struct

import pytest

from app.wire.connect import _is_local
from app.wire.handshake import Handshake, ProtocolViolation

WELCOME = b"R" + struct.pack("!ii", 8, 0)
READY = b"Z" + struct.pack("!i", 5) + b"I"


def test_a_welcome_without_proof_is_refused_from_afar() -> None:
    with pytest.raises(ProtocolViolation, match="without a password"):
        Handshake(is_verified=False, is_local=False).feed(WELCOME)


def test_a_welcome_without_proof_is_taken_from_a_server_that_is_known() -> None:
    for is_verified, is_here in ((True, False), (False, True)):
        login = Handshake(is_verified=is_verified, is_local=is_here)
        assert login.feed(WELCOME + READY) == WELCOME + READY
        assert login.is_done


@pytest.mark.parametrize(
    ("peer", "is_here"),
    [
        (("127.0.0.1", 5432), True),
        (("::1", 5432, 0, 0), True),
        ("/run/postgresql/.s.PGSQL.5432", True),
        (("192.0.2.1", 5432), False),
        (("fe80::1%eth0", 5432, 0, 2), False),
        (None, False),
    ],
)
def test_only_loopback_and_unix_sockets_are_on_this_machine(
    peer: object,
    is_here: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert _is_local(peer) is is_here
