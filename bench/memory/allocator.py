"""How much memory a network takes, and how to keep what a pass frees for the next pass."""

from __future__ import annotations

import ctypes
import itertools
import sys

import torch
from torch import nn

_TRIM_THRESHOLD, _MAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`, as in <malloc.h>."""
KEPT_BYTES = 1 << 30
LARGEST_KEPT_BLOCK = 32 << 20
"""The largest value allowed; larger blocks, such as data sets, are still freed at once."""


def tensor_bytes(module: nn.Module) -> int:
    """Return the size of a module's parameters and buffers in bytes."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def keep_freed_memory(device: torch.device) -> bool:
    """Let glibc keep a gigabyte of free memory at the end of its heap, in blocks of up to 32 MB.

    By default it hands large blocks back to the system when they are freed, and the next pass has
    to fault every page in again: up to a third of the time of a small network on a processor. It
    holds for the whole process; calling this again changes nothing.

    Args:
        device: where the passes are made; memory on a GPU is kept by PyTorch itself.

    Returns:
        whether freed memory is kept now; other allocators are left as they are.
    """
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_MAP_THRESHOLD, LARGEST_KEPT_BLOCK), (_TRIM_THRESHOLD, KEPT_BYTES))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
