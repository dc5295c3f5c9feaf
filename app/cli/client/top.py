"""`poolkeeper top`: which tenant waits, why, and what to do, while one looks.

Draws what `/v1/servers`, `/v1/pools`, `/v1/stats` and `/v1/recommendations` say; keeps nothing.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
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
from app.cli.client.table import TableColumn, milliseconds, number, table, text
from app.runtime.printable import printable

_ORDERS = ("-waiting", "-wait_p99_ms", "-active", "-size", "pool_id")
_COLUMNS = (
    text("POOL", "pool_id"),
    text("STATE", "state"),
    number("WAITING", "waiting"),
    milliseconds("WAIT P99 MS", lambda item: item["wait_p99_ms"]),
    number("ACTIVE", "active"),
    number("SIZE", "size"),
    TableColumn(title="MAX", value=lambda item: item["desired"]["max_size"], justify="right"),
    TableColumn(
        title="LEAKS?", value=lambda item: len(item["leak_suspects"]) or None, justify="right"
    ),
)
_BAR = 30
# What stands around the pools: header, servers, headings, the help line.
_AROUND = 7
_HELP = "s: sort by the next column   q: quit"

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """One look at the service."""

    stats: Document
    servers: Sequence[Document]
    pools: Sequence[Document]
    recommendations: Mapping[str, Document]


def top(
    *,
    interval: Annotated[
        float, typer.Option(min=0.2, max=60, help="Seconds between two looks.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="One look, printed, and no more.")] = False,
    url: UrlOption = DEFAULT_URL,
    key_file: KeyFileOption = None,
) -> None:
    """Watch servers and pools live, those with most callers waiting first."""
    session = Session(url=url, key_file=key_file, as_json=False)
    with session.client() as remote:
        if once or not sys.stdout.isatty():
            Console().print(draw(_look(remote, _ORDERS[0], 50), _ORDERS[0], url))
            return
        _watch(remote, url, interval)


def _watch(remote: ApiClient, url: str, interval: float) -> None:
    console = Console()
    order = 0
    with (
        _keys() as pressed,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            rows = max(1, console.height - _AROUND)
            sort = _ORDERS[order % len(_ORDERS)]
            live.update(draw(_look(remote, sort, rows), sort, url), refresh=True)
            match pressed(interval):
                case "q":
                    return
                case "s":
                    order += 1


def _look(remote: ApiClient, sort: str, rows: int) -> Overview:
    advice = remote.items("/v1/recommendations", status="open", most=500)
    return Overview(
        stats=remote.get("/v1/stats", limit=1),
        servers=list(remote.items("/v1/servers")),
        pools=list(remote.items("/v1/pools", sort=sort, most=rows)),
        recommendations={each["pool"]: each for each in advice if each["kind"] == "resize"},
    )


def draw(look: Overview, sort: str, url: str) -> Group:
    """The screen for one look."""
    return Group(
        _headline(look.stats, url),
        *(_server(server) for server in look.servers),
        Text(),
        _pools(look, sort),
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
        f", {totals['timeouts']} timeouts, loop {stats['loop_lag']['worst_ms']:.0f} ms late",
    )


def _server(server: Document) -> Text:
    budget = server["budget"]
    active = sum(pool["active"] for pool in server["pools"])
    limit = max(budget["limit"], 1)
    used = min(_BAR, round(budget["used"] / limit * _BAR))
    busy = min(used, round(active / limit * _BAR))
    is_well = server["state"] == "available"
    return Text.assemble(
        (f"{printable(server['name']):<12} ", "bold" if is_well else "bold red"),
        ("█" * busy, "red" if budget["contended"] else "green"),
        ("█" * (used - busy), "blue"),
        ("░" * (_BAR - used), "dim"),
        f" {active} active of {budget['used']} open, budget {budget['limit']}",
        ("  contended", "bold red") if budget["contended"] else "",
        "" if is_well else (printable(f"  {server['state']}: {server['last_error']}"), "red"),
    )


def _pools(look: Overview, sort: str) -> Table:
    def advised(pool: Document) -> str | None:
        advice = look.recommendations.get(pool["pool_id"])
        return None if advice is None else f"→ {advice['new_size']}: {advice['reason']}"

    columns = (*_COLUMNS, TableColumn(title="ADVICE", value=advised))
    return table(columns, look.pools, title=f"pools by {sort.removeprefix('-')}")


@contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits so many seconds for a key; the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield time.sleep
        return
    import termios  # noqa: PLC0415 - where there is no terminal there may be no such module
    import tty  # noqa: PLC0415 - same

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:

        def pressed(seconds: float) -> str | None:
            ready, _, _ = select.select([sys.stdin], [], [], seconds)
            # Bytes: a key that is no character of the locale is no reason to end. None at all: is.
            return (os.read(sys.stdin.fileno(), 1).decode("latin-1") or "q") if ready else None

        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
