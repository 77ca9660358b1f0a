"""Names of classes: their order, and the network's output for each of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from bench.errors import InputError

SHOWN = 4


MOST_CLASSES = 1_000_000
"""Most classes of a data set. More are a mistake, such as ids read as classes, and their names
would fill the memory."""


def numbered(count: int) -> tuple[str, ...]:
    """Return the names of classes that are numbered 0, 1, 2, ...

    Raises:
        ValueError: there are more than `MOST_CLASSES`.
    """
    if count > MOST_CLASSES:
        raise ValueError(f"expected at most {MOST_CLASSES:,} classes, got {count:,}")
    return tuple(str(number) for number in range(count))


def listed(names: Sequence[object], shown: int = SHOWN) -> str:
    """Return the first few names in words: "cat, dog, ... (12 in all)"."""
    head = ", ".join(str(name) for name in names[:shown])
    return head if len(names) <= shown else f"{head}, ... ({len(names):,} in all)"


def is_whole_number(name: str) -> bool:
    """Return whether a name is a whole number >= 0, with or without leading zeros."""
    return name.isascii() and name.isdigit()


def folder_order(names: Iterable[str], origin: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return class folders in the most likely order of the network's outputs.

    Integers are sorted by value. Other names are sorted as text, as by torchvision's ImageFolder,
    with which most networks are trained.

    Args:
        origin: their parent folder, for messages.

    Returns:
        the names in order, and notices if another order is as likely.

    Raises:
        InputError: two names are the same number, such as 1 and 01.
    """
    as_text = tuple(sorted(names))
    advice = "; if the network's outputs have another order, write it in the suite as `class_order`"
    if not as_text or not all(is_whole_number(name) for name in as_text):
        natural = tuple(sorted(as_text, key=_natural))
        if natural == as_text:
            return as_text, ()
        return as_text, (
            f"{origin}: class folders are taken in the order of torchvision's ImageFolder, as "
            f"text: {_beginning(as_text, natural)}; by their numbers it would be "
            f"{_beginning(natural, as_text)}{advice}",
        )
    by_value = tuple(sorted(as_text, key=int))
    for before, name in pairwise(by_value):
        if int(before) == int(name):
            raise InputError(
                f"{origin}: expected one folder for each class, got {before} and {name}, the same "
                "number"
            )
    notices = []
    if by_value != as_text:
        notices.append(
            f"{origin}: class folders are integers and are sorted by value: "
            f"{_beginning(by_value, as_text)}; torchvision's ImageFolder sorts them as text: "
            f"{_beginning(as_text, by_value)}{advice}"
        )
    if [int(name) for name in by_value] != list(range(len(by_value))):
        notices.append(
            f"{origin}: class folders are numbered {listed(by_value)}, not from 0 on: {by_value[0]}"
            " is taken for the network's first output, and so on; if the numbers are those of the "
            "outputs, write the number of outputs in the suite as `classes`"
        )
    return by_value, tuple(notices)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts "class2" before "class10"."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts]


def _beginning(names: Sequence[str], other: Sequence[str]) -> str:
    """Return the names up to the first one that differs in another order."""
    until = next(
        place for place, pair in enumerate(zip(names, other, strict=True)) if len({*pair}) > 1
    )
    shown = names[max(0, until - 1) : until + 2]
    return (
        ("... " if until > 1 else "")
        + ", ".join(shown)
        + (", ..." if until + 2 < len(names) else "")
    )


def outputs_of(names: Sequence[str], classes: Sequence[str], origin: str) -> list[int]:
    """Return the place of each name in `classes`; integers are looked up by value.

    Args:
        names: names of the data's classes.
        classes: all classes, in the order of the network's outputs.
        origin: for the message.

    Raises:
        InputError: a name is not in `classes`, or two names are the same class.
    """
    places = {name: place for place, name in enumerate(classes)}
    numbers = {int(name): place for place, name in enumerate(classes) if is_whole_number(name)}
    found: dict[int, str] = {}
    outputs = []
    unknown = []
    for name in names:
        place = places.get(name)
        if place is None and is_whole_number(name):
            place = numbers.get(int(name))
        if place is None:
            unknown.append(name)
            continue
        if place in found:
            raise InputError(
                f"{origin}: expected one name for each class, got {found[place]} and {name}"
            )
        found[place] = name
        outputs.append(place)
    if unknown:
        raise InputError(
            f"{origin}: expected classes among {listed(classes)}, as the suite's data says; got "
            f"{listed(unknown)}"
        )
    return outputs
