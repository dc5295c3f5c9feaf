"""Two instances of the service on one Postgres, and HAProxy before them. Linux only."""

import asyncio
import os
import re
import secrets
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.embedded import EmbeddedAddress, EmbeddedPostgres
from benchmarks.http_load import Target, get, until_status

_PROXY = Path(__file__).parents[1] / "deploy" / "haproxy.cfg"


class Instance:
    """A place where the service runs, and is started again whenever it has ended."""

    def __init__(self, port: int, directory: Path, settings: dict[str, str]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.process: Process | None = None
        self._log = directory / f"{port}.log"
        own = {"PORT": str(port), "ADVERTISE_URL": self.url, "DATA_DIR": str(directory / str(port))}
        named = {f"POOLKEEPER_{name}": value for name, value in (settings | own).items()}
        self._environment = os.environ | named

    async def run(self) -> None:
        """Run it until cancelled, as a supervisor would."""
        while True:
            with self._log.open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "app", "serve"),
                    env=self._environment,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for this process, which ends the others
                )
            try:
                status = await self.process.wait()
            except asyncio.CancelledError:
                self.process.kill()
                raise
            print(f"{self.url} ended with status {status}; it is started again")

    async def until_ready(self) -> None:
        """Wait until it serves or forwards."""
        await until_status(self.port, b"200", get("/readyz"))

    @property
    def target(self) -> Target:
        """It, for callers."""
        if self.process is None:
            raise RuntimeError("it was not started")
        return Target(pid=self.process.pid, port=self.port)

    def send(self, number: int) -> None:
        """Send a signal to it."""
        if self.process is not None:
            self.process.send_signal(number)


@dataclass(frozen=True, slots=True)
class Replicas:
    """Instances that run, and the directory of their logs."""

    instances: Sequence[Instance]
    directory: Path

    async def active(self) -> Instance:
        """The one that is active."""
        async with httpx.AsyncClient(trust_env=False) as client:
            about = (await client.get(f"{self.instances[0].url}/v1/about")).json()
        url: str = about["instance"]["url"]
        return next(each for each in self.instances if each.url == url)


@asynccontextmanager
async def replicas(ports: Sequence[int]) -> AsyncIterator[Replicas]:
    """Instances on these ports for a block, and the Postgres that they share."""
    with _directory() as directory:
        postgres = EmbeddedPostgres(directory / "postgres", durable=False)
        try:
            settings = settings_for(await postgres.start())
            instances = [Instance(port, directory, settings) for port in ports]
            running = [asyncio.create_task(each.run()) for each in instances]
            try:
                yield Replicas(instances, directory)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        finally:
            await postgres.stop()


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="poolkeeper-replicas-") as place:
        directory = Path(place)
        directory.chmod(0o711)  # Postgres may run as another user
        yield directory


@asynccontextmanager
async def haproxy(port: int, instances: Sequence[Instance]) -> AsyncIterator[str]:
    """The URL of HAProxy before *instances*, with the configuration in `deploy/`, for a block."""
    config = _PROXY.read_text(encoding="utf-8").replace("bind :8080", f"bind 127.0.0.1:{port}")
    servers = "\n".join(f"    server {each.port} 127.0.0.1:{each.port}" for each in instances)
    config = re.sub(r"(?m)^    server-template .*", servers, config)
    config = re.sub(r"(?m)^resolvers .*\n(    .*\n)+", "", config)
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        file.write(config)
        file.flush()
        process = await asyncio.create_subprocess_exec("haproxy", "-q", "-f", file.name)
        try:
            await until_status(port, b"200", get("/readyz"))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            await process.wait()


def settings_for(address: EmbeddedAddress) -> dict[str, str]:
    """Of a service that has this server, under the name `main`, and its catalog there."""
    login = {"HOST": address.host, "PORT": str(address.port), "USER": address.user}
    login |= {"PASSWORD": address.password, "TLS": "disable"}
    settings = {f"SERVERS__MAIN__{name}": value for name, value in login.items()}
    settings |= {f"CATALOG__{name}": value for name, value in login.items()}
    return settings | {
        "SERVERS__MAIN__DATABASE": address.tenant_database,
        "CATALOG__DATABASE": address.catalog_database,
        "SECRET_KEY": secrets.token_hex(),
        "LOG_FORMAT": "json",
        "RATE_LIMIT": "0",
    }
