"""Requests in parallel: a few threads, each with one request at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http.client import TOO_MANY_REQUESTS
from threading import Event, Thread
from time import monotonic
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

    They begin no further item once *stop* is set, which Ctrl-C and an error do. Daemon threads: a
    request without a response does not keep the command from ending.

    Raises:
        KeyboardInterrupt: Ctrl-C; what was in progress had some seconds to end.
        Exception: what *work* raised first.
    """
    all_items = list(items)
    left = iter(all_items)  # each thread takes the next one
    errors: list[BaseException] = []
    # `Thread.join` cannot be repeated: Python 3.11 takes a thread for ended if it is interrupted.
    ends = [Event() for _ in range(min(threads, len(all_items)))]

    def run(end: Event) -> None:
        try:
            for item in left:
                if stop.is_set():
                    break
                work(item)
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            errors.append(error)
            stop.set()
        finally:
            end.set()

    for end in ends:
        Thread(target=run, args=(end,), daemon=True).start()
    try:
        for end in ends:
            end.wait()
    except KeyboardInterrupt:
        stop.set()
        deadline = monotonic() + _GRACE_SECONDS
        for end in ends:
            end.wait(max(0.0, deadline - monotonic()))
        raise
    if errors:
        raise errors[0]


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
