"""No pattern of the program can be made to backtrack: input from outside reaches them all.

Python's `re` tries every way to split a text among quantifiers. If one is inside another, or two
that match the same characters follow each other, a short text takes for ever.
"""

# mypy: disable-error-code="import-untyped,attr-defined"

import ast
import builtins
import importlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import app

# Python's own parser of patterns; no public name gives the tree.
_CONSTANTS = importlib.import_module("re._constants")
_PARSER = importlib.import_module("re._parser")

_APP = Path(app.__file__).parent
_REPEATS = (_CONSTANTS.MAX_REPEAT, _CONSTANTS.MIN_REPEAT)
_NEVER_GIVEN_BACK = (_CONSTANTS.POSSESSIVE_REPEAT, _CONSTANTS.ATOMIC_GROUP)
# More repetitions count as endless.
_FEW = 64
_LETTERS = [chr(code) for code in range(256)]


def _calls() -> Iterator[tuple[Path, ast.expr]]:
    """Every expression that is used as a pattern, with its file."""
    for path in sorted(_APP.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            if (
                isinstance(function, ast.Attribute)
                and isinstance(function.value, ast.Name)
                and function.value.id == "re"
                and function.attr != "escape"
            ):
                yield path, node.args[0]


class _Text(str):
    """The text of a variable; its fields are texts, too, such as a type's delimiter."""

    __slots__ = ()

    def __getattr__(self, name: str) -> str:
        return self


class _Locals(dict[str, str]):
    """The variables of a function that an expression names: each is some text."""

    def __init__(self, module: ModuleType) -> None:
        self._known = vars(builtins).keys() | vars(module).keys()

    def __missing__(self, name: str) -> str:
        if name in self._known:
            raise KeyError(name)
        return _Text(";")


def _patterns() -> Iterator[tuple[str, str | bytes]]:
    for path, expression in _calls():
        name = ".".join(["app", *path.relative_to(_APP).with_suffix("").parts])
        module = importlib.import_module(name.removesuffix(".__init__"))
        code = compile(ast.Expression(expression), str(path), "eval")
        yield (
            f"{path.relative_to(_APP)}:{expression.lineno}",
            eval(  # noqa: S307
                code, vars(module), _Locals(module)
            ),
        )


def _faults(pattern: str | bytes) -> Iterator[str]:
    yield from _of_sequence(_PARSER.parse(pattern), inside=False)


def _of_sequence(  # noqa: C901 - one case for each kind of node
    items: Iterable[tuple[Any, Any]], *, inside: bool
) -> Iterator[str]:
    """The faults of *items*, inside of an endless quantifier or not."""
    before: set[str] = set()
    for op, value in items:
        taken: set[str] = set()
        if op in _REPEATS:
            _, most, body = value
            is_endless = most > _FEW
            if is_endless and inside:
                yield "a quantifier inside a quantifier"
            if is_endless:
                taken = _first(body)
                if before & taken:
                    yield "two quantifiers take the same characters"
            yield from _of_sequence(body, inside=inside or is_endless)
            before = before | taken if value[0] == 0 else taken
            continue
        before = set()
        if op is _CONSTANTS.BRANCH:
            firsts = [_first(branch) for branch in value[1]]
            empty = sum(len(branch) == 0 for branch in value[1])
            are_alike = empty > 1 or sum(map(len, firsts)) > len(set().union(*firsts))
            if inside and are_alike:
                yield "alternatives inside a quantifier begin alike"
            for branch in value[1]:
                yield from _of_sequence(branch, inside=inside)
        elif op is _CONSTANTS.SUBPATTERN:
            yield from _of_sequence(value[-1], inside=inside)
        elif op in _NEVER_GIVEN_BACK:
            # CPython issue 106052: what is inside may match more than it should.
            yield "a possessive quantifier or an atomic group, wrong in Python before 3.11.5"


def _first(items: Iterable[tuple[Any, Any]]) -> set[str]:
    """The characters with which a match of *items* can begin."""
    first: set[str] = set()
    for op, value in items:
        if op in _REPEATS:
            first |= _first(value[2])
            if value[0] == 0:
                continue
        elif op is _CONSTANTS.BRANCH:
            for branch in value[1]:
                first |= _first(branch)
        elif op is _CONSTANTS.SUBPATTERN:
            first |= _first(value[-1])
        elif op is _CONSTANTS.AT:
            continue
        else:
            first |= {letter for letter in _LETTERS if _takes(op, value, letter)}
        break
    return first


def _takes(op: object, value: object, letter: str) -> bool:
    state = _PARSER.State()
    state.str = ""
    one = _PARSER.SubPattern(state, [(op, value)])
    return re._compiler.compile(one).match(letter) is not None


def test_no_pattern_of_the_program_can_backtrack() -> None:
    found = list(_patterns())
    assert len(found) > 10
    assert [(place, fault) for place, pattern in found for fault in _faults(pattern)] == []


def test_pydantic_matches_with_its_own_engine_which_never_backtracks() -> None:
    assert [path for path in _APP.rglob("*.py") if "regex_engine" in path.read_text()] == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?:[\s;]|--[^\n]*\n|/\*.*?\*/)*copy\b",
        r"(a+)+b",
        r"(?:a|a)*b",
        r"(?:a|ba|bc)*x",
        r"\s*\s*x",
        r"x(?:a*,)*",
        r"\d+[0-9a-f]*$",
        r"(?:a[^b]++b)*+c",
        r"(?>a|b)c",
    ],
)
def test_a_pattern_that_can_is_found(pattern: str) -> None:
    assert list(_faults(pattern))


@pytest.mark.parametrize(
    "pattern", [r"(?:a|b)*c", r"a(?:[^b]|b(?!b))*bb", r"[ \t]*,[ \t]*", r"a+b+"]
)
def test_a_pattern_that_cannot_is_let_pass(pattern: str) -> None:
    assert list(_faults(pattern)) == []
