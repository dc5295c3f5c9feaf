"""The service that `benchmarks.dashboards` measures: idle pools, or one bare route."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import socket
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from app.api.http.protocol import HttpProtocol
from app.main import Service, create_app
from app.runtime.gc_tuning import tuned_gc
from app.settings import Settings
from benchmarks.idle_pools import LoopWatch, open_idle_pools
from benchmarks.service import write_keys

_EVERY = 0.001
# Small, so that a reader who does not read is soon noticed.
_SEND_BUFFER = 4096


class LoopWatchRoute:
    """Starts to watch the event loop (`?on=1`), or reports what was seen (`?on=0`)."""

    def __init__(self) -> None:
        self._watch = LoopWatch()
        self._task: asyncio.Task[None] | None = None

    async def respond(self, request: Request) -> Response:
        """Respond."""
        if request.query_params["on"] == "1":
            self._task = asyncio.create_task(self._watch.watch(_EVERY), name="bench: loop watch")
        elif self._task is not None:
            self._task.cancel()
        report = {
            "longest_turn_ms": round(self._watch.wall, 1),
            "longest_turn_computing_ms": round(self._watch.computing, 1),
            "set_aside_objects": gc.get_freeze_count(),
        }
        return JSONResponse(report)


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
            settings["keys_file"] = given.folder.with_suffix(".keys")
            [token] = write_keys(settings["keys_file"], 1)
        app = create_app(Settings.model_validate(settings))
        app.add_route("/bench/turns", LoopWatchRoute().respond)
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
            http="httptools" if given.bare else HttpProtocol,
            log_config=None,
            access_log=given.keys,
            server_header=False,
        )
    )
    serving = asyncio.create_task(server.serve([listener]), name="serving")
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn sets no event
        await asyncio.sleep(0.05)
    if not given.bare and not serving.done():
        await open_idle_pools(app.state.service.manager, given.pools)
        app.state.service.snapshots.invalidate()
        await app.state.service.snapshots.current()
        busy = asyncio.create_task(_busy(app.state.service), name="bench: busy")
        serving.add_done_callback(lambda _: busy.cancel())
    sys.stdout.write(f"ready {token}\n")
    sys.stdout.flush()
    await serving


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
        uvloop.run(_serve(given))


if __name__ == "__main__":
    main()
