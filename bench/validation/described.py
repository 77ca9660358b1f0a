"""What the fields of a model take, by default and in words: for terminals, pages and JSON."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from bench.validation.forms import as_yaml, form_of


@dataclass(frozen=True)
class DescribedField:
    """A field of a model, in words.

    Attributes:
        name: the field's.
        type: what it takes, such as "a whole number of at least 1".
        required: whether it has no default.
        default: as JSON has it; None also where the field is required.
        meaning: what stands below the field in the code, in one line; empty: nothing does.
    """

    name: str
    type: str
    required: bool
    default: Any
    meaning: str

    @property
    def default_text(self) -> str:
        """The default as YAML writes it, or `required`."""
        return "required" if self.required else as_yaml(self.default)


def described(model: type[BaseModel]) -> list[DescribedField]:
    """Return all fields of a model, also those of its bases, in their order."""
    texts = meanings(model)
    return [
        DescribedField(
            name,
            _type(info),
            info.is_required(),
            None if info.is_required() else _default(info),
            texts.get(name, ""),
        )
        for name, info in model.model_fields.items()
    ]


@cache
def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings below a model's fields, in one line each.

    A field that a class defines anew without a docstring keeps that of the class's bases.
    """
    found: dict[str, str] = {}
    for owner in model.__mro__:
        if issubclass(owner, BaseModel) and owner is not BaseModel:
            found = dict(_docstrings(owner)) | found
    return found


def _docstrings(owner: type) -> Iterator[tuple[str, str]]:
    """Yield the fields that a class itself defines with a docstring; none without its source."""
    try:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    except (OSError, TypeError, SyntaxError):
        return
    assert isinstance(parsed, ast.ClassDef)
    for field, below in pairwise(parsed.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, " ".join(text.replace("``", "`").split())


def _type(info: FieldInfo) -> str:
    words = form_of(info.annotation, (info,)).words
    is_union = get_origin(info.annotation) in (Union, types.UnionType)
    return f"{words}, or null" if is_union and type(None) in get_args(info.annotation) else words


def _default(info: FieldInfo) -> Any:
    return to_jsonable_python(info.get_default(call_default_factory=True))
