"""The service that `benchmarks.dashboards` measures: idle pools, or one bare route."""

import argparse
import asyncio
import gc
import logging
from pathlib import Path
from time import monotonic

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from app.api.http.client_connections import ClientLimits
from app.main import create_app
from app.runtime.server import run_server
from app.runtime.wiring import Service
from app.settings import Settings
from benchmarks.idle_pools import LoopWatch, open_idle_pools

_EVERY = 0.001


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
    accounts = list(service.manager.tenants.values())
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


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--pools", type=int, default=1000)
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--poll", type=float, default=5.0)
    given = parser.parse_args()
    if given.bare:
        app = _bare(given.folder)
        uvicorn.run(app, port=given.port, log_config=None, access_log=False, ws="none")
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    settings = {
        "data_dir": given.folder,
        "keys_file": given.keys,
        "per_tenant_max_pools": 10_000,
        "poll_interval_seconds": given.poll,
        "reconcile_interval_seconds": 3600,
        "rate_limit": 0,
    }
    app = create_app(Settings.model_validate(settings))

    async def serve(server: uvicorn.Server) -> None:
        serving = asyncio.create_task(server.serve(), name="bench: serving")
        while not server.started and not serving.done():  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.05)
        service: Service = app.state.service
        await open_idle_pools(service.manager, given.pools)
        service.snapshots.invalidate()
        await service.snapshots.current()
        busy = asyncio.create_task(_busy(service), name="bench: busy")
        serving.add_done_callback(lambda _: busy.cancel())
        # Not before, for `benchmarks.dashboards` waits for it.
        app.add_route("/bench/turns", LoopWatchRoute().respond)
        await serving

    run_server(
        app,
        serve,
        host="127.0.0.1",
        port=given.port,
        shutdown_seconds=5.0,
        limits=ClientLimits(send_timeout=3600.0),
    )


if __name__ == "__main__":
    main()
