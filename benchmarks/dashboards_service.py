"""The service that `benchmarks.dashboards` measures: idle pools, or one bare route."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import socket
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, perf_counter, thread_time
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from app.api.auth.api_key import KeyScope, api_key_for, new_token
from app.api.auth.key_file import KeyList
from app.api.http.protocol import HttpProtocol
from app.control.background import yield_to_loop
from app.domain.desired_state import DesiredPool
from app.domain.pool import PoolSize
from app.domain.tenant import PoolStrategy
from app.main import Service, create_app
from app.runtime.gc_tuning import tuned_gc
from app.settings import Settings
from benchmarks.testbed import tenant

_EVERY = 0.001
# Small, so that a reader who does not read is soon noticed.
_SEND_BUFFER = 4096
# Opened in one turn of the loop.
_TOGETHER = 100
_NO_CONNECTION = PoolSize(min_size=0, max_size=5, warmup_size=0)


class Turns:
    """The longest turn of the loop: as it was, and what of it we computed."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._wall = self._computing = 0.0
        self._task: asyncio.Task[None] | None = None

    async def answer(self, request: Request) -> Response:
        """Start watching, or report what was seen."""
        if request.query_params["on"] == "1":
            self._task = asyncio.create_task(self._watch(), name="bench: turns")
        elif self._task is not None:
            self._task.cancel()
        wall, computing = self._wall * 1000, self._computing * 1000
        report = {
            "longest_turn_ms": round(wall, 1),
            "longest_turn_computing_ms": round(computing, 1),
            "set_aside_objects": gc.get_freeze_count(),
        }
        return JSONResponse(report)

    async def _watch(self) -> None:
        while True:
            wall, computing = perf_counter(), thread_time()
            await asyncio.sleep(_EVERY)
            self._wall = max(self._wall, perf_counter() - wall - _EVERY)
            self._computing = max(self._computing, thread_time() - computing)


async def _open_pools(service: Service, count: int) -> None:
    """Pools without connections, each of which has counted something."""
    manager = service.manager
    for number in range(count):
        made = replace(tenant(f"p{number:05}", PoolStrategy.PER_TENANT), provisioned_at=None)
        name = made.spec.id
        manager.set_desired(
            DesiredPool(
                pool_id=name,
                size=_NO_CONNECTION,
                pause=None,
                generation=1,
                updated_at=made.updated_at,
            )
        )
        pool = await manager.open_pool(manager.put_tenant(made), 5.0)
        pool.recorder.record_acquire(0.001 * (number % 7), monotonic())
        pool.recorder.record_release(0.02, monotonic())
        if number % _TOGETHER == 0:
            await yield_to_loop()


async def _busy(service: Service) -> None:
    """A hundredth of all tenants do something each tenth of a second."""
    accounts = list(service.manager.tenant_states.values())
    turn = 0
    while True:
        turn += 1
        for account in accounts[turn % 100 :: 100]:
            account.recorder.record_acquire(0.002, monotonic())
            account.recorder.record_release(0.02, monotonic())
        await asyncio.sleep(0.1)


def _bare(path: Path) -> FastAPI:
    app, content = FastAPI(), path.read_bytes()

    @app.get("/v1/pools")
    async def pools() -> Response:
        return Response(content, media_type="application/json")

    return app


async def _serve(given: argparse.Namespace) -> None:
    token = ""
    app: FastAPI
    if given.bare:
        app = _bare(given.folder)
    else:
        settings: dict[str, Any] = {
            "data_dir": given.folder,
            "per_tenant_max_pools": 10_000,
            "poll_interval_seconds": given.poll,
            "reconcile_interval_seconds": 3600,
            "rate_limit": 0,
        }
        if given.keys:
            token, settings["keys_file"] = _made_key(given.folder)
        app = create_app(Settings.model_validate(settings))
        app.add_route("/bench/turns", Turns().answer)
        app.openapi()  # as `app.runtime.server` does
    # Named, because asyncio turns Nagle's algorithm off only for sockets that say so.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if given.poll < 1:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    listener.bind(("127.0.0.1", given.port))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11" if given.bare else HttpProtocol,
            log_config=None,
            access_log=given.keys,
            server_header=False,
        )
    )
    serving = asyncio.create_task(server.serve([listener]), name="serving")
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn sets no event
        await asyncio.sleep(0.05)
    if not given.bare and not serving.done():
        await _open_pools(app.state.service, given.pools)
        app.state.service.snapshots.invalidate()
        await app.state.service.snapshots.current()
        busy = asyncio.create_task(_busy(app.state.service), name="bench: busy")
        serving.add_done_callback(lambda _: busy.cancel())
    sys.stdout.write(f"ready {token}\n")
    sys.stdout.flush()
    await serving


def _made_key(folder: Path) -> tuple[str, Path]:
    token, path = new_token(), folder.with_suffix(".keys")
    key = api_key_for(token, name="dashboard", scopes=tuple(KeyScope), created_at=datetime.now(UTC))
    path.touch(mode=0o600)
    path.write_text(KeyList(keys=(key,)).model_dump_json())
    return token, path


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("pools", type=int, nargs="?", default=0)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--keys", action="store_true")
    parser.add_argument("--poll", type=float, default=5.0)
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if given.keys:
        # As an operator would have it: one line for each request, in a file.
        path = given.folder.with_suffix(".log")
        logging.basicConfig(filename=path, level=logging.INFO)
    with tuned_gc():
        asyncio.run(_serve(given))


if __name__ == "__main__":
    main()
