"""What a server may send before we are logged in, and where it is."""

import struct

import pytest

from app.wire.connect import _is_local
from app.wire.handshake import MAX_SCRAM_ITERATIONS, Handshake, ProtocolViolation

WELCOME = b"R" + struct.pack("!ii", 8, 0)
READY = b"Z" + struct.pack("!i", 5) + b"I"
SASL = b"R" + struct.pack("!ii", 23, 10) + b"SCRAM-SHA-256\0\0"


def test_a_welcome_without_proof_is_refused_from_afar() -> None:
    with pytest.raises(ProtocolViolation, match="without a password"):
        Handshake(is_verified=False, is_local=False).feed(WELCOME)


def test_a_welcome_without_proof_is_taken_from_a_server_that_is_known() -> None:
    for is_verified, is_here in ((True, False), (False, True)):
        login = Handshake(is_verified=is_verified, is_local=is_here)
        assert login.feed(WELCOME + READY) == WELCOME + READY
        assert login.is_done


def challenged(iterations: str) -> Handshake:
    """A login whose server asks for that many iterations."""
    login = Handshake(is_verified=False, is_local=False)
    login.feed(SASL)
    challenge = f"r=nonce,s=c2FsdA==,i={iterations}".encode()
    login.feed(b"R" + struct.pack("!ii", 8 + len(challenge), 11) + challenge)
    return login


@pytest.mark.parametrize("iterations", [1, 4096, MAX_SCRAM_ITERATIONS])
def test_it_knows_how_often_the_server_stretches_the_password(iterations: int) -> None:
    assert challenged(str(iterations)).scram_iterations == iterations


@pytest.mark.parametrize("iterations", ["0", "-1", str(MAX_SCRAM_ITERATIONS + 1), "9" * 40, ""])
def test_a_password_is_stretched_no_other_number_of_times(iterations: str) -> None:
    with pytest.raises(ProtocolViolation, match="SCRAM iterations"):
        challenged(iterations)


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
