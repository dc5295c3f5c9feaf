"""Requests in parallel: a few threads, each with one request at a time."""

from collections.abc import Callable, Iterable
from http.client import TOO_MANY_REQUESTS
from multiprocessing.pool import ThreadPool
from threading import Event
from time import monotonic
from typing import TypeVar

from app.cli.client.api_client import ApiError

T = TypeVar("T")
R = TypeVar("R")

# In seconds: how long requests in progress may take after Ctrl-C.
_GRACE_SECONDS = 10.0


def work_in_parallel(
    work: Callable[[T], object], items: Iterable[T], *, threads: int, stop: Event
) -> None:
    """Call *work* on each of *items*, in their order, with *threads* threads.

    They start no more items once *stop* is set, as Ctrl-C or an error does. The threads of a
    `ThreadPool` are daemons: a request without a response does not keep the command from ending.

    Raises:
        KeyboardInterrupt: Ctrl-C; requests in progress had some seconds to end.
        Exception: raised by *work*.
    """

    def unless_stopped(item: T) -> None:
        if stop.is_set():
            return
        is_done = False
        try:
            work(item)
            is_done = True
        finally:
            if not is_done:
                stop.set()

    with ThreadPool(threads) as pool:
        ends = [pool.apply_async(unless_stopped, (item,)) for item in items]
        try:
            for end in ends:
                end.wait()
        except KeyboardInterrupt:
            stop.set()
            give_up_at = monotonic() + _GRACE_SECONDS
            for end in ends:
                end.wait(max(0.0, give_up_at - monotonic()))
            raise
    for end in ends:
        end.get()


def patiently(request: Callable[[], R], stop: Event) -> R:
    """Send *request*, and repeat it while a rate limit refuses it.

    Raises:
        ApiError: another refusal, or *stop* is set.
    """
    while True:
        try:
            return request()
        except ApiError as error:
            if error.http_status != TOO_MANY_REQUESTS or stop.is_set():
                raise
