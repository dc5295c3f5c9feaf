"""Configuration values: each field declares its default, meaning and range in one place."""

from collections.abc import Mapping
from dataclasses import field, fields
from typing import NamedTuple, TypeVar

from app.domain.errors import InvalidInput

_DAY_SECONDS = 86_400.0
_KEY = "value"

Number = TypeVar("Number", int, float)


class ConfigValue(NamedTuple):
    """The meaning and the range of a field; *exclusive*: it must be above *least*."""

    kind: type[int | float]
    meaning: str
    least: float
    most: float
    exclusive: bool


def ranged(
    default: Number, meaning: str, least: float, most: float, *, exclusive: bool = False
) -> Number:
    """A dataclass field with a meaning and a range."""
    value = ConfigValue(type(default), meaning, least, most, exclusive)
    return field(default=default, metadata={_KEY: value})


def share(default: float, meaning: str, *, exclusive: bool = False) -> float:
    return ranged(default, meaning, 0, 1, exclusive=exclusive)


def positive(default: float, meaning: str) -> float:
    return ranged(default, meaning, 0, _DAY_SECONDS, exclusive=True)


def factor(default: float, meaning: str, *, exclusive: bool = False) -> float:
    return ranged(default, meaning, 1, 100, exclusive=exclusive)


def count(default: int, meaning: str, most: int = 1_000_000) -> int:
    return ranged(default, meaning, 1, most)


def config_values(config: type) -> Mapping[str, ConfigValue]:
    """What each field of the dataclass *config* declares."""
    return {each.name: each.metadata[_KEY] for each in fields(config) if _KEY in each.metadata}


def check_ranges(config: object) -> None:
    """Refuse a value out of its range.

    Raises:
        InvalidInput
    """
    for name, value in config_values(type(config)).items():
        given = getattr(config, name)
        if value.exclusive and not given > value.least:
            raise InvalidInput(f"{name} must be above {value.least:g}.")
        if not value.least <= given <= value.most:
            raise InvalidInput(f"{name} must be at least {value.least:g}, at most {value.most:g}.")
