"""pydantic's messages in words for people who do not write Python."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.text.validation_messages import validation_message


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")

    whole: int = 0
    number: float = 0
    finite: Annotated[float, Field(allow_inf_nan=False)] = 0
    flag: bool = False
    text: Annotated[str, Field(min_length=1, max_length=3)] = "a"
    long: Annotated[str, Field(min_length=2)] = "aa"
    slug: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    form: Annotated[str, Field(pattern="^[0-9]+$")] = "0"
    above: Annotated[float, Field(gt=0, lt=60.0)] = 1
    within: Annotated[int, Field(ge=1, le=500)] = 1
    some: Annotated[list[int], Field(min_length=1, max_length=2)] = [1]
    names: dict[str, int] = {}
    colour: Colour = Colour.RED
    word: Literal["on", "off"] = "on"
    at: AwareDatetime | None = None
    naive: datetime | None = None
    key: UUID | None = None
    own: int = 1

    @field_validator("own")
    @classmethod
    def _check(cls, value: int) -> int:
        if value != 1:
            raise ValueError("One is the only number")
        return value


class Outer(BaseModel):
    inner: Model


def messages(model: type[BaseModel], document: object) -> list[str]:
    with pytest.raises(ValidationError) as refusal:
        model.model_validate(document)
    return [
        validation_message(each, {"^[a-z]+$": "Must be a slug."})
        for each in refusal.value.errors(include_url=False, include_input=False)
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"whole": "many"}, "Must be a whole number."),
        ({"whole": 1.5}, "Must be a whole number."),
        ({"whole": "9" * 5000}, "Has too many digits."),
        ({"whole": None}, "Must be a whole number."),
        ({"number": "x"}, "Must be a number."),
        ({"finite": float("inf")}, "Must be a number."),
        ({"flag": "maybe"}, "Must be true or false."),
        ({"flag": []}, "Must be true or false."),
        ({"text": 1}, "Must be text."),
        ({"text": ""}, "Must not be empty."),
        ({"text": "four"}, "Must have 3 characters or fewer."),
        ({"long": "x"}, "Must have 2 characters or more."),
        ({"slug": "A"}, "Must be a slug."),
        ({"form": "A"}, "Must have the form ^[0-9]+$"),
        ({"above": 0}, "Must be more than 0."),
        ({"above": 60}, "Must be less than 60."),
        ({"within": 0}, "Must be 1 or more."),
        ({"within": 501}, "Must be 500 or less."),
        ({"some": []}, "Must not be empty."),
        ({"some": [1, 2, 3]}, "Must have 2 items or fewer."),
        ({"some": "1"}, "Must be a list."),
        ({"names": []}, "Must be an object of names and values."),
        ({"colour": "green"}, "Must be 'red' or 'blue'."),
        ({"word": "maybe"}, "Must be 'on' or 'off'."),
        ({"at": "2026-07-14T12:00:00"}, "Needs a time zone, as in 2026-07-14T12:00:00Z."),
        ({"at": "soon"}, "Must be a time such as 2026-07-14T12:00:00Z."),
        ({"naive": []}, "Must be a time such as 2026-07-14T12:00:00Z."),
        ({"key": "x"}, "Must be a UUID."),
        ({"own": 2}, "One is the only number."),
        ({"size": 2}, "There is no such field."),
    ],
    ids=str,
)
def test_each_kind_has_a_plain_sentence(given: dict[str, Any], message: str) -> None:
    assert messages(Model, given) == [message]


def test_a_missing_field_and_a_wrong_object_have_one_too() -> None:
    assert messages(Outer, {}) == ["Must be given."]
    assert messages(Outer, {"inner": 1}) == ["Must be an object of names and values."]


def test_what_is_not_known_keeps_its_words_without_those_of_python() -> None:
    problem = {"type": "new_kind", "msg": "Input should be a valid thing"}
    assert validation_message(problem) == "Must be a valid thing."


def test_no_value_is_repeated() -> None:
    for field in Model.model_fields:
        for message in messages(Model, {field: "s3cret-value", "own": 3}):
            assert not re.search("s3cret", message)


def test_a_sentence_of_our_own_is_kept() -> None:
    own = {"type": "less_than_equal", "loc": ("body", "max_rows"), "msg": "The maximum is 5."}
    assert validation_message(own) == "The maximum is 5."
