"""The key from which tenants' login passwords are derived, when the operator gives none.

Created once in the data directory, with mode 600. If it is lost, every tenant must be provisioned
again to get a new password.
"""

from __future__ import annotations

import errno
import secrets
from pathlib import Path

from app.embedded.data_directory import write_private_file

_KEY_BYTES = 32


def load_or_create_secret_key(data_dir: Path) -> bytes:
    """The key in *data_dir*, created if there is none.

    Raises:
        OSError: it can be neither read nor written, or is damaged.
    """
    path = data_dir / "secret-key"
    if not path.exists():
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private_file(path, secrets.token_hex(_KEY_BYTES))
    path.chmod(0o600)
    key = path.read_bytes().strip()
    if not (key and key.isascii()):
        raise OSError(errno.EINVAL, "it is not a key that Poolkeeper created", str(path))
    return key
