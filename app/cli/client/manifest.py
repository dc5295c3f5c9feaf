"""A file of tenants, and the plan that makes a service match it.

Pure: the file's text and the service's documents in, steps out. `apply.py` executes them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from app.text.printable import is_printable, printable
from app.text.validation_messages import validation_message

_MAX_PROBLEMS = 20
_INVALID_VALUE = "a value does not match its tag or format, or is nested too deeply."
_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")
_MERGE = "tag:yaml.org,2002:merge"
_IMMUTABLE = ("strategy", "server")
# Keys of a tenant in the file that are not fields in the service.
_STEPS = {"provision", "pool"}

Document = Mapping[str, Any]


class ManifestError(Exception):
    """The file is invalid; one line for each problem."""


def _check_printable(text: str) -> str:
    if not is_printable(text):
        raise PydanticCustomError("control_character", "Must not contain control characters.")
    return text


PrintableText = Annotated[str, AfterValidator(_check_printable)]


def _check_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise PydanticCustomError("tenant_id", "Must be 1 to 48 of a-z, 0-9 and inner hyphens.")
    return text


_TenantId = Annotated[PrintableText, AfterValidator(_check_id)]


class DeclaredPool(BaseModel):
    """The sizes of a pool; omitted sizes stay as they are."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    min_size: int | None = Field(default=None, ge=0, le=10_000)
    max_size: int | None = Field(default=None, ge=1, le=10_000)
    warmup_size: int | None = Field(default=None, ge=0, le=10_000)


class DeclaredTenant(BaseModel):
    """A tenant in the file; the service chooses an omitted server or strategy."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    strategy: Literal["shared", "per_tenant", "per_database"] | None = None
    server: str | None = None
    weight: int = Field(default=1, ge=1, le=1000)
    max_leases: int | None = Field(default=None, ge=1, le=10_000)
    labels: dict[PrintableText, PrintableText] = {}
    advisor_mode: Literal["off", "recommend", "apply"] | None = None
    provision: bool = True
    pool: DeclaredPool | None = None

    @property
    def body(self) -> dict[str, object]:
        """The body of the tenant's PUT request."""
        return self.model_dump(exclude_none=True, exclude=_STEPS)


class Manifest(BaseModel):
    """All declared tenants by id."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    tenants: dict[_TenantId, DeclaredTenant]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse YAML.

        Raises:
            ManifestError: it is not valid YAML, or declares invalid tenants.
        """
        try:
            content = yaml.load(text, _StrictLoader)  # noqa: S506 - derived from the safe loader
        except yaml.YAMLError as error:
            raise ManifestError(f"Invalid YAML: {printable(_reason(error))}") from error
        # PyYAML raises these for an invalid date, `!!int x`, or endless nesting.
        except (ValueError, LookupError, AttributeError, RecursionError) as error:
            raise ManifestError(f"Invalid YAML: {_INVALID_VALUE}") from error
        content = {"tenants": {}} if content is None else content
        if isinstance(content, dict) and isinstance(content.get("tenants"), dict):
            # `acme:` alone is a tenant with all defaults.
            content["tenants"] = {
                key: {} if each is None else each for key, each in content["tenants"].items()
            }
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            lines = [
                printable(
                    f"{'.'.join(map(str, each['loc'])) or 'file'}: {validation_message(each)}"
                )
                for each in error.errors(include_url=False, include_input=False)
            ]
            raise ManifestError("\n".join(lines[:_MAX_PROBLEMS])) from error


def _reason(error: yaml.YAMLError) -> str:
    """PyYAML's message, without its names for us and for the text."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}." if mark else f"{problem}."


class _StrictLoader(yaml.SafeLoader):
    """YAML with unique string keys; otherwise a second `acme` would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key_node, _ in node.value:
            # Merged keys may repeat: that is the purpose of a merge.
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in keys:
                problem = "is a duplicate" if isinstance(key, str) else "must be quoted"
                name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a key"
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name} {problem}", key_node.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep)


class Verb(StrEnum):
    """A step's kind."""

    CREATE = "create"
    CHANGE = "change"
    PROVISION = "provision"
    RESIZE = "resize"
    DELETE = "delete"
    REFUSE = "refuse"


class Stage(IntEnum):
    """When a step runs; each stage begins after the previous one has ended.

    A larger `min_size` may need the connections that another pool gives up.
    """

    FIRST = 1
    RAISE_MIN_SIZE = 2
    DELETE = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """A change in the plan."""

    verb: Verb
    tenant: str
    summary: str
    body: Mapping[str, object] | None = None
    query: Mapping[str, bool] = field(default_factory=dict)
    stage: Stage = Stage.FIRST


def plan(
    manifest: Manifest,
    actual: Mapping[str, Document],
    pools: Mapping[str, Document],
    *,
    prune: bool,
    adopt: bool = False,
) -> list[Step]:
    """Plan the steps from *actual* to *manifest*, by tenant id, deletions last.

    *pools*, by tenant, are needed if the manifest declares pools; *prune* deletes tenants that are
    not in it; *adopt* takes over objects that exist and are another's.
    """
    steps: list[Step] = []
    for tenant, declared in sorted(manifest.tenants.items()):
        steps += _steps(tenant, declared, actual.get(tenant), pools.get(tenant), adopt=adopt)
    if prune:
        steps += [
            Step(
                verb=Verb.DELETE,
                tenant=tenant,
                summary=_summary(actual[tenant]),
                stage=Stage.DELETE,
            )
            for tenant in sorted(actual.keys() - manifest.tenants.keys())
            if actual[tenant]["state"] != "deleting"
        ]
    return steps


def _steps(
    tenant: str,
    declared: DeclaredTenant,
    actual: Document | None,
    pool: Document | None,
    *,
    adopt: bool,
) -> Iterator[Step]:
    body = declared.body
    if actual is None:
        yield Step(verb=Verb.CREATE, tenant=tenant, summary=_summary(body), body=body)
    else:
        fixed = [name for name in _IMMUTABLE if body.get(name, actual[name]) != actual[name]]
        if fixed:
            summary = f"{_changes(actual, body, fixed)}: cannot be changed"
            yield Step(verb=Verb.REFUSE, tenant=tenant, summary=summary)
            return
        fields = declared.model_dump(exclude={*_STEPS, *_IMMUTABLE})
        changed = [name for name in fields if fields[name] != actual[name]]
        if changed:
            summary = _changes(actual, fields, changed)
            yield Step(verb=Verb.CHANGE, tenant=tenant, summary=summary, body=body)
    if declared.provision and not (actual and _has_objects(actual)):
        yield Step(
            verb=Verb.PROVISION,
            tenant=tenant,
            summary="role, schema or database" + (", existing ones too" if adopt else ""),
            query={"adopt": True} if adopt else {},
        )
    if declared.pool is not None:
        sizes = declared.pool.model_dump(exclude_none=True)
        current = {} if pool is None else pool["desired"]
        changed = [name for name in sizes if sizes[name] != current.get(name)]
        if changed:
            is_raised = sizes.get("min_size", 0) > current.get("min_size", 0)
            yield Step(
                verb=Verb.RESIZE,
                tenant=tenant,
                summary=_changes(current, sizes, changed),
                body={name: sizes[name] for name in changed},
                stage=Stage.RAISE_MIN_SIZE if is_raised else Stage.FIRST,
            )


def _has_objects(actual: Document) -> bool:
    """Whether it is provisioned, and its role and its schema or database were not found missing."""
    checks = actual["isolation"]["checks"]
    failed = {each["name"] for each in checks if each["severity"] == "critical"}
    provided = {"role"} if actual["strategy"] == "shared" else {"role", "ownership"}
    return actual["state"] == "provisioned" and failed.isdisjoint(provided)


def _changes(before: Document, after: Document, names: Iterable[str]) -> str:
    return ", ".join(f"{name} {_value(before.get(name))} → {_value(after[name])}" for name in names)


def _summary(tenant: Mapping[str, Any]) -> str:
    return (
        f"{tenant.get('strategy', 'default strategy')} on {tenant.get('server', 'default server')}"
    )


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}"
    return "-" if value is None else str(value)
