"""YAML files into validated models; a wrong field is named with file, expectation and value."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from bench.errors import InputError


class StrictModel(BaseModel):
    """Base of everything read from a user's file: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ModelType = TypeVar("ModelType", bound=BaseModel)


def parse_fraction(value: Any) -> Any:
    """Turn "8/255" into a float; leave everything else to the field's own validation."""
    if isinstance(value, str):
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            return value
    return value


Number = Annotated[float, BeforeValidator(parse_fraction)]
"""A float that YAML may also write as a fraction, such as 8/255."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which by itself takes the last of several values for one key."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping as it is written, before `<<` brings keys that may be given again.

        Raises:
            InputError: a key that is given twice.
        """
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise InputError(
                    f"field {key.value}: expected once, got it in lines {lines[key.value]} and "
                    f"{line}"
                )
            lines[key.value] = line
        return node


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.

    Raises:
        InputError: the file cannot be read, is not YAML, or gives a field twice.
    """
    try:
        # As `safe_load`, whose loader ours extends.
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from error


def validate(model: type[ModelType], content: Any, origin: str | Path) -> ModelType:
    """Validate `content` as `model`.

    Raises:
        InputError: one line a wrong field: origin, field, what was expected, what came.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = []
        for detail in error.errors():
            field = ".".join(str(part) for part in detail["loc"])
            what = detail["msg"].removeprefix("Value error, ")
            if not field and detail["type"] == "value_error":
                # About several fields at once: it names them, and the whole input would hide them.
                lines.append(f"{origin}: {what}")
                continue
            came = "" if detail["type"] == "missing" else f", got {_shorten(detail['input'])}"
            if detail["type"] == "extra_forbidden" and len(detail["loc"]) == 1:
                what = f"unknown, expected one of {', '.join(model.model_fields)}"
            lines.append(f"{origin}: field {field or '(the whole file)'}: {what}{came}")
        raise InputError("\n".join(lines)) from error


def _shorten(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
