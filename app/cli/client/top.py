"""`poolkeeper top`: a live screen of servers, pools and tenants."""

import sys
from typing import Annotated

import typer

from app.cli.client.api_client import ApiClient
from app.cli.client.live.drawing import Line, draw_list, draw_tenant, footer
from app.cli.client.live.feed import Feed, News
from app.cli.client.live.screens import ListScreen, Screens, TenantScreen
from app.cli.client.live.terminal import Terminal
from app.cli.client.session import Session
from app.text.wrapping import terminal_width

# Rows with `--once`, and lines around the rows of a list.
_ROWS = 50
_OTHER_LINES = 8
# Without news and keys, the age of the numbers is updated.
_REDRAW_SECONDS = 1.0


def top(
    context: typer.Context,
    *,
    interval: Annotated[
        float, typer.Option(min=0.2, max=60, help="Seconds between refreshes.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one screen and exit.")] = False,
) -> None:
    """Watch servers, pools and tenants live, most waiting callers first."""
    session: Session = context.obj
    url = session.address
    if once or not sys.stdout.isatty():
        with session.client() as client:
            _print_once(client, url)
    else:
        # A failed request is tried again at the next refresh.
        with session.client(attempts=1) as client:
            _watch(client, url, interval)


def _print_once(client: ApiClient, url: str) -> None:
    screen = ListScreen(rows=_ROWS)
    found = screen.query.fetch(client)
    width = terminal_width(sys.stdout)
    for line in draw_list(screen, found, url, width=width, height=_ROWS + _OTHER_LINES):
        typer.echo(line.text)


def _watch(client: ApiClient, url: str, interval: float) -> None:
    terminal = Terminal()
    screens = Screens(ListScreen(rows=max(1, terminal.size[1] - _OTHER_LINES)))
    feed = Feed(client, screens.current.query, interval, terminal.wake)
    try:
        with terminal.open():
            while not screens.is_over:
                terminal.show(_draw(screens.current, feed.news, url, *terminal.size))
                feed.ask(screens.current.query)
                for key, character in terminal.wait(_REDRAW_SECONDS):
                    screens.press(key, character, feed.news.found)
    finally:
        feed.close()


def _draw(
    screen: ListScreen | TenantScreen, news: News, url: str, width: int, height: int
) -> list[Line]:
    room = height - 1
    if isinstance(screen, ListScreen):
        lines = draw_list(screen, news.found, url, width=width, height=room)
    else:
        lines = draw_tenant(screen, news.found, url, width=width, height=room)
    padding = [Line("")] * (room - len(lines))
    return [*lines[:room], *padding, footer(screen, news, width)]
