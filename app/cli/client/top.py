"""`poolkeeper top`: a live screen of servers, pools and recommendations."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.cli.client.api_client import ApiClient
from app.cli.client.session import DEFAULT_URL, KeyFileOption, Session, UrlOption
from app.cli.client.table import TableColumn, number, pool_state, table, text
from app.runtime.printable import printable

_ORDERS = ("-waiting", "-wait_p99_ms", "-active", "-size", "pool_id")
_COLUMNS = (
    text("POOL", "pool_id"),
    TableColumn(title="STATE", value=pool_state),
    number("WAITING", "waiting"),
    number("WAIT P99 MS", "wait_p99_ms"),
    number("ACTIVE", "active"),
    number("SIZE", "size"),
    number("MAX", lambda item: item["desired"]["max_size"]),
    number("LEAKS", lambda item: len(item["leak_suspects"]) or None),
)
_BAR_WIDTH = 30
# Lines around the pools: headline, servers, column titles, help.
_OTHER_LINES = 7
_HELP = "s: next sort column   q: quit"

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The data of one screen; recommendations by pool."""

    stats: Document
    servers: Sequence[Document]
    pools: Sequence[Document]
    recommendations: Mapping[str, Document]


def top(
    *,
    interval: Annotated[
        float, typer.Option(min=0.2, max=60, help="Seconds between refreshes.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one screen and exit.")] = False,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
) -> None:
    """Watch servers and pools live, most waiting callers first."""
    with Session(url, key_file).client() as client:
        if once or not sys.stdout.isatty():
            Console().print(render(_fetch(client, _ORDERS[0], 50), _ORDERS[0], url))
            return
        _watch(client, url, interval)


def _watch(client: ApiClient, url: str, interval: float) -> None:
    console = Console()
    order = 0
    with (
        _keyboard() as next_key,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            rows = max(1, console.height - _OTHER_LINES)
            sort = _ORDERS[order % len(_ORDERS)]
            live.update(render(_fetch(client, sort, rows), sort, url), refresh=True)
            match next_key(interval):
                case "q":
                    return
                case "s":
                    order += 1


def _fetch(client: ApiClient, sort: str, rows: int) -> Overview:
    recommendations = client.items("/v1/recommendations", status="open", limit=500)
    return Overview(
        stats=client.get("/v1/stats", limit=1),
        servers=list(client.items("/v1/servers")),
        pools=list(client.items("/v1/pools", sort=sort, limit=rows)),
        recommendations={
            each["pool"]: each for each in recommendations if each["kind"] == "resize"
        },
    )


def render(overview: Overview, sort: str, url: str) -> Group:
    return Group(
        _headline(overview.stats, url),
        *(_server(server) for server in overview.servers),
        Text(),
        _pools(overview, sort),
        Text(_HELP, style="dim"),
    )


def _headline(stats: Document, url: str) -> Text:
    totals = stats["totals"]
    waiting = totals["waiting_requests"]
    return Text.assemble(
        ("Poolkeeper ", "bold"),
        f"{printable(url)}  {stats['tenants']} tenants, {stats['pools']['open']} pools open, ",
        f"{totals['active_connections']} active, ",
        (f"{waiting} waiting", "bold red" if waiting else ""),
        f", {totals['timeouts']} timeouts, event loop lag {stats['loop_lag']['worst_ms']:.0f} ms",
    )


def _server(server: Document) -> Text:
    budget = server["budget"]
    active = sum(pool["active"] for pool in server["pools"])
    limit = max(budget["limit"], 1)
    used = min(_BAR_WIDTH, round(budget["used"] / limit * _BAR_WIDTH))
    busy = min(used, round(active / limit * _BAR_WIDTH))
    is_available = server["state"] == "available"
    problem = "" if is_available else printable(f"  {server['state']}: {server['last_error']}")
    return Text.assemble(
        (f"{printable(server['name']):<12} ", "bold" if is_available else "bold red"),
        ("█" * busy, "red" if budget["contended"] else "green"),
        ("█" * (used - busy), "blue"),
        ("░" * (_BAR_WIDTH - used), "dim"),
        f" {active} active of {budget['used']} open, budget {budget['limit']}",
        ("  contended", "bold red") if budget["contended"] else "",
        (problem, "red"),
    )


def _pools(overview: Overview, sort: str) -> Table:
    def recommendation(pool: Document) -> str | None:
        found = overview.recommendations.get(pool["pool_id"])
        return None if found is None else f"→ {found['new_size']}: {found['reason']}"

    columns = (
        *_COLUMNS,
        TableColumn(title="PROPOSED", value=recommendation, no_wrap=False, is_cut=True),
    )
    return table(columns, overview.pools, title=f"pools by {sort.removeprefix('-')}")


@contextmanager
def _keyboard() -> Iterator[Callable[[float], str | None]]:
    """A function that waits some seconds for a key; restores the terminal at the end."""
    if not sys.stdin.isatty():
        yield time.sleep
        return
    import termios  # noqa: PLC0415 - the module may be missing where there is no terminal
    import tty  # noqa: PLC0415 - same

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:

        def next_key(seconds: float) -> str | None:
            ready, _, _ = select.select([sys.stdin], [], [], seconds)
            # Bytes, because a key may be invalid in the locale. No bytes: the terminal is gone.
            return (os.read(sys.stdin.fileno(), 1).decode("latin-1") or "q") if ready else None

        yield next_key
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
