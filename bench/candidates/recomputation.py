"""Gradients with respect to images through layers that are computed again in the backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.checkpoint import CheckpointFunction, checkpoint


@contextlib.contextmanager
def differentiable_checkpoints() -> Iterator[None]:
    """Replace reentrant activation checkpoints by non-reentrant ones within this context.

    The reentrant kind, PyTorch's default for long, refuses `torch.autograd.grad`, by which attacks
    take the gradient of the image alone. Both kinds compute the same.
    """
    before = vars(CheckpointFunction).get("apply")
    CheckpointFunction.apply = staticmethod(_apply)
    try:
        yield
    finally:
        if before is None:
            del CheckpointFunction.apply
        else:
            CheckpointFunction.apply = before


def _apply(function: Callable[..., Any], preserve_rng_state: bool, *inputs: Any) -> Any:
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=preserve_rng_state)
