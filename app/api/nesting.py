"""How deep JSON may be nested, and a walk through it that needs no recursion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

DEEPEST_TAKEN = 32
# Deeper JSON is handed out as the text it came as: whoever renders it recurses.
DEEPEST_SHOWN = 100


class TooDeep(ValueError):
    """A value has more levels than allowed."""


def parts_of(value: object, *, deepest: int) -> Iterator[object]:
    """*value* and everything in it, keys of objects too, one level after the other.

    Raises:
        TooDeep: there are more than *deepest* levels; those were given before.
    """
    level = [value]
    for _ in range(deepest):
        yield from level
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise TooDeep


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else ()
