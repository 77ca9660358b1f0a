"""A network's feature maps, taken during its own forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from bench.errors import InputError


class FeatureExtractor(nn.Module):
    """A network that also tells what some of its layers put out, in one pass.

    Layers are named as in `named_modules`. The hooks that listen to them exist only while a forward
    pass runs, so that a copy of this module is complete and torch.fx traces it as one function.
    """

    def __init__(self, base: nn.Module, layers: Sequence[str], field: str = "layers") -> None:
        """Make an extractor.

        Args:
            base: images (N, C, H, W) -> logits (N, K).
            layers: names of submodules whose outputs are wanted, in this order.
            field: how messages name the argument `layers`.

        Raises:
            InputError: the base has no layer of such a name (the nearest are given).
        """
        super().__init__()
        known = [name for name, _ in base.named_modules() if name]
        for layer in layers:
            if layer not in known:
                near = difflib.get_close_matches(layer, known, n=3, cutoff=0.5)
                some = ", ".join(near or [name for name in known if name.count(".") <= 1])
                raise InputError(f"{field}: the base has no layer {layer!r}; it has {some}, ...")
        self.base = base
        self.layers = tuple(layers)
        self.field = field

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return logits (N, K) of images (N, C, H, W), and the outputs of the layers."""
        outputs: dict[str, Tensor] = {}
        handles = [
            self.base.get_submodule(layer).register_forward_hook(partial(_keep, outputs, layer))
            for layer in self.layers
        ]
        try:
            logits: Tensor = self.base(images)
        finally:
            for handle in handles:
                handle.remove()
        for layer in self.layers:
            if layer not in outputs:
                raise InputError(
                    f"{self.field}: layer {layer!r} exists in the base but its forward pass does "
                    "not call it; name another one"
                )
        return logits, tuple(outputs[layer] for layer in self.layers)


def _keep(outputs: dict[str, Tensor], layer: str, module: nn.Module, _: Any, output: Any) -> None:
    outputs[layer] = output
