"""Nobody writes another object's attributes: classes have methods for what others may do."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_APP = Path(__file__).parent.parent / "app"
# A plain record, and the one module that fills it.
_RECORDS = {
    ("wire/extended_query.py", "wire/reply.py"),
    ("simulator/simulated_server.py", "simulator/simulated_pool.py"),
}
# Of a library's objects, which have no other way; beside Starlette's `app.state`.
_OF_LIBRARIES = {
    ("api/openapi.py", "app.summary"),
    ("api/openapi.py", "app.servers"),
    ("cli/command.py", "error.message"),
}


def _written(tree: ast.AST) -> Iterator[ast.Attribute]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del)):
            yield node


def _is_own(written: ast.Attribute) -> bool:
    return isinstance(written.value, ast.Name) and written.value.id in {"self", "cls"}


def _declared(module: ast.AST) -> set[str]:
    """The attributes of *module*'s classes."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            fields = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
            names |= {field.id for field in fields if isinstance(field, ast.Name)}
            names |= {each.attr for each in _written(node) if _is_own(each)}
    return names


def test_an_attribute_is_written_only_in_the_module_of_its_class() -> None:
    modules = {
        path.relative_to(_APP).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in sorted(_APP.rglob("*.py"))
    }
    owners: dict[str, set[str]] = defaultdict(set)
    for name, module in modules.items():
        for attribute in _declared(module):
            owners[attribute].add(name)
    found = []
    for name, module in modules.items():
        for written in _written(module):
            text, theirs = ast.unparse(written), owners[written.attr]
            is_record = any((name, owner) in _RECORDS for owner in theirs)
            is_foreign = (name, text) in _OF_LIBRARIES or ".state." in text
            if theirs and name not in theirs and not (_is_own(written) or is_record or is_foreign):
                found.append(f"app/{name}:{written.lineno} writes {text}")
    assert found == []
