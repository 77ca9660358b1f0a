"""What a field of a model takes, in words and with an example, from its type."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_INTEGERS = (1, 2, 10, 100, 0)
_FLOATS = (0.5, 0.1, 1.0, 2.0, 10.0, 0.0)
KEY = "[key]"
"""Pydantic's mark for an error about a mapping's key."""


@dataclass(frozen=True)
class Form:
    """What a field takes.

    Attributes:
        words: what is expected, such as "a whole number of at least 1".
        example: a value that the field takes, as YAML gives it.
    """

    words: str
    example: Any

    def __str__(self) -> str:
        return f"{self.words}, such as {as_yaml(self.example)}"


def as_yaml(value: Any) -> str:
    """Return a value as YAML writes it in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def form_of(annotation: Any, metadata: Sequence[Any] = ()) -> Form:
    """Return what a type takes.

    A `Field` beside it says more: its `description` gives the words, its first one of `examples`
    the example, its default an example too.

    Args:
        annotation: a type.
        metadata: what stands beside it in `Annotated`.
    """
    annotation, metadata = _bare(annotation, metadata)
    form = _by_type(annotation, _constraints(metadata))
    words, example = form.words, form.example
    for each in metadata:
        if isinstance(each, FieldInfo):
            words = each.description or words
            if each.examples:
                example = each.examples[0]
            elif _is_plain(each.default):
                example = list(each.default) if isinstance(each.default, tuple) else each.default
    return Form(words, example)


def form_of_field(model: type[BaseModel], place: Sequence[str | int]) -> Form | None:
    """Return the type at a place in a model; None if the model has no such place.

    Args:
        model: of the whole.
        place: names of fields, keys and numbers of items, from the outermost on.
    """
    found = _at(model, place)
    return None if found is None else form_of(*found)


def model_at(model: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the model at a place in a model; None where there is another type."""
    found = _at(model, place)
    if found is None:
        return None
    annotation, _ = _bare(*found)
    return annotation if _is_model(annotation) else None


def takes_numbers(annotation: Any) -> bool:
    """Return whether a type holds numbers, or items that do, and nothing else."""
    annotation, _ = _bare(annotation, ())
    if get_origin(annotation) in (tuple, list):
        return all(takes_numbers(each) for each in get_args(annotation) if each is not ...)
    return annotation in (int, float)


def _at(model: type[BaseModel], place: Sequence[str | int]) -> tuple[Any, Sequence[Any]] | None:
    annotation: Any = model
    metadata: Sequence[Any] = ()
    for number, part in enumerate(place):
        annotation, _ = _bare(annotation, metadata)
        origin, arguments = get_origin(annotation), get_args(annotation)
        metadata = ()
        if part == KEY:
            continue
        if _is_model(annotation):
            named = {
                **{info.alias: info for info in annotation.model_fields.values() if info.alias},
                **annotation.model_fields,
            }
            if part not in named:
                return None
            annotation, metadata = named[str(part)].annotation, (named[str(part)],)
        elif origin in (tuple, list) and isinstance(part, int):
            same = origin is list or arguments[-1] is ...
            if not same and part >= len(arguments):
                return None
            annotation = arguments[0 if same else part]
        elif origin is dict:
            is_key = number + 1 < len(place) and place[number + 1] == KEY
            annotation = arguments[0 if is_key else 1]
        else:
            return None
    return annotation, metadata


def _bare(annotation: Any, metadata: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """Return a type without `Annotated` and `None`, and its annotations, innermost first."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *beside = get_args(annotation)
            metadata = (*beside, *metadata)
        elif origin in (Union, types.UnionType):
            others = [each for each in get_args(annotation) if each is not type(None)]
            if len(others) > 1:
                return annotation, metadata
            (annotation,) = others
        else:
            return annotation, metadata


def _constraints(metadata: Sequence[Any]) -> dict[str, Any]:
    """Return bounds and lengths, the innermost ones first, so that the outermost win."""
    found: dict[str, Any] = {}
    for each in metadata:
        if isinstance(each, FieldInfo):
            found |= _constraints(each.metadata)
        for kind, name in (
            (annotated_types.Ge, "ge"),
            (annotated_types.Gt, "gt"),
            (annotated_types.Le, "le"),
            (annotated_types.Lt, "lt"),
        ):
            if isinstance(each, kind):
                found[name] = getattr(each, name)
    return found


def _by_type(annotation: Any, bounds: dict[str, Any]) -> Form:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is bool:
        return Form("true or false", True)
    if annotation is int:
        return Form(f"a whole number{_bounds(bounds)}", _within(bounds, _INTEGERS))
    if annotation is float:
        return Form(f"a number{_bounds(bounds)}", _within(bounds, _FLOATS))
    if annotation is Path:
        return Form("a path", "images")
    if origin is Literal:
        return Form(f"one of {', '.join(map(as_yaml, arguments))}", arguments[0])
    if origin in (Union, types.UnionType):
        forms = [form_of(each) for each in arguments if each is not type(None)]
        return Form(" or ".join(form.words for form in forms), forms[0].example)
    if origin in (tuple, list):
        forms = [form_of(each) for each in arguments if each is not ...]
        if origin is tuple and arguments[-1] is not ...:
            words = ", then ".join(form.words for form in forms)
            return Form(f"a list of {len(forms)}: {words}", [form.example for form in forms])
        return Form(f"a list, each item {forms[0].words}", [forms[0].example])
    if origin is dict:
        key, value = map(form_of, arguments)
        what = "" if arguments[1] is Any else f", each with {value.words}"
        return Form(f"a mapping of names{what}", {key.example: value.example})
    if _is_model(annotation):
        return _of_model(annotation)
    return Form("a value" if annotation is Any else "a text", "text")


def _of_model(model: type[BaseModel]) -> Form:
    words = f"a mapping of {', '.join(model.model_fields)}"
    extra = model.model_config.get("json_schema_extra")
    if isinstance(extra, dict) and (examples := extra.get("examples")):
        assert isinstance(examples, list)
        return Form(words, examples[0])
    required = {
        info.alias or name: form_of(info.annotation, (info,)).example
        for name, info in model.model_fields.items()
        if info.is_required()
    }
    return Form(words, required)


def _bounds(bounds: dict[str, Any]) -> str:
    """Return the bounds in words."""
    low = bounds.get("ge", bounds.get("gt"))
    high = bounds.get("le", bounds.get("lt"))
    parts = []
    if low is not None:
        parts.append(f"of at least {low:g}" if "ge" in bounds else f"above {low:g}")
    if high is not None:
        parts.append(f"at most {high:g}" if "le" in bounds else f"below {high:g}")
    return f" {' and '.join(parts)}" if parts else ""


def _within(bounds: dict[str, Any], candidates: Sequence[float]) -> float:
    """Return the first number inside the bounds."""
    for value in candidates:
        if (
            bounds.get("ge", value) <= value <= bounds.get("le", value)
            and value > bounds.get("gt", value - 1)
            and value < bounds.get("lt", value + 1)
        ):
            return value
    lowest: float = bounds.get("ge", bounds.get("gt", 0) + 1)
    return lowest


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_plain(default: Any) -> bool:
    """Return whether a default shows what a field takes: neither none nor empty."""
    if isinstance(default, tuple):
        return bool(default) and all(map(_is_plain, default))
    return isinstance(default, bool | int | float) or (isinstance(default, str) and default != "")
