"""A request for samples: part of the data set, choice of samples, preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "test"]
Choose = Callable[[int], "Tensor"]
"""From the number of samples in a data set to the chosen rows (n,)."""
Preprocessing = Callable[[Any], "Tensor"]
"""From a PIL image to (C, H, W) float32 in [0, 1]."""


@dataclass(frozen=True)
class Request:
    """A request to a loader.

    Attributes:
        directory: the folder of the data sets' files and downloads.
        choose: returns the chosen rows, given the number of samples.
        split: the part of the data set; suites evaluate on "test".
        preprocessing: a candidate's preprocessing, for images without a common size.
    """

    directory: Path
    choose: Choose
    split: Split = "test"
    preprocessing: Preprocessing | None = None


def the_first(n: int | None, name: str) -> Choose:
    """Return a choice of the first `n` samples; None chooses all.

    Args:
        name: name of the data set, for the message.

    Raises:
        InputError: the choice was called for a data set with fewer than `n` samples.
    """

    def choose(size: int) -> Tensor:
        import torch

        if n is not None and n > size:
            raise InputError(f"expected at most {size} examples, the size of {name}; got {n}")
        return torch.arange(size if n is None else n)

    return choose
