"""A file of tenants, and what has to be done so that a service has exactly these.

Pure: the file's words and the service's documents in, steps out. Who sends them is `apply.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from app.runtime.printable import is_printable, printable

_MOST_PROBLEMS = 20
_UNREADABLE = "a value is not what its tag or its form says, or is nested too deeply."
_MERGE = "tag:yaml.org,2002:merge"

Document = Mapping[str, Any]


class ManifestError(Exception):
    """The file cannot be used; one line per problem."""


def _seen(text: str) -> str:
    if not is_printable(text):
        raise PydanticCustomError("control_character", "must not contain control characters")
    return text


PrintableText = Annotated[str, AfterValidator(_seen)]


class DeclaredPool(BaseModel):
    """Sizes of one pool; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    min_size: int | None = Field(default=None, ge=0, le=10_000)
    max_size: int | None = Field(default=None, ge=1, le=10_000)
    warmup_size: int | None = Field(default=None, ge=0, le=10_000)


class DeclaredTenant(BaseModel):
    """One tenant of the file; server and strategy may be left to the service."""

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
        """What a PUT of the tenant sends."""
        return self.model_dump(exclude_none=True, exclude={"provision", "pool"})


class Manifest(BaseModel):
    """All tenants there should be, by id."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    tenants: dict[PrintableText, DeclaredTenant]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read YAML.

        Raises:
            ManifestError: it is no YAML, or says what no tenant can be.
        """
        try:
            said = yaml.load(text, _Unambiguous)  # noqa: S506 - derived from the safe loader
        except yaml.YAMLError as error:
            said = printable(" ".join(str(error).split()))
            raise ManifestError(f"No YAML: {said}") from error
        # PyYAML lets these out as they are: a date that is none, `!!int x`, nesting without end.
        except (ValueError, LookupError, AttributeError, RecursionError) as error:
            raise ManifestError(f"No YAML: {_UNREADABLE}") from error
        said = {"tenants": {}} if said is None else said
        if isinstance(said, dict) and isinstance(said.get("tenants"), dict):
            # `acme:` alone is a tenant with every default.
            said["tenants"] = {
                key: {} if each is None else each for key, each in said["tenants"].items()
            }
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            lines = [
                printable(f"{'.'.join(str(part) for part in each['loc']) or 'file'}: {each['msg']}")
                for each in error.errors(include_url=False, include_input=False)
            ]
            raise ManifestError("\n".join(lines[:_MOST_PROBLEMS])) from error


class _Unambiguous(yaml.SafeLoader):
    """YAML in which a key is text and said once: the second `acme` would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        """Build a mapping, or refuse it.

        Raises:
            ConstructorError: a key is there twice, or is no text: `no` is false in YAML.
        """
        keys: set[str] = set()
        for said, _ in node.value:
            # What is merged in may be said again: that is what it is for.
            if said.tag == _MERGE:
                continue
            key = self.construct_object(said, deep=True)
            if not isinstance(key, str) or key in keys:
                wrong = "is said twice" if isinstance(key, str) else "has to be put into quotes"
                name = said.value if isinstance(said, yaml.ScalarNode) else "A key"
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name} {wrong}", said.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep)


class Verb(StrEnum):
    """What is done to a tenant or its pool."""

    CREATE = "create"
    CHANGE = "change"
    PROVISION = "provision"
    RESIZE = "resize"
    DELETE = "delete"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change, and how it reads."""

    verb: Verb
    tenant: str
    summary: str
    body: Mapping[str, object] | None = None


def plan(
    manifest: Manifest,
    actual: Mapping[str, Document],
    pools: Mapping[str, Document],
    *,
    prune: bool,
) -> list[Step]:
    """The steps from *actual* to *manifest*, tenant by tenant, deletions last.

    Args:
        manifest: what there should be.
        actual: tenants of the service by id, as it shows them.
        pools: their pools by tenant, as it shows them; needed where the manifest has a pool.
        prune: whether tenants the manifest does not name are deleted.
    """
    steps: list[Step] = []
    for tenant, declared in manifest.tenants.items():
        steps += _towards(tenant, declared, actual.get(tenant), pools.get(tenant))
    if prune:
        steps += [
            Step(verb=Verb.DELETE, tenant=tenant, summary=_summary(actual[tenant]))
            for tenant in sorted(actual.keys() - manifest.tenants.keys())
            if actual[tenant]["state"] != "deleting"
        ]
    return steps


def _towards(
    tenant: str, declared: DeclaredTenant, actual: Document | None, pool: Document | None
) -> Iterator[Step]:
    body = declared.body
    if actual is None:
        yield Step(verb=Verb.CREATE, tenant=tenant, summary=_summary(body), body=body)
    else:
        fixed = [name for name in ("strategy", "server") if _differs(body, actual, name)]
        if fixed:
            told = ", ".join(f"{name} {actual[name]} → {body[name]}" for name in fixed)
            yield Step(verb=Verb.REFUSE, tenant=tenant, summary=f"{told}: cannot be changed")
            return
        changed = [
            name
            for name in ("weight", "max_leases", "labels", "advisor_mode")
            if getattr(declared, name) != actual[name]
        ]
        if changed:
            told = ", ".join(
                f"{name} {_value(actual.get(name))} → {_value(getattr(declared, name))}"
                for name in changed
            )
            yield Step(verb=Verb.CHANGE, tenant=tenant, summary=told, body=body)
    is_there = actual is not None and actual["state"] == "provisioned"
    if declared.provision and not is_there:
        yield Step(verb=Verb.PROVISION, tenant=tenant, summary="role, schema or database")
    yield from _resize(tenant, declared, pool)


def _resize(tenant: str, declared: DeclaredTenant, pool: Document | None) -> Iterator[Step]:
    if declared.pool is None:
        return
    wanted = declared.pool.model_dump(exclude_none=True)
    now = {} if pool is None else pool["desired"]
    changed = {name: size for name, size in wanted.items() if now.get(name) != size}
    if changed:
        told = ", ".join(f"{name} {_value(now.get(name))} → {to}" for name, to in changed.items())
        yield Step(verb=Verb.RESIZE, tenant=tenant, summary=told, body=changed)


def _differs(body: Mapping[str, object], actual: Document, name: str) -> bool:
    return name in body and body[name] != actual[name]


def _summary(tenant: Mapping[str, Any]) -> str:
    return (
        f"{tenant.get('strategy', 'default strategy')} on {tenant.get('server', 'default server')}"
    )


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}"
    return "-" if value is None else str(value)
