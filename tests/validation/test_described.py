"""The fields of a model in words: from its types, its defaults and the docstrings below fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, create_model

from bench.training import recipes
from bench.validation import StrictModel, described, meanings


class Base(StrictModel):
    """A model."""

    epochs: int = Field(ge=1)
    """How often the training
    goes through its images."""
    rate: float = 0.1
    """The ``rate``."""
    plain: str = ""
    size: tuple[int, ...] = (3, 4)
    """Height and width."""


class Derived(Base):
    """A model with fields of its own."""

    rate: float = 0.2
    """Another rate."""
    epochs: int = Field(default=3, ge=1)
    limit: int | None = None
    """None for no limit."""
    flip: Literal[False, True, "alternating"] = False


def test_a_field_says_what_it_takes_its_default_and_its_meaning() -> None:
    epochs, rate, plain, size = described(Base)
    assert (epochs.type, epochs.default_text) == ("a whole number of at least 1", "required")
    assert epochs.required
    assert epochs.meaning == "How often the training goes through its images."
    assert (rate.default_text, rate.meaning) == ("0.1", "The `rate`.")
    assert plain.meaning == ""
    assert (size.default, size.default_text) == ([3, 4], "[3, 4]")


def test_a_field_that_is_defined_anew_keeps_the_meaning_that_it_has_not_of_its_own() -> None:
    found = {each.name: each for each in described(Derived)}
    assert (found["epochs"].default, found["epochs"].required) == (3, False)
    assert found["epochs"].meaning == "How often the training goes through its images."
    assert found["rate"].meaning == "Another rate."
    assert (found["limit"].type, found["limit"].default_text) == ("a whole number, or null", "null")
    assert (found["flip"].type, found["flip"].default_text) == (
        "one of false, true, alternating",
        "false",
    )


def test_a_model_without_a_source_has_no_meanings(tmp_path: Path) -> None:
    made: type[BaseModel] = create_model("Made", size=(int, 3))
    assert meanings(made) == {}
    names: dict[str, Any] = {}
    exec("from pydantic import BaseModel\nclass Typed(BaseModel):\n    size: int = 3", names)
    assert described(names["Typed"])[0].meaning == ""


@pytest.mark.parametrize("recipe", recipes())
def test_every_setting_of_a_recipe_has_a_meaning(recipe: str) -> None:
    settings = described(recipes()[recipe].settings_type)
    assert [each.name for each in settings if not each.meaning] == []
