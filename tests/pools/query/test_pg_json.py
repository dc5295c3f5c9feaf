"""Text of Postgres as JSON, without a server: long texts, and texts that no type writes."""

import json
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

import pytest

from app.domain.errors import SchemaChanged
from app.pools.query.interoperable_json import is_interoperable
from app.pools.query.pg_json import to_json
from app.pools.query.pg_types import PgType, Shape, _types_of

T = TypeVar("T")

_TEXT = PgType(oid=25, name="text", category="S")
_FLOAT = PgType(oid=701, name="float8", category="N")
_INT = PgType(oid=23, name="int4", category="N")
_RANGE = PgType(oid=90_001, name="textrange", shape="range", element=_TEXT)
_MULTIRANGE = PgType(oid=90_002, name="textmultirange", shape="multirange", element=_RANGE)
_PAIR = PgType(
    oid=90_003, name="pair", shape="composite", attributes=(("first", _TEXT), ("second", _INT))
)
# Longer than what is written in one step.
_LONG = 100_000


def array_of(element: PgType | None) -> PgType:
    return PgType(oid=90_000, name="array", shape="array", element=element)


def parsed(text: str, kind: PgType) -> object:
    return json.loads("".join(to_json(text, kind)))


def result_of(steps: Generator[object, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


@pytest.mark.parametrize(
    "elements",
    [
        [],
        ["a"] * _LONG,
        ["a" * _LONG],
        ["a", "b" * _LONG, "c"],
        ["a" * 1000] * 200,
        ["a" * _LONG, *["b"] * _LONG],
        [None, *["b"] * _LONG],
    ],
    ids=["none", "many", "one long", "a long one between", "long enough", "both", "null"],
)
def test_unquoted_elements_of_any_length_are_strings(elements: list[str | None]) -> None:
    text = "{" + ",".join(each or "NULL" for each in elements) + "}"
    assert parsed(text, array_of(_TEXT)) == elements


def test_a_long_array_with_a_number_that_json_lacks_keeps_its_digits() -> None:
    numbers = ["1.5"] * _LONG
    assert parsed("{" + ",".join(numbers) + "}", array_of(_FLOAT)) == [1.5] * _LONG
    assert parsed("{" + ",".join([*numbers, "NaN"]) + "}", array_of(_FLOAT)) == [
        *([1.5] * _LONG),
        "NaN",
    ]


@pytest.mark.parametrize(
    "ranges",
    [
        ["[a,b]"],
        ["[a,b]", "(c,d)"],
        ['["a)b",c)', "[d,e]"],
        [r'["a\"b",c)'],
        [r'["a\\",c)'],
    ],
)
def test_a_multirange_is_cut_at_the_ends_of_its_ranges(ranges: list[str]) -> None:
    assert parsed("{" + ",".join(ranges) + "}", _MULTIRANGE) == ranges


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1", array_of(_INT)),
        ("{1}", array_of(None)),
        ('{"a', array_of(_TEXT)),
        ("{a", array_of(_TEXT)),
        ("a,1", _PAIR),
        ("(a,1", _PAIR),
        ("(a)", _PAIR),
        ('("a"b,1)', _PAIR),
        ('("a,1)', _PAIR),
        ("(a,1,2)", _PAIR),
        ("[a,b]", _MULTIRANGE),
        ("{[a,b]}", PgType(oid=90_004, name="other", shape="multirange")),
    ],
)
def test_a_text_that_does_not_fit_its_type_means_that_the_type_changed(
    text: str, kind: PgType
) -> None:
    with pytest.raises(SchemaChanged):
        "".join(to_json(text, kind))


def test_a_type_that_is_gone_means_that_the_schema_changed() -> None:
    with pytest.raises(SchemaChanged):
        _types_of("[]", [90_000])


@pytest.mark.parametrize("shape", ["scalar", "array"])
def test_a_known_type_is_found(shape: Shape) -> None:
    element = 23 if shape == "array" else 0
    rows = [[90_000, "mine", "b", "A", ",", 0, element, 0, 0, None]]
    rows += [[23, "int4", "b", "N", ",", 0, 0, 0, 0, None]]
    assert _types_of(json.dumps(rows), [90_000])[90_000].shape == shape


def interoperable(documents: Iterable[str]) -> dict[str, bool]:
    return {each[:20]: result_of(is_interoperable(each)) for each in documents}


def test_json_that_some_readers_refuse_is_recognized() -> None:
    taken = [
        '{"a": [1, -2.5e3, true, null]}',
        r'"\u0041\n"',
        r'"\ud83d\ude00"',
        r'"\""',
        r'["\"", "\\"]',
        "[" * 100 + "]" * 100,
        "[" + ",".join(["1"] * 5000) + "]",
        "[-0.0, 0e5, 5e-324]",
        f"-0.0E-{'9' * 20}",
        '"' + r"\n" * 5000 + '"',
    ]
    refused = [
        r'"\ude00"',
        r'"\ud83d"',
        r'"\ud83dx"',
        r'"\ud83d\u0041"',
        "[" * 101 + "]" * 101,
        "1" * 4001,
        "1e400",
        f"1e-{'9' * 20}",
    ]
    assert set(interoperable(taken).values()) == {True}
    assert set(interoperable(refused).values()) == {False}


class SearchedText(str):
    """A text that counts the letters that were searched in it."""

    __slots__ = ("searched",)

    def __init__(self, _: str) -> None:
        self.searched = 0

    def find(self, *where: Any) -> int:
        found = super().find(*where)
        _, begin, end = (*where, len(self))[:3]
        self.searched += (found if found >= 0 else end) - begin
        return found


@pytest.mark.parametrize("part", ['"a"', r'"\n"', r'"\""'])
def test_of_many_strings_each_is_searched_alone(part: str) -> None:
    text = SearchedText("[" + ",".join([part] * 1000) + "]")
    assert result_of(is_interoperable(text))
    assert text.searched < 3 * len(text)
