"""Serving: what is left when it ends, and signals that arrive before it begins."""

import asyncio
import logging
import signal
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
import typer
import uvicorn
from fastapi import FastAPI

from app.api.http.client_connections import ClientLimits
from app.api.http.shutdown import ShutdownResponder
from app.cli import serve
from app.runtime.server import ProcessStatus, run_server


async def serve_nothing(_: uvicorn.Server) -> None:
    """A service that ends at once."""


def test_a_run_leaves_the_log_as_it_was() -> None:
    before = list(logging.getLogger("uvicorn.error").filters)
    status = run_server(
        FastAPI(),
        serve_nothing,
        host="127.0.0.1",
        port=0,
        shutdown_seconds=1,
        limits=ClientLimits(),
    )
    assert status is ProcessStatus.FAILED
    assert logging.getLogger("uvicorn.error").filters == before


def test_malformed_requests_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def meet_rubbish(_: uvicorn.Server) -> None:
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
        logging.getLogger("uvicorn.error").warning("Something else.")

    with caplog.at_level(logging.WARNING, "uvicorn.error"):
        run_server(
            FastAPI(),
            meet_rubbish,
            host="127.0.0.1",
            port=0,
            shutdown_seconds=1,
            limits=ClientLimits(),
        )
    assert caplog.messages == ["Something else."]


def test_routes_and_document_are_made_before_the_loop_runs() -> None:
    app = FastAPI()
    made: list[bool] = []

    async def look(_: uvicorn.Server) -> None:
        made.append(app.openapi_schema is not None)

    run_server(app, look, host="127.0.0.1", port=0, shutdown_seconds=1, limits=ClientLimits())
    assert made == [True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_demos_first_clearing_ends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals
) -> None:
    cleared: list[Path] = []

    class Postgres:
        def __init__(self, data_dir: Path) -> None:
            self.data_dir = data_dir

        async def remove(self) -> None:
            if not cleared:
                signal.raise_signal(number)
            cleared.append(self.data_dir)

    monkeypatch.setenv("POOLKEEPER_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(serve, "EmbeddedPostgres", Postgres)
    monkeypatch.setattr(serve, "configure_logging", lambda *_: None)
    monkeypatch.setattr(serve, "_run", lambda *_: pytest.fail("it was to end"))
    with pytest.raises(typer.Exit) as ended:
        serve.demo()
    assert ended.value.exit_code == 0
    assert cleared == [tmp_path / "demo"] * 2


async def test_a_request_that_is_cut_off_at_the_end_is_answered_with_a_problem() -> None:
    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    responder = ShutdownResponder(hangs, lambda: True)
    said: list[Any] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        said.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "path": "/v1/stats", "headers": [], "method": "GET"}
    request = asyncio.create_task(responder(scope, receive, send))
    await asyncio.sleep(0)
    request.cancel()
    await asyncio.wait_for(request, 60)
    [start, body] = said
    assert start["status"] == 503
    assert (b"connection", b"close") in start["headers"]
    assert b'"code":"service-stopping"' in body["body"]
