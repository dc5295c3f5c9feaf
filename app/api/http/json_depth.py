"""How deep JSON may be nested, and a walk through it that needs no recursion."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

MAX_JSON_DEPTH = 32
# Deeper JSON is handed out as the text it came as: whoever renders it recurses.
DEEPEST_SHOWN = 100


class JsonTooDeep(ValueError):
    """A value has more levels than allowed."""


def iter_levels(value: object, *, deepest: int) -> Iterator[list[object]]:
    """*value*, then what is in it, keys of objects too, then what is in that, and so on.

    A megabyte of JSON has half a million parts, so what holds no others is passed over at once.

    Raises:
        TooDeep: there are more than *deepest* levels; those were given before.
    """
    level = [value]
    for _ in range(deepest):
        yield level
        kinds = set(map(type, level))
        inside: list[object] = []
        if list in kinds:
            inside.extend(chain.from_iterable(each for each in level if type(each) is list))
        if dict in kinds:
            objects = [each for each in level if type(each) is dict]
            inside.extend(chain.from_iterable(objects))
            inside.extend(chain.from_iterable(map(dict.values, objects)))
        level = inside
        if not level:
            return
    raise JsonTooDeep
