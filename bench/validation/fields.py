"""Validate files as models; errors name the file, the field, what was expected, and what came."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from bench.errors import InputError
from bench.suggestion import did_you_mean
from bench.validation.forms import KEY, as_yaml, form_of_field, model_at, takes_numbers
from bench.validation.yaml_loader import parse_yaml


class StrictModel(BaseModel):
    """Base of everything read from a user's file: immutable, unknown fields refused.

    A field's `description` and `examples` say what is expected where it is wrong; without them its
    type does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Without this, `eps: yes` would be a radius of 1.
        annotation = cls.model_fields[str(info.field_name)].annotation
        parts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(part, bool) for part in parts) and takes_numbers(annotation):
            raise PydanticCustomError("number_type", "")
        return value


ModelType = TypeVar("ModelType", bound=BaseModel)
_FRACTION = re.compile(r"[-+]?[\d.]{1,30}(e[-+]?\d{1,3})?(/[\d.]{1,30})?", re.IGNORECASE)


def parse_fraction(value: Any) -> Any:
    """Turn "8/255" into a float; leave everything else to the field's own validation."""
    if isinstance(value, str) and _FRACTION.fullmatch(text := value.replace(" ", "")):
        try:
            return float(Fraction(text))
        except (ValueError, ZeroDivisionError, OverflowError):
            return value
    return value


Number = Annotated[float, BeforeValidator(parse_fraction), Field(examples=["8/255"])]
"""A float that YAML may also write as a fraction, such as 8/255."""


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.

    Raises:
        InputError: the file cannot be read, is not YAML, or gives a field twice.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return parse_yaml(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def validate(model: type[ModelType], content: Any, origin: str | Path) -> ModelType:
    """Validate `content` as `model`.

    Raises:
        InputError: for each wrong field one line: origin, field, what was expected, an example and
            what came.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = [f"{origin}: {line}" for line in explain(model, error)]
        raise InputError("\n".join(lines)) from error


def explain(model: type[BaseModel], error: ValidationError) -> list[str]:
    """Return a line for each wrong field, in this project's words.

    Args:
        model: that was validated.
        error: the error that validation raised.
    """
    return list(dict.fromkeys(_line(model, detail) for detail in error.errors()))


def _line(model: type[BaseModel], detail: ErrorDetails) -> str:
    place = detail["loc"]
    field = ".".join(_in_one_line(part) for part in place if part != KEY)
    begin = f"field {field}: " if field else ""
    came = "" if detail["type"] == "missing" else f"got {_shown(detail['input'])}"
    if detail["type"] in ("extra_forbidden", "invalid_key"):
        return begin + _unknown(model, place, came)
    form = form_of_field(model, place)
    if detail["type"] == "value_error":
        # Raised by this project's own checks, which say what they expect.
        own = str(detail["ctx"]["error"])
        if model_at(model, place) is not None:
            return begin + own  # the error is about several fields and names them
        example = "" if form is None or "such as" in own else f", such as {as_yaml(form.example)}"
        return f"{begin}{own}{example}; {came}" if "got " not in own else begin + own + example
    if not place:
        fields = ", ".join(model.model_fields)
        return f"expected a mapping of the fields {fields}, {_first_field(model)}; {came}"
    expected = "expected something else" if form is None else f"expected {form}"
    return f"{begin}{expected}; {came or 'got nothing'}{_advice(detail)}"


def _first_field(model: type[BaseModel]) -> str:
    name = next(iter(model.model_fields))
    form = form_of_field(model, [name])
    assert form is not None
    return f"such as {as_yaml({name: form.example})[1:-1]}"


def _in_one_line(part: str | int) -> str:
    """Return a key as it is, but escaped where it would break the line of a message."""
    text = str(part)
    return text if text.isprintable() else repr(text)


def _unknown(model: type[BaseModel], place: Sequence[str | int], came: str) -> str:
    inside = model_at(model, place[:-1]) or model
    names = [info.alias or name for name, info in inside.model_fields.items()]
    hint = did_you_mean(str(place[-1]), names, most=1)
    return f"unknown, expected one of {', '.join(names)}, {came}" + (f"; {hint}" if hint else "")


def _advice(detail: ErrorDetails) -> str:
    """Return advice where YAML reads a name as something else: `no`, `123`."""
    is_text = isinstance(detail["input"], bool | int | float)
    if detail["type"] == "string_type" and is_text:
        return ": write it in quotes"
    return ""


_BOUNDED = reprlib.Repr()
_BOUNDED.maxlevel, _BOUNDED.maxstring, _BOUNDED.maxother, _BOUNDED.maxlong = 3, 60, 60, 40


def _shown(value: Any, limit: int = 60) -> str:
    """Return what came, as YAML writes it, in few characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = _BOUNDED.repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
