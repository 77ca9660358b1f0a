"""From --device to torch's device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import InputError

if TYPE_CHECKING:
    import torch


def torch_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu` or `cuda` means on this machine.

    Raises:
        InputError: cuda, where there is none.
    """
    import torch  # slow to import, and --help does not need it

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("--device: expected a CUDA device, torch sees none; use --device cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
