"""Every fact of the domain can be shared: nobody can change it."""

import importlib
import inspect
import pkgutil
from dataclasses import fields, is_dataclass
from types import ModuleType

import pytest

import app.domain
from app.domain.recommendation import RecommendationStatus
from app.domain.tenant import AdvisorMode


def modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(app.domain.__path__, "app.domain.")
    return [importlib.import_module(module.name) for module in found]


FACTS: set[type] = {
    member
    for module in modules()
    for _, member in inspect.getmembers(module, inspect.isclass)
    if is_dataclass(member) and member.__module__ == module.__name__
}


@pytest.mark.parametrize("fact", sorted(FACTS, key=str))
def test_a_fact_is_frozen_slotted_and_built_by_keyword(fact: type) -> None:
    assert is_dataclass(fact)
    assert vars(fact)["__dataclass_params__"].frozen
    assert "__slots__" in vars(fact)
    assert all(field.kw_only for field in fields(fact) if field.init)


@pytest.mark.parametrize("module", modules(), ids=lambda module: str(module.__name__))
def test_the_domain_never_awaits(module: ModuleType) -> None:
    functions = inspect.getmembers(module, inspect.isfunction)
    methods = [
        method
        for _, member in inspect.getmembers(module, inspect.isclass)
        for method in inspect.getmembers(member, inspect.isfunction)
    ]
    assert [name for name, it in functions + methods if inspect.iscoroutinefunction(it)] == []


@pytest.mark.parametrize("module", modules(), ids=lambda module: str(module.__name__))
def test_each_file_of_the_domain_says_what_it_is(module: ModuleType) -> None:
    assert module.__doc__


def test_advice_is_ignored_shown_or_applied() -> None:
    assert [str(mode) for mode in AdvisorMode] == ["off", "recommend", "apply"]


def test_a_recommendation_ends_in_one_of_five_ways() -> None:
    assert [str(status) for status in RecommendationStatus] == [
        "open",
        "applied",
        "dismissed",
        "superseded",
        "expired",
        "undone",
    ]
