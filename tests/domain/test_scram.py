"""Passwords and their verifiers, which Postgres reads, too."""

import pytest

from app.domain.scram import scram_verifier, verify

# Written by PostgreSQL for the password "pencil", with RFC 7677's salt and iterations.
OF_RFC_7677 = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


def test_a_verifier_of_postgres_is_read() -> None:
    assert verify("pencil", OF_RFC_7677)
    assert not verify("Pencil", OF_RFC_7677)


@pytest.mark.parametrize("password", ["", "secret", "\u00e9 \U0001f418", "x" * 1000])
@pytest.mark.parametrize("iterations", [1, 4096])
def test_a_password_fits_its_own_verifier_alone(password: str, iterations: int) -> None:
    verifier = scram_verifier(password, iterations=iterations)
    assert verify(password, verifier)
    assert not verify(f"{password}x", verifier)
    assert not verify(password, scram_verifier(f"x{password}", iterations=iterations))
