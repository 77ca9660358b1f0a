"""From --device to torch's device; apart from `options`, which imports no torch."""

from __future__ import annotations

import torch

from bench.errors import InputError


def torch_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means here.

    Raises:
        InputError: cuda, where there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("--device: expected a CUDA device, torch sees none; use --device cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
