"""Requests in parallel: a few threads, each with one request at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from http.client import TOO_MANY_REQUESTS
from threading import Event, Thread
from typing import TypeVar

from app.cli.client.api_client import ApiError

T = TypeVar("T")
R = TypeVar("R")

# After Ctrl-C, how long requests in progress may take to be answered.
_GRACE_SECONDS = 10.0


def work_in_parallel(
    work: Callable[[T], object], items: Iterable[T], *, threads: int, stop: Event
) -> None:
    """Do *work* on each of *items*, in their order, by as many threads.

    They begin no further item once *stop* is set, which Ctrl-C and an error do. Daemon threads,
    unlike those of a `ThreadPoolExecutor`: a request without a response does not keep the command
    from ending.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was in progress had some seconds to end.
        Exception: what *work* raised.
    """
    all_items = list(items)
    left = iter(all_items)  # each thread takes the next one
    ends: list[Future[None]] = [Future() for _ in range(min(threads, len(all_items)))]

    def run(end: Future[None]) -> None:
        try:
            for item in left:
                if stop.is_set():
                    break
                work(item)
        except Exception as error:  # noqa: BLE001 - raised again by the caller's thread
            stop.set()
            end.set_exception(error)
        else:
            end.set_result(None)

    for end in ends:
        Thread(target=run, args=(end,), daemon=True).start()
    try:
        wait(ends)
    except KeyboardInterrupt:
        stop.set()
        wait(ends, timeout=_GRACE_SECONDS)
        raise
    for end in ends:
        end.result()


def patiently(request: Callable[[], R], stop: Event) -> R:
    """The response of *request*, repeated for as long as only a rate limit refuses it.

    Raises:
        ApiError: another refusal; or *stop* is set.
    """
    while True:
        try:
            return request()
        except ApiError as error:
            if error.http_status != TOO_MANY_REQUESTS or stop.is_set():
                raise
