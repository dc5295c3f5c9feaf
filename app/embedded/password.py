"""The superuser's password and its file. It must never reach a log, an error or a command line."""

import os
import re
import secrets
from pathlib import Path


def read_password(data_dir: Path) -> str | None:
    """The stored password; None when there is none, or not one of ours."""
    path = data_dir / "postgres-password"
    try:
        password = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    path.chmod(0o600)
    return password if re.fullmatch(r"[0-9a-f]{64}", password) else None


def new_password() -> str:
    """256 random bits, in letters that need no quoting anywhere."""
    return secrets.token_hex(32)


def write_private_file(path: Path, text: str) -> None:
    """Write a file that its owner alone may read, all or nothing."""
    half = path.with_name(f"{path.name}.half")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{text}\n")
    half.replace(path)


def store_password(data_dir: Path, password: str) -> None:
    """Keep the password for the next start, and for a person who wants to look inside."""
    write_private_file(data_dir / "postgres-password", password)
