"""A generated case: files in a folder, commands on them, and what must come of each."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

Outcome = Literal["accept", "refuse", "either"]
"""Whether a command must do its work, must refuse its input, or may do either."""

T = TypeVar("T")

Check = Callable[[str], list[str]]
"""From the output of a command that succeeded to what is wrong with its numbers."""


def worst(*outcomes: Outcome) -> Outcome:
    """The outcome of parts together."""
    if "refuse" in outcomes:
        return "refuse"
    return "either" if "either" in outcomes else "accept"


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        arguments: after `bench`.
        outcome: what it must do.
        check: of its numbers where it exits with 0.
        names: texts of which a refusal must contain one, such as the file that is at fault.
        codes: exit codes that are allowed where it does not succeed.
        prepare: changes files before the command.
        goes_on: whether the case goes on where the command does not succeed.
    """

    arguments: list[str]
    outcome: Outcome
    check: Check = field(default=lambda output: [])
    names: tuple[str, ...] = ()
    codes: frozenset[int] = frozenset({2})
    prepare: Callable[[], None] = field(default=lambda: None)
    goes_on: bool = False


@dataclass(frozen=True)
class Case:
    """A generated case.

    Attributes:
        kind: of generator.
        what: what was drawn, for people.
        steps: in their order; a step that does not succeed ends the case.
    """

    kind: str
    what: str
    steps: list[Step]


class Draws:
    """The random choices of one case: the same for the same number."""

    def __init__(self, number: int) -> None:
        self.choices = random.Random(f"bench fuzz {number}")
        self.numbers = np.random.default_rng([20240607, number])

    def one_of(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.choices.randrange(len(items))]

    def chance(self, share: float) -> bool:
        """True in this share of all cases."""
        return self.choices.random() < share

    def seed(self) -> int:
        """A seed for generated code."""
        return self.choices.randrange(1 << 30)
