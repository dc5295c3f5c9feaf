"""No two classes of the app have one name: a name says which one is meant."""

import ast
from collections import defaultdict
from pathlib import Path

_APP = Path(__file__).parent.parent / "app"


def test_no_two_public_classes_have_the_same_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(_APP.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path.relative_to(_APP)}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
