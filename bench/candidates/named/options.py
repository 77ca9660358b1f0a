"""What stands behind a name: `timm:resnet18,checkpoint=model.pt,normalize=cifar10`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import InputError


@dataclass(frozen=True)
class Options:
    """What a user says beside a candidate's name.

    Attributes:
        checkpoint: a file with weights.
        key: of the weights in it, where several would fit.
        classes: K; None: what the weights say.
        architecture: package.module:function that builds the network of a weights file.
        randomized: whether two calls may give two answers.
        conversion: arguments of `bench.candidates.wrapped.wrap`; they replace the source's own.
    """

    checkpoint: Path | None = None
    key: str | None = None
    classes: int | None = None
    architecture: str | None = None
    randomized: bool = False
    conversion: dict[str, Any] = field(default_factory=dict)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(":")]


def _named_or_numbers(text: str) -> str | list[float]:
    return text if re.match(r"[A-Za-z]", text) else _numbers(text)


def _sides(text: str) -> list[int]:
    sides = [int(part) for part in re.split("[x:]", text)]
    return sides * 2 if len(sides) == 1 else sides


def _switch(text: str) -> bool:
    values = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return values[text.lower()]


def _output(text: str) -> str | int:
    return int(text) if re.fullmatch(r"-?\d+", text) else text


CONVERSIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "normalize": (_named_or_numbers, "the name of a data set, whose usual mean and std are meant"),
    "mean": (_named_or_numbers, "numbers joined by colons, or the name of a data set"),
    "std": (_named_or_numbers, "numbers joined by colons, or the name of a data set"),
    "resize": (_sides, "a number of pixels, or height x width"),
    "interpolation": (str, "bilinear, bicubic or nearest-exact"),
    "grayscale": (_switch, "true or false"),
    "input_range": (_numbers, "two numbers joined by a colon, such as -1:1"),
    "output": (_output, "a key or a position"),
}
OTHERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "checkpoint": (Path, "a file"),
    "key": (str, "a key of the checkpoint"),
    "classes": (int, "a number"),
    "architecture": (str, "package.module:function"),
    "randomized": (_switch, "true or false"),
}
NAMES = (*OTHERS, *CONVERSIONS)


def read_options(text: str, allowed: tuple[str, ...] = NAMES) -> tuple[str, Options]:
    """Split a text into a name and its options.

    Args:
        text: name, then key=value items behind commas.
        allowed: the options that mean something here.

    Raises:
        InputError: an unknown option, or a value of another form.
    """
    name, *items = text.split(",")
    given: dict[str, Any] = {}
    for item in items:
        key, separator, value = (part.strip() for part in item.partition("="))
        if not separator or key not in allowed or key in given:
            raise InputError(
                f"{text}: expected options {', '.join(f'{each}=' for each in allowed)} each at "
                f"most once, got {item!r}"
            )
        read, form = (OTHERS | CONVERSIONS)[key]
        try:
            given[key] = read(value)
        except (ValueError, KeyError) as error:
            raise InputError(f"{text}: {key}: expected {form}, got {value!r}") from error
    conversion = {key: given.pop(key) for key in CONVERSIONS if key in given}
    if (both := conversion.pop("normalize", None)) is not None:
        if not isinstance(both, str):
            raise InputError(
                f"{text}: normalize: expected the name of a data set, got numbers; write mean= and "
                "std="
            )
        conversion = {"mean": both, "std": both} | conversion
    return name.strip(), Options(**given, conversion=conversion)
