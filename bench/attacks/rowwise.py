"""Run an attack's arithmetic on many images, in groups of rows, which do not depend on each other.

A network's pass reads its weights once for a whole batch. The attack's own arithmetic reads and
writes whole batches of images for every operation, and on a small network that costs as much as the
pass. So it runs on a few rows at a time, which stay in the processor's cache from one operation to
the next, or is compiled into few loops.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bench.errors import briefly

_COMPILER_OPTIONS: tuple[dict[str, str | int | bool | Callable[..., Any]], ...] = (
    {},
    {"cpp.max_horizontal_fusion_size": 1},
)
"""Tried in turn: fusing unrelated loops trips over sums of changed inputs in some versions."""

MOST_COMPILATIONS = 64
"""Compilations of one function in a process; with more, PyTorch warns and runs it uncompiled."""

_CACHE_BYTES = 3 << 17
"""How much of one tensor is worked on at a time, for each thread; a step has about five at once."""


class RowFunction:
    """A function that changes tensors (N, ...) in place, each row independently of the others.

    Attributes:
        problem: why it is not compiled although it was asked to be; empty if there is no problem.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        self._compiled: Callable[..., None] | None = None
        self._rows: int | None = None
        self._asked = False
        self.problem = ""

    def compile(self) -> None:
        """Compile at the next call, for that call's number of rows; others run uncompiled.

        This takes about ten seconds, so it pays if thousands of steps with full batches follow.
        """
        self._asked = True

    def __call__(self, *tensors: Tensor, shared: tuple[Tensor, ...] = ()) -> None:
        """Apply the function to `shared`, which it gets whole, and to tensors (N, ...)."""
        if self._asked:
            self._asked = False
            if self._compile(shared, tensors):
                return
        if self._compiled is not None and len(tensors[0]) == self._rows:
            self._compiled(*shared, *tensors)
            return
        for rows in cached_rows(tensors[0]):
            self._function(*shared, *(tensor[rows] for tensor in tensors))

    def _compile(self, shared: tuple[Tensor, ...], tensors: tuple[Tensor, ...]) -> bool:
        """Compile, apply, and return whether that worked; nothing changes if not."""
        from torch._dynamo import config as dynamo_config  # slow to import

        for options in _COMPILER_OPTIONS:
            try:
                self._compiled = torch.compile(self._function, dynamic=False, options=options)
                # PyTorch counts by code: a protocol's attacks share it, each for its own rows.
                with dynamo_config.patch(recompile_limit=MOST_COMPILATIONS):
                    self._compiled(*shared, *tensors)
            except Exception as error:
                self._compiled = None
                self.problem = briefly(error)
            else:
                self._rows = len(tensors[0])
                self.problem = ""
                return True
        return False


def cached_rows(images: Tensor) -> Iterator[slice]:
    """Return slices that together cover `images` (N, ...), each small enough for a core's cache.

    On a GPU one slice covers all.
    """
    rows = max(1, len(images))
    if images.device.type == "cpu" and images.numel():
        row_bytes = images.numel() // len(images) * images.element_size()
        rows = max(1, _CACHE_BYTES * torch.get_num_threads() // row_bytes)
    for start in range(0, len(images), rows):
        yield slice(start, start + rows)


def copy_rows(into: Tensor, mask: Tensor, source: Tensor) -> None:
    """Copy the rows where `mask` (N,) is true from `source` (N, ...) into `into` (N, ...)."""
    if asking_is_free(into):
        # Few rows change in a step.
        rows = mask.nonzero().flatten()
        if len(rows):
            into.index_copy_(0, rows, source.index_select(0, rows))
    else:
        torch.where(mask.view(-1, *[1] * (into.dim() - 1)), source, into, out=into)


@contextlib.contextmanager
def resting(mask: Tensor, *tensors: Tensor) -> Iterator[None]:
    """Restore the rows where `mask` (N,) is true, in each tensor (N, ...), after this context.

    It serves items that broke and are still in the batch: on a GPU several steps are made between
    two looks at it, and an item whose success is not confirmed goes on from where it was.
    """
    copies = copies_to_restore(mask, *tensors)
    yield
    restore(mask, tensors, copies)


def copies_to_restore(mask: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Return what `restore` needs of tensors (N, ...): nothing, if it is known that none rests."""
    if asking_is_free(mask) and not bool(mask.any()):
        return ()
    return tuple(tensor.clone() for tensor in tensors)


def restore(mask: Tensor, tensors: tuple[Tensor, ...], copies: tuple[Tensor, ...]) -> None:
    """Put the rows where `mask` (N,) is true back, in place; see `resting`."""
    for tensor, old in zip(tensors, copies, strict=False):
        copy_rows(tensor, mask, old)


def asking_is_free(values: Tensor) -> bool:
    """Return whether reading a tensor's values costs nothing: not on a GPU, not while compiling."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def above(values: Tensor, limits: Tensor) -> Tensor:
    """Return values > limits as zeros and ones in the dtype and shape of the values, (N, ...)."""
    if torch.compiler.is_compiling():
        return (values > limits).to(values.dtype)
    # On a CPU this is several times as fast as a comparison that makes a bool tensor.
    return torch.gt(values, limits, out=torch.empty_like(values))
