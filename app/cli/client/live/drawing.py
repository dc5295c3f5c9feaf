"""Draws a screen as lines that fit the terminal: service, servers, and a list or a tenant."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from app.cli.client.api_client import Document
from app.cli.client.live.feed import Found, News
from app.cli.client.live.queries import Listing, TenantReport
from app.cli.client.live.screens import ListScreen, TenantScreen
from app.cli.client.table import (
    Table,
    advice_of,
    age_of,
    counted,
    on_node,
    plain,
    pool_state,
    wait_of,
    waiting,
)
from app.text.printable import printable
from app.text.wrapping import shortened, wrapped

_NARROW = 100
_WELL = frozenset({"joining", "ready", "draining"})
# Width of the column with the names of facts.
_LABEL = 14
_LIST_KEYS = "q quit  s sort  / filter  n nodes  Enter details  Esc back  arrows, PgUp scroll"
_TENANT_KEYS = "q quit  n nodes  Esc back  arrows, PgUp, Home scroll"
_FILTER_KEYS = "Enter done  Esc no filter"
_NOT_OPEN = "not open; its next use opens it"


@dataclass(frozen=True, slots=True)
class Line:
    """A line, and its emphasis."""

    text: str
    style: str = ""


def draw_list(
    screen: ListScreen, found: Found, url: str, *, width: int | None, height: int
) -> list[Line]:
    head = _head(found, url, width, most_servers=max(1, height // 4))
    screen.fit(height - len(head) - 2, found)
    lines = [*head, Line(shortened(_title(screen), width))]
    if not isinstance(found, Listing) or found.query.of != screen.of:
        return lines
    titles, *rows = Table(columns=screen.of.columns, items=found.items[: screen.rows]).lines(width)
    selected = screen.selected - found.query.offset
    lines.append(Line(titles, "bold"))
    lines += [Line(row, "selected" * (at == selected)) for at, row in enumerate(rows)]
    return lines


def draw_tenant(
    screen: TenantScreen, found: Found, url: str, *, width: int | None, height: int
) -> list[Line]:
    head = _head(found, url, width, most_servers=1)
    if not isinstance(found, TenantReport) or found.query != screen.query:
        return head
    body = list(_tenant(found, width))
    room = max(1, height - len(head))
    screen.fit(room, len(body))
    return [*head, *body[screen.offset :]]


def footer(screen: ListScreen | TenantScreen, news: News, width: int | None) -> Line:
    """The available keys, or why the numbers are old."""
    if news.error is not None:
        error = " ".join(news.error.split())
        return Line(shortened(printable(f"{news.age:.0f} s old: {error}"), width), "red")
    keys = _TENANT_KEYS
    if isinstance(screen, ListScreen):
        keys = _FILTER_KEYS if screen.is_typing else _LIST_KEYS
    return Line(shortened(keys, width), "dim")


def _head(found: Found, url: str, width: int | None, *, most_servers: int) -> list[Line]:
    stats = found.stats
    totals = stats["totals"]
    # Facts that do not fit are left out, from the end.
    facts = (
        f"Poolkeeper: {totals['active_connections']:,} active",
        f"{totals['waiting_requests']:,} waiting",
        counted(totals["timeouts"], "timeout"),
        f"event loop lag {stats['loop_lag']['worst_ms']:,.0f} ms",
        counted(stats["tenants"], "tenant"),
        f"{counted(stats['pools']['open'], 'pool')} open",
        url,
    )
    lines = [
        Line(_as_many_as_fit(facts, width), "bold"),
        *_active_instance(found, width),
        *_nodes(stats.get("nodes"), width),
    ]
    worst_first = sorted(
        stats["servers"],
        key=lambda each: (
            each["state"] == "available",
            not each["contended"],
            not each.get("read_only"),
        ),
    )
    lines += [_server(server, width) for server in worst_first[:most_servers]]
    if len(worst_first) > most_servers:
        lines.append(Line(counted(len(worst_first) - most_servers, "more server"), "dim"))
    return [*lines, Line("")]


def _active_instance(found: Found, width: int | None) -> Iterator[Line]:
    """Which of several instances responds; nothing if the service runs as one instance."""
    instances = found.instances or ()
    states = Counter(each["state"] for each in instances if each["url"])
    if states:
        active = [each for each in instances if each["state"] == "active"]
        names = ", ".join(f"{each['url']} ({each['id']})" for each in active) or "no instance"
        yield from _fact("active", f"{names}; {states['standby']} standby", width)


def _nodes(totals: Document | None, width: int | None) -> Iterator[Line]:
    """The sums of all nodes; nothing without nodes."""
    if not totals or not totals["by_state"]:
        return
    states = [f"{count} {state}" for state, count in sorted(totals["by_state"].items())]
    if totals["troubled"]:
        states.append(f"{totals['troubled']} with a problem")
    if totals["vulnerable"]:
        states.append(f"{totals['vulnerable']} vulnerable")
    clients = counted(totals["clients"], "client")
    facts = f"{', '.join(states)}; {clients}, {totals['waiting']:,} waiting"
    is_well = not totals["troubled"] and totals["by_state"].keys() <= _WELL
    yield from _fact("nodes", facts, width, "" if is_well else "red")


def _server(server: Document, width: int | None) -> Line:
    size = 12 if width is not None and width < _NARROW else 30
    limit = max(server["budget"], 1)
    used = min(size, round(server["used"] / limit * size))
    active = min(used, round(server["active"] / limit * size))
    bar = "█" * active + "▒" * (used - active) + "░" * (size - used)
    lost = server.get("lost", 0)
    opened = server["used"] - lost
    # Before the first contact, and during a takeover, the budget is unknown.
    of = f" of {server['budget']:,}" if server["budget"] else ""
    numbers = f"{server['active']:,} active, {opened:,}{of} open"
    if lost:
        numbers += f", {lost:,} lost"
    if server.get("nodes"):
        numbers += f", {server.get('nodes_open', 0):,} of {server['nodes']:,} open on nodes"
    is_available = server["state"] == "available"
    trouble = "  contended" if server["contended"] else ""
    if server.get("read_only"):
        trouble += "  read-only"
    if server["last_error"]:
        trouble += f"  {server['state']}: {server['last_error']}"
    line = f"{server['name']}  {bar}  {numbers}{trouble}"
    return Line(shortened(printable(line), width), "" if is_available and not trouble else "red")


def _title(screen: ListScreen) -> str:
    last = min(screen.offset + screen.rows, screen.matches)
    first = min(screen.offset + 1, last)
    order = screen.sort.removeprefix("-").replace("_", " ")
    shown = f"{first:,} to {last:,} of {screen.matches:,}" if screen.matches else "none"
    title = f"{screen.of.title} by {order}  {shown}"
    cursor = "_" if screen.is_typing else ""
    return printable(
        f"{title}  filter: {screen.search}{cursor}" if screen.search or cursor else title
    )


def _tenant(report: TenantReport, width: int | None) -> Iterator[Line]:
    tenant, numbers, pool = report.tenant, report.numbers, report.pool
    yield Line(
        printable(f"{tenant['id']}: {tenant['strategy']} on {tenant['server']}, {tenant['state']}"),
        "bold",
    )
    # The pool's own callers at the moment of the list; for a shared pool, only those of all tenants
    # are known.
    is_own = pool is not None and not pool["shared"]
    active = pool["active"] if pool and is_own else numbers["active_connections"]
    callers = waiting("waiting")(pool) if pool and is_own else waiting("waiting_requests")(numbers)
    facts = {
        "pool": f"{pool['pool_id']}, {pool_state(pool)}" if pool else _NOT_OPEN,
        "connections": _connections(pool),
        "leases": f"{active:,} now; max_leases {plain(tenant['max_leases'])}, "
        f"weight {tenant['weight']}",
        "callers": f"{plain(callers)} waiting",
        "wait for": wait_of(numbers) or "nothing",
        "wait": _latency(numbers["wait"]) + f"; max {numbers['max_wait_time_ms']:,.1f} ms "
        f"in the last {numbers['window_seconds']:,.0f} s",
        "hold": _latency(numbers["hold"]),
        "connect": _latency(numbers["connect"]),
        "since start": f"{counted(numbers['connections_acquired'], 'lease')}, "
        f"{counted(numbers['timeouts'], 'timeout')}, {numbers['rejected']:,} rejected, "
        f"{numbers['connections_lost']:,} lost",
        "labels": plain(tenant["labels"]),
        **_advice(pool),
    }
    for name, fact in facts.items():
        yield from _fact(name, fact, width)
    for entry in (pool["nodes"] if pool else None) or ():
        yield from _fact("on node", on_node(entry), width)
    for leak in pool["leak_suspects"] if pool else ():
        what = f"{leak['tenant']}: {leak['task']} at {leak['taken_at']}, back-end {leak['pid']}"
        yield from _fact("leak", f"{leak['age_seconds']:,.0f} s, {what}", width, "red")
    for lease in report.leases["items"]:
        yield from _fact(*_lease(lease), width)
    more = sum(report.leases[state] for state in ("active", "waiting"))
    more -= len(report.leases["items"])
    if more > 0:
        yield from _fact("", f"and {more:,} more that hold or wait for a shorter time", width)
    for refusal in report.refusals:
        what = f"{refusal['at']} {refusal['code']}: {refusal['detail']}"
        yield from _fact("refused", what, width)


def _lease(lease: Document) -> tuple[str, str]:
    """The name and the text of the line about a caller that holds or waits for a connection."""
    is_active = lease["state"] == "active"
    parts = [
        f"{lease['age_seconds']:,.1f} s",
        f"back-end {lease['pid']}" if is_active else f"place {lease['position']:,}",
        lease["task"],
        lease["taken_at"] and f"at {lease['taken_at']}",
    ]
    fact = ", ".join(each for each in parts if each)
    if lease["statement"]:
        fact += f": {lease['statement']}"
    return "holds" if is_active else "waits", fact


def _fact(name: str, fact: str, width: int | None, style: str = "") -> Iterator[Line]:
    room = width and max(10, width - _LABEL)
    for at, part in enumerate(wrapped(printable(fact) or "-", room, breaks_words=True)):
        yield Line(f"{'' if at else name:<{_LABEL}}{part}", style)


def _connections(pool: Document | None) -> str:
    if pool is None:
        return "0"
    desired = pool["desired"]
    share = f", share {pool['share']:,}" if pool["nodes"] else ""
    return (
        f"{pool['size']:,} open: {pool['active']:,} on lease, {pool['idle']:,} idle; "
        f"min {desired['min_size']:,}, max {desired['max_size']:,}{share}"
    )


def _latency(latency: Document) -> str:
    measured = {name: ms for name, ms in latency.items() if ms is not None}
    shown = (f"{name.removesuffix('_ms')} {plain(ms)} ms" for name, ms in measured.items())
    return ", ".join(shown) or "-"


def _advice(pool: Document | None) -> Mapping[str, str]:
    """The open recommendation for a pool, and the advisor's present advice if it differs."""
    found, latest = (pool["recommendation"], pool.get("advice")) if pool else (None, None)
    facts = {}
    if pool is not None and found is not None:
        sizes = f"{pool['desired']['max_size']:,} → {found['new_size']:,}"
        facts["recommended"] = f"{sizes}, {age_of(found['created_at'])} ago: {found['reason']}"
    if found is None or (latest is not None and latest["new_size"] != found["new_size"]):
        facts["advice"] = (pool and advice_of(pool)) or "-"
    return facts


def _as_many_as_fit(facts: Iterable[str], width: int | None) -> str:
    """As many of *facts* as fit in a row; the last ones are left out."""
    line = ""
    for fact in map(printable, facts):
        longer = f"{line}, {fact}" if line else fact
        if line and width is not None and len(longer) > width:
            break
        line = longer
    return shortened(line, width)
