"""What a server may say before we are logged in."""

import struct

import pytest

from app.wire.handshake import Handshake, Violation

WELCOME = b"R" + struct.pack("!ii", 8, 0)
READY = b"Z" + struct.pack("!i", 5) + b"I"


def test_a_welcome_without_proof_is_refused_from_afar() -> None:
    with pytest.raises(Violation, match="without a password"):
        Handshake(is_verified=False, is_here=False).feed(WELCOME)


@pytest.mark.parametrize(("is_verified", "is_here"), [(True, False), (False, True)])
def test_a_welcome_without_proof_is_taken_from_a_server_that_is_known(
    is_verified: bool, is_here: bool
) -> None:
    assert Handshake(is_verified=is_verified, is_here=is_here).feed(WELCOME + READY)
