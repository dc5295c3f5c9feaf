"""SCRAM-SHA-256 (RFC 5803): password verifiers as Postgres stores them."""

import base64
import hashlib
import hmac
import secrets

_SALT_BYTES = 16


def scram_verifier(password: str, *, iterations: int) -> str:
    """Derive the verifier of *password*, as Postgres stores it."""
    salt = secrets.token_bytes(_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (
        base64.b64encode(part).decode() for part in (salt, stored, server_key)
    )
    return f"SCRAM-SHA-256${iterations}:{salt_text}${stored_text}:{server_text}"


def verify(password: str, verifier: str) -> bool:
    """Check *password* against *verifier*; this takes the CPU time of all its iterations."""
    _, stretched, keys = verifier.split("$")
    iterations, _, salt = stretched.partition(":")
    salted = hashlib.pbkdf2_hmac(
        "sha256", password.encode(), base64.b64decode(salt), int(iterations)
    )
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return hmac.compare_digest(stored, base64.b64decode(keys.partition(":")[0]))
