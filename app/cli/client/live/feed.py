"""Fetches the screen's data in the background, so that a slow service never blocks the keys."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Condition, Thread
from time import monotonic

from app.cli.client.api_client import ApiClient, ApiError
from app.cli.client.live.queries import Listing, ListQuery, TenantQuery, TenantReport

Query = ListQuery | TenantQuery
Found = Listing | TenantReport


@dataclass(frozen=True, slots=True)
class News:
    """The latest fetched data.

    Attributes:
        found: the latest success.
        at: when it arrived, in monotonic seconds.
        error: why the latest attempt failed; None if it succeeded.
    """

    found: Found
    at: float
    error: str | None = None

    @property
    def age(self) -> float:
        """In seconds."""
        return monotonic() - self.at


class Feed:
    """Repeats a query at an interval, and at once when another query is requested."""

    def __init__(
        self, client: ApiClient, query: Query, interval: float, on_news: Callable[[], object]
    ) -> None:
        """Fetch once; then continue in a thread, which calls *on_news* after each attempt.

        Raises:
            ApiError
        """
        self._client = client
        self._interval = interval
        self._on_news = on_news
        self._query = query
        self._changed = Condition()
        self._is_closed = False
        self.news = News(query.fetch(client), monotonic())
        Thread(target=self._run, name="feed", daemon=True).start()

    def ask(self, query: Query) -> None:
        """Fetch *query* from now on."""
        with self._changed:
            if query != self._query:
                self._query = query
                self._changed.notify()

    def close(self) -> None:
        """Stop fetching; this does not wait for a request in progress."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        fetched: Query = self.news.found.query
        while True:
            with self._changed:
                if self._query == fetched and not self._is_closed:
                    self._changed.wait(self._interval)
                fetched = self._query
            try:
                if self._is_closed:
                    return
                found = fetched.fetch(self._client)
                if found.instances is None:  # keep the last known instances
                    found = replace(found, instances=self.news.found.instances)
                self.news = News(found, monotonic())
            except ApiError as error:
                self.news = News(self.news.found, self.news.at, str(error))
            except RuntimeError:  # httpx raises this if the client was closed in between
                if self._is_closed:
                    return
                raise
            self._on_news()
