"""Networks that compute in another floating-point type than float32, as candidates.

Attacks hand over images in float32 and read logits in float32. A network whose numbers are all
float16, bfloat16 or float64 refuses such images, so they are given to it in its own type; gradients
pass through the conversion.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from bench.candidates.mix import as_mix
from bench.candidates.outputs import parts_of
from bench.candidates.smoothed import Smoothed
from bench.candidates.wrapped import PROBES, USUAL_SIZE, Wrapped
from bench.errors import FOREIGN_ERRORS
from bench.modules import is_training

OTHER_TYPES = (torch.float16, torch.bfloat16, torch.float64)


class InOwnType(nn.Module):
    """A network that is given images in its own type, and whose answers come in float32.

    Attributes:
        model: the network inside.
        dtype: the type of its parameters and buffers.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.training = is_training(model)

    def forward(self, images: Tensor) -> object:
        """Return what the network returns, its floating-point tensors in float32."""
        return _in_float32(self.model(images.to(self.dtype)))


def in_own_type(
    module: nn.Module, shape: Sequence[int] | None
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a module that takes images in float32, and what is converted inside, a line each.

    Args:
        module: in eval mode.
        shape: (C, H, W) of the images; None where it is not known yet.

    Returns:
        the module itself where its numbers are float32 or of several types, or where it takes
        float32 already; otherwise one around it. The given module is left as it is.
    """
    if isinstance(module, Smoothed) or as_mix(module) is not None:
        return module, ()  # what they are made of has a type of its own
    inner = module.model if isinstance(module, Wrapped) else module
    dtype = own_type(inner)
    if dtype not in OTHER_TYPES or _takes_float32(module, shape):
        return module, ()
    converted: nn.Module = InOwnType(inner, dtype)
    if isinstance(module, Wrapped):
        outer = copy.copy(module)
        outer._modules = {**module._modules, "model": converted}
        converted = outer
    name = str(dtype).removeprefix("torch.")
    return converted, (f"images given to the network in {name}, its logits returned in float32",)


def own_type(module: nn.Module) -> torch.dtype | None:
    """Return the one floating-point type of a module's parameters and buffers, if there is one."""
    tensors = chain(module.parameters(), module.buffers())
    types = {each.dtype for each in tensors if each.is_floating_point()}
    return types.pop() if len(types) == 1 else None


def _takes_float32(module: nn.Module, shape: Sequence[int] | None) -> bool:
    """Return whether a pass over blank images in float32 raises no error."""
    size = module.resize if isinstance(module, Wrapped) else None
    device = next(chain(module.parameters(), module.buffers())).device
    try:
        with torch.no_grad():
            module(torch.zeros(PROBES, *(shape or (3, *(size or USUAL_SIZE))), device=device))
    except FOREIGN_ERRORS:
        return False
    return True


def _in_float32(answer: object) -> object:
    """Return an answer with its floating-point tensors in float32, parts by key or position."""
    if isinstance(answer, Tensor):
        return answer.float() if answer.is_floating_point() else answer
    parts = parts_of(answer)
    return {key: _in_float32(each) for key, each in parts.items()} if parts else answer
