"""Telling want of memory from other failures, and doing with less."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")
_SIGNS = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: Exception) -> bool:
    """Whether a pass failed for want of memory.

    On a CPU torch has no error of its own for it, and on a GPU its libraries have theirs.
    """
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
    )


def with_as_many_as_fit(count: int, work: Callable[[int], Result]) -> Result:
    """Do a piece of work on so many images, or on half as many while memory cannot hold them.

    Args:
        count: at least 1.
        work: given the number of images.

    Raises:
        RuntimeError: a single image does not fit, or whatever else the work raises.
    """
    while True:
        try:
            return work(count)
        except (RuntimeError, MemoryError) as error:
            if count == 1 or not is_out_of_memory(error):
                raise
        count //= 2
        torch.cuda.empty_cache()
