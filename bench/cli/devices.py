"""From --device to torch's device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import InputError

if TYPE_CHECKING:
    import torch


def torch_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means here.

    Raises:
        InputError: cuda, where there is none.
    """
    import torch  # slow, and --help needs none of it

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("--device: expected a CUDA device, torch sees none; use --device cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
