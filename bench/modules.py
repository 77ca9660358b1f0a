"""The forms in which candidates come: as Python runs them, compiled, or exported."""

from __future__ import annotations

from typing import cast

from torch import nn


def uncompiled(module: nn.Module) -> nn.Module:
    """Return what `torch.compile` was given to make a module; any other module as it is."""
    return cast(nn.Module, getattr(module, "_orig_mod", module))


def is_training(module: nn.Module) -> bool:
    """Return whether a module is in training mode; what `torch.jit.freeze` made has no mode."""
    return getattr(module, "training", False)


def in_eval_mode(module: nn.Module) -> nn.Module:
    """The module in eval mode, or in the only one that it has.

    What `torch.export` made refuses to change its mode: its graph is the one that was exported,
    whatever its parts are marked as.
    """
    try:
        return module.eval()
    except NotImplementedError:
        for part in module.modules():
            part.training = False
        return module
