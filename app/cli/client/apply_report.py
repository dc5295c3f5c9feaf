"""The output of `apply`: its plan and its result."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from rich.text import Text

from app.cli.client.dry_run import Check
from app.cli.client.execution import Failure, Summary
from app.cli.client.manifest import Verb
from app.text.printable import printable, printable_lines

_REFUSED = ("!", "red")
_SIGNS = {
    Verb.CREATE: ("+", "green"),
    Verb.CHANGE: ("~", "yellow"),
    Verb.PROVISION: ("+", "green"),
    Verb.RESIZE: ("~", "yellow"),
    Verb.DELETE: ("-", "red"),
    Verb.REFUSE: _REFUSED,
}
_UNKNOWN = ("?", "yellow")
_COUNTED = ("created", "changed", "deleted", "unchanged", "failed", "unfinished")
# The number of tenants that a line names before it only counts the rest.
_MOST_NAMED = 5


def render_plan(checks: Sequence[Check]) -> Text:
    if not checks:
        return Text("No changes: the service matches the file.")
    text = Text()
    for check in checks:
        step = check.step
        sign, colour = _SIGNS[step.verb]
        if check.unknown or check.refusal:
            sign, colour = _REFUSED if check.refusal else _UNKNOWN
        name = step.tenant if step.verb is Verb.REFUSE else f"{step.verb} {step.tenant}"
        text.append(printable(f"{sign} {name}: {step.summary}") + "\n", colour)
        warnings = [] if check.plan is None else check.plan["warnings"]
        notes = [check.refusal] if check.refusal not in {None, step.summary} else []
        for line in [*notes, *warnings]:
            text.append(_indented(str(line)), colour)
    for reason, count in Counter(check.unknown for check in checks if check.unknown).items():
        text.append(f"? not known before it is applied ({count}): {reason}\n", _UNKNOWN[1])
    counts = Counter(check.step.verb for check in checks)
    due = [f"{counts[verb]} to {verb}" for verb in Verb if counts[verb] and verb != Verb.REFUSE]
    refused = sum(check.refusal is not None for check in checks)
    refusals = f"{refused} would be refused" if refused else ""
    return text.append("; ".join(filter(None, [", ".join(due), refusals])))


def render_summary(summary: Summary) -> Text:
    counts = {name: len(getattr(summary, name)) for name in _COUNTED}
    shown = [
        f"{count} {name}"
        for name, count in counts.items()
        if count or name not in {"deleted", "unfinished"}
    ]
    text = Text()
    causes: defaultdict[tuple[str, str], list[Failure]] = defaultdict(list)
    for failure in summary.failed:
        causes[failure.step, failure.cause].append(failure)
    for (step, cause), failures in causes.items():
        names = _names([failure.tenant for failure in failures])
        text.append(printable(f"! {step} {names}") + "\n", "red")
        # A cause that several tenants share names none of them.
        reason = cause if len(failures) > 1 else failures[0].reason
        text.append(_indented(reason), "red")
    if summary.unanswered:
        line = f"! No response for {_names(summary.unanswered)}: they may have been changed."
        text.append(printable(line) + "\n", "red")
    if summary.stopped:
        text.append(printable_lines(f"Stopped: {summary.stopped}") + "\n")
    return text.append(", ".join(shown))


def _names(tenants: Sequence[str]) -> str:
    more = len(tenants) - _MOST_NAMED
    named = ", ".join(tenants[:_MOST_NAMED])
    return f"{named} and {more} more" if more > 0 else named


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in printable_lines(text).split("\n"))
