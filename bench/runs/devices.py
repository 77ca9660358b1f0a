"""From a device's name to torch's device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import FOREIGN_ERRORS, InputError

if TYPE_CHECKING:
    import torch


def torch_device(name: str | torch.device) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:1` means here.

    Raises:
        InputError: no name of a device, or one on which torch cannot work.
    """
    import torch  # slow, and --help needs none of it

    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    try:
        device = torch.device(name)
        if device.type != "cuda":
            torch.zeros(1, device=device).item()  # some are not in this build, meta has no values
    except FOREIGN_ERRORS as error:
        raise InputError(f"--device: expected auto, cpu or cuda, got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = f"{torch.cuda.device_count()} of them" if available else "none"
        raise InputError(f"--device: expected a CUDA device, torch sees {seen}; use --device cpu")
    return device
