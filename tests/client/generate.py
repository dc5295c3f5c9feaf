"""Writes poolkeeper/models.py and poolkeeper/api.py from openapi/openapi.json.

`python -m tests.client.generate` writes them; with `--check` it fails if they are out of date.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from keyword import iskeyword
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Schema = Mapping[str, Any]

# A stream, plain text, and the routes for orchestrators and other drivers.
_OMITTED = frozenset({"stream_stats", "metrics", "livez", "readyz", "run_sql"})
# The client sends these itself.
_PARAMETERS_OF_CLIENT = frozenset({"dry_run", "fields", "limit", "cursor"})
# Its results would be stored with the key; a caller can still send one.
_WITHOUT_KEY = frozenset({"run_query", "run_statements"})
# Operations with two types of results are two functions; the differences of the second.
_VARIANTS: Mapping[str, Schema] = {
    "run_query": {
        "operationId": "run_statements",
        "summary": "Run several statements as a tenant, in one transaction",
        "responses": {
            "200": {
                "content": {
                    "application/json": {
                        "schema": {"$ref": "#/components/schemas/QueryBatchResult"},
                    },
                },
            },
        },
    },
}
_SUCCESSES = ("200", "201", "202")
_SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_MODELS = '''"""What the API takes and returns: plain dictionaries, with types.

Generated from openapi/openapi.json by `make openapi`.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

'''
_REQUESTS = '''"""The requests of the API, for a client to send.

Generated from openapi/openapi.json by `make openapi`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from poolkeeper.request import ListRequest, Request, segment

if TYPE_CHECKING:
    from poolkeeper import models

'''


class Source:
    """The two files, from a document."""

    def __init__(self, document: Schema) -> None:
        self._schemas: Mapping[str, Schema] = document["components"]["schemas"]
        operations = [
            (method, path, each)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            for each in _variants(operation)
            if operation["operationId"] not in _OMITTED
        ]
        sent = [(each.get("requestBody"), each.get("parameters")) for _, _, each in operations]
        # A response can have values of a later version, which no type can name.
        self._sent = self._used_by(sent)
        self._requests = [self._request(*each) for each in operations]

    def files(self) -> dict[str, str]:
        """Their text, by path."""
        # Each dry run returns a plan.
        used = self._used_by(["models.PlanView", *self._requests])
        models = [self._model(name) for name in self._schemas if name in used]
        models.sort(key=lambda text: "TypedDict" in text)
        return {
            "poolkeeper/models.py": _formatted(_MODELS + "".join(models)),
            "poolkeeper/api.py": _formatted(_REQUESTS + "\n\n".join(self._requests)),
        }

    def _used_by(self, source: object) -> set[str]:
        """The names of all schemas that *source* refers to, and of those that these refer to."""
        found: set[str] = set()
        left = set(re.findall(r"(?:schemas/|models\.)(\w+)", str(source)))
        while left:
            found |= left
            texts = str([self._schemas[name] for name in left])
            left = set(re.findall(r"schemas/(\w+)", texts)) - found
        return found

    def _model(self, name: str) -> str:
        schema = self._schemas[name]
        if "enum" in schema:
            values = ", ".join(map(repr, schema["enum"]))
            return f"{name} = Literal[{values}]\n" if name in self._sent else ""
        fields = {}
        for field, inner in schema["properties"].items():
            type_ = self._type(inner)
            fields[field] = (
                type_ if field in schema.get("required", ()) else f"NotRequired[{type_}]"
            )
        if any(map(iskeyword, fields)):
            return f"{name} = TypedDict({name!r}, {fields})\n"
        about = schema["description"].splitlines()[0]
        lines = "".join(f"    {field}: {type_}\n" for field, type_ in fields.items())
        return f'class {name}(TypedDict):\n    """{about}"""\n{lines}\n'

    def _type(self, schema: Schema, package: str = "") -> str:
        match schema:
            case {"$ref": reference}:
                name = reference.rpartition("/")[2]
                is_open = "enum" in self._schemas[name] and name not in self._sent
                return "str" if is_open else package + name
            case {"anyOf": choices}:
                return " | ".join(dict.fromkeys(self._type(each, package) for each in choices))
            case {"type": "array", "items": items}:
                return f"list[{self._type(items, package)}]"
            case {"type": "object"}:
                inner = schema.get("additionalProperties")
                values = self._type(inner, package) if isinstance(inner, dict) else "Any"
                return f"dict[str, {values}]"
            case {"type": str(scalar)}:
                return _SCALARS[scalar]
        return "Any"

    def _request(self, method: str, path: str, operation: Schema) -> str:
        parameters = operation.get("parameters", [])
        in_path = [_name(each) for each in re.findall(r"{(\w+)}", path)]
        in_query = [
            each
            for each in parameters
            if each["in"] == "query" and each["name"] not in _PARAMETERS_OF_CLIENT
        ]
        arguments = [f"{name}: str" for name in in_path]
        target = re.sub(r"{(\w+)}", lambda found: f"{{segment({_name(found[1])})}}", path)
        values = [repr(method.upper()), f'{"f" if in_path else ""}"{target}"']
        if in_query:
            arguments += ["*", *map(self._option, in_query)]
            query = ", ".join(f'"{each["name"]}": {_name(each["name"])}' for each in in_query)
            values.append(f"query={{{query}}}")
        if "requestBody" in operation:
            body = self._first(operation["requestBody"])
            arguments.append(f"**body: Unpack[{body}]")
            values.append("body=body")
        takes_key = any(each["name"] == "Idempotency-Key" for each in parameters)
        if takes_key and operation["operationId"] not in _WITHOUT_KEY:
            values.append("sends_key=True")
        kind, result = self._kind(operation)
        return (
            f"def {operation['operationId']}({', '.join(arguments)}) -> {kind}[{result}]:\n"
            f'    """{operation["summary"]}."""\n'
            f"    return {kind}({', '.join(values)})\n"
        )

    def _option(self, parameter: Schema) -> str:
        type_ = self._type(parameter["schema"], "models.").removesuffix(" | None")
        return f"{_name(parameter['name'])}: {type_} | None = None"

    def _kind(self, operation: Schema) -> tuple[str, str]:
        """Whether it is the request of a list, and the types of its response."""
        responses = operation["responses"]
        given = [self._first(responses[each]) for each in _SUCCESSES if each in responses]
        # If a success has another status, the 200 is a plan.
        result = next(each for each in given if each != "models.PlanView")
        fields = self._schemas[result.removeprefix("models.")]["properties"]
        if "next_cursor" not in fields:
            return "Request", result
        return "ListRequest", f"{result}, {self._type(fields['items']['items'], 'models.')}"

    def _first(self, message: Schema) -> str:
        """The first type of its body: others are plans, sparse items, and no body at all."""
        schema = message["content"]["application/json"]["schema"]
        return self._type(schema.get("anyOf", [schema])[0], "models.")


def _variants(operation: Schema) -> list[Schema]:
    other = _VARIANTS.get(operation["operationId"])
    return [operation] if other is None else [operation, {**operation, **other}]


def _name(name: str) -> str:
    return f"{name}_" if iskeyword(name) or name == "id" else name


def _formatted(source: str) -> str:
    ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "generated.py", "-"]
    done = subprocess.run(ruff, input=source, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


def main(arguments: Iterable[str]) -> int:
    document = json.loads((ROOT / "openapi" / "openapi.json").read_text("utf-8"))
    files = Source(document).files()
    if "--check" not in arguments:
        for path, text in files.items():
            (ROOT / path).write_text(text, "utf-8")
        return 0
    outdated = [path for path in files if (ROOT / path).read_text("utf-8") != files[path]]
    for path in outdated:
        sys.stderr.write(f"{path} does not match openapi/openapi.json: run `make openapi`.\n")
    return 1 if outdated else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
