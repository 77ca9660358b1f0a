"""What attacks get of a candidate, beside its logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor

from bench.attacks import Model
from bench.attacks.expectation import expectation
from bench.attacks.registry import View
from bench.attacks.straight_through import straight_through, through
from bench.candidates.mix import MixAnswer, MixedClassifier, as_mix
from bench.engines.acceleration import Accelerated, called
from bench.engines.engine import AttackTask


@dataclass(frozen=True)
class MixView:
    """A mix as attacks on its parts call it; called like a model, it returns its logits."""

    mix: MixedClassifier
    uncompiled: MixedClassifier
    """For a single image: the compiler would make a version of its own."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return log-probabilities (N, K)."""
        return cast(Tensor, self._chosen(images)(images.clone())).to(images.dtype)

    def answer(self, images: Tensor) -> MixAnswer:
        """Return everything about images (N, C, H, W), from one pass through each base."""
        return self._chosen(images).answer(images.clone())

    def _chosen(self, images: Tensor) -> MixedClassifier:
        return self.mix if len(images) > 1 else self.uncompiled


def view(name: View, fast: Accelerated, task: AttackTask) -> Model:
    """Return the model that a search calls for an attack.

    Raises:
        ValueError: the candidate has nothing of the kind; such attacks are to be left out.
    """
    if name == "mix":
        mix, uncompiled = as_mix(fast.module), as_mix(fast.uncompiled)
        if mix is None or uncompiled is None:
            raise ValueError("expected a mix for an attack on its parts")
        return MixView(mix, uncompiled)
    if name == "straight-through":
        # The candidate as its author wrote it: a trace may have lost what stops gradients.
        if task.surrogate is not None:
            return through(task.module, task.surrogate)
        return straight_through(task.module)
    if name == "uncompiled":
        return called(fast.uncompiled)
    if name == "expectation":
        return expectation(fast.model)
    return fast.model
